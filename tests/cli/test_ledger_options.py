"""Where a command finds no connection, or no ledger, and where a program reads what it prints."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_kk.cli.main import main
from tests.cli.files import write_csv
from tests.operators.shop import SELECT, Warehouse, kk_connection, rows

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

ASKING = [
    ["ledger", "list"],
    ["ledger", "list", "--refunds"],
    ["ledger", "show", "A-1"],
    ["ledger", "resolve", "A-1", "--never-created", "--why", "x"],
    ["ledger", "retry", "--all", "--why", "x"],
    ["audit"],
]


@pytest.fixture
def kk(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kk connection that has no ledger_conn_id."""
    monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(kk_connection(sandbox)))


def test_each_command_reports_a_missing_kk_connection(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "ledger.db"
    file = write_csv(tmp_path / "orders.csv", rows([0]))

    for words in (*ASKING, ["send", "--yes", file]):
        assert main([*words, "--ledger", str(place)]) == 2, words
        told = capsys.readouterr()
        assert re.match("kk .*kk_default.* Run kk with the AIRFLOW_HOME", told.err.splitlines()[-1])
        assert told.out == ""
    assert not place.exists()


def test_the_environment_has_defaults_of_the_options(
    sandbox: SandboxServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KK_SHOP", json.dumps(kk_connection(sandbox)))
    monkeypatch.setenv("KK_CONN_ID", "kk_shop")
    monkeypatch.setenv("KK_LEDGER", f"{tmp_path}/ledger.db")
    warehouse = Warehouse(tmp_path / "shop.db")
    warehouse.add(*rows([0]))
    monkeypatch.setenv("KK_WAREHOUSE", str(warehouse.path))

    assert main(["send", "--yes", "--sql", SELECT]) == 0
    assert (tmp_path / "ledger.db").exists()
    assert main(["ledger", "list", "--ledger", f"{tmp_path}/other.db"]) == 2, "an option goes first"
    monkeypatch.setenv("KK_LEDGER", "")
    capsys.readouterr()
    assert main(["ledger", "list"]) == 2
    assert "shop.db" in capsys.readouterr().err, "empty is as good as unset"


@pytest.mark.usefixtures("kk")
@pytest.mark.parametrize("is_database", [False, True])
def test_a_missing_ledger_is_reported_and_not_created(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], is_database: bool
) -> None:
    place = tmp_path / "typo.db"
    if is_database:
        with closing(sqlite3.connect(place)) as db:
            db.execute("CREATE TABLE shop_order (order_no)")

    for words in ASKING:
        assert main([*words, "--ledger", str(place)]) == 2, words
        told = capsys.readouterr()
        last = told.err.splitlines()[-1]
        assert re.match("kk .*: there is no ledger of account default at 127.0.0.1", last)
        assert str(place) in last
        assert told.out == ""
    assert place.exists() == is_database
    if is_database:
        with closing(sqlite3.connect(place)) as db:
            assert [name for (name,) in db.execute("SELECT name FROM sqlite_master")] == ["shop_order"]


@pytest.mark.parametrize(
    "words", [["check", "--show", "-1"], ["send", "--limit", "-1"], ["ledger", "list", "--limit", "x"]]
)
def test_an_invalid_count_of_orders_is_a_usage_error(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "orders.csv"])
    assert ended.value.code == 2
    assert "is not a number of orders" in capsys.readouterr().err


def test_programs_read_json_lines_and_nothing_else_whatever_airflow_logs(tmp_path: Path) -> None:
    """Airflow logs to standard output: of short passwords, of an extra that is no JSON, and more at DEBUG."""
    from airflow_provider_kk.sandbox.server import SandboxServer

    file = write_csv(tmp_path / "orders.csv", rows([0]))
    place = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db"), "extra": "{no json"}
    commands = [
        ["check", file],
        ["send", "--yes", file],
        ["ledger", "list", "--state", "all"],
        ["ledger", "show", "S-0000"],
        ["ledger", "resolve", "S-0000", "--order-again", "--why", "lost"],
        ["audit"],
    ]
    short = "abc"
    code = "import sys; from airflow_provider_kk.cli.main import main\n"
    code += "".join(f"main({[*words, '--json', '--ledger', 'ledger']})\n" for words in commands)
    with SandboxServer(token=short) as sandbox:
        kk = kk_connection(sandbox)
        environment = os.environ | {
            "AIRFLOW_CONN_KK_DEFAULT": json.dumps(kk),
            "AIRFLOW_CONN_LEDGER": json.dumps(place),
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
        }
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)

    lines = [json.loads(line) for line in done.stdout.splitlines()]
    told = ["custom_order_number", "summary"] * 2 + [
        "custom_order_number",
        "generations",
        "custom_order_number",
        "since",
    ]
    assert [next(iter(line)) for line in lines] == told
    assert "JSONDecodeError" in done.stderr
