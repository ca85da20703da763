"""`make ui`: Airflow's UI on the demo's data, which stays in `.ui/` until it is deleted.

Starts the sandbox and `airflow standalone` on loopback, and stops both on Ctrl-C.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from airflow_provider_kk.sandbox.control import SandboxControl
from demo import warehouse
from demo.airflow import Airflow, connections
from demo.orders import arm, make_orders
from demo.processes import child, exit_on_signals
from demo.terminal import say

FOLDER = warehouse.REPOSITORY / ".ui"
HOST = "127.0.0.1"
TOKEN = "sandbox-token"
START_LIMIT_S = 180.0


class UiError(Exception):
    """It cannot go on; the text says why and what to do."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted; gives the exit code."""
    arguments = _parser().parse_args(argv)
    exit_on_signals()
    try:
        _check(arguments)
        with _locked(FOLDER):
            _serve(arguments)
    except KeyboardInterrupt:
        say(f"Stopped. The data stays in {FOLDER.name}/; `make ui ARGS=--fresh` begins anew.")
        return 0
    except UiError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _serve(arguments: argparse.Namespace) -> None:
    if arguments.fresh:
        _empty(FOLDER)
    database = FOLDER / "warehouse.db"
    orders = make_orders()
    if not database.exists():
        warehouse.create(database, orders)
    kk_url = f"http://{HOST}:{arguments.kk_port}"
    settings = {**connections(kk_url, TOKEN, database), **_settings(arguments.port)}
    airflow = Airflow(FOLDER / "airflow", settings)
    airflow.home.mkdir(exist_ok=True)
    environment = airflow.environment() | _without_proxy()
    say("Starting KK's sandbox and Airflow, that takes about half a minute ...")
    with (
        _logging_to(FOLDER / "sandbox.log", _sandbox(arguments.kk_port), environment) as kk,
        _logging_to(airflow.log_file, ["airflow", "standalone"], environment) as standalone,
    ):
        children = {FOLDER / "sandbox.log": kk, airflow.log_file: standalone}
        _wait_for(lambda: _answers(arguments.kk_port, "/"), children)
        # What has been sent in an earlier call has had its fault.
        known = warehouse.ledger(database)
        arm(SandboxControl(kk_url), [order for order in orders if order.number not in known])
        _wait_for(lambda: _is_healthy(arguments.port), children)
        _tell(arguments)
        try:
            while True:
                _check_alive(children)
                time.sleep(0.5)
        finally:
            say("\nStopping, that takes some seconds ...")


def _tell(arguments: argparse.Namespace) -> None:
    say(f"""
  Airflow's UI   http://{HOST}:{arguments.port}   no login: everyone on this machine is an admin
  KK's sandbox   http://{HOST}:{arguments.kk_port}   shows the orders that it has

  Switch the DAG kk_sync_orders on. It runs at once: the shop's orders go to KK, some answers get lost on the
  way, and the task's log tells what becomes of them. Trigger it then: what KK has is not sent again.
  Browse, KK orders shows them all; the tab KK orders of a run, those of the run.
  What the warehouse and the ledger say is in {FOLDER.name}/warehouse.db. Ctrl-C stops everything.
""")


def _settings(port: int) -> dict[str, str]:
    url = f"http://{HOST}:{port}"
    return {
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": url,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        # Their usual ports may belong to another Airflow on this machine.
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(_free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(_free_port()),
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
        # A task that Ctrl-C has stopped counts as lost soon after the next start, not after 5 minutes.
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "5",
    }


def _sandbox(port: int) -> list[str]:
    kk = [sys.executable, "-m", "airflow_provider_kk.cli.main", "sandbox"]
    return [*kk, "--port", str(port), "--token", TOKEN, "--file", str(FOLDER / "kk.db")]


# Before anything starts ----------------------------------------------------------------------------


def _check(arguments: argparse.Namespace) -> None:
    if not Airflow.version().startswith("3."):
        raise UiError(f"make ui needs Airflow 3, this is {Airflow.version()}")
    for option in ("port", "kk_port"):
        port = getattr(arguments, option)
        if not _is_free(port):
            name = f"--{option.replace('_', '-')}"
            raise UiError(
                f"Port {port} is taken by another program. Choose another: make ui ARGS='{name} {port + 1}'"
            )


def _is_free(port: int) -> bool:
    with socket.socket() as server:
        # As servers do it: a port whose last connections are only fading counts as free.
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind((HOST, port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    with socket.socket() as server:
        server.bind((HOST, 0))
        return int(server.getsockname()[1])


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UiError("make ui is running in this checkout already") from None
        yield


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _without_proxy() -> dict[str, str]:
    """Airflow's parts talk to each other over loopback, which no proxy may see."""
    return {
        name: ",".join(filter(None, [os.environ.get(name), HOST, "localhost"]))
        for name in ("no_proxy", "NO_PROXY")
    }


# While it runs -------------------------------------------------------------------------------------


@contextmanager
def _logging_to(
    file: Path, command: list[str], environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    with file.open("w") as log, child(command, environment, stdout=log, grace_s=15.0) as process:
        yield process


def _wait_for(condition: Callable[[], object], children: Mapping[Path, subprocess.Popen[str]]) -> None:
    until = time.monotonic() + START_LIMIT_S
    while not condition():
        _check_alive(children)
        if time.monotonic() > until:
            raise UiError(f"Not ready after {START_LIMIT_S:.0f} s. {_tails(children)}")
        time.sleep(0.5)


def _check_alive(children: Mapping[Path, subprocess.Popen[str]]) -> None:
    ended = {file: process for file, process in children.items() if process.poll() is not None}
    if ended:
        raise UiError(f"A part has ended by itself. {_tails(ended)}")


def _tails(children: Mapping[Path, subprocess.Popen[str]]) -> str:
    tails = [f"The end of {file}:\n" + "\n".join(_last_lines(file)) for file in children]
    return "\n\n".join(tails)


def _last_lines(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines()[-30:]


def _is_healthy(port: int) -> bool:
    answer = _answers(port, "/api/v2/monitor/health")
    if answer is None:
        return False
    parts = json.loads(answer)
    return all(parts[name]["status"] == "healthy" for name in ("metadatabase", "scheduler", "dag_processor"))


def _answers(port: int, path: str) -> bytes | None:
    connection = HTTPConnection(HOST, port, timeout=5)
    with suppress(OSError, HTTPException):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        return body if answer.status == 200 else None
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make ui ARGS=...", description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="of Airflow's UI (8080)")
    parser.add_argument("--kk-port", type=int, default=8010, help="of KK's sandbox (8010)")
    parser.add_argument("--fresh", action="store_true", help="delete what earlier calls have left first")
    return parser


if __name__ == "__main__":
    sys.exit(main())
