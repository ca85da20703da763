"""A ledger whose database keeps its callers waiting says so, and otherwise nothing."""

from __future__ import annotations

import threading
import time

import pytest
import sqlalchemy as sa

from airflow_provider_kk.delivery.sql import waiting
from airflow_provider_kk.delivery.sql.database import pool_arguments
from airflow_provider_kk.delivery.sql.ledger import SqlLedger


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(waiting, "_WORTH_TELLING_S", 0.1)
    monkeypatch.setattr(waiting, "_TELL_EVERY_S", 0.2)


def watchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "kk-waits"]


def wait_until(is_so: object) -> None:
    until = time.monotonic() + 30
    while not is_so() and time.monotonic() < until:  # type: ignore[operator]
        time.sleep(0.01)
    assert is_so()  # type: ignore[operator]


@pytest.fixture
def ledger(ledger_url: str) -> SqlLedger:
    engine = sa.create_engine(
        ledger_url, **pool_arguments(sa.engine.make_url(ledger_url).get_backend_name(), 4)
    )
    ledger = SqlLedger(engine, "kk.test", "default")
    ledger.open("kk_default")
    return ledger


def test_a_locked_account_is_told_again_and_again_until_it_is_free(
    ledger: SqlLedger, caplog: pytest.LogCaptureFixture
) -> None:
    other = sa.create_engine(ledger.database.engine.url)
    with other.connect() as locking:
        if ledger.database.kind == "sqlite":
            locking.exec_driver_sql("BEGIN EXCLUSIVE")
        else:
            locking.exec_driver_sql("SELECT * FROM kk_account FOR UPDATE")
        opening = threading.Thread(target=ledger.open, args=("kk_default",))
        opening.start()
        wait_until(lambda: len(caplog.records) >= 2)
        assert opening.is_alive()
        locking.rollback()
    opening.join()
    ledger.close()
    other.dispose()

    assert all("Waiting for the ledger's database for " in text for text in caplog.messages)
    wait_until(lambda: not watchers())


def test_a_ledger_that_answers_is_not_spoken_of(ledger: SqlLedger, caplog: pytest.LogCaptureFixture) -> None:
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        ledger.now()
        ledger.set_healed_until(1.0)
    ledger.close()

    assert caplog.messages == []
    wait_until(lambda: not watchers())
