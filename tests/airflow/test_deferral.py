"""Waiting for KK's list and retrying, as Airflow does it: the summary counts the whole sync."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_kk.operators.orders import CreateOrderOperator
from tests.operators.shop import (
    ADDRESS,
    SELECT,
    SKUS,
    each_is_there_once,
    ids_at_kk,
    nonzero,
    number,
    order,
    rows,
)

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop


@pytest.mark.range
def test_a_deferrable_sync_waits_without_a_slot_and_counts_the_whole_sync(shop: Shop):
    shop.connect(timeout_s=2, lease_s=4, settle_window_s=1)
    shop.warehouse.add(*rows(range(20)))
    shop.sandbox.control.arm("drop_after_commit", number=number(4), times=1)
    shop.sandbox.control.arm("reset_after_commit", number=number(11), times=1)
    shop.sandbox.control.arm("drop_before_commit", number=number(15), times=1)

    result = shop.run(shop.dag(deferrable=True, write_back="outcome"))

    assert result.state == "success", result.log
    assert "It needs no worker slot meanwhile" in result.log
    summary = result.xcoms["sync"]["return_value"]
    assert nonzero(summary) == {"created": 18, "adopted": 2}
    # Posts, and a list before and after the deferral at least.
    assert summary["requests"] == shop.sandbox.control.counts()["requests"] >= 21 + 2
    assert summary["seconds"] >= 7
    each_is_there_once(shop.sandbox, range(20))
    told = shop.warehouse.execute("SELECT state, count(*) FROM outcome GROUP BY 1 ORDER BY 1")
    assert told == [("created", 20), ("in_doubt", 3)]


def test_a_retry_continues_the_sync_unless_it_would_not_help(shop: Shop):
    (shop.path / "mine.sql").write_text(f"{SELECT} WHERE custom_order_number < '{{{{ params.end }}}}'")
    shop.warehouse.add(*rows(range(10)))
    shop.warehouse.add(*rows(range(10, 12)), ("T-UNKNOWN", *ADDRESS.values(), "NO_SUCH_SKU", 1))
    for n in (2, 6):
        shop.sandbox.control.arm("auth", number=number(n), times=1)

    dag = shop.dag(
        tasks={
            "worth_it": {"sql": "mine.sql", "params": {"end": number(10)}, "retries": 3},
            "in_vain": {"sql": f"{SELECT} WHERE custom_order_number >= '{number(10)}'", "retries": 3},
        },
        dag={"template_searchpath": str(shop.path)},
    )
    result = shop.run(dag)

    # Two orders were not sent at first; what the first try created counts in the second.
    assert result.tasks == {"worth_it": "success", "in_vain": "failed"}, result.log
    assert nonzero(result.xcoms["worth_it"]["return_value"]) == {"created": 10}
    # The summary is there though the task has failed, at once: KK would only refuse it again.
    assert nonzero(result.xcoms["in_vain"]["return_value"]) == {"created": 2, "rejected": 1}
    assert result.xcoms["in_vain"]["return_value"]["rejections"][0]["custom_order_number"] == "T-UNKNOWN"
    tries = dict(shop.warehouse.execute("SELECT task_id, try_number FROM kk_sync_run"))
    assert tries == {"worth_it": 2, "in_vain": 1}
    assert shop.sandbox.control.counts()["creates"] == 10 + 2 + 3


WAIT = """\
import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kk.sensors.orders import OrderSensor

with DAG("waiting", start_date=pendulum.datetime(2026, 1, 1), schedule=None, catchup=False):
    for name, arguments in {tasks!r}.items():
        OrderSensor(task_id=name, ledger_conn_id="warehouse", poke_interval=1, timeout=600, **arguments)
"""


def test_sensors_wait_in_every_mode_and_fail_with_the_reason(shop: Shop):
    shipped, cancelled = (shop.sandbox.control.place({SKUS[0]: 1})[0] for _ in range(2))
    # KK splits this one, and one half of it is cancelled
    order_number = number(1)
    create = CreateOrderOperator(task_id="create", order=order(1), ledger_conn_id="warehouse")
    assert shop.attempt(create).error is None
    split = {"custom_order_number": order_number}
    one_half, _ = ids_at_kk(shop.sandbox)[order_number]
    shop.sandbox.control.set(pay_after_s=1, pack_after_s=1, ship_after_s=1, deliver_after_s=-1)
    for dead in (cancelled, one_half):
        shop.sandbox.control.move(dead, "cancel")
    tasks = {
        "poke": {"kk_order_id": shipped},
        "deferred": {"kk_order_id": shipped, "deferrable": True},
        "paid": {"kk_order_id": shipped, "until": "paid", "deferrable": True},
        "in_vain": {"kk_order_id": cancelled, "deferrable": True},
        "skipped": {"kk_order_id": cancelled, "deferrable": True, "soft_fail": True},
        "any": {**split, "any_split": True, "deferrable": True},
        "any_rescheduled": {**split, "any_split": True, "mode": "reschedule"},
        "all": split,
    }

    result = shop.run(WAIT.format(tasks=tasks))

    assert result.tasks == {
        **dict.fromkeys(("poke", "deferred", "paid", "any", "any_rescheduled"), "success"),
        **dict.fromkeys(("in_vain", "all"), "failed"),
        "skipped": "skipped",
    }, result.log
    assert result.xcoms["deferred"]["return_value"][0]["packages"][0]["tracking_code"] == f"YT{shipped}1"
    assert f"order {cancelled} will not be shipped: it is cancelled" in result.log


@pytest.mark.parametrize(
    "way", [{"deferrable": True}, {"mode": "reschedule"}], ids=["deferred", "rescheduled"]
)
def test_a_sensor_that_has_given_its_slot_back_ends_when_its_order_gets_there(
    shop: Shop, way: dict[str, Any]
):
    (waited_for,) = shop.sandbox.control.place({SKUS[0]: 1})
    shop.sandbox.control.set(pay_after_s=1e9)
    dag = shop.home.start_dag(WAIT.format(tasks={"wait": {"kk_order_id": waited_for, **way}}))
    try:
        until = time.monotonic() + 600
        while shop.sandbox.control.counts()["GET"] < 3:
            assert time.monotonic() < until, dag.log()
            time.sleep(0.1)
        shop.sandbox.control.move(waited_for, "shipped")
        result = dag.wait()
    finally:
        dag.kill()
    assert result.state == "success", result.log
    assert result.xcoms["wait"]["return_value"][0]["status"] == "shipped"
    query = "SELECT count(*) FROM task_reschedule"
    with closing(sqlite3.connect(shop.home.path / "airflow.db")) as db:
        assert (db.execute(query).fetchone() != (0,)) == ("mode" in way)
