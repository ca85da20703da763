"""`kk ledger ddl`: what it prints makes the tables that the tasks would make."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_kk.cli.main import main
from airflow_provider_kk.warehouse.status_tables import StatusTables


def test_the_ddl_makes_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "ddl", "--dialect", "sqlite"]) == 0
    with sqlite3.connect(":memory:") as db:
        db.executescript(capsys.readouterr().out)
        names = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    tables = {"kk_order", "kk_order_attempt", "kk_refund", "kk_refund_attempt"}
    assert names == {"kk_account", "kk_pause", "kk_sync_run"} | tables


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_the_ddl_of_the_status_tables_makes_what_a_sync_would_make(
    dialect: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "ddl", "--status", "--dialect", dialect, "--table-prefix", "by_hand_"]) == 0
    statements = capsys.readouterr().out
    is_server = dialect == "postgresql"
    url = request.getfixturevalue("postgres_url") if is_server else f"sqlite:///{tmp_path / 'status.db'}"
    engine = sa.create_engine(url)
    made = StatusTables(engine, "h", "a", "by_task_")
    made.create()
    with engine.begin() as db:
        for statement in statements.split(";\n"):
            if statement:
                db.exec_driver_sql(statement)
    seen = sa.inspect(engine)

    def columns(table: str) -> list[tuple[Any, ...]]:
        return [(one["name"], str(one["type"]), one["nullable"]) for one in seen.get_columns(table)]

    for table in made.metadata.tables:
        by_hand = table.replace("by_task_", "by_hand_")
        assert columns(by_hand) == columns(table)
        assert len(seen.get_indexes(by_hand)) == len(seen.get_indexes(table))
    made.close()


def test_a_prefix_that_is_no_name_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "ddl", "--status", "--table-prefix", "no; name"]) == 1
    assert "table_prefix" in capsys.readouterr().err
