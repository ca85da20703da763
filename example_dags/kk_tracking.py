"""Brings statuses from KK into the warehouse, then reports each parcel to the shop, once.

Needs three connections: `kk_default` to KK, one to the warehouse, named by the Airflow variable
`kk_warehouse_conn_id` (default: `warehouse`), and `shop` to the shop's API, with its token as password. Needs
the tables of `warehouse.sql`. Replace the two functions that call the shop by calls of your shop's API.

The table `parcel_reported` has a row for each parcel that the shop knows. A try that was killed, or whose
answer was lost, may have reported a parcel without its row. So the shop is asked before a parcel is reported.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import quote

import pendulum
from airflow.providers.common.compat.sdk import DAG, BaseHook, task

from airflow_provider_kk.operators.status import SyncOrderStatusOperator

WAREHOUSE = "{{ var.value.get('kk_warehouse_conn_id', 'warehouse') }}"
KEY = ("host", "account", "kk_order_id", "package_id")
CREATE_TABLE = """
    CREATE TABLE IF NOT EXISTS parcel_reported (
        host VARCHAR(255), account VARCHAR(64), kk_order_id VARCHAR(64), package_id VARCHAR(64),
        PRIMARY KEY (host, account, kk_order_id, package_id)
    )
"""
# Only orders of this shop: another environment may order on the same KK store.
NOT_REPORTED = """
    SELECT p.host, p.account, p.kk_order_id, p.package_id,
           o.order_no, p.carrier, p.tracking_code, p.tracking_url
      FROM kk_package p
      JOIN kk_order_status s
        ON s.host = p.host AND s.account = p.account AND s.kk_order_id = p.kk_order_id
      JOIN shop_order o ON o.order_no = s.custom_order_number
      LEFT JOIN parcel_reported r
        ON r.host = p.host AND r.account = p.account
       AND r.kk_order_id = p.kk_order_id AND r.package_id = p.package_id
     WHERE p.status IN ('shipped', 'delivered') AND p.tracking_code IS NOT NULL AND r.package_id IS NULL
     ORDER BY o.order_no, p.kk_order_id, p.package_id
"""


class Parcel(NamedTuple):
    """A row of the query."""

    host: str
    account: str
    kk_order_id: str
    package_id: str
    order_no: str
    carrier: str | None
    tracking_code: str
    tracking_url: str | None


def is_at_shop(session: Any, url: str, parcel: Parcel) -> bool:
    """Return whether the shop has the parcel."""
    answer = session.get(f"{url}/orders/{quote(parcel.order_no, safe='')}/parcels", timeout=30)
    answer.raise_for_status()
    return any(one["tracking_code"] == parcel.tracking_code for one in answer.json())


def report(session: Any, url: str, parcel: Parcel) -> None:
    """Add the parcel to its order in the shop."""
    body = {
        "carrier": parcel.carrier,
        "tracking_code": parcel.tracking_code,
        "tracking_url": parcel.tracking_url,
    }
    # A shop that knows this header makes one parcel of two requests with the same key.
    headers = {"Idempotency-Key": f"{parcel.kk_order_id}-{parcel.package_id}"}
    answer = session.post(
        f"{url}/orders/{quote(parcel.order_no, safe='')}/parcels", json=body, headers=headers, timeout=30
    )
    answer.raise_for_status()


@task
def report_parcels(warehouse_conn_id: str) -> int:
    """Report the parcels that the shop does not have, and return their number."""
    import requests

    shop = BaseHook.get_connection("shop")
    warehouse = BaseHook.get_connection(warehouse_conn_id).get_hook()
    warehouse.run(CREATE_TABLE)
    reported, failed = 0, []
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {shop.password}"
        for parcel in [Parcel(*row) for row in warehouse.get_records(NOT_REPORTED)]:
            try:
                if not is_at_shop(session, shop.host, parcel):
                    report(session, shop.host, parcel)
                    reported += 1
            except requests.HTTPError as error:
                # The shop rejects this parcel: the others go on. Any other error ends the try.
                failed.append(f"{parcel.order_no} (HTTP {error.response.status_code})")
            else:
                warehouse.insert_rows("parcel_reported", [parcel[: len(KEY)]], target_fields=KEY)
    if failed:
        raise RuntimeError(f"The shop rejected parcels of these orders: {', '.join(failed[:20])}")
    return reported


with DAG(
    dag_id="kk_tracking",
    schedule="*/20 * * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    # Two runs at once could both find that a parcel is not at the shop.
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=2)},
    doc_md=__doc__,
    tags=["kk"],
) as dag:
    sync = SyncOrderStatusOperator(task_id="sync_status", warehouse_conn_id=WAREHOUSE)
    sync >> report_parcels(WAREHOUSE)
