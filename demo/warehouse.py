"""The shop's SQLite warehouse: made from the orders, and read for what the runs have left in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from demo.orders import ShopOrder

REPOSITORY = Path(__file__).parents[1]
EXAMPLE_DAGS = REPOSITORY / "example_dags"


def create(file: Path, orders: Iterable[ShopOrder]) -> None:
    """Make the tables of the example DAGs and the orders in them: all, or no file."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(unfinished)) as db:
        db.executescript((EXAMPLE_DAGS / "warehouse.sql").read_text())
        for order in orders:
            row = (order.order_no, order.ordered_at, *order.address.values())
            db.execute(
                "INSERT INTO shop_order (order_no, ordered_at, recipient, phone, street1, street2, city,"
                " province, zip, country) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            lines = [(order.order_no, line, *goods) for line, goods in enumerate(order.lines, start=1)]
            db.executemany("INSERT INTO shop_order_line VALUES (?, ?, ?, ?)", lines)
        db.commit()
    unfinished.rename(file)


def forget_results(file: Path) -> None:
    """Empty what was written back, as when a backup is restored."""
    with closing(sqlite3.connect(file)) as db:
        db.execute("UPDATE shop_order SET kk_order_ids = NULL, kk_state = NULL")
        db.commit()


def results(file: Path) -> dict[str, tuple[str | None, str | None]]:
    """State and kkOrderIds (joined by commas) as the warehouse has them, by `order_no`."""
    rows = _rows(file, "SELECT order_no, kk_state, kk_order_ids FROM shop_order")
    return {order_no: (state, ids) for order_no, state, ids in rows}


def ledger(file: Path) -> dict[str, tuple[str, str]]:
    """State and kkOrderIds (a JSON list) as the ledger has them, by order number."""
    if not _rows(file, "SELECT 1 FROM sqlite_master WHERE name = 'kk_order'"):
        return {}
    rows = _rows(file, "SELECT custom_order_number, state, kk_order_ids FROM kk_order ORDER BY generation")
    return {number: (state, ids) for number, state, ids in rows}


def _rows(file: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file)) as db:
        return db.execute(sql).fetchall()
