"""A DAG that is scheduled on an account runs when orders were really created, or statuses really changed."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tests.airflow.support import AIRFLOW_VERSION
from tests.operators.shop import SELECT, SKUS, number, order, rows

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop

DAGS = """\
import datetime

import pendulum
from airflow.providers.common.compat.sdk import DAG, Asset

from airflow_provider_kk.operators.orders import CreateOrderOperator, SyncOrdersOperator
from airflow_provider_kk.operators.status import SyncOrderStatusOperator

always = {{"start_date": pendulum.datetime(2026, 1, 1), "catchup": False}}
tasks = {{"retry_delay": datetime.timedelta(0), "trigger_rule": "all_done"}}

with DAG("shop", schedule=None, default_args=tasks, **always):
    before = None
    for name, arguments in {syncs!r}.items():
        sync = SyncOrdersOperator(task_id=name, warehouse_conn_id="warehouse", **arguments)
        if before:
            before >> sync
        before = sync
    single = CreateOrderOperator.partial(task_id="single", ledger_conn_id="warehouse")
    single = single.expand(order={orders!r})
    first, second = (
        SyncOrderStatusOperator(task_id=name, warehouse_conn_id="warehouse") for name in ("status", "no_news")
    )
    before >> single >> first >> second

for what in ("orders", "statuses"):
    with DAG("when_" + what, schedule=[Asset("kk://{host}/shop%201/" + what)], **always):
        SyncOrderStatusOperator(task_id="status", warehouse_conn_id="warehouse")
"""
HOUR = 3600
NAME = "asset" if AIRFLOW_VERSION >= (3,) else "dataset"


def events(shop: Shop) -> dict[tuple[str, int, str], dict[str, Any]]:
    """What each event says, by task, map index and the URI's last part."""
    told = shop_db(
        shop,
        f"SELECT source_task_id, source_map_index, uri, e.extra FROM {NAME}_event e"
        f" JOIN {NAME} a ON a.id = e.{NAME}_id",
    )
    found = {(task, index, uri.rpartition("/")[2]): json.loads(extra) for task, index, uri, extra in told}
    assert len(found) == len(told)
    return found


def shop_db(shop: Shop, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(shop.home.path / "airflow.db")) as db:
        return db.execute(query).fetchall()


def test_an_asset_changes_only_when_something_was_created_or_has_changed(shop: Shop):
    # Given two tries of one sync, one with nothing new, one that fails for good, and single orders
    shop.connect(account="shop 1", order_url="https://kk.example/o/{kk_order_id}")
    shop.warehouse.add(*rows(range(12)))
    shop.warehouse.execute(
        f"UPDATE order_line SET sku = 'NO_SUCH' WHERE custom_order_number = '{number(11)}'"
    )
    for n in (2, 6):
        shop.sandbox.control.arm("auth", number=number(n), times=1)
    ten = f"{SELECT} WHERE custom_order_number < '{number(10)}'"
    syncs = {"sync": {"sql": ten, "retries": 3}, "nothing_new": {"sql": ten}, "failing": {"sql": SELECT}}
    folder = shop.home.path / "dags"
    folder.mkdir()
    host = shop.sandbox.url.removeprefix("http://")
    (folder / "shop.py").write_text(DAGS.format(syncs=syncs, orders=[order(0), order(20)], host=host))
    shop.home.env["AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION"] = "False"
    shop.home.cli("dags", "reserialize")
    # and orders that were placed by hand, long enough ago to be read
    shop.sandbox.control.advance(-2 * HOUR)
    for _ in range(3):
        shop.sandbox.control.place({SKUS[0]: 1})
    shop.sandbox.control.advance(HOUR)

    # When
    result = shop.run(folder / "shop.py", dag_id="shop")

    # Then only what was created is told, each once, with counts and nothing else
    states = dict.fromkeys(("sync", "nothing_new", "single[0]", "single[1]", "status", "no_news"), "success")
    assert result.tasks == {**states, "failing": "failed"}, result.log
    assert events(shop) == {
        ("sync", -1, "orders"): {"created": 10, "adopted": 0},
        ("single", 1, "orders"): {"created": 1, "adopted": 0},
        ("status", -1, "statuses"): {"changed": 3},
    }
    waiting = shop_db(shop, f"SELECT target_dag_id FROM {NAME}_dag_run_queue ORDER BY 1")
    assert waiting == [("when_orders",), ("when_statuses",)]

    # and the links lead to the orders, evaluated by Airflow 3 at the end of each task
    order_at_kk, *_ = shop.sandbox.control.orders(number(20))
    single = result.xcoms["single[1]"]
    assert single["kkOrderUrl"] == f"https://kk.example/o/{order_at_kk['id']}"
    if AIRFLOW_VERSION >= (3, 1):
        assert single["_link_OrderAtKKLink"] == single["kkOrderUrl"]
        assert single["_link_OrderInLedgerLink"] == f"/kk/order?number={number(20)}&kk_conn_id=kk_default"
        run = f"/kk/runs/shop/{quote(result.run_id, safe='')}?kk_conn_id=kk_default"
        assert result.xcoms["failing"]["_link_RunInLedgerLink"] == run
