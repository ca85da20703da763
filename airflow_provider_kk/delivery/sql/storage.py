"""The storage of a ledger in a database: reading and changing its rows."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError

from airflow_provider_kk.api.base_url import may_be_one_store
from airflow_provider_kk.delivery.clock import Clock
from airflow_provider_kk.delivery.ledger import Ledger
from airflow_provider_kk.delivery.model import Attempt, LedgerUnusableError, Origin, Pause, Record, Timing
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.database import Database
from airflow_provider_kk.delivery.sql.ledger_rows import (
    RECORD_FIELDS,
    SqlTransaction,
    Statements,
    attempt_of,
    in_turn,
    record_of,
    where_equal,
)
from airflow_provider_kk.delivery.states import DOUBTFUL, State
from airflow_provider_kk.delivery.storage import RunRow, T

_RUN, _PAUSE = tables.sync_run, tables.pause
#: Parameters of one statement, below every database's limit, also SQLite's since 3.32.
_KEYS_AT_ONCE = 1_000 if sqlite3.sqlite_version_info >= (3, 32) else 500
_RECOVER_NEW_ACCOUNT_S = 30 * 86_400.0


class SqlStorage:
    """The rows of one account in a database; see `storage.Storage` for the methods without a description.

    :param engine: the database; see `database.pool_arguments`.
    :param host: KK's host.
    :param account: the name of the store at that host.
    :param token_fingerprint: see `fingerprint_of_token`; stored with each attempt.
    :param clock: the worker's clock.
    :raises LedgerUnusableError: the database cannot have a ledger.
    """

    def __init__(
        self, engine: Engine, host: str, account: str, clock: Clock, *, token_fingerprint: str = ""
    ) -> None:
        self.database = Database(engine, clock)
        self.has_own_clock = self.database.kind != "sqlite"
        self.host, self.account = host, account
        self._token_fingerprint = token_fingerprint
        self._account_filter = {"host": host, "account": account}
        #: The tables that it reads and writes.
        self.jobs = tables.ORDERS
        self._statements = Statements(self.database.now)

    def of_refunds(self) -> SqlStorage:
        """Return the rows of the same account's refunds, in the same database.

        Their keys are those of `refunds.refund_key`, and their `kk_order_ids` are refund numbers.
        """
        storage = copy(self)
        storage.jobs = tables.REFUNDS
        return storage

    @property
    def _job(self) -> sa.Table:
        return self.jobs.job

    @property
    def _attempt(self) -> sa.Table:
        return self.jobs.attempt

    def _key_of(self, table: sa.Table) -> sa.Column[Any]:
        return table.c[self.jobs.key]

    # Opening ---------------------------------------------------------------------------------------

    def open(self, conn_id: str, *, settle_window_s: float, account_is_explicit: bool = True) -> None:
        """Create missing tables and rows, and register the connection that uses this account.

        :param settle_window_s: seconds for which KK's list may lack a created order.
        :raises LedgerUnusableError: a second connection uses the account without naming it, or a newer
            version of this package wrote the ledger.
        """
        self.database.create_tables()
        if self._account() is None:
            self.database.require_unique_keys()
            self._add_account()
        self.database.persist(lambda db: self._register(db, conn_id, settle_window_s, account_is_explicit))

    def close(self) -> None:
        self.database.engine.dispose()

    def _account(self) -> Any:
        with self.database.read() as db:
            return db.execute(self._select_account()).one_or_none()

    def _select_account(self) -> Any:
        return sa.select(tables.account).where(*self._where_account(tables.account))

    def _add_account(self) -> None:
        now = self.database.read_now()
        row = {**tables.NEW_ACCOUNT, **self._account_filter, "recovered_until": now - _RECOVER_NEW_ACCOUNT_S}
        with suppress(IntegrityError):  # another worker added it first
            self.database.persist(lambda db: db.execute(tables.account.insert().values(row)))

    def _register(
        self, db: Connection, conn_id: str, settle_window_s: float, account_is_explicit: bool
    ) -> None:
        row = db.execute(self._select_account().with_for_update()).one()
        if row.schema_version > tables.SCHEMA_VERSION:
            raise LedgerUnusableError(
                f"This ledger was written by a newer version of airflow-provider-kk (schema "
                f"{row.schema_version}, this version has {tables.SCHEMA_VERSION}). Upgrade the package here."
            )
        self._require_same_store(db, conn_id, settle_window_s)
        known = json.loads(row.conn_ids)
        if conn_id in known:
            return
        if known and not account_is_explicit:
            raise LedgerUnusableError(
                f"Connection {conn_id!r} uses the ledger's account {self.account!r} at {self.host}, which is "
                f"used by {', '.join(map(repr, known))}. If both are the same KK store, set the extra "
                f'{{"account": "{self.account}"}} in both. If not, set another account name in this one.'
            )
        statement = tables.account.update().where(*self._where_account(tables.account))
        db.execute(statement.values(conn_ids=json.dumps([*known, conn_id])))

    def _require_same_store(self, db: Connection, conn_id: str, settle_window_s: float) -> None:
        """Reject a connection whose host or account changed while KK's list may lack its last orders."""
        account = tables.account.c
        is_other = sa.or_(account.host != self.host, account.account != self.account)
        for other in db.execute(sa.select(tables.account).where(is_other)).all():
            if conn_id not in json.loads(other.conn_ids) or not may_be_one_store(self.host, other.host):
                continue
            if young := self._young_orders(db, other.host, other.account, settle_window_s):
                raise LedgerUnusableError(
                    f"Connection {conn_id!r} was account {other.account!r} at {other.host} before, with the "
                    f"same access token, and {young} of the orders there are in doubt or were created less "
                    f"than {settle_window_s:.0f} s ago. Account {self.account!r} at {self.host} does not "
                    "have them, so they could be sent twice. Restore host and account until that time is "
                    "over and `kk ledger list` has none in doubt. For another KK store, use another "
                    "connection"
                )

    def _young_orders(self, db: Connection, host: str, account: str, settle_window_s: float) -> int:
        """Count an account's orders, sent with this token, that KK's list may lack."""
        job, attempt = self._job.c, self._attempt
        is_by_token = sa.exists().where(
            attempt.c.host == job.host,
            attempt.c.account == job.account,
            self._key_of(attempt) == self._key_of(self._job),
            attempt.c.token_fingerprint == self._token_fingerprint,
        )
        young = (
            job.state.in_([state.value for state in DOUBTFUL]),
            sa.and_(job.state == State.CREATED.value, job.created_at > self.database.now() - settle_window_s),
        )
        count = sa.select(sa.func.count()).where(job.host == host, job.account == account, is_by_token)
        # One count after the other, each along its index.
        return sum(db.scalar(count.where(condition)) or 0 for condition in young)

    def accounts_of_token(self) -> list[str]:
        """Return KK's other accounts in this ledger whose newest order was sent with this access token."""
        account = tables.account.c.account
        others = sa.select(account).where(tables.account.c.host == self.host, account != self.account)
        with self.database.read() as db:
            return [other for other in db.scalars(others) if self._is_by_token(db, other)]

    def _is_by_token(self, db: Connection, account: str) -> bool:
        job, attempt = self._job, self._attempt
        other = {"host": self.host, "account": account}
        created = where_equal(job, other | {"state": State.CREATED.value})
        newest = sa.select(self._key_of(job)).where(*created).order_by(job.c.created_at.desc()).limit(1)
        its_attempts = where_equal(attempt, other | {self.jobs.key: newest.scalar_subquery()})
        its_tokens = sa.select(attempt.c.token_fingerprint).where(*its_attempts)
        return self._token_fingerprint in set(db.scalars(its_tokens))

    # Transactions ----------------------------------------------------------------------------------

    def persist(self, work: Callable[[SqlTransaction], T]) -> T:
        return self.database.persist(lambda db: work(self._transaction(db)))

    def transact(self, work: Callable[[SqlTransaction], T]) -> T:
        return self.database.transact(lambda db: work(self._transaction(db)))

    def _transaction(self, db: Connection) -> SqlTransaction:
        return SqlTransaction(
            db, self.database, self._statements, self.jobs, self._account_filter, self._token_fingerprint
        )

    def now(self) -> float:
        return self.database.read_now()

    # Reading ---------------------------------------------------------------------------------------

    def look_up(self, keys: Sequence[str]) -> dict[str, Record]:
        return {one.key: one for one in self._generations(keys)}

    def _generations(self, keys: Sequence[str]) -> list[Record]:
        query = self._records().order_by(self._job.c.generation)
        return [record_of(row) for row in self._of_keys(query, self._job, keys)]

    def _records(self, *conditions: sa.ColumnElement[bool]) -> Any:
        columns = self.jobs.columns(RECORD_FIELDS)
        return sa.select(*columns).where(*self._where_account(self._job), *conditions)

    def _of_keys(self, query: Any, table: sa.Table, keys: Sequence[str]) -> Iterator[Any]:
        """Yield the rows of many keys, in statements that every database accepts."""
        with self.database.read() as db:
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                some = list(keys[start : start + _KEYS_AT_ONCE])
                yield from db.execute(query.where(self._key_of(table).in_(some))).all()

    def entries(
        self, *, states: Iterable[State] = (), key: str | None = None, limit: int | None = None
    ) -> list[Record]:
        query = self._records()
        if states := tuple(states):
            query = query.where(self._job.c.state.in_([state.value for state in states]))
        if key is not None:
            query = query.where(self._key_of(self._job) == key)
        return self._read(query.order_by(self._job.c.generation, self._job.c.updated_at).limit(limit))

    def _read(self, query: Any) -> list[Record]:
        with self.database.read() as db:
            return [record_of(row) for row in db.execute(query)]

    def of_sync(self, sync_id: str) -> Iterator[Record]:
        with self.database.read() as db:
            for row in db.execute(self._records(self._job.c.sync_id == sync_id)):
                yield record_of(row)

    def doubts(self, *, longest_lease_s: float) -> list[Record]:
        now, job = self.database.now(), self._job.c
        is_over = sa.or_(job.lease_until <= now, job.lease_until > now + longest_lease_s)
        is_in_doubt = sa.or_(
            job.state == State.IN_DOUBT.value, sa.and_(job.state == State.SENDING.value, is_over)
        )
        return self._read(self._records(is_in_doubt).order_by(job.settle_after))

    def attempts(self, keys: Sequence[str]) -> list[Attempt]:
        query = self._posts().order_by(*in_turn(self._attempt))
        return [attempt_of(row, self.jobs) for row in self._of_keys(query, self._attempt, keys)]

    def _posts(self) -> Any:
        return sa.select(self._attempt).where(*self._where_account(self._attempt))

    def sent_ids(self, keys: Sequence[str]) -> dict[str, set[str]]:
        columns = (self._key_of(self._job), self._job.c[self.jobs.ids])
        query = self._records(*self._where_sent()).with_only_columns(*columns)
        ids: dict[str, set[str]] = {}
        for key, its_ids in self._of_keys(query, self._job, keys):
            ids.setdefault(key, set()).update(json.loads(its_ids))
        return ids

    def newest_sent(self, *, before: float, limit: int) -> list[Record]:
        job = self._job.c
        query = self._records(*self._where_sent(), job.created_at < before, job[self.jobs.ids] != "[]")
        return self._read(query.order_by(job.created_at.desc()).limit(limit))

    def _where_sent(self) -> tuple[sa.ColumnElement[bool], ...]:
        return (self._job.c.state == State.CREATED.value, self._job.c.attempt > 0)

    def created_between(self, since: float, until: float) -> list[Record]:
        """Return the orders that were created in a period (epoch seconds), each generation, oldest first."""
        job = self._job.c
        query = self._records(job.state == State.CREATED.value, job.created_at.between(since, until))
        return self._read(query.order_by(job.created_at))

    def refunds_of(self, kk_order_id: str) -> list[Record]:
        """Return all refunds of an order at KK, each generation, from a ledger of refunds."""
        key = self._key_of(self._job)
        begins = key.startswith(f"{kk_order_id}-", autoescape=True)
        query = self._records(begins, *_near(key, kk_order_id))
        return self._read(query.order_by(self._job.c.generation, self._job.c.updated_at))

    def is_of_another_key(self, kk_order_id: str, key: str) -> bool:
        holds_id = self._job.c[self.jobs.ids].like(f'%"{kk_order_id}"%')
        return bool(self._read(self._records(self._key_of(self._job) != key, holds_id).limit(1)))

    def histories(self) -> Iterator[tuple[list[Record], list[Attempt]]]:
        """Yield the rows of each key: its generations, oldest first, and all its POSTs in order."""
        last = ""
        while some := self._keys_after(last):
            generations: dict[str, list[Record]] = {key: [] for key in some}
            for entry in self._generations(some):
                generations[entry.key].append(entry)
            attempts: dict[str, list[Attempt]] = {key: [] for key in some}
            for one in self.attempts(some):
                attempts[one.key].append(one)
            yield from ((generations[key], attempts[key]) for key in some)
            last = some[-1]

    def _keys_after(self, last: str) -> list[str]:
        parts = []
        for table in (self._job, self._attempt):
            key = self._key_of(table)
            parts.append(sa.select(key.label("key")).where(*self._where_account(table), key > last))
        keys = sa.union(*parts).subquery().c.key
        with self.database.read() as db:
            return list(db.scalars(sa.select(keys).order_by(keys).limit(_KEYS_AT_ONCE)))

    def attempts_by_time(self) -> Iterator[Attempt]:
        """Yield every POST of the account by the time of its intent, in constant memory."""
        # KK's clock has whole seconds, so several may have the same time.
        query = self._posts().order_by(self._attempt.c.intent_at, *in_turn(self._attempt))
        with self.database.read() as db:
            streamed = db.execution_options(stream_results=True, max_row_buffer=_KEYS_AT_ONCE)
            for row in streamed.execute(query):
                yield attempt_of(row, self.jobs)

    def _where_account(self, table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
        return where_equal(table, self._account_filter)

    # The account -----------------------------------------------------------------------------------

    def recovered_until(self) -> float:
        return float(self._account().recovered_until)

    def set_recovered_until(self, epoch: float) -> None:
        is_earlier = (*self._where_account(tables.account), tables.account.c.recovered_until < epoch)
        statement = tables.account.update().where(*is_earlier).values(recovered_until=epoch)
        self.database.transact(lambda db: db.execute(statement))

    def pause(self) -> Pause | None:
        query = sa.select(_PAUSE).where(*self._where_paused()).limit(1)
        try:
            with self.database.read() as db:
                row = db.execute(query).one_or_none()
        except DBAPIError:
            with self.database.read() as db:
                if sa.inspect(db).has_table(_PAUSE.name):
                    raise
            return None  # a ledger of an older version lacks the table, and a reader creates none
        return None if row is None else Pause(row.paused_at, row.paused_by, row.why)

    def add_pause(self, who: str, why: str) -> bool:
        """Stop all sending of the account; False if it is stopped already."""
        row: dict[str, Any] = {**self._account_filter, "pause_id": uuid.uuid4().hex}
        row |= {"paused_at": self.database.now(), "paused_by": who, "why": why}
        row |= {"resumed_at": 0.0, "resumed_by": "", "why_resumed": ""}

        def work(db: Connection) -> bool:
            self._transaction(db).lock_account()
            if db.execute(sa.select(_PAUSE.c.pause_id).where(*self._where_paused())).first():
                return False
            db.execute(_PAUSE.insert().values(row))
            return True

        return self.database.transact(work)

    def end_pause(self, who: str, why: str) -> bool:
        """Allow sending again; False if it is allowed already."""
        statement = _PAUSE.update().where(*self._where_paused())
        ended = statement.values(resumed_at=self.database.now(), resumed_by=who, why_resumed=why)
        return self.database.transact(lambda db: db.execute(ended).rowcount) > 0

    def _where_paused(self) -> tuple[sa.ColumnElement[bool], ...]:
        return where_equal(_PAUSE, {**self._account_filter, "resumed_at": 0.0})

    # The syncs -------------------------------------------------------------------------------------

    def newest_run(self, origin: Origin) -> RunRow | None:
        task = {name: value for name, value in vars(origin).items() if name != "try_number"}
        query = sa.select(_RUN).where(*where_equal(_RUN, self._account_filter | task))
        with self.database.read() as db:
            row = db.execute(query.order_by(_RUN.c.started_at.desc()).limit(1)).one_or_none()
        if row is None:
            return None
        values = {name: row._mapping[name] for name in RunRow.__dataclass_fields__}
        return RunRow(**values | {"summary": json.loads(row.summary)})

    def add_run(self, run: RunRow, origin: Origin) -> None:
        row = self._account_filter | vars(origin) | vars(run)
        statement = _RUN.insert().values(row | {"summary": json.dumps(dict(run.summary)), "ended_at": 0.0})
        self.database.transact(lambda db: db.execute(statement))

    def change_run(self, sync_id: str, values: Mapping[str, Any]) -> None:
        values = dict(values)
        if "summary" in values:
            values.update(summary=json.dumps(dict(values["summary"])), ended_at=self.database.now())
        statement = _RUN.update().where(_RUN.c.sync_id == sync_id).values(values)
        self.database.transact(lambda db: db.execute(statement))


SqlLedger = Ledger[SqlStorage]


def sql_ledger(
    engine: Engine,
    host: str,
    account: str,
    *,
    timing: Timing | None = None,
    max_orders_per_day: int | None = None,
    token_fingerprint: str = "",
    clock: Clock | None = None,
) -> SqlLedger:
    """Return the ledger of one account in a database; `storage.open` creates missing tables.

    :param engine: the database; see `database.pool_arguments`.
    :raises LedgerUnusableError: the database cannot have a ledger.
    """
    clock = clock or Clock()
    storage = SqlStorage(engine, host, account, clock, token_fingerprint=token_fingerprint)
    return Ledger(storage, clock, timing, max_orders_per_day=max_orders_per_day)


def refund_ledger(ledger: SqlLedger) -> SqlLedger:
    """Return the ledger of the same account's refunds; see `SqlStorage.of_refunds`."""
    return Ledger(ledger.storage.of_refunds(), ledger.clock, ledger.timing)


def _near(key: sa.Column[Any], kk_order_id: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Limit the range of keys that begin with an id, for the index, which most collations deny to LIKE."""
    following = str(int(kk_order_id) + 1) if kk_order_id.isascii() and kk_order_id.isdigit() else ""
    # As text, 100 is not greater than 99.
    is_behind = len(following) == len(kk_order_id)
    return (key >= kk_order_id, key < following) if is_behind else ()
