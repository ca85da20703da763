"""Processes for DAG runs, forked from one that has imported Airflow: importing it costs more than most runs.

Only imports are shared. Each process has its own environment and initialises Airflow's settings from it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from unittest.mock import patch

#: What `dag.test()` imports, where this Airflow has it.
_IMPORTS = (
    "airflow.api_fastapi.execution_api.app",
    "airflow.dag_processing.dagbag",
    "airflow.models",
    "airflow.models.dagbag",
    "airflow.operators.python",
    "airflow.providers.common.compat.sdk",
    "airflow.providers.fab.auth_manager.models",
    "airflow.providers.standard.operators.python",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.serialization.serialized_objects",
    "airflow.utils.db",
)


class ForkedProcess:
    """The part of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], log_file: Path) -> None:
        context = get_context("forkserver")
        context.set_forkserver_preload([__name__ + "_imports"])
        self._process = context.Process(target=_run, args=(arguments, dict(env), str(log_file)))
        # The first call starts the process that the others are forked from, in this environment.
        path = {"PYTHONPATH": os.pathsep.join(sys.path), "_AIRFLOW__AS_LIBRARY": "1"}
        with patch.dict(os.environ, {**env, **path}, clear=True):
            self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def import_all() -> None:
    """Import what most runs need, without initialising Airflow."""
    for name in _IMPORTS:
        with suppress(ImportError):
            import_module(name)
    with suppress(ImportError):
        from airflow.sdk.execution_time.supervisor import in_process_api_server

        app = in_process_api_server().app
        # It makes the routes of each version of the API at its first request.
        getattr(app, "_cadwyn_initialize", lambda: None)()


def _run(arguments: list[str], env: dict[str, str], log_file: str) -> None:
    os.setsid()
    log = os.open(log_file, os.O_WRONLY | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(env)
    from airflow import configuration, settings

    configuration.AIRFLOW_HOME = settings.AIRFLOW_HOME = env["AIRFLOW_HOME"]
    settings.initialize()
    from tests.airflow import dag_test_process

    dag_test_process.main(arguments)
