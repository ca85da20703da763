"""What an order, and the Orders page, cost on an empty ledger and on one of a million rows and more."""

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
_HOUR_S, _DAY_S, _YEAR_S = 3_600.0, 86_400.0, 365 * 86_400.0
#: In the middle of those that are there already.
_AGO_S = 31_000_000.0 - GROWN / 2

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
        ("today", "the Orders page of today: counts, chart and list"),
        ("old_page", "a page in the middle of the Orders page's list"),
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
    chart, count = told["large"]["year"], told["count"]
    yield Row(
        f"counts and chart of a year of {GROWN:,} orders in PostgreSQL",
        f"{chart * 1000:.0f} ms",
        "`SELECT count(*)` of that table",
        f"{count * 1000:.0f} ms",
        f"{chart / count:.1f}",
    )


def main() -> None:
    import sqlalchemy as sa

    from airflow_provider_kk.delivery.model import AttemptResult, Content, Job, Origin
    from airflow_provider_kk.delivery.sql.database import pool_arguments
    from airflow_provider_kk.delivery.sql.report import Report, RowFilter
    from airflow_provider_kk.delivery.sql.storage import sql_ledger
    from airflow_provider_kk.delivery.states import Event

    task: dict[str, Any] = json.loads(sys.argv[1])
    ledger = sql_ledger(
        sa.create_engine(task["ledger"], **pool_arguments("postgresql", 2)), "kk.bench", "default"
    )
    ledger.storage.open("kk_default", settle_window_s=600)
    report = Report(ledger.storage)

    def claim(number: str) -> None:
        job = Job(number, Content("1:x", {"A": 1}, "FR"), lambda _check: [], str)
        begun = ledger.claim(job, None, origin=Origin(), sync_id="bench")
        assert begun
        ledger.record(begun, AttemptResult(Event.CREATED, ("1",)))

    def page(since: float, until: float) -> None:
        report.over_time(since, until, _HOUR_S)
        report.lines(RowFilter(since=since, until=until), limit=50)

    def measure(name: str) -> dict[str, float]:
        numbers = [f"{name}-{n}" for n in range(ORDERS)]
        claim(f"{name}-first")
        now = ledger.now()
        return {
            "claim": median(seconds(partial(claim, number)) for number in numbers),
            "look_up": median(seconds(lambda: ledger.look_up(numbers)) for _ in range(20)),
            "doubts": median(seconds(ledger.doubts) for _ in range(20)),
            "today": median(seconds(lambda: page(now - _DAY_S, now)) for _ in range(20)),
            "old_page": median(
                seconds(lambda: report.lines(RowFilter(until=now - _AGO_S), limit=50)) for _ in range(20)
            ),
            "year": median(seconds(lambda: report.over_time(now - _YEAR_S, now, _DAY_S)) for _ in range(3)),
        }

    def seconds(work: Callable[[], object]) -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    def count() -> None:
        with ledger.storage.database.engine.connect() as db:
            db.exec_driver_sql("SELECT count(*) FROM kk_order").all()

    ready()
    small = measure("small")
    with ledger.storage.database.engine.begin() as db:
        db.exec_driver_sql(_GROW % {"rows": task["rows"]})
    large = measure("large")
    tell(small=small, large=large, count=median(seconds(count) for _ in range(3)))


if __name__ == "__main__":
    main()
