"""Airflow on several machines, all of them this one: PostgreSQL, Redis, a scheduler, Celery workers.

    python -m tests.system.stack run     every scenario, then the report
    python -m tests.system.stack up      stays until Ctrl-C, or until `down` from another terminal
    python -m tests.system.stack down

On loopback only, in a folder that is thrown away. PostgreSQL has two databases: `airflow` for Airflow, `shop`
for the warehouse and the ledger. KK is the sandbox.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import airflow
import psutil
import psycopg2

from airflow_provider_kk.sandbox.server import SandboxServer
from demo.processes import exit_on_signals
from tests.operators.shop import COLUMNS
from tests.postgres import find_binaries, free_port, throwaway_postgres
from tests.system.guard import kill_sessions, processes_of

T = TypeVar("T")

IS_AIRFLOW_3 = airflow.__version__.startswith("3.")
REPOSITORY = Path(__file__).parents[2]
PID_FILE = REPOSITORY / "build" / "system-stack.pid"
#: KK's bucket, scaled: 240 orders take 30 s.
BURST, PER_SECOND = 60, 6
#: What is in doubt is settled 12 s after its intent; no call takes as long as this, even on a busy machine.
TIMES = {"timeout_s": 3, "lease_s": 6, "settle_window_s": 3}
#: A busy machine needs this long to start the slowest of all these processes.
START_S = 180.0
_KK = "import sys; from airflow_provider_kk.cli.main import main; sys.exit(main())"


class Stack:
    """What runs; `worker` starts one more machine."""

    def __init__(
        self, folder: Path, guard: subprocess.Popen[bytes], postgres_url: str, kk: SandboxServer
    ) -> None:
        self.folder = folder
        self.postgres_url = postgres_url
        self.kk = kk
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self._last_worker = 0
        self._servers: dict[str, subprocess.Popen[bytes]] = {}
        self._guard = guard
        self._started: list[subprocess.Popen[bytes]] = []
        self._redis_port = free_port()
        self._api_port = free_port()
        self.env = {**_inherited(), **self._settings()}

    # Starting and ending --------------------------------------------------------------------------

    def start(self) -> None:
        """Bring everything up but the workers."""
        self._tell_guard(str(self.folder))
        # PostgreSQL is stopped by who started it; the guard does it should that one be killed.
        [(postmaster,)] = self.ask("postgres", "SELECT pg_read_file('postmaster.pid')")
        pid, data, *_ = postmaster.splitlines()
        self._tell_guard(pid)
        self._tell_guard(str(Path(data).parent))
        for database in ("airflow", "shop"):
            self._execute("postgres", f"CREATE DATABASE {database}")
        self._execute("shop", f"CREATE TABLE order_line (batch text, part integer, {_columns()})")
        dags = self.folder / "dags"
        dags.mkdir()
        (dags / "shop.py").write_text(Path(__file__).with_name("shop_dag.py").read_text())
        self.start_process("redis", "redis-server", "--bind", "127.0.0.1", "--port", str(self._redis_port),
                           "--save", "", "--appendonly", "no", "--dir", str(self.folder))  # fmt: skip
        self.airflow("db", "migrate")
        if IS_AIRFLOW_3:
            options = ("--host", "127.0.0.1", "--port", str(self._api_port), "--workers", "1")
            self._servers["api-server"] = self.start_airflow("api-server", *options)
            self._servers["dag-processor"] = self.start_airflow("dag-processor")
        self._servers["scheduler"] = self.start_airflow("scheduler")
        known = "SELECT 1 FROM serialized_dag"
        self.wait_until(lambda: self.ask("airflow", known), "the DAG is known", START_S)

    def worker(self, *, concurrency: int = 4, **settings: str) -> str:
        """Start a worker with a host name, and further environment, of its own; see `wait_for_workers`."""
        self._last_worker += 1
        name = f"worker-{self._last_worker}"
        self.workers[name] = self.start_airflow(
            "celery", "worker", "--celery-hostname", f"celery@{name}", "--concurrency", str(concurrency),
            "--queues", "default", "--pid", str(self.folder / f"{name}.pid"), "--skip-serve-logs",
            name=name, **settings,
        )  # fmt: skip
        return name

    def wait_for_workers(self) -> None:
        """Wait until every worker takes tasks."""
        for name in self.workers:
            self.wait_until(lambda name=name: "ready." in self.log(name), f"{name} is ready", START_S)

    def end_workers(self) -> None:
        """Kill all workers, with all that they have started."""
        kill_sessions(process.pid for process in self.workers.values())
        self.workers.clear()

    def end(self) -> None:
        """Kill everything."""
        kill_sessions(process.pid for process in self._started)
        for process in self._started:
            process.wait()

    def running(self) -> list[str]:
        """The command lines of all that runs, orphans included."""
        found = []
        for process in processes_of(process.pid for process in self._started):
            with suppress(Exception):
                found.append(" ".join(process.cmdline()))
        return found

    # Using it -------------------------------------------------------------------------------------

    def airflow(self, *arguments: str, **settings: str) -> str:
        """What `airflow ...` prints. Raises when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments], env={**self.env, **settings}, cwd=self.folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"airflow {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def run_kk(self, *arguments: str) -> str:
        """Run `kk ...` as on a machine of its own: it shares the connections, and nothing of Airflow.

        Return what it prints; it raises when the command fails.
        """
        home = Path(tempfile.mkdtemp(prefix="home-", dir=self.folder))
        connections = {name: self.env[name] for name in ("AIRFLOW_CONN_KK_DEFAULT", "AIRFLOW_CONN_WAREHOUSE")}
        done = subprocess.run(
            [sys.executable, "-c", _KK, *arguments, "--ledger", "warehouse"], cwd=home,
            env={**_inherited(), **connections, "AIRFLOW_HOME": str(home)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"kk {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def ask(self, database: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with closing(self._connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql, values)
            return list(cursor.fetchall())

    def add_orders(self, rows: list[tuple[Any, ...]]) -> None:
        """Put lines into the warehouse: batch, part, then the shop's columns."""
        with closing(self._connect("shop")) as connection, connection.cursor() as cursor:
            marks = ", ".join(["%s"] * (2 + len(COLUMNS)))
            cursor.executemany(f"INSERT INTO order_line VALUES ({marks})", rows)

    def log(self, name: str) -> str:
        """What a process has printed."""
        return (self.folder / f"{name}.log").read_text(errors="replace")

    def wait_until(self, check: Callable[[], T], what: str, limit_s: float, every_s: float = 0.2) -> T:
        """The first true value. Raises TimeoutError, or RuntimeError, with the ends of all logs."""
        until = time.monotonic() + limit_s
        while not (found := check()):
            if ended := [name for name, process in self._servers.items() if process.poll() is not None]:
                raise RuntimeError(f"{', '.join(ended)} has ended\n{self.log_ends()}")
            if time.monotonic() > until:
                raise TimeoutError(f"after {limit_s:.0f} s it does not hold that {what}\n{self.log_ends()}")
            time.sleep(every_s)
        return found

    def log_ends(self) -> str:
        """The last lines of each log."""
        files = sorted(self.folder.glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-3000:]}" for file in files)

    # How ------------------------------------------------------------------------------------------

    def start_airflow(self, *arguments: str, name: str = "", **settings: str) -> subprocess.Popen[bytes]:
        return self.start_process(
            name or arguments[0], sys.executable, "-m", "airflow", *arguments, **settings
        )

    def start_process(
        self, name: str, *command: str, cwd: Path | None = None, **settings: str
    ) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own, which the guard knows of."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**self.env, **settings},
                cwd=cwd or self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append(process)
        self._tell_guard(str(process.pid))
        return process

    def _tell_guard(self, session_or_folder: str) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{session_or_folder}\n".encode())
        self._guard.stdin.flush()

    def _connect(self, database: str) -> Any:
        connection = psycopg2.connect(self.database_url(database))
        connection.autocommit = True
        return connection

    def _execute(self, database: str, sql: str) -> None:
        with closing(self._connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)

    def database_url(self, database: str) -> str:
        return f"{self.postgres_url.rpartition('/')[0]}/{database}"

    def _settings(self) -> dict[str, str]:
        metadata = self.database_url("airflow")
        kk = {"conn_type": "kk", "host": self.kk.url, "password": self.kk.token,
              "extra": {**TIMES, "rate_limit_burst": BURST, "rate_limit_per_second": PER_SECOND}}  # fmt: skip
        return {
            "AIRFLOW_HOME": str(self.folder),
            "AIRFLOW_CONN_KK_DEFAULT": json.dumps(kk),
            "AIRFLOW_CONN_WAREHOUSE": self.database_url("shop").replace("postgresql", "postgres"),
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__CELERY__BROKER_URL": f"redis://127.0.0.1:{self._redis_port}/0",
            "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{metadata}",
            "AIRFLOW__CELERY__SYNC_PARALLELISM": "1",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.folder / "dags"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{self._api_port}/execution/",
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata.replace("postgresql", "postgresql+psycopg2"),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.folder / "logs"),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            **(_HEARTBEATS_3 if IS_AIRFLOW_3 else _HEARTBEATS_2),
        }  # fmt: skip


#: A task whose machine is lost is tried again after some 11 s, not after 5 minutes.
_HEARTBEATS_3 = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
}
_HEARTBEATS_2 = {
    "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "2",
    "AIRFLOW__SCHEDULER__LOCAL_TASK_JOB_HEARTBEAT_SEC": "2",
}


def _inherited() -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    return {**inherited, "PATH": path, "PYTHONSAFEPATH": "1"}


def _columns() -> str:
    return ", ".join(f"{name} {'integer' if name == 'quantity' else 'text'}" for name in COLUMNS)


@contextmanager
def running_stack() -> Iterator[Stack]:
    """A stack while the block lasts. Nothing of it is left afterwards, even if this process is killed."""
    binaries = find_binaries()
    if binaries is None:
        raise RuntimeError("PostgreSQL is not installed: scripts/install-test-packages brings it")
    folder = Path(tempfile.mkdtemp(prefix="system-"))
    with ExitStack() as ends:
        guard = ends.enter_context(_guard())
        postgres_url = ends.enter_context(
            throwaway_postgres(binaries, settings="-c fsync=off -c max_connections=300")
        )
        kk = ends.enter_context(SandboxServer(rate_burst=BURST, rate_per_second=PER_SECOND))
        stack = Stack(folder, guard, postgres_url, kk)
        ends.callback(stack.end)
        stack.start()
        yield stack


@contextmanager
def _guard() -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, str(Path(__file__).with_name("guard.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as guard:
        yield guard


def main() -> int:
    """The command line; gives the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.stack", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("what", choices=("run", "up", "down"))
    return {"run": _run, "up": _up, "down": _down}[parser.parse_args().what]()


def _run() -> int:
    from tests.system.scenarios import run_all

    exit_on_signals()
    with running_stack() as stack:
        reports = run_all(stack)
    return 0 if all(report.holds for report in reports) else 1


def _up() -> int:
    exit_on_signals()
    with running_stack() as stack, suppress(KeyboardInterrupt):
        stack.worker()
        stack.worker()
        stack.wait_for_workers()
        PID_FILE.parent.mkdir(exist_ok=True)
        PID_FILE.write_text(str(os.getpid()))
        environment = stack.folder / "environment"
        added = {name: value for name, value in stack.env.items() if os.environ.get(name) != value}
        environment.write_text(
            "".join(f"export {name}={shlex.quote(value)}\n" for name, value in added.items())
        )
        print(f"up: logs in {stack.folder}, KK at {stack.kk.url}, PostgreSQL at {stack.postgres_url}")
        print(f". {environment}  # to use `airflow` and `kk` with it", flush=True)
        try:
            signal.pause()
        finally:
            PID_FILE.unlink(missing_ok=True)
    return 0


def _down() -> int:
    try:
        process = psutil.Process(int(PID_FILE.read_text()))
    except (OSError, psutil.NoSuchProcess):
        print("nothing is up")
        return 0
    process.terminate()
    process.wait(60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
