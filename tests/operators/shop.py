"""A shop whose orders the tests send: its warehouse, its connections, and what it promises about them.

Every customer's name, phone and street holds a word of `PRIVATE`: who looks for those finds a leak.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.operators.orders import SyncOrdersOperator

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

#: Seven digits, so that no time with microseconds holds them by chance.
PRIVATE = ("Zebulon", "7998800", "Licornes")
#: The first and the last lie in one of KK's warehouses, the other elsewhere: two lines make a split.
SKUS = ("FWXW00290_WHT_M", "USTS00015_BLK_M", "FWTS00104_RED_L")
ADDRESS = {
    "recipient": "Zebulon Quist",
    "phone": "+33 799880099",
    "street1": "7 Rue des Licornes",
    "city": "Paris",
    "province": "Ile-de-France",
    "zip": "75001",
    "country": "FR",
}
COLUMNS = ("custom_order_number", *ADDRESS, "sku", "quantity")
SELECT = f"SELECT {', '.join(COLUMNS)} FROM order_line"

#: Nothing is slow on this machine, so a doubt can be settled after seconds; no request waits for its turn.
QUICK = {
    "timeout_s": 1,
    "lease_s": 4,
    "settle_window_s": 1,
    "rate_limit_burst": 10_000,
    "rate_limit_per_second": 1_000,
}
#: For what must not be in doubt, however busy this machine is.
PATIENT = {**QUICK, "timeout_s": 20, "lease_s": 40}

#: The ten counts that add up to `selected`.
COUNTS = (
    "created",
    "already_created",
    "adopted",
    "changed",
    "rejected",
    "invalid",
    "in_doubt",
    "held",
    "not_sent",
    "postponed",
)


def number(n: int) -> str:
    return f"S-{n:04d}"


def goods(n: int) -> dict[str, int]:
    """What the shop's order n is about: one to three lines."""
    return {sku: 1 + (n + line) % 4 for line, sku in enumerate(SKUS[: 1 + n % 3])}


def address(n: int) -> dict[str, str]:
    return ADDRESS | {
        "recipient": f"Zebulon Quist {n}",
        "phone": f"+33 79988{n:04d}",
        "street1": f"{n} Rue des Licornes",
    }


def order(n: int, **changes: Any) -> dict[str, Any]:
    """Order n as a mapping, as an operator takes it."""
    items = [{"sku": sku, "quantity": quantity} for sku, quantity in goods(n).items()]
    return {"custom_order_number": number(n), "address": address(n), "items": items} | changes


def rows(numbers: Iterable[int]) -> list[tuple[Any, ...]]:
    """A row for each order line, the columns being COLUMNS."""
    return [
        (number(n), *address(n).values(), sku, quantity)
        for n in numbers
        for sku, quantity in goods(n).items()
    ]


class Warehouse:
    """A SQLite file with a table `order_line`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.execute(f"CREATE TABLE order_line ({', '.join(COLUMNS)})")

    def add(self, *new: tuple[Any, ...]) -> None:
        with closing(sqlite3.connect(self.path, timeout=300)) as db, db:
            db.executemany(f"INSERT INTO order_line VALUES ({', '.join('?' * len(COLUMNS))})", new)

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path, timeout=300)) as db, db:
            return db.execute(sql).fetchall()

    def end_settle_windows(self) -> None:
        """Let the ledger's orders in doubt be settled now, as they are some time later."""
        self.execute("UPDATE kk_order SET settle_after = CAST(strftime('%s') AS REAL)")

    @property
    def connection(self) -> dict[str, Any]:
        return {"conn_type": "sqlite", "host": str(self.path)}


def kk_connection(sandbox: SandboxServer, **extra: Any) -> dict[str, Any]:
    return {
        "conn_type": "kk",
        "host": sandbox.url,
        "password": sandbox.token,
        "extra": {**PATIENT, **extra},
    }


def nonzero(summary: Mapping[str, Any]) -> dict[str, int]:
    """The counts of a summary that are not zero, after a look at whether they add up."""
    assert summary["selected"] == sum(summary[name] for name in COUNTS), summary
    return {name: summary[name] for name in COUNTS if summary[name]}


def each_is_there_once(sandbox: SandboxServer, numbers: Iterable[int]) -> None:
    """Every one of these orders is at KK with its own goods, by one call, and nothing else is."""
    found: dict[str, Counter[str]] = {}
    for one in sandbox.control.orders():
        found.setdefault(one["number"], Counter()).update(one["goods"])
    assert sandbox.control.duplicates() == []
    assert found == {number(n): Counter(goods(n)) for n in numbers}


def ids_at_kk(sandbox: SandboxServer) -> dict[str, list[str]]:
    """The kkOrderIds of each order number."""
    found: dict[str, list[str]] = {}
    for one in sandbox.control.orders():
        found.setdefault(one["number"], []).append(one["id"])
    return {key: sorted(ids) for key, ids in found.items()}


def ids_in_ledger(path: Path) -> dict[str, list[str]]:
    """The kkOrderIds of each order number, of a ledger in a SQLite file."""
    with closing(sqlite3.connect(path)) as db:
        known = db.execute("SELECT custom_order_number, kk_order_ids FROM kk_order WHERE state = 'created'")
        return {key: sorted(json.loads(ids)) for key, ids in known}


@dataclass
class Try:
    """What came of one try of a task."""

    value: Any
    xcoms: dict[str, Any]
    error: BaseException | None

    @property
    def summary(self) -> dict[str, Any]:
        """What a sync has pushed, also when it failed."""
        found: dict[str, Any] = self.xcoms["return_value"]
        return found


class TaskInstance:
    """As much of a task instance as an operator needs."""

    dag_id = "shop"

    def __init__(self, task_id: str, run_id: str, try_number: int, map_index: int) -> None:
        self.task_id = task_id
        self.run_id = run_id
        self.try_number = try_number
        self.map_index = map_index
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))


def attempt(
    operator: Any,
    *,
    run_id: str = "manual__1",
    try_number: int = 1,
    map_index: int = -1,
    method: str = "execute",
    is_rendered: bool = True,
    **context: Any,
) -> Try:
    """One try of a task in this process, without Airflow around it, which renders it first.

    `context` is what stands in the task's context beside `ti`, or instead of it.
    """
    ti = TaskInstance(operator.task_id, run_id, try_number, map_index)
    events = defaultdict[Any, Any](lambda: SimpleNamespace(extra={}))
    context = {"ti": ti, "outlet_events": events, **context}
    try:
        if is_rendered:
            operator.render_template_fields(context)
        value = getattr(operator, method)(context)
    except BaseException as error:
        return Try(None, ti.xcoms, error)
    return Try(value, ti.xcoms, None)


def sync(**arguments: Any) -> SyncOrdersOperator:
    """A sync of all orders of the warehouse."""
    given = {"task_id": "sync", "sql": SELECT, "warehouse_conn_id": "warehouse"}
    return SyncOrdersOperator(**{**given, **arguments})


def posts(sandbox: SandboxServer) -> int:
    """How many POSTs have reached KK."""
    return int(sandbox.control.counts()["creates"])
