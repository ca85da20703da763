"""An Airflow that schedules by itself, with a LocalExecutor, in a throwaway home."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from tests.airflow.support import AIRFLOW_VERSION, AirflowHome
from tests.postgres import free_port

IS_AIRFLOW_3 = AIRFLOW_VERSION >= (3,)


@dataclass(frozen=True)
class TaskTry:
    """Where a task instance is: its state, and the number of its latest try."""

    state: str | None
    number: int


@dataclass
class LiveAirflow:
    """A running Airflow. What it is told goes through its CLI, what it did is read from its database."""

    home: AirflowHome
    database_url: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def tasks(self, dag_id: str) -> dict[tuple[str, str], TaskTry]:
        """The task instances of a DAG by (run id, task id)."""
        rows = self._query(
            "SELECT run_id, task_id, state, try_number FROM task_instance WHERE dag_id = :dag_id", dag_id
        )
        return {(run_id, task_id): TaskTry(state, number) for run_id, task_id, state, number in rows}

    def runs(self, dag_id: str) -> dict[str, str]:
        """The states of a DAG's runs by run id."""
        return dict(self._query("SELECT run_id, state FROM dag_run WHERE dag_id = :dag_id", dag_id))

    def the_dag_is_known(self, dag_id: str) -> bool:
        """Whether its file has been read."""
        return bool(self._query("SELECT dag_id FROM serialized_dag WHERE dag_id = :dag_id", dag_id))

    def until_over(self, dag_id: str, runs: int = 1, tries: int = 1, timeout_s: float = 600) -> list[str]:
        """Wait until so many runs are over, with each task at this try at least; the runs' states."""

        def is_over() -> bool:
            tasks = self.tasks(dag_id).values()
            states = list(self.runs(dag_id).values())
            return (
                len(states) == runs
                and set(states) <= {"success", "failed"}
                and min((task.number for task in tasks), default=0) >= tries
            )

        self.until(is_over, timeout_s)
        return sorted(self.runs(dag_id).values())

    def until(self, condition: Callable[[], object], timeout_s: float = 600) -> None:
        """Wait for something; past `timeout_s` the test fails with the end of the logs."""
        until = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < until, self.logs()
            assert all(process.poll() is None for process in self.processes), self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        """The ends of the logs of Airflow's parts and of the tasks."""
        files = [*self.home.path.glob("*.log"), *(self.home.path / "logs").rglob("attempt=*.log")]
        return "\n".join(f"== {file}\n{last_lines(file)}" for file in files)

    def start(self, *command: str) -> None:
        """Start one of Airflow's parts."""
        with (self.home.path / f"{command[0]}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "airflow", *command],
                    env=self.home.environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def stop(self) -> None:
        """Kill all that was started, orphans included."""
        sessions = {process.pid for process in self.processes}
        for pid in [int(name) for name in os.listdir("/proc") if name.isdecimal()]:
            with suppress(OSError):
                if os.getsid(pid) in sessions:
                    os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait(30)
        self.processes.clear()

    def _query(self, sql: str, dag_id: str) -> list[Any]:
        engine = sa.create_engine(self.database_url, poolclass=sa.pool.NullPool)
        with engine.connect() as db:
            return [tuple(row) for row in db.execute(sa.text(sql), {"dag_id": dag_id})]


def last_lines(file: Path) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-60:])


@contextmanager
def live_airflow(home: AirflowHome, postgres_url: str) -> Iterator[LiveAirflow]:
    """Run Airflow in a home until the block ends; its DAGs are read once, at the start.

    Its database is one of PostgreSQL: tasks that run side by side find SQLite locked.
    """
    live = LiveAirflow(home, _new_database(postgres_url))
    home.env |= {**_settings(), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": live.database_url}
    home.path.mkdir()
    home.cli("db", "migrate")
    try:
        if IS_AIRFLOW_3:
            live.start("api-server", "--port", home.env["AIRFLOW__API__PORT"], "--workers", "1")
            live.start("dag-processor")
        live.start("scheduler")
        yield live
    finally:
        live.stop()


def _settings() -> dict[str, str]:
    port = free_port()
    lost_after_s = "10"
    return {
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "8",
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "3600",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
        "AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL": "3600",
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
        "AIRFLOW__SCHEDULER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__SCHEDULER__LOCAL_TASK_JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
        # Airflow 3's name, Airflow 2's.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": lost_after_s,
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": lost_after_s,
        "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "2",
        # Airflow's parts talk to each other over loopback, which no proxy may see.
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }


def _new_database(postgres_url: str) -> str:
    name = f"airflow_{secrets.token_hex(4)}"
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return urlsplit(postgres_url)._replace(scheme="postgresql+psycopg2", path=f"/{name}").geturl()
