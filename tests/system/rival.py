"""A mapped sync's try, executed once more past Airflow: the arguments are its BATCH, its PART and a GATE.

Reads and checks everything, then waits for a file GATE before it sends. Prints how many orders it has
sent, and its summary.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest import mock

from airflow_provider_kk.delivery import dispatcher
from airflow_provider_kk.delivery.sql.bucket import LedgerBucket
from airflow_provider_kk.operators.orders import SyncOrdersOperator
from tests.operators.shop import attempt


def main() -> None:
    batch, part, gate = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    sync = SyncOrdersOperator(
        task_id="sync",
        warehouse_conn_id="warehouse",
        sql="SELECT * FROM order_line WHERE batch = %(batch)s AND part = %(part)s ORDER BY random()",
        parameters={"batch": batch, "part": part},
        max_in_flight=3,
    )
    posts = []

    def deliver(*arguments: Any, **options: Any) -> Any:
        delivered = stream_deliver(*arguments, **options)
        if delivered is not None:  # else the other execution was faster
            posts.append(delivered)
        return delivered

    def acquire(*arguments: Any, **options: Any) -> None:
        # Not between a place in the rate limit and its POST: who tarries there exceeds the limit later.
        if threading.current_thread() is not threading.main_thread() and not gate.exists():
            print("waiting", flush=True)
            while not gate.exists():
                time.sleep(0.02)
        take_place(*arguments, **options)

    stream_deliver, take_place = dispatcher.attempt, LedgerBucket.acquire
    with (
        mock.patch.object(LedgerBucket, "acquire", acquire),
        mock.patch.object(dispatcher, "attempt", deliver),
    ):
        second = attempt(sync, run_id=batch, try_number=1, map_index=part)
    if second.error is not None:
        raise second.error
    print("rival", json.dumps({"posts": len(posts), "summary": second.summary}), flush=True)


if __name__ == "__main__":
    main()
