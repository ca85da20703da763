"""How rows get into the tables of each database."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.schema import CreateTable

from airflow_provider_kk.api.models import KKOrder
from airflow_provider_kk.warehouse.merge_statuses import StatusRows, rows_of
from airflow_provider_kk.warehouse.status_tables import StatusTables, upsert
from tests.mariadb import locked

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def observed(kk_order_id: int, at_s: int = 0, **more: Any) -> StatusRows:
    updated = (NOON + timedelta(seconds=at_s)).isoformat()
    rows = rows_of(KKOrder.read({"id": kk_order_id, "customOrderId": "A-1", "updateDate": updated, **more}))
    assert rows is not None
    return rows


@pytest.fixture
def tables(tmp_path: Path) -> StatusTables:
    found = StatusTables(sa.create_engine(f"sqlite:///{tmp_path / 'w.db'}"), "h", "a")
    found.create()
    return found


def test_rows_come_back_as_they_were_stored(tables: StatusTables) -> None:
    rows = observed(
        7,
        payDate="2026-01-01T00:00:00.123456+02:00",
        finalAmount="99999999999999.999999",
        refundedAmount="0.10",
        orderItems=[{"skuCode": f"S{n}", "productNum": n, "total": "1.5"} for n in range(1, 12)],
        fulfillments=[{"id": n, "status": "shipped"} for n in (9, 10, "é", "Z", "a")],
    )
    assert tables.store([rows], NOON) == 1

    assert tables.of_numbers(["A-1", "A-2"]) == {"A-1": [rows]}
    assert tables.synced_until() == NOON
    assert tables.store([rows, rows], NOON) == 0


def test_lines_that_are_gone_go_and_other_accounts_stay(tables: StatusTables, tmp_path: Path) -> None:
    other = StatusTables(sa.create_engine(f"sqlite:///{tmp_path / 'w.db'}"), "h", "b")
    two = observed(7, orderItems=[{"skuCode": "A"}, {"skuCode": "B"}])
    one = observed(7, 60, orderItems=[{"skuCode": "A"}])
    other.store([two], NOON)
    tables.store([two], NOON)
    tables.store([one], NOON)

    assert tables.of_numbers(["A-1"]) == {"A-1": [one]}
    assert other.of_numbers(["A-1"]) == {"A-1": [two]}


def test_money_is_text_on_sqlite_and_can_be_added_up(tables: StatusTables) -> None:
    tables.store([observed(1, finalAmount=0.1), observed(2, finalAmount="0.2")], NOON)
    with tables._engine.connect() as db:
        kinds = list(db.execute(sa.text("SELECT typeof(final_amount), final_amount FROM kk_order_status")))
    assert kinds == [("text", "0.1"), ("text", "0.2")]
    assert [rows.order.final_amount for rows in tables.of_numbers(["A-1"])["A-1"]] == [
        Decimal("0.1"),
        Decimal("0.2"),
    ]


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
def test_syncs_of_one_account_at_the_same_time_lose_nothing(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # Before the threads: pytest's fixtures are not for several at once.
    url = request.getfixturevalue("mariadb_url") if kind == "mysql" else None

    def engine() -> sa.engine.Engine:
        if url is not None:
            return sa.create_engine(url)
        return sa.create_engine(f"sqlite:///{tmp_path / 'w.db'}", connect_args={"timeout": 300})

    packages = [observed(7, n, fulfillments=[{"id": n}]) for n in range(24)]

    def work(part: int) -> None:
        mine = StatusTables(engine(), "h", "a")
        mine.create()
        for rows in packages[part::4]:
            mine.store([rows], NOON)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (rows,) = StatusTables(engine(), "h", "a").of_numbers(["A-1"])["A-1"]
    assert len(rows.packages) == 24
    assert rows.order.updated_at == NOON + timedelta(seconds=23)


def test_a_lock_that_somebody_else_had_fails_no_sync(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = StatusTables(sa.create_engine(mariadb_url), "h", "locked out")
    tables.create()
    tables.close()
    with locked(mariadb_url, monkeypatch, "kk_status_sync") as pauses:
        assert tables.store([observed(7)], NOON) == 1
    assert len(pauses) == 1
    assert tables.of_numbers(["A-1"]) == {"A-1": [observed(7)]}
    tables.close()


class Unconnected:
    """As much of an engine as the tables need to be described."""

    def __init__(self, dialect: Any) -> None:
        self.dialect = dialect


@pytest.mark.parametrize(
    ("dialect", "words"),
    [
        (mysql.dialect(), ["NUMERIC(20, 6)", "DATETIME(6)", "VARCHAR(64)", "BIGINT", "COLLATE utf8mb4_bin"]),
        (postgresql.dialect(), ["NUMERIC(20, 6)", "TIMESTAMP WITH TIME ZONE", "VARCHAR(64)", "BIGINT"]),
        (sqlite.dialect(), ["final_amount VARCHAR(22)", "DATETIME", "VARCHAR(64)", "BIGINT"]),
    ],
)
def test_each_database_gets_exact_types(dialect: Any, words: list[str]) -> None:
    tables = StatusTables(Unconnected(dialect), "h", "a")  # type: ignore[arg-type]
    ddl = "".join(str(CreateTable(one).compile(dialect=dialect)) for one in tables.metadata.sorted_tables)
    assert [word for word in words if word not in ddl] == []
    assert "FLOAT" not in ddl


@pytest.mark.parametrize(
    ("dialect", "words"),
    [
        (mysql.dialect(), "ON DUPLICATE KEY UPDATE synced_until = VALUES(synced_until)"),
        (
            postgresql.dialect(),
            "ON CONFLICT (host, account) DO UPDATE SET synced_until = excluded.synced_until",
        ),
        (sqlite.dialect(), "ON CONFLICT (host, account) DO UPDATE SET synced_until = excluded.synced_until"),
    ],
)
def test_each_database_gets_its_own_upsert(dialect: Any, words: str) -> None:
    tables = StatusTables(Unconnected(dialect), "h", "a")  # type: ignore[arg-type]
    assert str(upsert(tables.watermark, dialect.name).compile(dialect=dialect)).endswith(words)
    for table in tables.metadata.sorted_tables:
        assert str(upsert(table, dialect.name).compile(dialect=dialect))
