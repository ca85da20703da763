"""Real Airflow for tests, the same on both ends of the range: a home of its own, real DAG runs in processes.

`home.run_dag(file)` runs a DAG to its end; `home.start_dag(file)` returns at once, for tests that kill it.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import airflow

from tests.airflow.forked_runs import ForkedProcess

AIRFLOW_VERSION = tuple(int(part) for part in airflow.__version__.split(".")[:2])
DAG_TEST_PROCESS = Path(__file__).with_name("dag_test_process.py")
REPOSITORY = Path(__file__).parents[2]
EXAMPLE_DAGS = REPOSITORY / "example_dags"


@dataclass(frozen=True)
class DagRunResult:
    """What came of a run. Mapped tasks are named `task_id[map_index]`; `log` is all that was printed."""

    run_id: str
    state: str
    tasks: dict[str, str]
    xcoms: dict[str, dict[str, Any]]
    log: str


class RunningDag:
    """A DAG run in a process of its own."""

    process: ForkedProcess | subprocess.Popen[bytes]

    def __init__(
        self, arguments: list[str], env: dict[str, str], result_file: Path, *, is_fresh: bool
    ) -> None:
        self._log_file = result_file.with_name("log.txt")
        self._result_file = result_file
        with self._log_file.open("w") as log:
            if not is_fresh:
                self.process = ForkedProcess(arguments, env, self._log_file)
                return
            self.process = subprocess.Popen(
                [sys.executable, str(DAG_TEST_PROCESS), *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self, timeout_s: float = 600) -> DagRunResult:
        """The result. Past `timeout_s` the run is killed and the test fails with its log."""
        try:
            self.process.wait(timeout_s)
        except (subprocess.TimeoutExpired, TimeoutError):
            self.kill()
            raise AssertionError(f"the run did not end within {timeout_s:g} s:\n{self.log()}") from None
        if not self._result_file.exists():
            raise AssertionError(f"the run ended with {self.process.returncode} and no result:\n{self.log()}")
        return DagRunResult(**json.loads(self._result_file.read_text()), log=self.log())

    def log(self) -> str:
        """What the run printed up to now."""
        return self._log_file.read_text(errors="replace")

    def kill(self, signal_number: int = signal.SIGKILL) -> None:
        """Signal the process and all it started; a no-op when it has ended."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal_number)
        self.process.wait(300)


@dataclass
class AirflowHome:
    """An AIRFLOW_HOME with a migrated SQLite metadata database.

    `connections` (each a dict or a URI) and `variables` reach every process started from here, as
    `AIRFLOW_CONN_*` and `AIRFLOW_VAR_*`; `env` is for anything else.
    """

    path: Path
    connections: dict[str, str | Mapping[str, Any]] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)
    is_fresh: bool = False
    """Whether each run imports Airflow anew. Otherwise it is forked from a process that has imported it."""

    @classmethod
    def create(cls, path: Path) -> AirflowHome:
        """Make a new home at `path` (takes some seconds; `copy` does not)."""
        home = cls(path)
        path.mkdir(parents=True)
        home.cli("db", "migrate")
        return home

    def copy(self, path: Path) -> AirflowHome:
        """Another home just like this one."""
        shutil.copytree(self.path, path)
        return AirflowHome(path, dict(self.connections), dict(self.variables), dict(self.env), self.is_fresh)

    def environment(self, dags_folder: Path | None = None) -> dict[str, str]:
        """The whole environment of a process that belongs to this home."""
        own = {
            **safe_settings(self.path),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags_folder or self.path / "dags"),
            **{f"AIRFLOW_CONN_{name.upper()}": as_text(value) for name, value in self.connections.items()},
            **{f"AIRFLOW_VAR_{name.upper()}": as_text(value) for name, value in self.variables.items()},
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        if inherited.pop("PYTHONDONTWRITEBYTECODE", None):
            # Compiling all of Airflow anew takes longer than most runs.
            inherited["PYTHONPYCACHEPREFIX"] = bytecode_folder()
        # A child that imports the package must find the one under test, not what lies beside it.
        return {**inherited, "PYTHONSAFEPATH": "1", **own, **self.env}

    def cli(self, *arguments: str, timeout_s: float = 600) -> str:
        """What `airflow ...` prints. Fails when it does."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run_dag(
        self,
        dag: Path | str,
        dag_id: str = "",
        *,
        conf: Mapping[str, Any] | None = None,
        logical_date: str | None = None,
        timeout_s: float = 600,
    ) -> DagRunResult:
        """Run a DAG, given as file or source text, to its end. A failed task does not raise: read `state`.

        The same `logical_date` (ISO) again is the same run, cleared.
        """
        return self.start_dag(dag, dag_id, conf=conf, logical_date=logical_date).wait(timeout_s)

    def start_dag(
        self,
        dag: Path | str,
        dag_id: str = "",
        *,
        conf: Mapping[str, Any] | None = None,
        logical_date: str | None = None,
    ) -> RunningDag:
        """Start a DAG run, see `run_dag`, and return at once."""
        dag_file = self._written(dag) if isinstance(dag, str) else dag
        result_file = Path(tempfile.mkdtemp(dir=self.path)) / "result.json"
        options = json.dumps({"conf": conf, "logical_date": logical_date})
        arguments = [str(dag_file), dag_id, str(result_file), options]
        # Airflow may read a setting at its import.
        is_fresh = self.is_fresh or bool(self.env)
        return RunningDag(arguments, self.environment(dag_file.parent), result_file, is_fresh=is_fresh)

    def rendered_fields(self) -> dict[str, dict[str, Any]]:
        """What Airflow has stored of the rendered template fields of each task."""
        with closing(sqlite3.connect(self.path / "airflow.db")) as db:
            stored = db.execute(
                "SELECT task_id, map_index, rendered_fields FROM rendered_task_instance_fields"
            )
            return {
                f"{task}[{index}]" if index >= 0 else task: json.loads(text) for task, index, text in stored
            }

    def _written(self, source: str) -> Path:
        folder = self.path / "dags"
        folder.mkdir(exist_ok=True)
        # A name of its own for each text, so that no run reads a file that another one is writing.
        dag_file = Path(tempfile.mkdtemp(dir=folder)) / "dag.py"
        dag_file.write_text(textwrap.dedent(source))
        return dag_file


def safe_settings(home: Path) -> dict[str, str]:
    """Settings under which a test touches nothing but its own home and no network."""
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__UNIT_TEST_MODE": "False",
        "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
    }


@cache
def bytecode_folder() -> str:
    folder = tempfile.mkdtemp(prefix="bytecode-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
