from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.helpers import certificate


@pytest.fixture(scope="session")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate with its key."""
    return certificate(tmp_path_factory.mktemp("tls"))
