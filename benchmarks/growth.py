"""What an order's intent and answer cost on an empty ledger and on one of a million rows and more."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

from benchmarks.places import databases, ready, run_child, tell
from benchmarks.table import Row

ORDERS = 1_000
GROWN = 1_500_000

#: Rows like those of orders that were created over the last year.
_GROW = """
    INSERT INTO kk_order SELECT 'kk.bench', 'default', 'old-' || n, 1, 'created', '["' || n || '"]', '1:x',
        '{"A": 1}', 'FR', '', 1, md5(n::text), 0, 0, 0, 0, 0, NULL, '', '', 'old', 0,
        extract(epoch from clock_timestamp()) - 31000000 + n, 0
    FROM generate_series(1, %(rows)s) AS n;
    ANALYZE kk_order
"""


def rows(*, is_long: bool) -> Iterator[Row]:
    with databases() as urls:
        if "postgresql" not in urls:
            return
        told = run_child("growth", {"ledger": urls["postgresql"], "rows": GROWN})
    for what, label in (
        ("claim", "an order's intent and answer"),
        ("look_up", f"a look-up of {ORDERS} numbers"),
        ("doubts", "the account's open doubts"),
    ):
        small, large = told["small"][what], told["large"][what]
        yield Row(
            f"{label}, ledger of {GROWN:,} rows in PostgreSQL",
            f"{large * 1000:.2f} ms",
            "the same on an empty ledger, in the same process",
            f"{small * 1000:.2f} ms",
            f"{large / small:.2f}",
            "flat",
        )


def main() -> None:
    import sqlalchemy as sa

    from airflow_provider_kk.delivery.job import Job
    from airflow_provider_kk.delivery.rows import Answer, Origin
    from airflow_provider_kk.delivery.sql.database import pool_arguments
    from airflow_provider_kk.delivery.sql.ledger import SqlLedger
    from airflow_provider_kk.delivery.states import Event

    task: dict[str, Any] = json.loads(sys.argv[1])
    ledger = SqlLedger(
        sa.create_engine(task["ledger"], **pool_arguments("postgresql", 2)), "kk.bench", "default"
    )
    ledger.open("kk_default")

    def claim(number: str) -> None:
        job = Job(number, "1:x", {"A": 1}, "FR", "", lambda _check: [], str)
        begun = ledger.begin(job, None, origin=Origin(), sync_id="bench")
        assert begun
        ledger.record(begun, Answer(Event.CREATED, ("1",)))

    def measure(name: str) -> dict[str, float]:
        numbers = [f"{name}-{n}" for n in range(ORDERS)]
        claim(f"{name}-first")
        return {
            "claim": median(seconds(partial(claim, number)) for number in numbers),
            "look_up": median(seconds(lambda: ledger.look_up(numbers)) for _ in range(20)),
            "doubts": median(seconds(ledger.doubts) for _ in range(20)),
        }

    def seconds(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    ready()
    small = measure("small")
    with ledger.database.engine.begin() as db:
        db.exec_driver_sql(_GROW % {"rows": task["rows"]})
    tell(small=small, large=measure("large"))


if __name__ == "__main__":
    main()
