"""A ledger and a local KK, reached as the command line reaches them: by connections of the environment."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sandbox.server import SandboxServer

SKU = "FWXW00290_WHT_M"


@pytest.fixture
def ledger(tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlLedger]:
    """A ledger whose windows are so short that they are over at once."""
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.hooks.ledger_connection import open_ledger

    extra = {"ledger_conn_id": "ledger", "timeout_s": 0.01, "lease_s": 0.02, "settle_window_s": 0.01}
    kk = {"conn_type": "kk", "host": sandbox.url, "password": sandbox.token, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(kk))
    place = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(place))
    ledger = open_ledger(KKHook(), "ledger", threads=1)
    # Reading KK's list takes longer than a POST may take here.
    monkeypatch.setenv(
        "AIRFLOW_CONN_KK_DEFAULT", json.dumps({**kk, "extra": {**extra, "timeout_s": 5, "lease_s": 10}})
    )
    yield ledger
    ledger.close()


def record(
    ledger: SqlLedger,
    number: str,
    outcome: str,
    *,
    ids: tuple[str, ...] = (),
    code: int | None = None,
    message: str = "",
    goods: dict[str, int] | None = None,
) -> Record:
    """POST an order as far as the ledger is concerned, and wait until its settle window is over."""
    from airflow_provider_kk.delivery.model import AttemptResult, Content, Job, Origin
    from airflow_provider_kk.delivery.states import Event

    job = Job(number, Content("1:x", goods or {SKU: 1}, "FR"), send=lambda check: [], redact=str)
    seen = ledger.look_up([number]).get(number)
    claim = ledger.claim(job, seen, origin=Origin("shop", "run 7", "sync", -1, 2), sync_id="s")
    assert claim is not None
    row = ledger.record(claim, AttemptResult(Event(outcome), ids, code, message))
    time.sleep(max(0.0, row.settle_after - ledger.now()))
    return row


def hold(ledger: SqlLedger, number: str) -> None:
    """Let an order be in doubt, and then be given to a human."""
    from airflow_provider_kk.delivery.states import Event

    row = record(ledger, number, "unknown", message="the connection was reset")
    ledger.hold(row, Event.GIVEN_UP, "not in KK's list")


def refuse(ledger: SqlLedger, number: str, code: int = 40_010, message: str = "sold out") -> Record:
    """Let KK refuse an order."""
    return record(ledger, number, "rejected", code=code, message=message)


def state(ledger: SqlLedger, number: str) -> str:
    return ledger.look_up([number])[number].state.value
