"""The ledger's database: a durable engine, its clock, and its tables."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidatePoolError
from sqlalchemy.pool import QueuePool

from airflow_provider_kk.delivery.clock import Clock
from airflow_provider_kk.delivery.model import LedgerUnusableError
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.driver_errors import (
    describe_error,
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
    """Logs transactions that take long, from a thread that runs while there are transactions."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[object, float] = {}
        self._is_watched = False
        self._pause = threading.Event()  # never set

    @contextmanager
    def warn_if_slow(self) -> Iterator[None]:
        """Log a warning if the block takes long."""
        key = object()
        with self._lock:
            self._since[key] = time.monotonic()
            if not self._is_watched:
                # If no thread can be started, the transaction runs without a warning.
                with suppress(RuntimeError):
                    threading.Thread(target=self._watch, name="kk-waits", daemon=True).start()
                    self._is_watched = True
        try:
            yield
        finally:
            del self._since[key]

    def _watch(self) -> None:
        warned_at = -_WARN_EVERY_S
        while True:
            # Not time.sleep, since tests with a virtual clock count that as the worker's sleep.
            self._pause.wait(_CHECK_EVERY_S)
            now = time.monotonic()
            with self._lock:
                if not self._since:
                    self._is_watched = False
                    return
                waited_s = now - min(self._since.copy().values())
            if waited_s >= _WORTH_LOGGING_S and now - warned_at >= _WARN_EVERY_S:
                warned_at = now
                text = (
                    "Waiting for the ledger's database for %.0f s: it is locked, busy or out of reach. Find "
                    "the session that locks it (in PostgreSQL: pg_locks), and check its server"
                )
                _log.warning(text, waited_s)


T = TypeVar("T")

_BUSY_TIMEOUT_S = 60
#: A transaction that is retried does not check a connection that was used just before.
_IDLE_S = 1.0
_is_retried: ContextVar[bool] = ContextVar("kk_is_retried", default=False)
#: Settings by which libpq notices a lost server, in seconds and milliseconds. By default that takes hours.
_NOTICING = {
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}


class Database:
    """Short transactions on the ledger's database."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self.engine = engine
        self.kind = engine.dialect.name
        #: Whether an update can return its row (with SQLAlchemy 1.4, only in PostgreSQL).
        self.returns_rows: bool = getattr(engine.dialect, "update_returning", self.kind == "postgresql")
        self._clock = clock
        self._waits = SlowTransactions()
        # Writers of one process queue here, since SQLite's own busy loop starves some.
        self._gate = threading.RLock() if self.kind == "sqlite" else None
        if self.kind not in ("sqlite", "postgresql", "mysql", "mariadb"):
            raise LedgerUnusableError(
                f"A ledger cannot be in {self.kind}. It needs SQLite, PostgreSQL or MySQL. Set "
                "ledger_conn_id on the operator or in the kk connection to a connection of one of these."
            )
        _make_durable(engine)

    def time_here(self) -> float | None:
        """Return the worker's time for SQLite, which has no clock of its own; None for other databases."""
        return self._clock.wall() if self.kind == "sqlite" else None

    def now(self) -> sa.ColumnElement[float]:
        """Return an SQL expression for the database's clock, epoch seconds."""
        if (here := self.time_here()) is not None:
            return sa.literal(here, sa.Float(53))
        if self.kind == "postgresql":
            return sa.cast(sa.extract("epoch", sa.func.clock_timestamp()), sa.Float(53))
        return sa.func.unix_timestamp(sa.text("sysdate(6)"), type_=sa.Float(53))

    def read_now(self) -> float:
        """Return the time of the database's clock, epoch seconds."""
        if (here := self.time_here()) is not None:
            return here
        with self.read() as connection:
            return float(connection.execute(sa.select(self.now())).scalar_one())

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Open a read-only transaction."""
        with self._waits.warn_if_slow(), self.engine.connect() as connection:
            yield connection.execution_options(kk_read=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Open a transaction that is committed durably at the end of the block."""
        with self._waits.warn_if_slow(), self._gate or nullcontext(), self.engine.begin() as connection:
            yield connection

    def persist(self, work: Callable[[Connection], T]) -> T:
        """Run `work` in a transaction; retry after any transient error.

        The work must be safe to run twice, since a commit may succeed before its connection breaks.
        """
        return self._run(work, is_transient)

    def transact(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which must not run twice, in a transaction; retry only after a rollback."""
        return self._run(work, is_serialization_failure)

    def read_with_retry(self, work: Callable[[Connection], T]) -> T:
        """Run `work`, which only reads; retry after any transient error."""
        return self._run(work, is_transient, only_reads=True)

    def _run(
        self,
        work: Callable[[Connection], T],
        is_retryable: Callable[[Exception], bool],
        *,
        only_reads: bool = False,
    ) -> T:
        def once() -> T:
            with self.read() if only_reads else self.write() as connection:
                return work(connection)

        outer = _is_retried.set(is_retryable is is_transient)
        try:
            return retry(once, is_retryable)
        finally:
            _is_retried.reset(outer)

    def create_tables(self) -> None:
        """Create the missing tables. Another worker may do the same at the same time."""
        if self._has_tables():
            return
        try:
            self.persist(tables.create_missing)
        except DBAPIError as error:
            if is_transient(error):
                raise
            if not self._has_tables():
                raise LedgerUnusableError(
                    f"The ledger's tables could not be created ({type(error.orig).__name__}). Grant CREATE "
                    "to the connection's user, or run the output of `kk ledger ddl` as another user."
                ) from error

    def _has_tables(self) -> bool:
        names = {table.name for table in tables.METADATA.sorted_tables}
        with self.read() as connection:
            return names <= set(sa.inspect(connection).get_table_names())

    def require_unique_keys(self) -> None:
        """Insert one key twice, and require that the database rejects the second.

        :raises LedgerUnusableError: the database accepts both, as some with PostgreSQL's protocol do.
        """
        # Each check has its own key, since several that wait for one key can deadlock in InnoDB.
        row = {**tables.NEW_ACCOUNT, "host": "(uniqueness check)", "account": uuid.uuid4().hex}
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
            "This database accepts the same primary key twice, so it cannot have a ledger. Set "
            "ledger_conn_id to an SQLite, PostgreSQL or MySQL connection."
        )


def pool_arguments(dialect_name: str, size: int) -> dict[str, Any]:
    """Return the arguments of `create_engine` for `size` threads."""
    arguments: dict[str, Any] = {
        "poolclass": QueuePool,
        "pool_size": size,
        "max_overflow": 2,
        "hide_parameters": True,
    }
    if dialect_name == "sqlite":
        arguments["connect_args"] = {"check_same_thread": False, "timeout": _BUSY_TIMEOUT_S}
    else:
        arguments["pool_events"] = [(_note_use, "checkin"), (_check_connection, "checkout")]
    return arguments


def _note_use(_connection: Any, record: Any) -> None:
    record.info["kk_used_at"] = time.monotonic()


def _check_connection(connection: Any, record: Any, _proxy: Any) -> None:
    """Replace a connection that was lost while nobody used it.

    SQLAlchemy's own check also precedes each transaction that is retried: 8 % of the CPU of an order.
    """
    used_at = record.info.get("kk_used_at")
    if used_at is None or (_is_retried.get() and time.monotonic() - used_at < _IDLE_S):
        return
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.close()
    except Exception as error:
        raise InvalidatePoolError from error


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
    """Drop connections to a read-only server, since after a failover a new one may lead to the primary."""
    if takes_no_writes(context.original_exception):
        context.is_disconnect = True


def _notice_a_lost_server(dialect: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
    if dialect.driver in ("psycopg2", "psycopg"):
        # Values that are set in the Airflow connection stay.
        parameters.update({name: value for name, value in _NOTICING.items() if name not in parameters})


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own begin takes the write lock too late.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_S * 1000}")
    connection.execute("PRAGMA synchronous=FULL")


def _begin_sqlite(connection: Connection) -> None:
    reading = connection.get_execution_options().get("kk_read")
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    if hasattr(connection, "prepare_threshold"):
        # A pooler may share sessions, in which psycopg 3's prepared statements do not exist.
        connection.prepare_threshold = None
    cursor = connection.cursor()
    cursor.execute(
        "SELECT set_config('synchronous_commit', 'on', false)"
        " WHERE current_setting('synchronous_commit') = 'off'"
    )
    # With a stricter level, another worker's commit raises an error here instead of changing no row.
    cursor.execute(
        "SELECT set_config('default_transaction_isolation', 'read committed', false)"
        " WHERE current_setting('default_transaction_isolation') <> 'read committed'"
    )
    cursor.close()
    connection.commit()


def _prepare_mysql(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    # By default a transaction reads the rows as of its start, and does not notice another worker's change.
    cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    # With summer time one hour occurs twice. Without STRICT, MySQL cuts long values silently.
    cursor.execute("SET time_zone = '+00:00', sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')")
    cursor.close()
    connection.commit()


MOUNTS = Path("/proc/mounts")

_LOSS = (
    "after a crash of its machine the ledger may lack orders that it recorded, and one that KK's list does "
    "not have yet is then ordered a second time"
)
_ALL_LOST = "with all data of sent orders"
_ADOPTED = "The next sync adopts those that KK's list has"
#: Beginnings of the names of file systems.
_NETWORK = ("9p", "afs", "beegfs", "ceph", "cifs", "fuse", "gfs2", "glusterfs", "lustre", "nfs", "smb")
_TABLES = ", ".join(f"'{table.name}'" for table in tables.METADATA.sorted_tables)


@dataclass(frozen=True)
class DurabilityWarning:
    """A setting by which the ledger may lose rows, with its effect and the right setting."""

    text: str
    is_note: bool = False
    """Whether the setting is common, so that the user decides about it."""


def durability_warnings(db: Connection, *, mounts: Path = MOUNTS) -> list[DurabilityWarning]:
    """Return the settings by which the database behind `db` may lose rows; empty if there are none.

    If the settings cannot be read, the result is a note about that. Sources: PostgreSQL's manual, chapters
    "Write Ahead Log" and "Replication"; SQLite's pages "PRAGMA" and "How To Corrupt"; MySQL's manual,
    "InnoDB Startup Options" and "Binary Logging Options".

    :param mounts: the machine's table of mounts, for a ledger in a file.
    """
    try:
        if db.dialect.name == "sqlite":
            return list(_of_sqlite(db, mounts))
        return list(_of_postgresql(db) if db.dialect.name == "postgresql" else _of_mysql(db))
    except DBAPIError as error:
        return [
            DurabilityWarning(
                f"Whether the ledger's database is durable could not be checked ({describe_error(error)}). "
                "See docs/delivery.md for the right settings.",
                is_note=True,
            )
        ]


def _of_postgresql(db: Connection) -> Iterator[DurabilityWarning]:
    row: Any = db.exec_driver_sql(
        "SELECT current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,"  # noqa: S608 - constant names
        " current_setting('synchronous_commit') AS synchronous_commit, pg_is_in_recovery() AS is_standby,"
        " current_setting('synchronous_standby_names') AS waits_for,"
        " (SELECT count(*) FROM pg_stat_replication) AS standbys,"
        " (SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_class"
        f"  WHERE relname IN ({_TABLES}) AND relpersistence = 'u' AND pg_table_is_visible(oid)) AS unlogged"
    ).one()
    if row.fsync == "off":
        yield DurabilityWarning(f"The ledger's PostgreSQL has fsync = off: {_LOSS}. Set fsync = on.")
    if row.full_page_writes == "off":
        yield DurabilityWarning(
            "The ledger's PostgreSQL has full_page_writes = off: a crash of its machine may damage rows of "
            "the ledger. Set full_page_writes = on, unless the file system prevents torn pages."
        )
    if row.synchronous_commit == "off":
        yield DurabilityWarning(
            "The ledger's PostgreSQL keeps synchronous_commit = off although the provider sets it to on: "
            f"{_LOSS}. Run ALTER ROLE ... SET synchronous_commit = on for the connection's user."
        )
    if row.unlogged:
        yield DurabilityWarning(
            f"The ledger's tables {row.unlogged} are UNLOGGED: PostgreSQL empties them after a crash, "
            f"{_ALL_LOST}. Run ALTER TABLE ... SET LOGGED on each."
        )
    if row.is_standby:
        yield DurabilityWarning(
            "The ledger's PostgreSQL is a standby: it is read-only and may have old rows. Set the ledger's "
            "connection to the primary."
        )
    if row.standbys and (not row.waits_for or row.synchronous_commit in ("off", "local")):
        yield DurabilityWarning(
            "The ledger's PostgreSQL does not wait for its standbys: after a failover to one of them, the "
            f"last orders may be missing. {_ADOPTED}. To lose none, set synchronous_standby_names, and "
            "synchronous_commit = on.",
            is_note=True,
        )


def _of_mysql(db: Connection) -> Iterator[DurabilityWarning]:
    row: Any = db.exec_driver_sql(
        "SELECT @@global.innodb_flush_log_at_trx_commit AS flush, @@global.log_bin AS log_bin,"  # noqa: S608 - constant names
        " @@global.sync_binlog AS sync_binlog,"
        " (SELECT group_concat(table_name ORDER BY table_name) FROM information_schema.tables"
        f"  WHERE table_schema = database() AND table_name IN ({_TABLES}) AND engine <> 'InnoDB') AS others"
    ).one()
    if row.flush not in (1, 3):  # 3 exists in MariaDB only, and waits, too
        yield DurabilityWarning(
            f"The ledger's MySQL has innodb_flush_log_at_trx_commit = {row.flush}: {_LOSS}. Set it to 1."
        )
    if row.others:
        yield DurabilityWarning(
            f"The ledger's tables {row.others} are not InnoDB: they have no transactions, and a crash may "
            "destroy them. Run ALTER TABLE ... ENGINE=InnoDB on each."
        )
    if row.log_bin and row.sync_binlog != 1:
        yield DurabilityWarning(
            f"The ledger's MySQL has sync_binlog = {row.sync_binlog}: a replica that takes over after a "
            f"crash may lack the last orders. {_ADOPTED}. To lose none, set sync_binlog = 1.",
            is_note=True,
        )


def _of_sqlite(db: Connection, mounts: Path) -> Iterator[DurabilityWarning]:
    file = next(row[2] for row in db.exec_driver_sql("PRAGMA database_list") if row[1] == "main")
    if not file:
        yield DurabilityWarning(
            f"The ledger is an SQLite database in memory: it is lost with the process, {_ALL_LOST}. Set a "
            "file on a local disk in the connection."
        )
        return
    mode = str(db.exec_driver_sql("PRAGMA journal_mode").scalar_one())
    if mode.lower() in ("off", "memory"):
        yield DurabilityWarning(
            f"The ledger's SQLite file has journal_mode = {mode}: a crash while it writes may destroy it. "
            "Use journal_mode = WAL or DELETE."
        )
    kind = _file_system(Path(file), mounts)
    if kind in ("tmpfs", "ramfs"):
        yield DurabilityWarning(
            f"The ledger {file} is in memory ({kind}): it is lost when the machine restarts, {_ALL_LOST}. "
            "Move it to a local disk."
        )
    elif kind == "overlay":
        yield DurabilityWarning(
            f"The ledger {file} is in a container's own layer ({kind}): it is lost with the container, "
            f"{_ALL_LOST}. Move it to a volume."
        )
    elif kind.startswith(_NETWORK) and kind != "fuseblk":
        yield DurabilityWarning(
            f"The ledger {file} is on a network file system ({kind}), where SQLite's locks and syncs may "
            "fail, so two workers may send one order. Use a local disk or PostgreSQL."
        )


def _file_system(file: Path, mounts: Path) -> str:
    """Return the type of the file system of `file`; empty if it is not known."""
    try:
        rows = [line.split(" ") for line in mounts.read_text(errors="replace").splitlines()]
    except OSError:
        return ""
    kinds = {_unescaped(row[1]): row[2] for row in rows}  # a later mount hides an earlier one at its path
    return next((kinds[str(folder)] for folder in file.resolve().parents if str(folder) in kinds), "")


def _unescaped(mount_point: str) -> str:
    return mount_point.replace(r"\040", " ").replace(r"\011", "\t").replace(r"\134", "\\")
