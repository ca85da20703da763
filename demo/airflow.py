"""A real Airflow in a folder of its own, run in child processes that never outlive the demo."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from demo.processes import child, limited
from demo.warehouse import EXAMPLE_DAGS

#: Level and text of what the provider's operators log, on Airflow 2 by LOG_FORMAT.
_OURS = re.compile(r"^\S+(?: \S+)? \[(\w+) *\] (.*?) *\[airflow\.task\.operators\.airflow_provider_kk")
_RETRY = re.compile(r"\bup_for_retry\b", re.IGNORECASE)


class AirflowError(Exception):
    """A run did not succeed; the text says how, `log_tail` is the end of its log."""

    def __init__(self, message: str, log_tail: str) -> None:
        super().__init__(message)
        self.log_tail = log_tail


@dataclass(frozen=True)
class Airflow:
    """An AIRFLOW_HOME with the example DAGs; all Airflow says goes to `log_file`."""

    home: Path
    settings: Mapping[str, str]

    @property
    def log_file(self) -> Path:
        """Where everything is that Airflow has said."""
        return self.home / "airflow.log"

    @staticmethod
    def version() -> str:
        """Of the Airflow that is installed here."""
        return version("apache-airflow")

    def migrate(self, limit_s: float = 120) -> None:
        """Make the metadata database."""
        self.home.mkdir(parents=True, exist_ok=True)
        self._command(["db", "migrate"], limit_s, lambda level, text: None)

    def run_dag(self, dag_id: str, limit_s: float, show: Callable[[str, str], None]) -> None:
        """Run a DAG to its end; `show(level, text)` gets each line that the provider logs, as it comes.

        Raises:
            AirflowError: it failed, would be retried after minutes, or lasts longer than `limit_s`.
        """
        self._command(["dags", "test", dag_id], limit_s, show)

    def environment(self) -> dict[str, str]:
        """The whole environment of a process that belongs to this home."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        return {
            **inherited,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            # What is installed is shown, not what lies in the current folder.
            "PYTHONSAFEPATH": "1",
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(EXAMPLE_DAGS),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.home / 'airflow.db'}",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.home / "logs"),
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            **({} if self.version().startswith("3.") else _AIRFLOW_2),
            **self.settings,
        }

    def _command(self, words: list[str], limit_s: float, show: Callable[[str, str], None]) -> None:
        name = f"airflow {' '.join(words)}"
        retried = False
        tail: deque[str] = deque(maxlen=30)
        with (
            self.log_file.open("a") as log,
            child([sys.executable, "-m", "airflow", *words], self.environment()) as process,
            limited(process, limit_s) as is_over,
        ):
            assert process.stdout is not None
            for line in process.stdout:
                log.write(line)
                tail.append(line)
                if ours := _OURS.match(line):
                    show(ours[1].lower(), ours[2])
                if retried := bool(_RETRY.search(line)):
                    # The retry comes after minutes; nobody waits for it here.
                    break
            else:
                process.wait()
        text = "".join(tail)
        if retried:
            raise AirflowError(f"{name}: the task failed and would be retried later", text)
        if is_over.is_set():
            raise AirflowError(f"{name}: stopped, it lasted longer than {limit_s:.0f} s", text)
        if process.returncode:
            raise AirflowError(f"{name}: ended with {process.returncode}", text)


def connections(kk_url: str, token: str, warehouse: Path) -> dict[str, str]:
    """The connections of the example DAGs as environment variables.

    The times are short, as they may be on loopback: what is in doubt is settled after 8 s, not 12 minutes.
    """
    times = {"timeout_s": 2, "lease_s": 4, "settle_window_s": 2}
    kk = {"conn_type": "kk", "host": kk_url, "password": token, "extra": times}
    sqlite = {"conn_type": "sqlite", "host": str(warehouse)}
    return {
        "AIRFLOW_CONN_KK_DEFAULT": json.dumps(kk),
        "AIRFLOW_CONN_WAREHOUSE": json.dumps(sqlite),
        "AIRFLOW__KK__ORDERS_PAGE": "kk_default@warehouse",
    }


_AIRFLOW_2 = {
    "AIRFLOW__LOGGING__LOG_FORMAT": "%(asctime)s [%(levelname)s] %(message)s [%(name)s]",
    "AIRFLOW__LOGGING__SIMPLE_LOG_FORMAT": "%(asctime)s [%(levelname)s] %(message)s [%(name)s]",
}
