"""Fixtures that every room's tests share. Airflow, where a test needs it, lives in a throwaway home."""

from __future__ import annotations

import atexit
import fcntl
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from tests import selection
from tests.mariadb import find_server, throwaway_mariadb
from tests.postgres import find_binaries, throwaway_postgres

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.airflow.support import AirflowHome

# Before anything imports Airflow, which reads its environment then.
SESSION_HOME = Path(tempfile.mkdtemp(prefix="airflow-home-"))
atexit.register(shutil.rmtree, SESSION_HOME, ignore_errors=True)
for name in [name for name in os.environ if name.startswith("AIRFLOW_")]:
    del os.environ[name]
os.environ |= {
    "AIRFLOW_HOME": str(SESSION_HOME),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{SESSION_HOME / 'airflow.db'}",
    "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
}

# A shell may let a background job ignore SIGINT, and with it every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None)
settings.load_profile("default")


@pytest.hookimpl(tryfirst=True)  # before -m leaves out what is marked
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    selection.mark(items)
    selection.sort(items)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    gc.freeze()  # thousands of tests live to the end, so no collection of garbage looks at them again


@pytest.fixture(scope="session")
def migrated_home(tmp_path_factory: pytest.TempPathFactory) -> AirflowHome:
    """A home that all workers of pytest-xdist copy: the first one that needs it migrates its database."""
    from tests.airflow.support import AirflowHome

    folder = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = folder.parent
    path, is_ready = folder / "migrated-home", folder / "migrated-home-is-ready"
    with (folder / "migrated-home.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_ready.exists():
            shutil.rmtree(path, ignore_errors=True)
            AirflowHome.create(path)
            is_ready.touch()
    return AirflowHome(path)


@pytest.fixture
def airflow_home(migrated_home: AirflowHome, tmp_path: Path) -> AirflowHome:
    """An AIRFLOW_HOME of this test's own, with an empty migrated database, to run DAGs in."""
    return migrated_home.copy(tmp_path / "airflow")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """`postgresql://postgres@127.0.0.1:<port>/postgres`, shared by all tests: each makes its own schema."""
    binaries = find_binaries()
    if binaries is None:
        # Where changes are judged, nothing may go untested in silence.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("PostgreSQL is not installed")
    with throwaway_postgres(binaries) as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    """`mysql+pymysql://root@127.0.0.1:<port>/test`, shared by all tests: each leaves its tables empty."""
    server = find_server()
    if server is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("MariaDB is not installed")
    with throwaway_mariadb(server) as url:
        yield url


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    """A KK of this test's own, in memory, with `url` and `control`."""
    from airflow_provider_kk.sandbox.server import SandboxServer

    with SandboxServer() as server:
        yield server
