"""An API server of Airflow with users of two roles, and connections to a ledger, good and bad."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.airflow.support import AIRFLOW_VERSION
from tests.postgres import free_port

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.ledger import SqlLedger
    from tests.airflow.support import AirflowHome

HAS_PAGES = AIRFLOW_VERSION >= (3, 1)
PASSWORDS = {"olga": "secret-of-olga", "victor": "secret-of-victor"}
TOKEN = "token-that-nobody-may-see"


@dataclass
class Site:
    """Airflow's API server, and what its connections lead to."""

    url: str
    ledger_file: Path
    ledger: SqlLedger
    connections: Mapping[str, str]

    def get(self, path: str, user: str | None = "olga", **params: str) -> requests.Response:
        """Ask as a user: olga may read connections, victor may only look at DAGs; None is nobody."""
        headers = {"Authorization": f"Bearer {self._jwt(user)}"} if user else {}
        with requests.Session() as session:
            session.trust_env = False
            return session.get(self.url + path, params=params, headers=headers, timeout=300)

    def _jwt(self, user: str) -> str:
        with requests.Session() as session:
            session.trust_env = False
            credentials = {"username": user, "password": PASSWORDS[user]}
            return str(
                session.post(f"{self.url}/auth/token", json=credentials, timeout=300).json()["access_token"]
            )


def connections(folder: Path) -> dict[str, Any]:
    kk = {"conn_type": "kk", "host": "http://127.0.0.1:9", "password": TOKEN}
    short = {"timeout_s": 0.01, "lease_s": 0.02, "settle_window_s": 0.01}
    return {
        "kk_default": {**kk, "extra": {**short, "ledger_conn_id": "ledger"}},
        "ledger": {"conn_type": "sqlite", "host": str(folder / "ledger.db")},
        "kk_without_token": {**kk, "password": "", "extra": {"ledger_conn_id": "ledger"}},
        "kk_without_ledger": kk,
        "kk_lost_ledger": {**kk, "extra": {"ledger_conn_id": "nowhere"}},
        "kk_new": {**kk, "extra": {"ledger_conn_id": "new"}},
        "new": {"conn_type": "sqlite", "host": str(folder / "none-yet.db")},
        "kk_down": {**kk, "extra": {"ledger_conn_id": "down"}},
        "down": {
            "conn_type": "postgres",
            "host": "127.0.0.1",
            "port": free_port(),
            "schema": "db",
            "password": "pw-of-db",
        },
        "kk_odd": {**kk, "extra": {"ledger_conn_id": "odd"}},
        "odd": {"conn_type": "snowfall", "host": "x", "password": "pw-of-db"},
    }


@pytest.fixture(scope="module")
def site(migrated_home: AirflowHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not HAS_PAGES:
        pytest.skip("Airflow has pages of plugins since 3.1")
    folder = tmp_path_factory.mktemp("site")
    home = migrated_home.copy(folder / "airflow")
    home.connections.update(connections(folder))
    (home.path / "passwords.json").write_text(json.dumps(PASSWORDS))
    port = free_port()
    home.env |= {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "olga:op,victor:viewer",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home.path / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "only-of-this-test-and-long-enough-for-hs512-" * 2,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
    }
    environment = home.environment()
    ledger = open_ledger(
        {name: environment[name] for name in environment if name.startswith("AIRFLOW_CONN_")}
    )
    log = home.path / "api-server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "airflow", "api-server", "--port", str(port), "--workers", "1"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    site = Site(f"http://127.0.0.1:{port}", folder / "ledger.db", ledger, environment)
    try:
        wait_until_up(site, process, log)
        yield site
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(300)
        ledger.close()


def wait_until_up(site: Site, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 600
    while True:
        try:
            if site.get("/api/v2/version", user=None).ok:
                return
        except requests.ConnectionError:
            pass
        is_failed = process.poll() is not None or time.monotonic() > until
        assert not is_failed, log.read_text(errors="replace")
        time.sleep(0.2)


def open_ledger(environment: Mapping[str, str], conn_id: str = "ledger") -> SqlLedger:
    from airflow_provider_kk.hooks import ledger
    from airflow_provider_kk.hooks.kk import KKHook

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return ledger.open_ledger(KKHook(), conn_id, threads=1)
