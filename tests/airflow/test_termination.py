"""A task that is told to stop records what is in flight and sends nothing new; the next run does the rest."""

from __future__ import annotations

import datetime
import signal
import sqlite3
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from airflow_provider_kk.operators.orders import SyncOrdersOperator
from tests.operators.shop import (
    SELECT,
    each_is_there_once,
    ids_at_kk,
    ids_in_ledger,
    nonzero,
    rows,
)

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop


def creates(shop: Shop) -> int:
    return int(shop.sandbox.control.counts()["creates"])


def task_state(shop: Shop) -> str:
    """As Airflow 2 has it, too: there, either way to stop ends the whole `dag.test()`, without a result."""
    with closing(sqlite3.connect(shop.home.path / "airflow.db")) as db:
        ((state,),) = db.execute("SELECT state FROM task_instance")
    return str(state)


def the_next_run_sends_the_rest(shop: Shop, already: int, left: int) -> None:
    shop.sandbox.control.set(latency_s=0)
    task = SyncOrdersOperator(task_id="sync", sql=SELECT, warehouse_conn_id="warehouse")
    following = shop.attempt(task, run_id="the next one")
    assert following.error is None
    assert nonzero(following.value) == {"already_created": already, "created": left}
    each_is_there_once(shop.sandbox, range(already + left))
    assert ids_in_ledger(shop.warehouse.path) == ids_at_kk(shop.sandbox)


def test_sigterm_in_the_middle_of_slow_posts(shop: Shop):
    shop.warehouse.add(*rows(range(20)))
    shop.sandbox.control.set(latency_s=3)

    running = shop.home.start_dag(shop.dag(max_in_flight=4))
    until = time.monotonic() + 600
    while creates(shop) < 4:
        assert time.monotonic() < until, running.log()
        time.sleep(0.05)
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(600)

    # What was in flight came to its end, and is known.
    assert creates(shop) == 4
    assert len(ids_in_ledger(shop.warehouse.path)) == 4
    assert task_state(shop) == "failed"
    the_next_run_sends_the_rest(shop, already=4, left=16)


def test_an_execution_timeout_in_the_middle_of_slow_posts(shop: Shop):
    shop.warehouse.add(*rows(range(20)))
    shop.sandbox.control.set(latency_s=2.5)

    # After the list and the first four orders, it strikes while the next four are on their way.
    timeout = datetime.timedelta(seconds=6.5)
    running = shop.home.start_dag(shop.dag(max_in_flight=4, execution_timeout=timeout))
    running.process.wait(600)

    assert "execution_timeout is 6 s, but an order in doubt is reconciled 61 s after" in running.log()
    sent = creates(shop)
    assert 0 < sent < 20, running.log()
    assert len(ids_in_ledger(shop.warehouse.path)) == sent
    assert task_state(shop) == "failed"
    the_next_run_sends_the_rest(shop, already=sent, left=20 - sent)


@pytest.mark.parametrize("seconds", [61, 3600])
def test_an_execution_timeout_that_leaves_time_to_reconcile_is_no_warning(
    shop: Shop, seconds: int, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
):
    timeout = datetime.timedelta(seconds=seconds)
    task = SyncOrdersOperator(
        task_id="sync", sql=SELECT, warehouse_conn_id="warehouse", execution_timeout=timeout
    )

    assert shop.attempt(task).error is None

    assert "execution_timeout" not in "".join([*capfd.readouterr(), caplog.text])
