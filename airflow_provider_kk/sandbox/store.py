"""KK's orders, money and stock, behind one lock in one SQLite database (in memory or a file)."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.sandbox.goods import freight, product_of, products
from airflow_provider_kk.sandbox.json_values import NO_BALANCE, NOT_FOUND, SOLD_OUT, UNKNOWN_SKU, Rejected
from airflow_provider_kk.sandbox.settings import Settings

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.order_calls import NewOrder

FIRST_ORDER_ID = 1000000371651
FIRST_REFUND_NO = 20000000500001
#: Ten million dollars, enough for a benchmark.
DEFAULT_BALANCE = 1_000_000_000

#: `call` numbers the committed create calls: the orders of one split share it, a duplicate has its own.
#: `kk_past` has the state of an order before each change, for lists that are late.
SCHEMA = """
CREATE TABLE IF NOT EXISTS kk_order (
    id INTEGER PRIMARY KEY, call INTEGER NOT NULL, number TEXT, remark TEXT, sale_platform TEXT,
    channel_type TEXT, state TEXT NOT NULL, warehouse TEXT NOT NULL, created_at REAL NOT NULL,
    updated_at REAL NOT NULL, paid_at REAL, completed_at REAL, cancelled_at REAL, refunded_at REAL,
    subtotal INTEGER NOT NULL, freight INTEGER NOT NULL, refunded INTEGER NOT NULL DEFAULT 0,
    address TEXT NOT NULL, items TEXT NOT NULL,
    travelled TEXT
);
CREATE INDEX IF NOT EXISTS kk_order_created ON kk_order (created_at);
CREATE INDEX IF NOT EXISTS kk_order_updated ON kk_order (updated_at);
CREATE INDEX IF NOT EXISTS kk_order_number ON kk_order (number, call);
CREATE INDEX IF NOT EXISTS kk_order_state ON kk_order (state, created_at);
CREATE INDEX IF NOT EXISTS kk_order_step ON kk_order (state, updated_at);
CREATE TABLE IF NOT EXISTS refund (
    no INTEGER PRIMARY KEY, order_id INTEGER NOT NULL, remark TEXT, pieces TEXT NOT NULL,
    state TEXT NOT NULL, asked_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS refund_order ON refund (order_id);
CREATE INDEX IF NOT EXISTS refund_state ON refund (state, asked_at);
CREATE TABLE IF NOT EXISTS late_call (id INTEGER PRIMARY KEY, due_at REAL NOT NULL, endpoint TEXT, ask TEXT);
CREATE INDEX IF NOT EXISTS late_call_due ON late_call (due_at);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE IF NOT EXISTS kk_past AS SELECT *, 0.0 AS until FROM kk_order WHERE 0;
CREATE INDEX IF NOT EXISTS kk_past_until ON kk_past (until);
CREATE TRIGGER IF NOT EXISTS kk_order_changes BEFORE UPDATE OF updated_at ON kk_order
WHEN NEW.updated_at > OLD.updated_at
BEGIN INSERT INTO kk_past SELECT *, NEW.updated_at FROM kk_order WHERE id = OLD.id; END;
"""

Row = dict[str, Any]
#: A SKU and its quantity.
Line = tuple[str, int]


class SandboxStore:
    """One account at KK. Money is in cents. All methods are thread-safe.

    Args:
        path: the SQLite file that keeps the data over a restart; without it the data is in memory.
        balance: cents of a new account.
        settings: only `any_sku` is used here.
    """

    def __init__(self, path: str | os.PathLike[str] | None, balance: int, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.RLock()
        self._db = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
        self._db.row_factory = sqlite3.Row
        # Answered data survives the end of this process. The sandbox does not simulate a power failure.
        self._db.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + SCHEMA)
        self._start_balance = balance
        self._db.execute("INSERT OR IGNORE INTO fact VALUES ('balance', ?)", (balance,))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Open an exclusive transaction. All of it is committed, or nothing."""
        with self._lock:
            if self._db.in_transaction:
                yield self._db
                return
            with self._db:
                self._db.execute("BEGIN")
                yield self._db

    def rows(self, sql: str, values: Iterable[Any] = ()) -> list[Row]:
        """Return the rows of a query."""
        with self._lock:
            return [dict(row) for row in self._db.execute(sql, tuple(values))]

    def value(self, sql: str, values: Iterable[Any] = ()) -> Any:
        """Return one value; None if there is no row."""
        with self._lock:
            row = self._db.execute(sql, tuple(values)).fetchone()
            return row[0] if row else None

    def create(
        self, order: NewOrder, at: float, *, parts: int | None = None, takes_stock: bool = False
    ) -> list[int]:
        """Commit one create call: an order for each warehouse. There is no idempotency.

        Raises Rejected for an unknown SKU, too little stock, or too little balance; nothing is created.

        Args:
            parts: commit only these orders of the split, as the end of a slice.
            takes_stock: reduce the stock.
        """
        with self.transaction():
            for sku, quantity in pieces_by_sku(order.lines).items():
                self.require(sku)
                if quantity > self.stock(sku):
                    raise Rejected(SOLD_OUT, f"sku {sku} is sold out")
            split = [
                (to, list(lines)) for to, lines in groupby(sorted(order.lines, key=_warehouse), _warehouse)
            ]
            costs = [_cost(lines, order.channel_type) for _, lines in split]
            if sum(map(sum, costs)) > self.available():
                raise Rejected(NO_BALANCE, "insufficient account balance")
            call = (self.value("SELECT call FROM kk_order ORDER BY id DESC LIMIT 1") or 0) + 1
            made = list(zip(split, costs, strict=True))[:parts]
            if takes_stock:
                for sku, quantity in (line for (_, lines), _ in made for line in lines):
                    self.set_stock(sku, self.stock(sku) - quantity)
            return [self._insert(call, order, to, lines, cost, at) for (to, lines), cost in made]

    def order(self, order_id: int) -> Row:
        """Return an order. Raises Rejected if there is none."""
        found = self.rows("SELECT * FROM kk_order WHERE id = ?", (order_id,))
        if not found:
            raise Rejected(NOT_FOUND, "the order does not exist")
        return found[0]

    def change_order(self, order_id: int, at: float, **columns: Any) -> None:
        """Set columns of an order."""
        names = "".join(f", {name} = ?" for name in columns)
        with self.transaction() as db:
            db.execute(
                f"UPDATE kk_order SET updated_at = ?{names} WHERE id = ?",  # noqa: S608 - constant names
                (at, *columns.values(), order_id),
            )

    def available(self) -> int:
        """Return the balance without the price of unpaid orders."""
        return int(self.fact("balance") - self.fact("reserved"))

    def sells(self, sku: str) -> bool:
        """Return whether there is such an SKU."""
        return sku in products() or self._settings.any_sku

    def require(self, sku: str) -> None:
        """Raise Rejected if there is no such SKU."""
        if not self.sells(sku):
            hint = "To sell SKUs that the catalogue lacks, set `any_sku`"
            raise Rejected(UNKNOWN_SKU, f"sku {sku} does not exist. {hint}")

    def stock(self, sku: str) -> int:
        """Return the pieces on hand."""
        return int(self.fact(f"stock {sku}", product_of(sku).stock))

    def set_stock(self, sku: str, qty: int) -> None:
        """Make a SKU sold out (0) or available. Raises Rejected for an unknown one."""
        self.require(sku)
        self.set_fact(f"stock {sku}", qty)

    def sku_details(self, sku: str) -> dict[str, Any]:
        """Return the values of a SKU in product queries that replace the catalogue's, by KK's names."""
        return dict(json.loads(self.fact(f"details {sku}", "{}")))

    def set_sku_details(self, sku: str, fields: Mapping[str, Any]) -> None:
        """Set the values of a SKU in product queries; the prices of orders stay the catalogue's.

        Raises Rejected for an unknown SKU.
        """
        self.require(sku)
        self.set_fact(f"details {sku}", json.dumps(fields))

    def fact(self, name: str, default: Any = 0) -> Any:
        """Return what the account has under a name: a number or a text."""
        value = self.value("SELECT value FROM fact WHERE name = ?", (name,))
        return default if value is None else value

    def set_fact(self, name: str, value: float | str) -> None:
        """Store a number or a text of the account."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))

    def add_fact(self, name: str, change: float) -> None:
        """Add to a number of the account."""
        with self.transaction():
            self.set_fact(name, self.fact(name) + change)

    def duplicates(self) -> list[str]:
        """Return the order numbers for which more than one call made orders."""
        found = self.rows(
            "SELECT number FROM kk_order WHERE number IS NOT NULL GROUP BY number"
            " HAVING count(DISTINCT call) > 1 ORDER BY number"
        )
        return [row["number"] for row in found]

    def reset(self) -> None:
        """Delete every order, refund and late call, and restore the initial balance and stock."""
        with self.transaction() as db:
            for table in ("kk_order", "refund", "late_call", "fact", "kk_past"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - constant names
            self.set_fact("balance", self._start_balance)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def _insert(
        self, call: int, order: NewOrder, warehouse: str, lines: list[Line], cost: tuple[int, int], at: float
    ) -> int:
        order_id = int(self.value("SELECT coalesce(max(id) + 1, ?) FROM kk_order", (FIRST_ORDER_ID,)))
        values = (
            order_id, call, order.number, order.remark, order.sale_platform, order.channel_type,
            "waiting_payment", warehouse, at, at, *cost, json.dumps(order.address), json.dumps(lines),
        )  # fmt: skip
        self._db.execute(
            "INSERT INTO kk_order (id, call, number, remark, sale_platform, channel_type, state, warehouse,"
            " created_at, updated_at, subtotal, freight, address, items)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        self.add_fact("reserved", sum(cost))
        return order_id


def pieces_by_sku(lines: Iterable[Line]) -> Counter[str]:
    """Return the pieces of each SKU."""
    pieces: Counter[str] = Counter()
    for sku, quantity in lines:
        pieces[sku] += quantity
    return pieces


def _warehouse(line: Line) -> str:
    return product_of(line[0]).country


def _cost(lines: Iterable[Line], channel_type: str | None) -> tuple[int, int]:
    subtotal = sum(product_of(sku).price * quantity for sku, quantity in lines)
    return subtotal, freight(sum(quantity for _, quantity in lines), channel_type)
