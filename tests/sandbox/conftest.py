"""A sandbox without its rate limit, and a plain client: no code of the rooms that are tested against it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_kk.sandbox.server import SandboxServer
from tests.sandbox.caller import Caller


@pytest.fixture
def kk() -> Iterator[SandboxServer]:
    with SandboxServer(rate_limit=False) as sandbox:
        yield sandbox


@pytest.fixture
def caller(kk: SandboxServer) -> Caller:
    return Caller(kk.url, kk.token)
