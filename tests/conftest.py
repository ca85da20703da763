"""Fixtures that every room's tests share. Airflow, where a test needs it, lives in a throwaway home."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
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

settings.register_profile("default", deadline=None)
settings.load_profile("default")


@pytest.fixture(scope="session")
def migrated_home(tmp_path_factory: pytest.TempPathFactory) -> AirflowHome:
    from tests.airflow.support import AirflowHome

    return AirflowHome.create(tmp_path_factory.mktemp("airflow") / "home")


@pytest.fixture
def airflow_home(migrated_home: AirflowHome, tmp_path: Path) -> AirflowHome:
    """An AIRFLOW_HOME of this test's own, with an empty migrated database, to run DAGs in."""
    return migrated_home.copy(tmp_path / "airflow")
