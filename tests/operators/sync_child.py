"""A process that sends the warehouse's orders: python -m tests.operators.sync_child RUN_ID."""

from __future__ import annotations

import sys

from airflow_provider_kk.operators.orders import SyncOrdersOperator
from tests.mysql_hook import PyMySqlHook
from tests.operators.hooks import info_of, known_hooks
from tests.operators.shop import SELECT, attempt

if __name__ == "__main__":
    known_hooks()["mysql"] = info_of(PyMySqlHook)
    done = attempt(
        SyncOrdersOperator(
            task_id="sync",
            sql=SELECT,
            warehouse_conn_id="warehouse",
            write_back={"table": "shop_order", "key": "order_no", "ids": "ids", "state": "state"},
            max_in_flight=4,
        ),
        run_id=sys.argv[1],
    )
    sys.exit(str(done.error) if done.error else 0)
