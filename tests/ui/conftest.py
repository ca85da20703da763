"""`airflow standalone` on the demo's data, a run of its DAG, a held order, and a browser, logged in."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from airflow_provider_kk.delivery.sql.storage import refund_ledger
from demo import warehouse
from demo.airflow import connections
from demo.orders import arm, make_orders
from tests.airflow.support import AIRFLOW_VERSION, EXAMPLE_DAGS
from tests.plugins.conftest import PASSWORDS, open_ledger
from tests.postgres import free_port

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from tests.airflow.support import AirflowHome

DAG_ID = "kk_sync_orders"
SENT = "SO-20411"
HELD = "SO-20499"
#: A busy machine needs so long for the slowest answer.
_TIMEOUT_S = 180


@dataclass
class Ui:
    """Airflow's UI, in which the demo's DAG has run once."""

    url: str
    run_id: str
    created: int
    """How many orders the ledger has as created."""
    kk_order_id: str
    """Of the order `SENT`, for which a refund is held."""
    environment: Mapping[str, str] = field(repr=False)


@pytest.fixture(scope="session")
def ui(migrated_home: AirflowHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    if AIRFLOW_VERSION < (3, 1):
        pytest.skip("Airflow has pages of plugins since 3.1")
    from airflow_provider_kk.sandbox.server import SandboxServer

    folder = tmp_path_factory.mktemp("ui")
    home = migrated_home.copy(folder / "airflow")
    database = folder / "warehouse.db"
    orders = make_orders()
    warehouse.create(database, orders)
    port = free_port()
    with SandboxServer() as kk:
        arm(kk.control, orders)
        home.env |= settings(home.path, port) | connections(kk.url, kk.token, database)
        with running(home.environment(EXAMPLE_DAGS), home.path / "standalone.log") as is_up:
            api = Api(f"http://127.0.0.1:{port}")
            wait_for(api.is_healthy, is_up)
            run_id = api.run(DAG_ID, is_up)
            rows = warehouse.ledger(database)
            (kk_order_id,) = json.loads(rows[SENT][1])
            hold(home.environment(), HELD)
            hold(home.environment(), f"{kk_order_id}-whole", are_refunds=True)
            created = [state for state, _ in rows.values()].count("created")
            yield Ui(api.url, run_id, created, kk_order_id, home.environment())


def settings(home: Path, port: int) -> dict[str, str]:
    (home / "passwords.json").write_text(json.dumps(PASSWORDS))
    url = f"http://127.0.0.1:{port}"
    return {
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(64),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "olga:op,victor:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


@contextmanager
def running(environment: Mapping[str, str], log: Path) -> Iterator[Callable[[], None]]:
    """`airflow standalone`; what is given fails with the end of its log when it has ended."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "standalone"],
            env={**environment, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def is_up() -> None:
        assert process.poll() is None, log.read_text(errors="replace")[-5_000:]

    try:
        yield is_up
    finally:
        for pid in [int(name) for name in os.listdir("/proc") if name.isdecimal()]:
            with suppress(OSError):
                if os.getsid(pid) == process.pid:
                    os.kill(pid, signal.SIGKILL)
        process.wait(30)


class Api:
    """Airflow's API, as the user olga."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()
        self._session.trust_env = False

    def is_healthy(self) -> bool:
        try:
            parts = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=10).json()
        except (requests.RequestException, ValueError):
            return False
        names = ("metadatabase", "scheduler", "dag_processor")
        return all(parts[name]["status"] == "healthy" for name in names)

    def run(self, dag_id: str, is_up: Callable[[], None]) -> str:
        """Switch a DAG on, which runs at once, and wait until it has succeeded; the run's id."""
        credentials = {"username": "olga", "password": PASSWORDS["olga"]}
        answer = self._session.post(f"{self.url}/auth/token", json=credentials, timeout=_TIMEOUT_S).json()
        self._session.headers["Authorization"] = f"Bearer {answer['access_token']}"
        dag = f"{self.url}/api/v2/dags/{dag_id}"
        wait_for(lambda: self._session.get(dag, timeout=_TIMEOUT_S).ok, is_up)
        self._session.patch(dag, json={"is_paused": False}, timeout=_TIMEOUT_S).raise_for_status()

        def succeeded() -> list[dict[str, Any]]:
            runs = self._session.get(f"{dag}/dagRuns", timeout=_TIMEOUT_S).json()["dag_runs"]
            return [run for run in runs if run["state"] == "success"]

        wait_for(succeeded, is_up)
        return str(succeeded()[0]["dag_run_id"])


def wait_for(condition: Callable[[], object], is_up: Callable[[], None]) -> None:
    until = time.monotonic() + 400
    while not condition():
        is_up()
        assert time.monotonic() < until
        time.sleep(0.3)


def hold(environment: Mapping[str, str], *keys: str, are_refunds: bool = False) -> None:
    """Let KK keep silent about orders or refunds until they are held, and their settle windows are over."""
    from airflow_provider_kk.delivery.model import AttemptResult, Content, Job, Origin
    from airflow_provider_kk.delivery.states import Event

    mine = {name: value for name, value in environment.items() if name.startswith("AIRFLOW_CONN_")}
    ledger = open_ledger(mine, "warehouse")
    place = refund_ledger(ledger) if are_refunds else ledger
    for key in keys:
        job = Job(key, Content("1:x", {"FWXW00290_WHT_M": 1}, "FR"), send=lambda check: [], redact=str)
        claim = place.claim(job, None, origin=Origin(DAG_ID, "manual", "sync_orders", -1, 1), sync_id="s")
        assert claim is not None
        row = place.record(claim, AttemptResult(Event.UNKNOWN, (), None, "the connection was reset"))
        place.hold(row, Event.GIVEN_UP, "not in KK's list")
        time.sleep(max(0.0, row.settle_after - ledger.now()))
    ledger.close()


@pytest.fixture(scope="session")
def browser(ui: Ui) -> Iterator[Chrome]:
    """Debian's chromium, logged in as olga."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1360,900",
        "--no-proxy-server",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        driver.set_page_load_timeout(_TIMEOUT_S)
        log_in(driver, ui.url)
        yield driver
    finally:
        driver.quit()


def log_in(driver: Chrome, url: str, user: str = "olga") -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(url)
    wait = WebDriverWait(driver, _TIMEOUT_S)
    wait.until(lambda d: d.find_elements(By.NAME, "username"))[0].send_keys(user)
    driver.find_element(By.NAME, "password").send_keys(PASSWORDS[user], Keys.ENTER)
    wait.until(lambda d: "/auth/" not in d.current_url)
