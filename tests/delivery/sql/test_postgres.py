"""What a PostgreSQL does to a ledger that restarts, fails over or vanishes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from importlib import import_module
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError

from airflow_provider_kk.delivery.sql.bucket import LedgerBucket
from airflow_provider_kk.delivery.sql.database import pool_arguments
from airflow_provider_kk.delivery.sql.storage import SqlLedger, sql_ledger
from airflow_provider_kk.delivery.states import Event, State
from tests.delivery.conftest import own_schema

#: SQLAlchemy 1.4 knows no psycopg 3.
DRIVERS = ("psycopg2",) if sa.__version__ < "2" else ("psycopg2", "psycopg")


@pytest.fixture(params=DRIVERS)
def each_driver_url(request: pytest.FixtureRequest, postgres_url: str) -> Iterator[str]:
    """An empty schema, through either driver."""
    with own_schema(postgres_url) as url:
        yield url.replace("postgresql:", f"postgresql+{request.param}:")


@pytest.fixture
def unopened(each_driver_url: str) -> Iterator[SqlLedger]:
    ledger = sql_ledger(
        sa.create_engine(each_driver_url, **pool_arguments("postgresql", 4)), "kk.test", "default"
    )
    yield ledger
    ledger.close()


@pytest.fixture
def ledger(unopened: SqlLedger) -> SqlLedger:
    unopened.storage.open("kk_default", settle_window_s=600)
    return unopened


def session_of(db: Any) -> int:
    return int(db.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def losing_its_connection(ledger: SqlLedger, before: str) -> list[int]:
    """Let the server end the first session that runs such a statement; return the list of these sessions."""
    engine = ledger.storage.database.engine
    lost: list[int] = []

    def lose(connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if before in statement and not lost:
            lost.append(session_of(connection))
            with engine.connect() as other:
                other.exec_driver_sql(f"SELECT pg_terminate_backend({lost[0]}, 300000)")

    event.listen(engine, "before_cursor_execute", lose)
    return lost


def test_a_connection_lost_while_tables_are_created_is_not_a_missing_privilege(unopened: SqlLedger) -> None:
    lost = losing_its_connection(unopened, "CREATE TABLE")
    unopened.storage.open("kk_default", settle_window_s=600)
    assert lost


@pytest.mark.parametrize("doing", ["UPDATE kk_account", "SELECT kk_account"])
def test_a_connection_lost_while_threads_wait_for_permits_fails_no_sync(
    ledger: SqlLedger, doing: str
) -> None:
    bucket = LedgerBucket(ledger, burst=1, per_second=0.5)  # so slow that the second one always waits
    bucket.acquire()
    lost = losing_its_connection(ledger, doing)
    bucket.acquire()
    assert lost


@pytest.mark.parametrize("doing", ["read", "change", "add"])
def test_a_session_that_ended_just_after_its_use_fails_no_transaction_without_a_retry(
    ledger: SqlLedger, each_driver_url: str, doing: str
) -> None:
    ledger.note_invalid("A", "digest", "no zip", sync_id="sync")
    entry = ledger.look_up(["A"])["A"]
    with ledger.storage.database.engine.connect() as db:
        session = session_of(db)
    other = sa.create_engine(each_driver_url)
    with other.connect() as db:
        db.exec_driver_sql(f"SELECT pg_terminate_backend({session}, 300000)")
    other.dispose()

    if doing == "read":
        assert ledger.look_up(["A"]) == {"A": entry}
    elif doing == "change":
        assert ledger.compare_and_set(entry, Event.FAULT, lambda _tx: {"message": "no street"})
    else:
        assert ledger.add("B", lambda _tx: {"state": State.INVALID})


def test_a_connection_lost_while_a_429_is_noted_leaves_the_request_not_sent(ledger: SqlLedger) -> None:
    """What its loss would raise could come of anything, so the order would be in doubt."""
    lost = losing_its_connection(ledger, "UPDATE kk_account")
    bucket = LedgerBucket(ledger, burst=10, per_second=100)
    bucket.back_off(5.0)
    assert lost
    assert 4 < bucket._back_off_left()[0] <= 5


@pytest.mark.parametrize("state", ["40001", "40P01", "55P03", "57P01", "53100", "25006"])
def test_a_transient_error_is_known_by_its_sqlstate_in_any_language(ledger: SqlLedger, state: str) -> None:
    sessions: list[int] = []

    def work(tx: Any) -> None:
        sessions.append(session_of(tx._db))
        if len(sessions) == 1:
            tx._db.exec_driver_sql(f"DO $$ BEGIN RAISE 'Verklemmung' USING ERRCODE = '{state}'; END $$")

    ledger.storage.persist(work)

    assert len(sessions) == 2
    # A server that takes no writes any more is left: a new connection may lead to the one that does.
    assert (sessions[0] != sessions[1]) or state != "25006"


def test_a_faulty_statement_is_not_retried(ledger: SqlLedger) -> None:
    tries: list[int] = []

    def work(tx: Any) -> None:
        tries.append(1)
        tx._db.exec_driver_sql("SELECT nothing FROM nowhere")

    with pytest.raises(DBAPIError):
        ledger.storage.persist(work)
    assert tries == [1]


def test_a_short_dns_failure_loses_no_response(ledger: SqlLedger) -> None:
    engine = ledger.storage.database.engine
    engine.dispose()
    failed: list[int] = []

    @event.listens_for(engine, "do_connect")
    def fail(dialect: Any, *_rest: Any) -> None:
        if not failed:
            failed.append(1)
            driver = import_module(dialect.driver)
            raise driver.OperationalError('could not translate host name "db" to address')

    ledger.storage.persist(session_of_tx)
    assert failed


def session_of_tx(tx: Any) -> int:
    return session_of(tx._db)


def test_a_server_that_vanishes_is_given_up_after_a_minute(ledger: SqlLedger) -> None:
    """By default the kernel waits two hours for an answer, a quarter of one with a statement on its way."""
    with ledger.storage.database.engine.connect() as db:
        fd = os.dup(db.connection.driver_connection.fileno())
    with closing(socket.socket(fileno=fd)) as its:
        quiet_s, every_s, times = (
            its.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert quiet_s + every_s * times <= 60
        assert 0 < its.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 60_000
