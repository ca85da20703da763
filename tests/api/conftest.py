from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_provider_kk.api.api_versions import API_VERSIONS
from airflow_provider_kk.api.client import KKClient
from tests.api.helpers import KK, certificate, client_for


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate with its key."""
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(params=list(API_VERSIONS))
def each_api_version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(each_api_version: str) -> Iterator[KKClient]:
    """A client of each API version, for tests without a server."""
    with client_for(KK, api_version=each_api_version) as found:
        yield found
