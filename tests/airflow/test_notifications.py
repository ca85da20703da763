"""What Airflow's metrics and callbacks are told, in real runs: by StatsD, by an alert, by a deadline."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.airflow.support import AIRFLOW_VERSION, EXAMPLE_DAGS
from tests.airflow.test_examples import fill
from tests.operators.shop import PRIVATE

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop

ALERTS = EXAMPLE_DAGS / "kk_alerts.py"


@contextmanager
def statsd() -> Iterator[tuple[int, list[str]]]:
    """A StatsD server's port, and what it is told."""
    told: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def listen() -> None:
            while packet := server.recv(65_536):
                told.extend(packet.decode().splitlines())

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield server.getsockname()[1], told
        finally:
            server.sendto(b"", server.getsockname())
            thread.join()


def test_a_sync_emits_metrics_and_calls_its_callback(shop: Shop):
    fill(shop, range(4))
    shop.warehouse.execute("UPDATE shop_order SET country = 'Nowhere' WHERE order_no IN ('S-0000', 'S-0001')")
    shop.warehouse.execute("UPDATE shop_order_line SET sku = 'NO_SUCH' WHERE order_no = 'S-0002'")
    with statsd() as (port, told):
        shop.home.env |= {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(port),
            "AIRFLOW__METRICS__STATSD_INFLUXDB_ENABLED": "True",
        }
        result = shop.run(ALERTS)

    assert result.state == "failed", result.log
    run = f"kk_alerts {result.run_id}"
    assert f"ALERT: {run}: of 4 orders 1 rejected by KK, 2 invalid" in result.log
    assert "import Stats' is deprecated" not in result.log
    tags = ",account=default,dag_id=kk_alerts,task_id=sync_orders"
    requests = len(shop.sandbox.control.requests())
    assert sorted(line for line in told if ".kk." in line and ".bucket." not in line) == [
        "airflow.kk.ledger.held,account=default:0|g",
        "airflow.kk.ledger.in_doubt,account=default:0|g",
        f"airflow.kk.orders.created{tags}:1|c",
        f"airflow.kk.orders.invalid{tags}:2|c",
        f"airflow.kk.orders.rejected{tags}:1|c",
        f"airflow.kk.requests.sent{tags}:{requests}|c",
    ]
    assert any(line.startswith(f"airflow.kk.bucket.wait{tags}:0.0") for line in told)
    assert not [word for word in PRIVATE if word in "".join(told)]


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 3), reason="calls no function of a DAG file before")
def test_a_missed_deadline_calls_the_function_of_the_dag_file(caplog: pytest.LogCaptureFixture):
    import structlog
    from airflow.dag_processing.dagbag import DagBag
    from airflow.sdk.execution_time.callback_supervisor import execute_callback

    (alert,) = DagBag(str(ALERTS)).dags["kk_alerts"].deadline

    # As an executor does.
    done = execute_callback(
        alert.callback.path,
        {"context": {"dag_run": {"dag_id": "kk_alerts", "dag_run_id": "manual__1"}}},
        ALERTS.name,
        ALERTS.parent,
        structlog.get_logger(),
    )

    assert done == (True, None)
    assert "ALERT: kk_alerts manual__1: not over after 1:00:00" in caplog.text
