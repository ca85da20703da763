"""The DAGs that people copy first run as they are."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from tests.airflow.support import AIRFLOW_VERSION, EXAMPLE_DAGS
from tests.operators.shop import address, goods, ids_at_kk, nonzero, number

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop
    from tests.airflow.support import AirflowHome

pytestmark = pytest.mark.range
SKU = "FWXW00290_WHT_M"
DAY = 86_400
READ_DAGS_FOLDER = """
import json
try:
    from airflow.dag_processing.dagbag import DagBag
except ImportError:  # before Airflow 3.2
    from airflow.models.dagbag import DagBag
bag = DagBag()
print("FOUND", json.dumps([sorted(bag.dags), bag.import_errors]))
"""


def fill(shop: Shop, numbers: range) -> None:
    """The tables as the example has them."""
    heads = [{"order_no": number(n), "ordered_at": "2026-06-01", **address(n)} for n in numbers]
    lines = [(number(n), *line) for n in numbers for line in enumerate(goods(n).items())]
    with closing(sqlite3.connect(shop.warehouse.path)) as db, db:
        db.executescript((EXAMPLE_DAGS / "warehouse.sql").read_text())
        for head in heads:
            marks = ", ".join("?" * len(head))
            values = list(head.values())
            db.execute(f"INSERT INTO shop_order ({', '.join(head)}) VALUES ({marks})", values)
        for no, line, (sku, quantity) in lines:
            db.execute("INSERT INTO shop_order_line VALUES (?, ?, ?, ?)", (no, line, sku, quantity))


def test_every_example_is_imported_without_an_error(airflow_home: AirflowHome):
    done = subprocess.run(
        [sys.executable, "-c", READ_DAGS_FOLDER],
        env=airflow_home.environment(EXAMPLE_DAGS),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    dags, errors = json.loads(done.stdout.rpartition("FOUND ")[2])

    assert errors == {}
    files = {path.stem for path in EXAMPLE_DAGS.glob("*.py")}
    assert set(dags) == files - (set() if AIRFLOW_VERSION >= (3, 1) else {"kk_approval", "kk_held_orders"})


def test_the_sync_sends_new_orders_and_writes_their_ids_back(shop: Shop):
    fill(shop, range(10))
    shop.warehouse.execute("UPDATE shop_order SET country = 'Nowhere' WHERE order_no = 'S-0003'")
    shop.warehouse.execute("UPDATE shop_order_line SET sku = 'NO_SUCH' WHERE order_no = 'S-0006'")

    result = shop.run(EXAMPLE_DAGS / "kk_sync_orders.py")

    assert result.state == "success", result.log
    assert nonzero(result.xcoms["sync_orders"]["return_value"]) == {"created": 8, "rejected": 1, "invalid": 1}
    assert shop.sandbox.control.counts()["creates"] == 9
    table = shop.warehouse.execute("SELECT order_no, kk_state, kk_order_ids FROM shop_order")
    states = {no: state for no, state, _ in table}
    assert (states.pop("S-0003"), states.pop("S-0006")) == ("invalid", "rejected")
    assert set(states.values()) == {"created"}
    assert {no: sorted(ids.split(",")) for no, _, ids in table if ids} == ids_at_kk(shop.sandbox)


def test_single_orders_from_params_from_a_task_and_mapped(shop: Shop):
    conf = {"quantity": 7, "remark": "a 'quoted' note"}

    result = shop.run(EXAMPLE_DAGS / "kk_create_order.py", conf=conf)

    assert result.state == "success", result.log
    created = {one["id"]: one for one in shop.sandbox.control.orders()}
    ids = {name: pushed["kkOrderId"] for name, pushed in result.xcoms.items() if "kkOrderId" in pushed}
    assert ids.keys() == {"from_params", "from_xcom", "mapped[0]", "mapped[1]", "mapped[2]"}
    assert sorted(ids.values()) == sorted(created)
    assert created[ids["from_params"]]["goods"] == {SKU: 7}
    assert created[ids["from_params"]]["remark"] == "a 'quoted' note"
    assert created[ids["from_xcom"]]["number"].startswith("SAMPLE-")
    mapped = [created[ids[f"mapped[{index}]"]]["goods"] for index in range(3)]
    assert mapped == [{SKU: 1}, {SKU: 2}, {SKU: 3}]


def test_statuses_and_parcels_are_written_to_the_warehouse(shop: Shop):
    # Days pass at KK, and none of them lies ahead of this machine's clock.
    shop.sandbox.control.advance(-20 * DAY)
    ids = [shop.sandbox.control.place({SKU: 1}, number=number(n))[0] for n in range(3)]
    shop.sandbox.control.move(ids[1], "shipped")
    shop.sandbox.control.move(ids[2], "cancel")
    shop.sandbox.control.advance(DAY)

    result = shop.run(EXAMPLE_DAGS / "kk_sync_status.py")

    assert result.state == "success", result.log
    summary = result.xcoms["sync_status"]["return_value"]
    assert (summary["orders"], summary["changed"], summary["odd"]) == (3, 3, 0)
    statuses = shop.warehouse.execute("SELECT custom_order_number, status FROM kk_order_status ORDER BY 1")
    assert statuses == [(number(0), "paid"), (number(1), "shipped"), (number(2), "cancelled")]
    assert shop.warehouse.execute("SELECT kk_order_id, tracking_code FROM kk_package") == [
        (ids[1], f"YT{ids[1]}1")
    ]


class ShopApi(BaseHTTPRequestHandler):
    """The shop's API: it lists and takes an order's parcels, and may lose answers to accepted ones."""

    parcels: list[tuple[str, str]]
    lost_answers: int
    rejected_order: str

    def do_GET(self) -> None:
        codes = [code for no, code in self.parcels if no == self.order_no]
        self._answer(200, [{"tracking_code": code} for code in codes])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.order_no == self.rejected_order:
            self._answer(422, {})
            return
        self.parcels.append((self.order_no, body["tracking_code"]))
        if type(self).lost_answers:
            type(self).lost_answers -= 1
            self.close_connection = True
            return
        self._answer(201, {})

    def log_message(self, *_: object) -> None:
        pass

    @property
    def order_no(self) -> str:
        return self.path.split("/")[2]

    def _answer(self, status: int, body: object) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def shop_api(shop: Shop, lost_answers: int = 0, rejected_order: str = "") -> Iterator[list[tuple[str, str]]]:
    """Run the shop's API, and yield its parcels as (order number, tracking code)."""
    fields = {"parcels": [], "lost_answers": lost_answers, "rejected_order": rejected_order}
    handler = type("Handler", (ShopApi,), fields)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        shop.home.connections["shop"] = {"conn_type": "http", "host": url, "password": "shop-token"}
        yield handler.parcels
        server.shutdown()


def ship(shop: Shop, numbers: range) -> list[tuple[str, str]]:
    """Make shipped orders at KK, and return their numbers with the tracking codes."""
    shop.sandbox.control.advance(-20 * DAY)
    ids = {number(n): shop.sandbox.control.place({SKU: 1}, number=number(n))[0] for n in numbers}
    for kk_order_id in ids.values():
        shop.sandbox.control.move(kk_order_id, "shipped")
    shop.sandbox.control.advance(DAY)
    return [(no, f"YT{kk_order_id}1") for no, kk_order_id in ids.items()]


def test_each_parcel_of_the_shop_is_reported_once_over_reruns(shop: Shop):
    fill(shop, range(3))
    # The last order is another shop's on the same KK store.
    shipped = ship(shop, range(4))[:3]

    with shop_api(shop) as parcels:
        first = shop.run(EXAMPLE_DAGS / "kk_tracking.py", logical_date="2026-06-01T00:00:00+00:00")
        cleared = shop.run(EXAMPLE_DAGS / "kk_tracking.py", logical_date="2026-06-01T00:00:00+00:00")
        # As after a restored backup of the warehouse.
        shop.warehouse.execute("DELETE FROM parcel_reported")
        second = shop.run(EXAMPLE_DAGS / "kk_tracking.py")

    assert [run.state for run in (first, cleared, second)] == ["success"] * 3, first.log
    counts = [run.xcoms["report_parcels"]["return_value"] for run in (first, cleared, second)]
    assert counts == [3, 0, 0]
    assert sorted(parcels) == shipped


def test_a_parcel_whose_answer_is_lost_is_not_reported_again_by_the_retry(shop: Shop):
    fill(shop, range(3))
    shipped = ship(shop, range(3))
    at_once = (EXAMPLE_DAGS / "kk_tracking.py").read_text().replace("minutes=2", "seconds=0")

    with shop_api(shop, lost_answers=1) as parcels:
        result = shop.run(at_once)

    assert result.state == "success", result.log
    assert result.xcoms["report_parcels"]["return_value"] == 2
    assert sorted(parcels) == shipped


def test_a_parcel_that_the_shop_rejects_stops_no_other(shop: Shop):
    fill(shop, range(3))
    shipped = ship(shop, range(3))
    without_retries = (EXAMPLE_DAGS / "kk_tracking.py").read_text().replace('"retries": 2', '"retries": 0')

    with shop_api(shop, rejected_order=number(1)) as parcels:
        result = shop.run(without_retries)

    assert result.state == "failed"
    if AIRFLOW_VERSION[:2] != (3, 0):  # there dag.test() prints no error of a function
        assert f"The shop rejected parcels of these orders: {number(1)} (HTTP 422)" in result.log
    assert sorted(parcels) == [shipped[0], shipped[2]]


def test_lines_of_an_order_are_refunded_once(shop: Shop):
    with closing(sqlite3.connect(shop.warehouse.path)) as db, db:
        db.executescript((EXAMPLE_DAGS / "warehouse.sql").read_text())
    conf = {"quantity": 3}
    created = shop.run(EXAMPLE_DAGS / "kk_create_order.py", conf=conf)
    assert created.state == "success", created.log
    kk_id = created.xcoms["from_params"]["kkOrderId"]
    (number,) = [one["number"] for one in shop.sandbox.control.orders() if one["id"] == kk_id]
    shop.sandbox.control.set(refund_after_s=0)

    conf = {"custom_order_number": number, "lines": [{"sku": SKU, "quantity": 2}]}
    result = shop.run(EXAMPLE_DAGS / "kk_refund_lines.py", conf=conf)

    assert result.state == "success", result.log
    (row,) = result.xcoms["refund_lines"]["return_value"]
    assert (row["kk_order_id"], row["refund_status"]) == (kk_id, "refund_successfully")
    assert shop.sandbox.control.counts()["refunds"] == 1


def test_an_order_is_followed_until_its_parcel_is_on_the_way(shop: Shop):
    shop.sandbox.control.set(pay_after_s=0, pack_after_s=0, ship_after_s=0)

    result = shop.run(EXAMPLE_DAGS / "kk_order_lifecycle.py")

    ended = {"create_order": "success", "wait_until_shipped": "success", "notify": "success"}
    assert result.tasks == {**ended, "refund_order": "skipped"}, result.log
    (order,) = shop.sandbox.control.orders()
    assert f"Order {order['number']}: YunExpress YT{order['id']}1" in result.log
    assert shop.sandbox.control.counts()["refunds"] == 0


def test_an_order_that_is_not_shipped_in_time_is_refunded(shop: Shop):
    shop.sandbox.control.set(pay_after_s=0, refund_after_s=0)
    in_short = (EXAMPLE_DAGS / "kk_order_lifecycle.py").read_text().replace("days=5", "seconds=3")

    result = shop.run(in_short)

    ended = {"create_order": "success", "wait_until_shipped": "skipped", "notify": "skipped"}
    assert result.tasks == {**ended, "refund_order": "success"}, result.log
    (order,) = shop.sandbox.control.orders()
    assert order["state"] == "refunded"
    assert shop.sandbox.control.counts()["refunds"] == 1
