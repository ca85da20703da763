"""Results to be written back, and the tables that they go to."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_provider_kk.warehouse.write_back import Result
from tests.warehouse.conftest import Warehouse

LOG = logging.getLogger(__name__)
AT = datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=timezone(timedelta(hours=2)))
UPDATED = {"table": "orders", "key": "order_no", "ids": "kk_ids", "state": "kk_state"}


def result(number: str, *ids: str, state: str = "created", message: str | None = None) -> Result:
    return Result(number, state, ids, message, AT)


def appended(warehouse: Warehouse, table: str = "kk_results") -> list[tuple[Any, ...]]:
    return warehouse.rows(
        f"SELECT custom_order_number, state, kk_order_ids, message FROM {table} ORDER BY 1, 2"
    )


def create_results(warehouse: Warehouse, extra: str = "") -> None:
    texts = (
        "custom_order_number VARCHAR(40), state VARCHAR(16), kk_order_ids VARCHAR(99), message VARCHAR(1000)"
    )
    warehouse.execute(f"CREATE TABLE kk_results ({texts}, at TIMESTAMP(6){extra})")


def create_orders(warehouse: Warehouse, key: str = "VARCHAR(40)", ids: str = "VARCHAR(99)") -> None:
    warehouse.execute(f"CREATE TABLE orders (order_no {key}, kk_ids {ids}, kk_state VARCHAR(16))")
