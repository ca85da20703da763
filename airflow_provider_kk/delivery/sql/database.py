"""The ledger's database: an engine that is durable, its clock, and its tables."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.pool import QueuePool

from airflow_provider_kk.delivery.clock import Clock
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.driver_errors import (
    is_serialization_failure,
    is_transient,
    retry,
    takes_no_writes,
)

_log = logging.getLogger(__name__)

_CHECK_EVERY_S = 5.0
_WORTH_LOGGING_S = 10.0
_WARN_EVERY_S = 30.0


class SlowTransactions:
    """Watches transactions and logs those that take long, from a thread that lives while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[object, float] = {}
        self._is_watched = False
        self._pause = threading.Event()  # never set

    @contextmanager
    def warn_if_slow(self) -> Iterator[None]:
        """Say so if the block lasts long."""
        key = object()
        with self._lock:
            self._since[key] = time.monotonic()
            if not self._is_watched:
                self._begin_to_watch()
        try:
            yield
        finally:
            del self._since[key]

    def _begin_to_watch(self) -> None:
        # Where no thread can be had, a transaction had better be silent than fail.
        with suppress(RuntimeError):
            threading.Thread(target=self._watch, name="kk-waits", daemon=True).start()
            self._is_watched = True

    def _watch(self) -> None:
        told_at = -_WARN_EVERY_S
        while True:
            # No sleep: tests on a virtual clock would take this thread for the one that does the work.
            self._pause.wait(_CHECK_EVERY_S)
            now = time.monotonic()
            with self._lock:
                if not self._since:
                    self._is_watched = False
                    return
                waited_s = now - min(self._since.copy().values())
            if waited_s >= _WORTH_LOGGING_S and now - told_at >= _WARN_EVERY_S:
                told_at = now
                _log.warning(
                    "Waiting for the ledger's database for %.0f s: it is locked, busy or out of reach",
                    waited_s,
                )


T = TypeVar("T")

#: Databases that enforce a primary key and commit durably.
SUPPORTED = ("sqlite", "postgresql", "mysql", "mariadb")

_BUSY_TIMEOUT_S = 60
#: How libpq notices that a server has vanished, seconds and milliseconds: by default that takes hours.
_NOTICING = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


class LedgerUnusableError(Exception):
    """The ledger's database cannot keep the promise, or cannot be used as it is; says what to do."""


class Database:
    """Short transactions on the ledger's database."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.engine = engine
        self.kind = engine.dialect.name
        self.is_mysql = self.kind in ("mysql", "mariadb")
        #: Whether a change can return the row that it has made (SQLAlchemy 1.4 knows it of PostgreSQL only).
        self.returns_rows: bool = getattr(engine.dialect, "update_returning", self.kind == "postgresql")
        self._clock = clock
        self._waits = SlowTransactions()
        # Writers of one process queue here, fairly, instead of in SQLite's busy loop, which starves some.
        self._gate = threading.RLock() if self.kind == "sqlite" else None
        if self.kind not in SUPPORTED:
            raise LedgerUnusableError(
                f"A ledger cannot live in {self.kind}: it needs SQLite, PostgreSQL or MySQL. "
                "Set ledger_conn_id (operator or kk connection) to a connection of one of these."
            )
        _make_durable(engine)

    def time_here(self) -> float | None:
        """Return the worker's time where the database has no clock of its own: SQLite; else None."""
        return self._clock.wall() if self.kind == "sqlite" else None

    def now(self) -> sa.ColumnElement[float]:
        """Return an expression for the database's clock, as an epoch in seconds."""
        if (here := self.time_here()) is not None:
            return sa.literal(here, sa.Float(53))
        if self.kind == "postgresql":
            return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Float(53))
        return sa.func.unix_timestamp(sa.text("sysdate(6)"), type_=sa.Float(53))

    def read_now(self) -> float:
        """Return the database's clock."""
        if (here := self.time_here()) is not None:
            return here
        with self.read() as connection:
            return float(connection.execute(sa.select(self.now())).scalar_one())

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection to read with."""
        with self._waits.warn_if_slow(), self.engine.connect() as connection:
            yield connection.execution_options(kk_read=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is committed durably when the block ends."""
        with self._waits.warn_if_slow(), self._gate or nullcontext(), self.engine.begin() as connection:
            yield connection

    def persist(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction, again after a lost connection or a lock timeout.

        For work that may run twice: a commit may have happened when its connection broke.
        """
        return self._retry_while(work, is_transient)

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction, again only when the database has undone it for another one's sake.

        For work that must not run twice.
        """
        return self._retry_while(work, is_serialization_failure)

    def read_with_retry(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads, again after what `persist` runs it again."""

        def once() -> T:
            with self.read() as connection:
                return work(connection)

        return retry(once, is_transient)

    def _retry_while(self, work: Callable[[Connection], T], is_retryable: Callable[[Exception], bool]) -> T:
        def once() -> T:
            with self.write() as connection:
                return work(connection)

        return retry(once, is_retryable)

    def create_tables(self) -> None:
        """Create what is missing; somebody else may be doing the same."""
        if self._has_tables():
            return
        try:
            self.persist(tables.create_missing)
        except DBAPIError as error:
            if is_transient(error):
                raise
            if self._has_tables():
                return
            raise LedgerUnusableError(
                f"The ledger's tables could not be created ({type(error.orig).__name__}). "
                "Grant CREATE, or have them created from the output of `kk ledger ddl`."
            ) from error

    def _has_tables(self) -> bool:
        names = {table.name for table in tables.METADATA.sorted_tables}
        with self.read() as connection:
            return names <= set(sa.inspect(connection).get_table_names())

    def require_unique_keys(self) -> None:
        """Insert one key twice and require the error.

        :raises LedgerUnusableError: when the database accepts both, as some that look like PostgreSQL do.
        """
        row = {
            "host": "(uniqueness check)",
            # One key for each check: several that wait for the same one can deadlock in InnoDB.
            "account": uuid.uuid4().hex,
            "schema_version": 0,
            "conn_ids": "[]",
            "recovered_until": 0.0,
            "bucket_tat": 0.0,
            "paused_until": 0.0,
        }
        with self._gate or nullcontext(), self.engine.connect() as connection:
            transaction = connection.begin()
            try:
                connection.execute(tables.account.insert().values(row))
                connection.execute(tables.account.insert().values(row))
            except IntegrityError:
                return
            finally:
                transaction.rollback()
        raise LedgerUnusableError(
            "This database accepts the same primary key twice, so it cannot keep a ledger. "
            "Set ledger_conn_id to an SQLite, PostgreSQL or MySQL connection."
        )


def pool_arguments(dialect_name: str, size: int) -> dict[str, Any]:
    """Return arguments for `create_engine`, for `size` threads."""
    arguments: dict[str, Any] = {
        "poolclass": QueuePool,
        "pool_size": size,
        "max_overflow": 2,
        "hide_parameters": True,
    }
    if dialect_name == "sqlite":
        arguments["connect_args"] = {"check_same_thread": False, "timeout": _BUSY_TIMEOUT_S}
    else:
        arguments["pool_pre_ping"] = True
    return arguments


def _make_durable(engine: Engine) -> None:
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return
    if engine.dialect.name == "postgresql":
        event.listen(engine, "do_connect", _notice_a_lost_server)
        event.listen(engine, "connect", _prepare_postgresql)
    else:
        event.listen(engine, "connect", _prepare_mysql)
    event.listen(engine, "handle_error", _leave_a_standby)


def _leave_a_standby(context: Any) -> None:
    """Leave a server that takes no writes: after a failover, a new connection may lead to one that does."""
    if takes_no_writes(context.original_exception):
        context.is_disconnect = True


def _notice_a_lost_server(dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
    if dialect.driver in ("psycopg2", "psycopg"):
        # What the connection's author has set stays.
        parameters.update({name: value for name, value in _NOTICING.items() if name not in parameters})


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own way of beginning transactions would take the write lock too late.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_S * 1000}")
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("kk_read")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    if hasattr(connection, "prepare_threshold"):
        # Behind a pooler that shares sessions, what psycopg 3 has prepared is another session's.
        connection.prepare_threshold = None
    cursor = connection.cursor()
    cursor.execute(
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    )
    # Under a stricter one, a rival's commit would be an error here instead of a lost race.
    cursor.execute(
        "SELECT set_config('default_transaction_isolation', 'read committed', false)"
        " WHERE current_setting('default_transaction_isolation') <> 'read committed'"
    )
    cursor.close()
    connection.commit()


def _prepare_mysql(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # Its default shows a transaction what was there when it began, so that a lost race would not be seen.
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    # In a zone with summer time an hour of the year comes twice; what is too long would be cut in silence.
    cursor.execute("SET time_zone = '+00:00', sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')")
    cursor.close()
    connection.commit()
