from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_kk.api.api_versions import DIALECTS
from airflow_provider_kk.api.client import KKClient
from tests.api.helpers import KK, certificate, client_for


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate with its key."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=list(DIALECTS))
def dialect(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(dialect: str) -> Iterator[KKClient]:
    """A client of each dialect, for tests without a server."""
    with client_for(KK, dialect=dialect) as found:
        yield found
