"""The DAGs of `test_around_delivery`: each but one is run once by the scheduler, with a KK of its own."""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import sqlite3
import time
from contextlib import closing

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kk.operators.orders import CreateOrderOperator, SyncOrdersOperator
from tests.operators.shop import SELECT, order

FOLDER = pathlib.Path(os.environ["AROUND_FOLDER"])
BEGIN = pendulum.datetime(2026, 1, 1)


def once(dag_id, **options):
    given = {"schedule": "@once", "start_date": BEGIN, "catchup": False, **options}
    # A busy machine makes Airflow lose a try of its own accord.
    defaults = {"retries": 10, "retry_delay": datetime.timedelta(seconds=1)}
    return DAG(dag_id, default_args=defaults, **given)


def sync(name, task_id="sync", **arguments):
    places = {"warehouse_conn_id": f"warehouse_{name}", "kk_conn_id": f"kk_{name}"}
    return SyncOrdersOperator(**{"task_id": task_id, "sql": SELECT, **places, **arguments})


def create(name, task_id="create", **arguments):
    return CreateOrderOperator(task_id=task_id, kk_conn_id=f"kk_{name}", **arguments)


def tell_who(context):
    """Leave word of the process that runs the task, and of its parent."""
    ti = context["ti"]
    draft = FOLDER / f"{ti.dag_id}.draft"
    draft.write_text(json.dumps([os.getpid(), os.getppid()]))
    draft.rename(FOLDER / f"{ti.dag_id}.process")


def wait_at_gate(context):
    """Let the task wait until the test opens the gate."""
    tell_who(context)
    gate = FOLDER / f"{context['ti'].dag_id}.open"
    while not gate.exists():
        time.sleep(0.02)


def meet(group, number):
    """Let so many tasks go on together."""

    def wait_for_the_others(context):
        ti = context["ti"]
        folder = FOLDER / group
        folder.mkdir(exist_ok=True)
        (folder / f"{ti.dag_id}.{ti.run_id}.{ti.task_id}".replace("/", "-")).touch()
        until = time.monotonic() + 600
        while len(list(folder.iterdir())) < number and time.monotonic() < until:
            time.sleep(0.02)

    return wait_for_the_others


def mend_after_a_failure(context):
    """Let the warehouse take results again, once a sync could not write them."""
    with closing(sqlite3.connect(FOLDER / "write_back.db", timeout=300)) as db, db:
        # There is no ledger yet when Airflow lost the first try before it began.
        has_ledger = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'kk_sync_run'").fetchone()
        if has_ledger and db.execute("SELECT 1 FROM kk_sync_run WHERE state = 'failed'").fetchone():
            db.execute("DROP TRIGGER IF EXISTS full")


with once("best_effort"):
    create("best_effort", order=order(1), pre_execute=tell_who)

for slow in ("killed_supervisor", "frozen_supervisor", "cleared_while_sending"):
    with once(slow):
        sync(slow, max_in_flight=2, pre_execute=wait_at_gate)

with once("cleared"):
    # Its number is derived.
    content = {name: value for name, value in order(3).items() if name != "custom_order_number"}
    sync("cleared") >> create("cleared", ledger_conn_id="warehouse_cleared", order=content)
    create("cleared_best_effort", "on_best_effort", order=order(1))
    create("lagging", "beyond_the_window", order=order(1))

with once("first_dag"):
    sync("two_dags", max_in_flight=1, pre_execute=meet("two_dags", 3))

with once("second_dag"):
    sync("two_dags", "other_sync", max_in_flight=1, pre_execute=meet("two_dags", 3))
    create("two_dags", ledger_conn_id="warehouse_two_dags", order=order(1), pre_execute=meet("two_dags", 3))

with once("failed_xcom_push"):
    sync("xcom")
    create("xcom", ledger_conn_id="warehouse_xcom", order=order(100))

with once("failed_write_back"):
    sync(
        "write_back",
        sql=f"{SELECT} WHERE custom_order_number IN (SELECT no FROM head WHERE ids IS NULL)",
        write_back={"table": "head", "key": "no", "ids": "ids", "state": "state"},
        pre_execute=mend_after_a_failure,
    )

with once("backfilled", schedule="@daily", end_date=BEGIN.add(days=2)):
    sync("backfilled", max_in_flight=1, pre_execute=meet("backfilled", 3))
