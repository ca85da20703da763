"""What it costs KK to say what became of a thousand orders whose answers were lost."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.places import NO_LIMIT, TOKEN, databases, kk, ready, run_child, tell
from benchmarks.table import Row

ORDERS = 1_000
PAGE = 250


def rows(*, is_long: bool) -> Iterator[Row]:
    with kk(rate_limit=False) as control, databases() as urls:
        url = urls.get("postgresql", urls["sqlite"])
        told = run_child("settling", {"url": control.url, "ledger": url})
    assert told["settled"] == ORDERS, told
    yield Row(
        f"requests that settle {ORDERS} orders in doubt",
        f"{told['requests']}",
        "arithmetic: a look-up for each",
        f"{ORDERS}",
        f"{ORDERS / told['requests']:.0f} times fewer",
        f"pages of {PAGE}: {ORDERS // PAGE}, and those that prove an end",
    )


def main() -> None:
    import sqlalchemy as sa

    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.throttle import LocalBucket
    from airflow_provider_kk.delivery.listing import KKOrderList
    from airflow_provider_kk.delivery.model import Origin, Timing, order_job
    from airflow_provider_kk.delivery.reconcile import AbsencePolicy, reconcile
    from airflow_provider_kk.delivery.sql.database import pool_arguments
    from airflow_provider_kk.delivery.sql.storage import sql_ledger
    from benchmarks.orders import order

    task: dict[str, Any] = json.loads(sys.argv[1])
    url = task["ledger"]
    ledger = sql_ledger(
        sa.create_engine(url, **pool_arguments(url.partition(":")[0], 4)),
        "kk.bench",
        "default",
        timing=Timing(timeout_s=0.5, lease_s=1.0, settle_window_s=0.5),
    )
    ledger.storage.open("kk_default", settle_window_s=600)
    bucket = LocalBucket(int(NO_LIMIT["rate_burst"]), NO_LIMIT["rate_per_second"])
    client = KKClient(task["url"], TOKEN, sale_platform="bench", throttle=bucket)
    for number in range(ORDERS):
        job = order_job(order(f"lost-{number}"), client)
        assert ledger.claim(job, None, origin=Origin(), sync_id="sent")
        job.send(lambda call_s: None)  # and nobody records the answer
    time.sleep(3)
    ready()
    before = client.requests
    doubts = ledger.doubts()
    settled = reconcile(
        ledger,
        KKOrderList(client),
        doubts,
        resendable=(),
        policy=AbsencePolicy(),
        sync_id="bench",
        log=logging.getLogger("bench"),
    )
    tell(requests=client.requests - before, settled=len(settled.adopted), doubts=len(doubts))


if __name__ == "__main__":
    main()
