"""KK's orders, money and stock, behind one lock in one SQLite database (in memory or a file)."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.sandbox.goods import freight, product_of, products
from airflow_provider_kk.sandbox.json_values import NO_BALANCE, SOLD_OUT, UNKNOWN_SKU, Rejected
from airflow_provider_kk.sandbox.settings import Settings

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.order_calls import NewOrder

FIRST_ORDER_ID = 1000000371651
FIRST_REFUND_NO = 20000000500001
#: Ten million dollars, enough for a benchmark.
DEFAULT_BALANCE = 1_000_000_000

#: `call` numbers the committed create calls: the orders of one split share it, a duplicate has its own.
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
    no INTEGER PRIMARY KEY, order_id INTEGER NOT NULL, remark TEXT, reason TEXT, lines TEXT,
    state TEXT NOT NULL, asked_at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS refund_order ON refund (order_id);
CREATE INDEX IF NOT EXISTS refund_state ON refund (state, asked_at);
CREATE TABLE IF NOT EXISTS late_call (id INTEGER PRIMARY KEY, due_at REAL NOT NULL, endpoint TEXT, ask TEXT);
CREATE INDEX IF NOT EXISTS late_call_due ON late_call (due_at);
CREATE TABLE IF NOT EXISTS stock (sku TEXT PRIMARY KEY, qty INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS sku_details (sku TEXT PRIMARY KEY, fields TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value REAL NOT NULL);
CREATE TABLE IF NOT EXISTS kk_past AS SELECT *, 0.0 AS until FROM kk_order WHERE 0;
CREATE INDEX IF NOT EXISTS kk_past_until ON kk_past (until);
"""

#: Keeps orders in their state before a change.
KEEP_PAST = """
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

    def __init__(self, path: str | None, balance: int, settings: Settings) -> None:
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
            outermost = not self._db.in_transaction
            if outermost:
                self._db.execute("BEGIN")
            try:
                yield self._db
            except BaseException:
                if outermost:
                    self._db.execute("ROLLBACK")
                raise
            if outermost:
                self._db.execute("COMMIT")

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
            self._check_stock(order.lines)
            split = list(_split(order.lines))
            costs = [_cost(lines, order.channel_type) for _, lines in split]
            if sum(subtotal + shipping for subtotal, shipping in costs) > self.available():
                raise Rejected(NO_BALANCE, "insufficient account balance")
            call = int(self.add_fact("calls", 1))
            made = list(zip(split, costs, strict=True))[:parts]
            if takes_stock:
                for sku, quantity in (line for (_, lines), _ in made for line in lines):
                    self.set_stock(sku, self.stock(sku) - quantity)
            return [self._insert(call, order, to, lines, cost, at) for (to, lines), cost in made]

    def available(self) -> int:
        """Return the balance without the price of unpaid orders."""
        return int(self.fact("balance")) - int(self.fact("reserved"))

    def sells(self, sku: str) -> bool:
        """Return whether there is such an SKU."""
        return sku in products() or self._settings.any_sku

    def stock(self, sku: str) -> int:
        """Return the pieces on hand."""
        changed = self.value("SELECT qty FROM stock WHERE sku = ?", (sku,))
        return product_of(sku).stock if changed is None else int(changed)

    def set_stock(self, sku: str, qty: int) -> None:
        """Make a SKU sold out (0) or available. Raises ValueError for an unknown one."""
        self._require(sku)
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO stock VALUES (?, ?)", (sku, qty))

    def sku_details(self, sku: str) -> dict[str, Any]:
        """Return the values of a SKU in product queries that replace the catalogue's, by KK's names."""
        fields = self.value("SELECT fields FROM sku_details WHERE sku = ?", (sku,))
        return dict(json.loads(fields)) if fields else {}

    def set_sku_details(self, sku: str, fields: Mapping[str, Any]) -> None:
        """Set the values of a SKU in product queries; the prices of orders stay the catalogue's.

        Raises ValueError for an unknown SKU.
        """
        self._require(sku)
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO sku_details VALUES (?, ?)", (sku, json.dumps(fields)))

    def fact(self, name: str) -> float:
        """Return a number of the account; 0 if it was never set."""
        return float(self.value("SELECT value FROM fact WHERE name = ?", (name,)) or 0)

    def set_fact(self, name: str, value: float) -> None:
        """Store a number of the account."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))

    def add_fact(self, name: str, change: float) -> float:
        """Add to a number of the account, and return its new value."""
        with self.transaction():
            value = self.fact(name) + change
            self.set_fact(name, value)
            return value

    def keep_past(self) -> None:
        """Keep each order's state before a change from now on."""
        with self._lock:
            self._db.executescript(KEEP_PAST)

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
            for table in ("kk_order", "refund", "late_call", "stock", "sku_details", "fact", "kk_past"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - constant names
            self.set_fact("balance", self._start_balance)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._db.close()

    def _require(self, sku: str) -> None:
        if not self.sells(sku):
            raise ValueError(
                f"sku {sku} does not exist. To sell SKUs that the catalogue lacks, set `any_sku`"
            )

    def _check_stock(self, lines: Iterable[Line]) -> None:
        wanted: dict[str, int] = {}
        for sku, quantity in lines:
            if not self.sells(sku):
                raise Rejected(UNKNOWN_SKU, f"sku {sku} does not exist")
            wanted[sku] = wanted.get(sku, 0) + quantity
        for sku, quantity in wanted.items():
            if quantity > self.stock(sku):
                raise Rejected(SOLD_OUT, f"sku {sku} is sold out")

    def _insert(
        self, call: int, order: NewOrder, warehouse: str, lines: list[Line], cost: tuple[int, int], at: float
    ) -> int:
        order_id = max(FIRST_ORDER_ID - 1, self.value("SELECT max(id) FROM kk_order") or 0) + 1
        values = (
            order_id, call, order.number, order.remark, order.sale_platform, order.channel_type,
            "waiting_payment", warehouse, at, at, *cost,
            json.dumps(order.address), json.dumps(_items(order_id, lines)),
        )  # fmt: skip
        self._db.execute(
            "INSERT INTO kk_order (id, call, number, remark, sale_platform, channel_type, state, warehouse,"
            " created_at, updated_at, subtotal, freight, address, items)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        self.add_fact("reserved", sum(cost))
        return order_id


def pieces_by_sku(rows: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the pieces of each SKU."""
    pieces: dict[str, int] = {}
    for row in rows:
        pieces[row["sku"]] = pieces.get(row["sku"], 0) + row["quantity"]
    return pieces


def _split(lines: Iterable[Line]) -> Iterator[tuple[str, list[Line]]]:
    def warehouse(line: Line) -> str:
        return product_of(line[0]).country

    for country, group in groupby(sorted(lines, key=warehouse), key=warehouse):
        yield country, list(group)


def _cost(lines: Iterable[Line], channel_type: str | None) -> tuple[int, int]:
    subtotal = sum(product_of(sku).price * quantity for sku, quantity in lines)
    return subtotal, freight(sum(quantity for _, quantity in lines), channel_type)


def _items(order_id: int, lines: Iterable[Line]) -> list[dict[str, Any]]:
    return [
        {
            "id": order_id * 100 + index,
            "item_id": product_of(sku).item_id,
            "sku": sku,
            "quantity": quantity,
            "refunded": 0,
        }
        for index, (sku, quantity) in enumerate(lines, start=1)
    ]
