"""A warehouse on MariaDB that keeps the ledger, too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from tests.mysql_hook import mysql_connection
from tests.operators.shop import COLUMNS, QUICK, each_is_there_once, ids_at_kk, number, rows

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect

ORDERS = range(60)


@pytest.fixture
def engine(mariadb_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[sa.engine.Engine]:
    """The connection `warehouse`: a database with orders and, for what comes back, a row of each."""
    server = sa.create_engine(mariadb_url)
    with server.begin() as db:
        db.exec_driver_sql("CREATE DATABASE orders")
    engine = sa.create_engine(sa.engine.make_url(mariadb_url).set(database="orders"))
    columns = ", ".join(f"{name} VARCHAR(64)" for name in COLUMNS[:-1])
    places = ", ".join(["%s"] * len(COLUMNS))
    with engine.begin() as db:
        db.exec_driver_sql(f"CREATE TABLE order_line ({columns}, quantity INTEGER)")
        db.exec_driver_sql(
            "CREATE TABLE shop_order (order_no VARCHAR(40) PRIMARY KEY, ids TEXT, state VARCHAR(16))"
        )
        db.exec_driver_sql(f"INSERT INTO order_line VALUES ({places})", rows(ORDERS))
        db.exec_driver_sql("INSERT INTO shop_order (order_no) VALUES (%s)", [(number(n),) for n in ORDERS])
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(mysql_connection(mariadb_url, "orders")))
    yield engine
    engine.dispose()
    with server.begin() as db:
        db.exec_driver_sql("DROP DATABASE orders")
    server.dispose()


def test_three_syncs_at_once_with_two_crashes_send_each_order_once(
    engine: sa.engine.Engine, connect: Connect, sandbox: SandboxServer
) -> None:
    connect(**QUICK)
    sandbox.control.set(latency_s=0.1)
    sandbox.control.arm("drop_after_commit", times=3)

    syncs = [start(f"run {place}") for place in range(3)]
    for enough in (15, 30):
        wait_for_creates(sandbox, enough)
        victim = syncs.pop()
        victim.kill()
        assert victim.wait(600) == -signal.SIGKILL
    assert syncs.pop().wait(600) == 0
    assert start("afterwards").wait(600) == 0

    each_is_there_once(sandbox, ORDERS)
    with engine.connect() as db:
        known = db.exec_driver_sql("SELECT custom_order_number, kk_order_ids, state FROM kk_order").all()
        told = db.exec_driver_sql("SELECT order_no, ids, state FROM shop_order").all()
    assert {row.state for row in (*known, *told)} == {"created"}
    assert {row[0]: sorted(json.loads(row[1])) for row in known} == ids_at_kk(sandbox)
    assert {row[0]: sorted(row[1].split(",")) for row in told} == ids_at_kk(sandbox)


def start(run_id: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.operators.sync_child", run_id], env=os.environ.copy()
    )


def wait_for_creates(sandbox: SandboxServer, enough: int) -> None:
    until = time.monotonic() + 600
    while sandbox.control.counts()["creates"] < enough:
        assert time.monotonic() < until, sandbox.control.counts()
        time.sleep(0.02)
