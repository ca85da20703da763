"""An API server of Airflow with users of two roles, and connections to a ledger, good and bad."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

from tests.airflow.support import AIRFLOW_VERSION
from tests.cli.conftest import record
from tests.postgres import free_port

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from tests.airflow.support import AirflowHome

HAS_PAGES = AIRFLOW_VERSION >= (3, 1)
USERS = ("olga", "victor", "paula", "anna", "bert")
PASSWORDS = {user: f"secret-of-{user}" for user in USERS}
TOKEN = "token-that-nobody-may-see"
NO_KK = "http://127.0.0.1:9"


@dataclass
class Site:
    """Airflow's API server, and what its connections lead to."""

    url: str
    ledger_file: Path
    ledger: SqlLedger
    connections: Mapping[str, str]

    def get(self, path: str, user: str | None = "olga", **params: str) -> requests.Response:
        """Ask as a user: olga may read connections, paula some, victor may only look at DAGs; None is nobody.

        Of the site with teams: anna is of team a, bert of team b.
        """
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


def kk_connection(**extra: Any) -> dict[str, Any]:
    short = {"timeout_s": 0.01, "lease_s": 0.02, "settle_window_s": 0.01}
    return {"conn_type": "kk", "host": NO_KK, "password": TOKEN, "extra": {**short, **extra}}


def sqlite(file: Path) -> dict[str, Any]:
    return {"conn_type": "sqlite", "host": str(file)}


def connections(folder: Path) -> dict[str, Any]:
    kk = {"conn_type": "kk", "host": NO_KK, "password": TOKEN}
    return {
        "kk_default": kk_connection(ledger_conn_id="ledger"),
        "ledger": sqlite(folder / "ledger.db"),
        "kk_without_token": {**kk, "password": "", "extra": {"ledger_conn_id": "ledger"}},
        "kk_without_ledger": kk,
        "kk_lost_ledger": {**kk, "extra": {"ledger_conn_id": "nowhere"}},
        "kk_new": {**kk, "extra": {"ledger_conn_id": "new"}},
        "new": sqlite(folder / "none-yet.db"),
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
        "kk_of_others": kk_connection(account="others", ledger_conn_id="others"),
        "others": sqlite(folder / "others.db"),
        "kk_with_ledger_of_others": kk_connection(account="others", ledger_conn_id="ledger_of_others"),
        "ledger_of_others": sqlite(folder / "others.db"),
    }


#: What paula may not read, as an auth manager with a rule for each connection says it.
AUTH_MANAGER = """
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager

HIDDEN = ("kk_of_others", "ledger_of_others")


class PartialAuthManager(SimpleAuthManager):
    def is_authorized_connection(self, *, method, user, details=None):
        if user.username == "paula" and details and details.conn_id in HIDDEN:
            return False
        return super().is_authorized_connection(method=method, user=user, details=details)
"""


@pytest.fixture(scope="module")
def site(migrated_home: AirflowHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not HAS_PAGES:
        pytest.skip("Airflow has pages of plugins since 3.1")
    folder = tmp_path_factory.mktemp("site")
    home = migrated_home.copy(folder / "airflow")
    home.connections.update(connections(folder))
    (home.path / "config").mkdir(exist_ok=True)
    (home.path / "config" / "partial_auth_manager.py").write_text(AUTH_MANAGER)
    home.env |= {
        "AIRFLOW__CORE__AUTH_MANAGER": "partial_auth_manager.PartialAuthManager",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "olga:op,paula:op,victor:viewer",
    }
    with served(home, folder / "ledger.db") as site:
        yield site


@pytest.fixture(scope="module")
def site_of_teams(migrated_home: AirflowHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose connections in Airflow's database belong to teams: kk_a, ledger_a, kk_b and ledger_b."""
    if AIRFLOW_VERSION < (3, 2):
        pytest.skip("Airflow has teams since 3.2")
    folder = tmp_path_factory.mktemp("teams")
    home = migrated_home.copy(folder / "airflow")
    home.env |= {
        "AIRFLOW__CORE__MULTI_TEAM": "True",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "anna:op:team_a,bert:op:team_b,olga:op",
    }
    add_connections_of_teams(home, folder)
    for team in ("a", "b"):
        ledger = ledger_in(folder / f"{team}.db", team)
        record(ledger, f"T-{team}", "created", ids=("1001",))
        ledger.close()
    with served(home, folder / "a.db") as site:
        yield site


def add_connections_of_teams(home: AirflowHome, folder: Path) -> None:
    """Make kk_a with ledger_a, kk_b with ledger_b, and kk_thief of team a that leads to what is b's."""
    made: dict[str, tuple[str, dict[str, Any]]] = {}
    for team in ("a", "b"):
        made[f"kk_{team}"] = team, kk_connection(account=team, ledger_conn_id=f"ledger_{team}")
        made[f"ledger_{team}"] = team, sqlite(folder / f"{team}.db")
    made["kk_thief"] = "a", made["kk_b"][1]
    file = home.path / "connections.json"
    file.write_text(json.dumps({conn_id: connection for conn_id, (_, connection) in made.items()}))
    home.cli("connections", "import", str(file))
    with closing(sqlite3.connect(home.path / "airflow.db")) as db, db:
        db.executemany("INSERT INTO team (name) VALUES (?)", [("team_a",), ("team_b",)])
        teams = [(f"team_{team}", conn_id) for conn_id, (team, _) in made.items()]
        db.executemany("UPDATE connection SET team_name = ? WHERE conn_id = ?", teams)


@contextmanager
def served(home: AirflowHome, ledger_file: Path, kk_url: str = NO_KK) -> Iterator[Site]:
    """Run the API server of a home."""
    (home.path / "passwords.json").write_text(json.dumps(PASSWORDS))
    port = free_port()
    home.env |= {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home.path / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "only-of-this-test-and-long-enough-for-hs512-" * 2,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
    }
    environment = home.environment()
    ledger = ledger_in(ledger_file, kk_url=kk_url)
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
    site = Site(f"http://127.0.0.1:{port}", ledger_file, ledger, environment)
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


def ledger_in(file: Path, account: str | None = None, kk_url: str = NO_KK) -> SqlLedger:
    extra = {"account": account} if account else {}
    kk = {**kk_connection(**extra), "host": kk_url}
    own = {"AIRFLOW_CONN_KK_DEFAULT": kk, "AIRFLOW_CONN_LEDGER": sqlite(file)}
    return open_ledger({name: json.dumps(value) for name, value in own.items()})


def open_ledger(environment: Mapping[str, str], conn_id: str = "ledger") -> SqlLedger:
    from airflow_provider_kk.hooks import ledger_connection
    from airflow_provider_kk.hooks.kk import KKHook

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return ledger_connection.open_ledger(KKHook(), conn_id, threads=1)
