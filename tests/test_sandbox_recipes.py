"""The recipes of docs/howto-rehearse.md, as they are printed, end in the states that they promise."""

from __future__ import annotations

import ast
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow.support import REPOSITORY
from tests.operators.shop import attempt, nonzero, sync
from tests.test_readme import PAGES, blocks, codes, exported, section, table

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

EXAMPLES = REPOSITORY / "docs" / "examples"
RECIPES = table(section("docs/howto-rehearse.md", "A recipe for each state"))


@pytest.fixture
def warehouse(tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's tables with the orders that the page adds, and the connections that it names."""
    path = tmp_path / "warehouse.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript((EXAMPLES / "two_tables.sql").read_text())
        db.executescript(blocks("docs/howto-rehearse.md", "sql")[0])
    (extras,) = exported(PAGES["docs/howto-rehearse.md"]).values()
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))
    monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(extras | {"host": sandbox.url}))
    return path


def run(run_id: str, *arguments: str) -> dict[str, int]:
    """Run the example's sync and return the counts that are not zero."""
    dag = (EXAMPLES / "two_tables.py").read_text()
    printed: dict[str, Any] = {
        "sql": re.findall(r'sql="""(.*?)"""', dag, re.DOTALL)[0],
        "write_back": ast.literal_eval(re.findall(r"write_back=(\{.*?\})", dag)[0]),
    }
    call = ast.parse(f"f({', '.join(arguments)})", mode="eval").body
    assert isinstance(call, ast.Call)
    printed |= {str(one.arg): ast.literal_eval(one.value) for one in call.keywords}
    return nonzero(attempt(sync(**printed), run_id=run_id).summary)


def change(warehouse: Path, sql: str) -> None:
    with closing(sqlite3.connect(warehouse)) as db, db:
        db.execute(sql)


def test_there_is_a_recipe_for_each_count() -> None:
    from airflow_provider_kk.delivery.run_queue import COUNTED

    assert {codes(row[0])[0] for row in RECIPES} == {status.value for status in COUNTED}


@pytest.mark.parametrize("row", RECIPES, ids=[row[0] for row in RECIPES])
def test_a_recipe_ends_in_its_state(row: list[str], warehouse: Path, sandbox: SandboxServer) -> None:
    count, before, python, in_warehouse, argument = row
    if before:
        assert run("before") == {"created": 8}
    for code in codes(python):
        eval(code, {"kk": sandbox.control})  # noqa: S307 - what is printed
    for sql in codes(in_warehouse):
        change(warehouse, sql)

    assert codes(count)[0] in run("recipe", *codes(argument))


def test_an_order_of_goods_in_two_of_kks_warehouses_is_split(warehouse: Path, sandbox: SandboxServer) -> None:
    change(warehouse, blocks("docs/howto-rehearse.md", "sql")[1])

    assert "created" in run("split")

    assert len(sandbox.control.orders("A-1001")) == 2
