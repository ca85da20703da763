"""README.md and docs/ promise what is there: the first DAG runs, and every name in them exists."""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import closing, suppress
from importlib import import_module
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from airflow.models.connection import Connection

import airflow_provider_kk
from airflow_provider_kk.cli.main import COMMANDS
from airflow_provider_kk.delivery.attempt import CircuitBreaker
from airflow_provider_kk.delivery.run_queue import COUNTED
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.hooks.connection import ConnectionSettings, parse_connection
from airflow_provider_kk.operators.base import NOT_GIVEN, DeliveringOperator, KKOperator
from airflow_provider_kk.operators.orders import CreateOrderOperator, SyncOrdersOperator
from airflow_provider_kk.operators.shipping import QuoteShippingOperator
from airflow_provider_kk.provider_info import CONN_FIELDS
from airflow_provider_kk.sandbox.faults import FAULTS
from tests.airflow.support import AIRFLOW_VERSION, REPOSITORY, AirflowHome

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text()
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
}
README = PAGES["README.md"]
ALL = pytest.mark.parametrize("page", PAGES)


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page, those in lists too."""
    found = re.findall(rf"^ *```{language}\n(.*?)^ *```", PAGES[page], re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def shell_lines(page: str) -> Iterator[list[str]]:
    """The commands in a page's shell blocks, as words."""
    for block in blocks(page, "sh"):
        line = ""
        for part in block.replace("\\\n", " ").splitlines():
            line += part
            try:
                words = shlex.split(line, comments=True)
            except ValueError:  # a quote goes on in the next line
                continue
            line = ""
            if words:
                yield words


def section(page: str, heading: str) -> str:
    """What stands below a heading of any level, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", PAGES[page], re.MULTILINE | re.DOTALL)
    assert found, f"{page} has no section {heading!r}"
    return found[1]


def table(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without heads."""
    lines = [
        [cell.strip() for cell in line.split("|")] for line in re.findall(r"^ *\|(.*)\|$", text, re.MULTILINE)
    ]
    heads = {number - 1 for number, cells in enumerate(lines) if cells[0] == "---"}
    return [cells for number, cells in enumerate(lines) if number not in heads and cells[0] != "---"]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


class TestAsPrinted:
    """The shell blocks of a page run from top to bottom in an empty folder, like a new user's terminal."""

    def test_the_quickstart_sends_its_order(self, tmp_path: Path):
        output = run_as_printed("README.md", tmp_path)
        (summary,) = re.findall(r"log shows the summary `([^`]+)`", README)
        assert summary in output
        assert re.search(r"A-1001 +created +1000000371651 ", output), output
        warehouse = tmp_path / "kk-quickstart/warehouse.db"
        assert rows(warehouse, "SELECT kk_order_ids, kk_state FROM shop_order") == [
            ("1000000371651", "created")
        ]

    def test_the_tutorial_prints_what_it_shows(self, tmp_path: Path):
        output = run_as_printed("docs/tutorial.md", tmp_path)
        at = 0
        for block in blocks("docs/tutorial.md", "text"):
            found = [re.compile(as_pattern(line)).search(output, at) for line in block.splitlines()]
            assert all(found), f"Not in the output after character {at}:\n{block}\n{output}"
            at = min(one.start() for one in found if one)
        states = rows(tmp_path / "kk-tutorial/warehouse.db", "SELECT DISTINCT REF, KK_STATE FROM web_orders")
        assert sorted(states) == [(f"W-{number}", "created") for number in (1, 2, 3, 4)]
        at_kk = rows(tmp_path / "kk-tutorial/kk.db", "SELECT count(*) FROM kk_order")
        assert at_kk == [(4,)]

    def test_the_tutorials_dag_has_the_recommended_settings(self):
        (dag,) = re.findall(r"EOF_DAG'\n(.*?)^EOF_DAG", PAGES["docs/tutorial.md"], re.MULTILINE | re.DOTALL)
        assert "max_active_runs=1" in dag
        assert "catchup=False" in dag
        assert "retries" in dag

    def test_the_readme_is_short(self):
        assert len(README.splitlines()) <= 120
        assert len(README.split()) <= 900


class TestCommands:
    @ALL
    def test_kk_takes_every_command_of_a_shell_block(self, page: str):
        for words in shell_lines(page):
            if words[0] == "kk":
                parser_of(words[1]).parse_args([*takewhile(lambda word: word not in "|<>", words[2:])])

    @ALL
    def test_kk_knows_every_command_and_option_in_the_text(self, page: str, capsys):
        text = re.sub(r"^```.*?^```", "", PAGES[page], flags=re.MULTILINE | re.DOTALL)
        for span in re.findall(r"`kk ([a-z][^`]*)`", text):
            command, *words = shlex.split(span)
            action = [word for word in words[:1] if re.fullmatch("[a-z]+", word)]
            with pytest.raises(SystemExit) as left:
                parser_of(command).parse_args([*action, "--help"])
            assert left.value.code == 0, span
            known = capsys.readouterr().out
            assert {word for word in words if word.startswith("--")} <= set(re.findall("--[a-z-]+", known))

    def test_make_makes_what_is_named(self):
        targets = set(re.findall(r"^([a-z0-9.-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
        named = {name for text in PAGES.values() for name in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.M)}
        assert named >= {"demo", "test"}
        assert named <= targets

    def test_airflow_takes_the_connection_as_its_page_adds_it(self, airflow_home: AirflowHome):
        lines = shell_lines("docs/connection.md")
        (words,) = [words for words in lines if words[:2] == ["airflow", "connections"]]
        airflow_home.cli(*words[1:])
        with closing(sqlite3.connect(airflow_home.path / "airflow.db")) as db:
            assert db.execute("SELECT conn_id, conn_type FROM connection").fetchall() == [
                ("kk_default", "kk")
            ]


class TestConnection:
    def test_its_page_names_every_extra_with_its_default(self):
        rows = [row for row in table(PAGES["docs/connection.md"]) if len(row) == 4]
        assert {codes(row[0])[0] for row in rows} == set(CONN_FIELDS)
        for name, _, default, _ in rows:
            check_default(codes(name)[0], default.strip("`"))

    @ALL
    def test_every_connection_that_is_shown_can_be_used(self, page: str):
        for conn_id, values in exported(PAGES[page]).items():
            connection = Connection.from_json(json.dumps(values), conn_id=conn_id)
            if values["conn_type"] == "kk":
                assert parse_connection(connection).token


class TestNames:
    def test_the_docs_describe_each_summary_count(self):
        told = [codes(row[0])[0] for row in table(section("docs/states-and-counts.md", "The summary"))]
        assert told[: len(COUNTED)] == [status.value for status in COUNTED]

    @pytest.mark.parametrize(
        ("heading", "operators"),
        [
            ("Common arguments", [KKOperator, DeliveringOperator]),
            ("SyncOrdersOperator", [SyncOrdersOperator]),
            ("CreateOrderOperator", [CreateOrderOperator]),
            ("QuoteShippingOperator", [KKOperator, QuoteShippingOperator]),
        ],
    )
    def test_the_docs_describe_every_argument_with_its_default(self, heading: str, operators: list[Any]):
        wanted = {
            name: parameter.default
            for operator in operators
            for name, parameter in inspect.signature(inspect.unwrap(operator.__init__)).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        rows = [row for row in table(section("docs/operators.md", heading)) if len(row) == 3]
        told = {codes(row[0])[0]: row[2] for row in rows}
        assert set(told) == set(wanted)
        for name, default in told.items():
            if default == "required":
                assert wanted[name] is inspect.Parameter.empty, name
            elif wanted[name] is NOT_GIVEN:
                assert default in ("derived", "left out"), name
            elif name != "deferrable":
                assert ast.literal_eval(default.strip("`")) == wanted[name], name

    def test_the_docs_list_template_fields(self):
        (line,) = re.findall(r"^Template fields: (.*?)\.$", PAGES["docs/operators.md"], re.M | re.S)
        assert set(codes(line)) == set(SyncOrdersOperator.template_fields)

    @ALL
    def test_links_lead_somewhere(self, page: str):
        for target in re.findall(r"\]\(([^)#]+)", PAGES[page]):
            assert target.startswith("https://") or (REPOSITORY / page).parent.joinpath(target).exists()

    def test_the_readmes_anchors_are_headings(self):
        for page, anchor in re.findall(r"\]\((docs/[\w-]+\.md)#([^)]+)\)", README):
            headings = re.findall(r"^#+ (.*)$", PAGES[page], re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings]

    @ALL
    def test_python_in_it_can_be_read_and_imports_what_exists(self, page: str):
        for block in blocks(page, "python"):
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.ImportFrom):
                    if str(node.module).startswith("airflow.sdk") and AIRFLOW_VERSION < (3, 0):
                        continue
                    module = import_module(str(node.module))
                    assert all(hasattr(module, alias.name) for alias in node.names)

    def test_every_module_on_the_architecture_page_exists(self):
        package = Path(airflow_provider_kk.__file__).parent
        (rooms,) = re.findall(r"^## The rooms$(.*?)^## ", PAGES["docs/architecture.md"], re.M | re.S)
        listed = {
            room: section("docs/architecture.md", room) for room in re.findall("^### (.*)$", rooms, re.M)
        }
        assert {path.parent.name for path in package.glob("*/__init__.py")} <= set(listed)
        for room, text in listed.items():
            names = {name for name in codes(text) if re.fullmatch("[a-z_]+", name)} - set(listed)
            assert names <= {path.stem for path in (package / room).glob("*.py")}, room


class TestOnCall:
    @pytest.mark.parametrize(
        ("rule", "limit"), [("same_rejections", 10), ("unknowns", 5), ("not_sent", 10), ("doubts", 20)]
    )
    def test_the_documented_circuit_breaker_is_that_of_the_code(self, rule: str, limit: int):
        assert CircuitBreaker(**{rule: limit - 1}).reason() is None
        assert CircuitBreaker(**{rule: limit}).reason() is not None

    def test_an_order_in_doubt_is_reconciled_after_the_documented_time(self):
        settings = ConnectionSettings(host="", base_url="", token="")
        assert settings.lease_s + settings.timeout_s + settings.settle_window_s == 750
        assert "750 s with the defaults" in PAGES["docs/failures.md"]

    def test_its_queries_run_on_sqlite(self, tmp_path: Path):
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'ledger.db'}")
        tables.METADATA.create_all(engine)
        with engine.connect() as db:
            for query in ledger_queries():
                sqlite = query.replace("extract(epoch FROM now())", "CAST(strftime('%s') AS REAL)")
                db.exec_driver_sql(re.sub(r"to_timestamp\(((?:[^()]|\([^()]*\))*)\)", _as_datetime, sqlite))

    def test_its_queries_run_on_postgresql(self, postgres_url: str):
        engine = sa.create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg2:"))
        with engine.connect() as db, db.begin() as transaction:
            db.exec_driver_sql("CREATE SCHEMA on_call")
            db.exec_driver_sql("SET LOCAL search_path TO on_call")
            tables.METADATA.create_all(db)
            for query in ledger_queries():
                db.exec_driver_sql(query.replace("%", "%%"))
            transaction.rollback()
        engine.dispose()


class TestSandbox:
    def test_the_docs_describe_every_fault_with_its_options_and_what_is_at_kk(self):
        at_kk = {
            "nothing": "none",
            "the order": "all",
            "the order, later": "later",
            "a part": "some",
            "two orders": "twice",
        }
        told = {}
        for name, summary, there, options in table(section("docs/sandbox.md", "The faults")):
            call = ast.parse(f"f({', '.join(codes(options))})", mode="eval").body
            assert isinstance(call, ast.Call)
            values = {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
            told[codes(name)[0]] = (summary, at_kk[there], values, not name.endswith("*"))
        assert told == {
            name: (kind.summary, kind.orders, dict(kind.options), kind.mixed) for name, kind in FAULTS.items()
        }

    def test_a_fault_is_armed_as_documented(self, sandbox: SandboxServer):
        (block,) = blocks("docs/sandbox.md", "python")
        exec(block.replace("http://127.0.0.1:8010", sandbox.url), globals_ := {})  # noqa: S102 - what is told
        for call in re.findall(r"`(kk\.\w+\([^`]*\))`", PAGES["docs/sandbox.md"]):
            eval(call, globals_)  # noqa: S307 - what is told
        assert sandbox.control.orders("A-1001")


def as_pattern(line: str) -> str:
    """The pattern of a printed line. Orders are sent side by side, so KK's ids differ from run to run."""
    return re.sub(r"10{6}\d{6}", r"10{6}\\d{6}", re.escape(line).replace(re.escape("..."), ".*"))


def run_as_printed(page: str, folder: Path) -> str:
    """Run a page's shell blocks in one shell, and return what they print.

    Only the sandbox's port differs from the page. What installs or serves until it is stopped is left out.
    """
    script = "".join(
        block
        for block in blocks(page, "sh")
        if not block.startswith("python3 -m venv") and "airflow standalone" not in block
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = script.replace("kk sandbox", f"kk sandbox --port {port}").replace("8010", port)
    inherited = AirflowHome(folder).environment()
    env = {name: value for name, value in inherited.items() if not name.startswith(("AIRFLOW_", "KK_"))}
    (folder / "printed.sh").write_text(script)
    with (folder / "output.txt").open("w") as output:
        shell = subprocess.Popen(
            ["bash", "-u", "printed.sh"],  # noqa: S607 - whichever a user has
            cwd=folder,
            env=env | {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            shell.wait(600)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
    return (folder / "output.txt").read_text(errors="replace")


def rows(database: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(database)) as db:
        return db.execute(query).fetchall()


def ledger_queries() -> list[str]:
    """The queries on the ledger that the pages offer."""
    return [query for page in ("docs/howto-alerts.md", "docs/tables.md") for query in blocks(page, "sql")]


def _as_datetime(found: re.Match[str]) -> str:
    return f"datetime({found[1]}, 'unixepoch')"


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of `kk <command>`."""
    parser = argparse.ArgumentParser(prog=f"kk {command}")
    import_module(COMMANDS[command][1]).add_arguments(parser)
    return parser


def exported(text: str) -> dict[str, dict[str, Any]]:
    """The connections that a text exports as JSON, by name."""
    return {
        name: json.loads(value) for name, value in re.findall(r"export AIRFLOW_CONN_(\w+)='([^']+)'", text)
    }


def check_default(name: str, shown: str) -> None:
    default = getattr(ConnectionSettings(host="", base_url="", token=""), name)
    if default is None:
        assert shown.startswith(("none", "the")), name
    elif isinstance(default, bool):
        assert shown == str(default).lower(), name
    elif isinstance(default, (int, float)):
        assert float(shown) == default, name
    else:
        assert shown == default, name
