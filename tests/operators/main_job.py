"""The README's first DAG on a real hook of Airflow, twice, in both forms of write-back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_kk.operators.orders import SyncOrdersOperator
from tests.operators.shop import (
    ADDRESS,
    Try,
    address,
    attempt,
    each_is_there_once,
    goods,
    ids_at_kk,
    kk_connection,
    nonzero,
    number,
)

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

ORDERS = range(12)
TABLES = (
    "CREATE TABLE shop_order (order_no VARCHAR(40), recipient VARCHAR(32), phone VARCHAR(64), "
    "street1 VARCHAR(64), city VARCHAR(64), province VARCHAR(32), zip VARCHAR(32), country VARCHAR(2), "
    "kk_order_ids VARCHAR(400), kk_state VARCHAR(32))",
    "CREATE TABLE shop_order_line (order_no VARCHAR(40), sku VARCHAR(64), quantity INTEGER)",
)
ALL = (
    f"SELECT o.order_no AS custom_order_number, {', '.join(f'o.{name}' for name in ADDRESS)}, l.sku, "
    "l.quantity FROM shop_order o JOIN shop_order_line l ON l.order_no = o.order_no"
)
NEW = f"{ALL} WHERE o.kk_order_ids IS NULL"
UPDATE = {"table": "shop_order", "key": "order_no", "ids": "kk_order_ids", "state": "kk_state"}
Rows = list[tuple[Any, ...]]
Execute = Callable[..., Rows]


class MainJob:
    """A warehouse behind an Airflow connection, with the shop's orders in it, and a KK to send them to."""

    def __init__(self, sandbox: SandboxServer, hook_params: dict[str, Any] | None = None) -> None:
        self.sandbox = sandbox
        self.hook_params = hook_params
        self.execute(*TABLES, *_inserts())

    def execute(self, *statements: str) -> Rows:
        """Run statements past the operator; return the rows of the last one."""
        hook: Any = BaseHook.get_connection("warehouse").get_hook(hook_params=self.hook_params or {})
        with closing(hook.get_conn()) as connection, closing(connection.cursor()) as cursor:
            for sql in statements:
                cursor.execute(sql)
            rows = [tuple(row) for row in cursor.fetchall()] if statements[-1].startswith("SELECT") else []
            if not hook.get_autocommit(connection):
                connection.commit()
            return rows

    def sync(self, run_id: str, sql: str, write_back: Any) -> Try:
        operator = SyncOrdersOperator(
            task_id="sync",
            sql=sql,
            warehouse_conn_id="warehouse",
            ledger_conn_id="ledger",
            write_back=write_back,
            hook_params=self.hook_params,
        )
        return attempt(operator, run_id=run_id)

    def run_with_update(self) -> None:
        """The orders' own rows get their ids; what has ids is not sent again, whatever the query selects."""
        first = self.sync("first", NEW, UPDATE)
        second = self.sync("second", NEW, UPDATE)
        third = self.sync("third", ALL, UPDATE)

        assert (first.error, second.error, third.error) == (None, None, None)
        assert nonzero(first.value) == {"created": len(ORDERS)}
        assert nonzero(second.value) == {}
        assert nonzero(third.value) == {"already_created": len(ORDERS)}
        self._is_there_once()
        written = self.execute("SELECT order_no, kk_order_ids, kk_state FROM shop_order")
        self._are_all(written)

    def run_with_append(self) -> None:
        """Results are appended to a table as the error message says to make it, and only once."""
        first = self.sync("first", ALL, "kk_outcome")
        if made_with := re.search(r"To create it, run: (CREATE TABLE .*\))", str(first.error)):
            assert self.sandbox.control.counts()["creates"] == 0
            self.execute(made_with[1])
            first = self.sync("first", ALL, "kk_outcome")
        second = self.sync("second", ALL, "kk_outcome")

        assert (first.error, second.error) == (None, None)
        assert nonzero(first.value) == {"created": len(ORDERS)}
        assert nonzero(second.value) == {"already_created": len(ORDERS)}
        self._is_there_once()
        self._are_all(self.execute("SELECT custom_order_number, kk_order_ids, state FROM kk_outcome"))

    def _is_there_once(self) -> None:
        assert self.sandbox.control.counts()["creates"] == len(ORDERS)
        each_is_there_once(self.sandbox, ORDERS)

    def _are_all(self, written: Rows) -> None:
        assert {state for *_, state in written} == {"created"}
        assert sorted((key, sorted(ids.split(","))) for key, ids, _ in written) == sorted(
            ids_at_kk(self.sandbox).items()
        )


def make_connections(
    sandbox: SandboxServer, warehouse: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connections that the main job uses, its ledger being a file."""
    sandbox.control.set(rate_limit=False)
    for name, connection in (
        ("KK_DEFAULT", kk_connection(sandbox)),
        ("WAREHOUSE", warehouse),
        ("LEDGER", {"conn_type": "sqlite", "host": str(folder / "ledger.db")}),
    ):
        monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(connection))


def _inserts() -> Iterator[str]:
    for n in ORDERS:
        yield (
            f"INSERT INTO shop_order (order_no, {', '.join(ADDRESS)}) "
            f"VALUES ('{number(n)}', {', '.join(repr(value) for value in address(n).values())})"
        )
        for sku, quantity in goods(n).items():
            yield f"INSERT INTO shop_order_line VALUES ('{number(n)}', '{sku}', {quantity})"
