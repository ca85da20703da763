"""A process that delivers orders, without Airflow around it.

Its task: `url`, `ledger` (a database's URL), `numbers`, `burst`, `per_second`, `in_flight`.
"""

from __future__ import annotations

import json
import logging
import sys
import time

import sqlalchemy as sa

from airflow_provider_kk.api.client import KKClient
from airflow_provider_kk.delivery.attempt import Limits
from airflow_provider_kk.delivery.clock import Stop
from airflow_provider_kk.delivery.dispatcher import Dispatcher
from airflow_provider_kk.delivery.listing import KKOrderList
from airflow_provider_kk.delivery.model import Job, Origin, order_job
from airflow_provider_kk.delivery.run_queue import RunQueue
from airflow_provider_kk.delivery.sql.bucket import LedgerBucket
from airflow_provider_kk.delivery.sql.database import pool_arguments
from airflow_provider_kk.delivery.sql.storage import sql_ledger
from airflow_provider_kk.sync.deliver import item_of, order_of
from airflow_provider_kk.sync.sync_counts import SyncRuns
from benchmarks.orders import order
from benchmarks.places import TOKEN, ready, tell


def main() -> None:
    task = json.loads(sys.argv[1])
    url = task["ledger"]
    engine = sa.create_engine(url, **pool_arguments(url.partition(":")[0], task["in_flight"] + 2))
    ledger = sql_ledger(engine, "kk.bench", "default")
    ledger.storage.open("kk_default", settle_window_s=600)
    bucket = LedgerBucket(ledger, burst=task["burst"], per_second=task["per_second"])
    client = KKClient(task["url"], TOKEN, sale_platform="bench", throttle=bucket)
    run_queue = RunQueue()
    run_queue.add(item_of(place, order(number)) for place, number in enumerate(task["numbers"]))
    granted: dict[str, float] = {}

    def make_job(payload: str) -> Job:
        job = order_job(order_of(payload), client)
        granted[job.key] = time.time()
        return job

    origin = Origin("bench", task["numbers"][0], "deliver", -1, 1)
    stream = Dispatcher(
        ledger=ledger,
        order_list=KKOrderList(client),
        throttle=bucket,
        run_queue=run_queue,
        make_job=make_job,
        probe=lambda: None,
        log=logging.getLogger("bench"),
        origin=origin,
        sync_id=SyncRuns(ledger).begin(origin).sync_id,
        stop=Stop(),
        limits=Limits(max_in_flight=task["in_flight"]),
    )
    ready()
    began, cpu = time.monotonic(), time.process_time()
    stream.run()
    seconds, cpu_s = time.monotonic() - began, time.process_time() - cpu
    stream.close()
    tell(seconds=seconds, cpu_s=cpu_s, counts=run_queue.counts(), requests=client.requests, granted=granted)


if __name__ == "__main__":
    main()
