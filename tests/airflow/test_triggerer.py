"""Hundreds of waiting tasks on one real triggerer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_kk.sandbox.server import SandboxServer
from tests.operators.shop import kk_connection

if TYPE_CHECKING:
    from tests.airflow.support import AirflowHome

PROCESS = Path(__file__).with_name("deferred_process.py")
SPEED = 30
"""Seconds of KK's clock in one of this machine's."""
TEN_MINUTES_S = 600 / SPEED
DAG = """\
import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kk.sensors.orders import OrderSensor

with DAG("many", start_date=pendulum.datetime(2026, 1, 1), schedule=None, catchup=False):
    for n in range(300):
        OrderSensor(task_id=f"t{n}", kk_order_id="1", deferrable=True)
"""


def test_300_deferred_sensors_on_one_triggerer_keep_the_rate_limit(airflow_home: AirflowHome, tmp_path: Path):
    began = time.time()
    with SandboxServer(clock=lambda: began + (time.time() - began) * SPEED, pay_after_s=0) as sandbox:
        kk_order_ids = [sandbox.control.place({"FWXW00290_WHT_M": 1})[0] for _ in range(300)]
        airflow_home.connections.update(
            kk_default=kk_connection(sandbox, rate_limit_burst=120, rate_limit_per_second=2 * SPEED),
            ledger={"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")},
        )
        common = {
            "kk_conn_id": "kk_default",
            "ledger_conn_id": "ledger",
            "until": "shipped",
            "any_split": False,
        }
        common |= {"poll_s": 60 / SPEED, "deadline": time.time() + 3600}
        (tmp_path / "dag.py").write_text(DAG)
        triggers = [{**common, "kk_order_ids": [kk_id]} for kk_id in kk_order_ids]
        in_airflow(airflow_home, "defer", str(tmp_path / "dag.py"), given=json.dumps(triggers))

        with triggerer(airflow_home, tmp_path / "triggerer.txt"):
            wait_for(lambda: sandbox.control.counts()["GET"] > 0, 100, tmp_path / "triggerer.txt")
            time.sleep(TEN_MINUTES_S / 2)
            for kk_id in kk_order_ids[::2]:
                sandbox.control.move(kk_id, "shipped")
            time.sleep(TEN_MINUTES_S / 2)
            minutes = (time.time() - began) * SPEED / 60
            counts = sandbox.control.counts()
            wait_for(lambda: states(airflow_home).get("scheduled") == 150, 60, tmp_path / "triggerer.txt")
        assert states(airflow_home) == {"deferred": 150, "scheduled": 150}

    assert counts["rate_limited"] == 0
    # 6 requests a look, 3 after half of the orders are there, and a look a minute.
    assert 6 < counts["GET"] <= 6 * (minutes + 1)


@contextmanager
def triggerer(home: AirflowHome, log_file: Path) -> Iterator[None]:
    """A triggerer for as long as the block lasts."""
    with log_file.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"],
            env=home.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(300)


def in_airflow(home: AirflowHome, *arguments: str, given: str = "") -> str:
    done = subprocess.run(
        [sys.executable, str(PROCESS), *arguments],
        env=home.environment(),
        input=given,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def states(home: AirflowHome) -> dict[str, int]:
    found: dict[str, int] = json.loads(in_airflow(home, "states").rpartition("STATES ")[2])
    return found


def wait_for(condition: Callable[[], bool], timeout_s: float, log_file: Path) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until, log_file.read_text(errors="replace")
        time.sleep(0.2)
