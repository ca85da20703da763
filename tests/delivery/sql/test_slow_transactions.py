"""A ledger whose database keeps its callers waiting says so, and otherwise nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from airflow_provider_kk.delivery.sql import database
from airflow_provider_kk.delivery.sql.database import SlowTransactions, pool_arguments
from airflow_provider_kk.delivery.sql.storage import sql_ledger


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.looks = 0

    def monotonic(self) -> float:
        self.looks += 1
        return self.now

    def let_it_look(self) -> None:
        before = self.looks
        wait_until(lambda: self.looks > before + 1)


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 300
    while not is_so() and time.monotonic() < until:
        time.sleep(0.001)
    assert is_so()


@pytest.fixture
def virtual(monkeypatch: pytest.MonkeyPatch) -> Time:
    virtual = Time()
    monkeypatch.setattr(database, "time", virtual)
    monkeypatch.setattr(database, "_CHECK_EVERY_S", 0.001)
    return virtual


def test_a_wait_is_logged_after_ten_seconds_and_then_every_thirty(
    virtual: Time, caplog: pytest.LogCaptureFixture
) -> None:
    waits, threads = SlowTransactions(), set(threading.enumerate())
    with waits.warn_if_slow():
        for passed_s in (9, 1, 29, 1):
            virtual.now += passed_s
            virtual.let_it_look()
    assert [message.partition(":")[0] for message in caplog.messages] == [
        f"Waiting for the ledger's database for {seconds} s" for seconds in (10, 40)
    ]
    wait_until(lambda: set(threading.enumerate()) <= threads)


def test_many_short_transactions_are_no_wait(virtual: Time, caplog: pytest.LogCaptureFixture) -> None:
    waits = SlowTransactions()
    for _ in range(10):
        with waits.warn_if_slow():
            virtual.now += 9
            virtual.let_it_look()
    assert caplog.messages == []


def test_a_locked_account_is_logged(
    each_ledger_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_CHECK_EVERY_S", 0.01)
    monkeypatch.setattr(database, "_WORTH_LOGGING_S", 0.1)
    url = sa.engine.make_url(each_ledger_url)
    ledger = sql_ledger(
        sa.create_engine(url, **pool_arguments(url.get_backend_name(), 4)), "kk.test", "default"
    )
    ledger.storage.open("kk_default", settle_window_s=600)
    caplog.clear()
    other = sa.create_engine(url)
    locking = other.connect()
    is_sqlite = ledger.storage.database.kind == "sqlite"
    locking.exec_driver_sql("BEGIN EXCLUSIVE" if is_sqlite else "SELECT * FROM kk_account FOR UPDATE")

    opening = threading.Thread(
        target=ledger.storage.open, args=("kk_default",), kwargs={"settle_window_s": 600}
    )
    opening.start()
    wait_until(lambda: bool(caplog.messages))
    assert opening.is_alive()
    locking.close()
    opening.join()
    ledger.close()
    other.dispose()

    assert "Waiting for the ledger's database for " in caplog.text
