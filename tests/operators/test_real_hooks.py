"""The main job on hooks that Airflow's providers have for other warehouses, with their real drivers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.operators.main_job import MainJob, make_connections

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

FORMS = ("update", "append")


@pytest.fixture
def duckdb_job(sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MainJob:
    connection = {"conn_type": "duckdb", "host": str(tmp_path / "warehouse.duckdb")}
    make_connections(sandbox, connection, tmp_path, monkeypatch)
    return MainJob(sandbox)


@pytest.fixture
def odbc_job(sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MainJob:
    """SQLite by ODBC, with Debian's driver."""
    connection = {"conn_type": "odbc", "schema": str(tmp_path / "warehouse.db")}
    make_connections(sandbox, connection, tmp_path, monkeypatch)
    return MainJob(sandbox, {"driver": odbc_driver("SQLite3")})


def odbc_driver(name: str) -> str:
    """The name of an ODBC driver of Debian's, which it has registered with unixODBC."""
    try:
        import pyodbc
    except ImportError as error:  # it needs libodbc.so.2
        missing = str(error)
    else:
        if name in pyodbc.drivers():
            return name
        missing = f"no driver {name}"
    (pytest.fail if os.environ.get("CI") else pytest.skip)(f"ODBC is not installed: {missing}")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["duckdb", "odbc"])
def test_the_main_job_runs_twice_on_a_real_hook(kind: str, form: str, request: pytest.FixtureRequest) -> None:
    job: Any = request.getfixturevalue(f"{kind}_job")

    job.run_with_update() if form == "update" else job.run_with_append()
