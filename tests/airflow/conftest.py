"""A shop with an Airflow of its own: its warehouse and connections, and DAGs that send its orders."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.operators.shop import SELECT, Warehouse, attempt, kk_connection

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.airflow.support import AirflowHome, DagRunResult, RunningDag
    from tests.operators.shop import Try

DAG = """\
import datetime
import pathlib
import time

import pendulum
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kk.operators.orders import SyncOrdersOperator


def wait_at_gate(context):
    gate = (context["dag_run"].conf or {{}}).get("gate")
    if gate:
        name = context["ti"].task_id
        pathlib.Path(gate, name + " is here").touch()
        while not pathlib.Path(gate, name + " may go").exists():
            time.sleep(0.01)


with DAG("shop", start_date=pendulum.datetime(2026, 1, 1), schedule=None, catchup=False, **{dag!r}):
    before = None
    for name, arguments in {tasks!r}.items():
        task = SyncOrdersOperator(
            task_id=name, warehouse_conn_id="warehouse", pre_execute=wait_at_gate, **arguments
        )
        if before:
            before >> task
        before = task
"""

#: Whatever Python or Airflow has to warn of in our code is an error, in every process of the home.
LOCAL_SETTINGS = """\
import warnings

warnings.filterwarnings("error", module="airflow_provider_kk")
"""


@dataclass
class Shop:
    """The shop's orders in `warehouse`, KK in `sandbox`, Airflow in `home`."""

    home: AirflowHome
    sandbox: SandboxServer
    warehouse: Warehouse
    path: Path
    monkeypatch: pytest.MonkeyPatch
    homes: int = field(default=0)

    def connect(self, **extra: Any) -> None:
        """Make the connection `kk_default` anew, with these extras."""
        self.home.connections["kk_default"] = kk_connection(self.sandbox, **extra)

    def dag(
        self,
        tasks: Mapping[str, Mapping[str, Any]] | None = None,
        dag: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> str:
        """The text of a DAG with a task `sync` with these arguments, or with these `tasks` in a row."""
        tasks = tasks or {"sync": arguments}
        given = {
            name: {"sql": SELECT, "retry_delay": datetime.timedelta(0), **own} for name, own in tasks.items()
        }
        return DAG.format(tasks=given, dag=dict(dag or {}))

    def run(self, dag: str, **options: Any) -> DagRunResult:
        """Run a DAG to its end."""
        return self.home.run_dag(dag, **options)

    def start(self, dag: str, **options: Any) -> Gated:
        """Start a DAG, on an Airflow of its own, whose tasks wait at a gate."""
        self.homes += 1
        home = self.home.copy(self.path / f"home-{self.homes}")
        gate = self.path / f"gate-{self.homes}"
        gate.mkdir()
        return Gated(home.start_dag(dag, conf={"gate": str(gate)}, **options), gate)

    def attempt(self, operator: Any, **options: Any) -> Try:
        """One more try in this process, with the same connections."""
        for name, value in self.home.connections.items():
            self.monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(value))
        return attempt(operator, **options)


@dataclass
class Gated:
    """A DAG run each of whose tasks waits at a gate until it is opened."""

    run: RunningDag
    gate: Path

    def wait_until_there(self, task_id: str = "sync", timeout_s: float = 600) -> None:
        until = time.monotonic() + timeout_s
        while not (self.gate / f"{task_id} is here").exists():
            assert self.run.process.poll() is None, self.run.log()
            assert time.monotonic() < until, self.run.log()
            time.sleep(0.02)

    def open(self, task_id: str = "sync") -> None:
        (self.gate / f"{task_id} may go").touch()


@pytest.fixture
def shop(
    airflow_home: AirflowHome, sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Shop:
    """A shop with an empty warehouse, whose file is the ledger too."""
    (airflow_home.path / "config").mkdir(exist_ok=True)
    (airflow_home.path / "config" / "airflow_local_settings.py").write_text(LOCAL_SETTINGS)
    shop = Shop(airflow_home, sandbox, Warehouse(tmp_path / "warehouse.db"), tmp_path, monkeypatch)
    airflow_home.connections["warehouse"] = shop.warehouse.connection
    sandbox.control.set(rate_limit=False)
    shop.connect()
    return shop
