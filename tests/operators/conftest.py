"""Operators in this process: connections in the environment, a warehouse in a file, a KK in a thread."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.airflow.support import AIRFLOW_VERSION
from tests.operators.shop import Warehouse, kk_connection

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

Connect = Callable[..., None]
Printed = Callable[[], str]


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    found = Warehouse(tmp_path / "warehouse.db")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(found.connection))
    return found


@pytest.fixture
def connect(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Makes `kk_default` anew, with these extras; it is there from the start without any."""

    def connect(**extra: Any) -> None:
        monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(kk_connection(sandbox, **extra)))

    sandbox.control.set(rate_limit=False)
    connect()
    return connect


@pytest.fixture
def printed(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Printed:
    """All that was logged up to now: Airflow 3 prints it, Airflow 2 hands it to `logging`."""
    caplog.set_level("INFO")
    parts: list[str] = []

    def printed() -> str:
        parts.extend(capfd.readouterr())
        return caplog.text if AIRFLOW_VERSION < (3,) else "\n".join(parts)

    return printed
