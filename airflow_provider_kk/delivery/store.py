"""Opening the ledger, reading it, and changing a row only if it is as it was read."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import IntegrityError

from airflow_provider_kk.delivery import tables
from airflow_provider_kk.delivery.clock import Clock, SystemClock
from airflow_provider_kk.delivery.database import Database, LedgerUnusableError
from airflow_provider_kk.delivery.rows import Attempt, Entry, Terms, attempt_of, entry_of
from airflow_provider_kk.delivery.states import Event, State, follow

_ORDER = tables.order
_ATTEMPT = tables.attempt
#: Below every database's limit of parameters.
_KEYS_AT_ONCE = 500
_HEAL_A_NEW_ACCOUNT_S = 30 * 86_400.0


class LedgerStore:
    """The ledger of one account.

    :param engine: the database; see `database.pool_arguments`.
    :param host: KK's host.
    :param account: which store at that host.
    :param token_fingerprint: see `fingerprint_of_token`; kept with each attempt.
    :raises LedgerUnusableError: when the database cannot keep the promise.
    """

    def __init__(
        self,
        engine: Engine,
        host: str,
        account: str,
        *,
        terms: Terms | None = None,
        token_fingerprint: str = "",
        clock: Clock | None = None,
    ) -> None:
        self.clock: Clock = clock or SystemClock()
        self.database = Database(engine, self.clock)
        self.host, self.account = host, account
        self.terms = terms or Terms()
        self._token_fingerprint = token_fingerprint
        self._is_mine = {"host": host, "account": account}

    # Opening ---------------------------------------------------------------------------------------

    def open(self, conn_id: str, *, account_is_explicit: bool = True) -> None:
        """Create what is missing and register the connection that uses this account.

        :raises LedgerUnusableError: when a second connection uses the account without naming it, or
            when a newer version of this package has written the ledger.
        """
        self.database.create_tables()
        if self._account() is None:
            self.database.require_unique_keys()
            self._add_account()
        self.database.persist(lambda db: self._register(db, conn_id, account_is_explicit))

    def close(self) -> None:
        """Let go of the database's connections."""
        self.database.engine.dispose()

    def _account(self) -> Any:
        with self.database.read() as db:
            return db.execute(sa.select(tables.account).where(*self._mine(tables.account))).one_or_none()

    def _add_account(self) -> None:
        now = self.database.read_now()
        row = dict(
            self._is_mine,
            schema_version=tables.SCHEMA_VERSION,
            conn_ids="[]",
            healed_until=now - _HEAL_A_NEW_ACCOUNT_S,
            bucket_tat=0.0,
            paused_until=0.0,
        )
        try:
            with self.database.write() as db:
                db.execute(tables.account.insert().values(row))
        except IntegrityError:
            return  # somebody else has just added it

    def _register(self, db: Connection, conn_id: str, account_is_explicit: bool) -> None:
        row = db.execute(sa.select(tables.account).where(*self._mine(tables.account)).with_for_update()).one()
        if row.schema_version > tables.SCHEMA_VERSION:
            raise LedgerUnusableError(
                f"This ledger was written by a newer version of airflow-provider-kk "
                f"(schema {row.schema_version}, known here {tables.SCHEMA_VERSION}): upgrade this one."
            )
        known = json.loads(row.conn_ids)
        if conn_id in known:
            return
        if known and not account_is_explicit:
            raise LedgerUnusableError(
                f"Connection {conn_id!r} uses the ledger's account {self.account!r} at {self.host}, which is "
                f"used by {', '.join(map(repr, known))}. If both are the same KK store, say so with the "
                f'extra {{"account": "{self.account}"}}; if not, give this one another account name.'
            )
        db.execute(
            tables.account.update()
            .where(*self._mine(tables.account))
            .values(conn_ids=json.dumps([*known, conn_id]))
        )

    # Reading ---------------------------------------------------------------------------------------

    def look_up(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Return the newest generation of each key that is known."""
        query = sa.select(_ORDER).where(*self._mine(_ORDER)).order_by(_ORDER.c.generation)
        return {row.custom_order_number: entry_of(row) for row in self._of_keys(query, _ORDER, keys)}

    def _of_keys(self, query: Any, table: sa.Table, keys: Sequence[str]) -> Iterator[Any]:
        """Yield the rows of many keys, in statements that every database takes."""
        with self.database.read() as db:
            for start in range(0, len(keys), _KEYS_AT_ONCE):
                some = list(keys[start : start + _KEYS_AT_ONCE])
                yield from db.execute(query.where(table.c.custom_order_number.in_(some))).all()

    def generations(self, key: str) -> list[Entry]:
        """Return every generation of a key, oldest first."""
        return self.entries(key=key)

    def entries(
        self, *, states: Iterable[State] = (), key: str | None = None, limit: int | None = None
    ) -> list[Entry]:
        """Return rows by state and key, least recently changed first."""
        query = sa.select(_ORDER).where(*self._mine(_ORDER))
        if states := tuple(states):
            query = query.where(_ORDER.c.state.in_([state.value for state in states]))
        if key is not None:
            query = query.where(_ORDER.c.custom_order_number == key)
        query = query.order_by(_ORDER.c.generation, _ORDER.c.updated_at).limit(limit)
        with self.database.read() as db:
            return [entry_of(row) for row in db.execute(query)]

    def of_sync(self, sync_id: str) -> Iterator[Entry]:
        """Yield the rows that this sync was the last to move."""
        query = sa.select(_ORDER).where(_ORDER.c.sync_id == sync_id, *self._mine(_ORDER))
        with self.database.read() as db:
            for row in db.execute(query):
                yield entry_of(row)

    def doubts(self) -> list[Entry]:
        """Return what has no known outcome and no live lease: the account's open doubts."""
        query = sa.select(_ORDER).where(
            *self._mine(_ORDER),
            sa.or_(
                _ORDER.c.state == State.IN_DOUBT.value,
                sa.and_(_ORDER.c.state == State.SENDING.value, _ORDER.c.lease_until <= self.database.now()),
            ),
        )
        with self.database.read() as db:
            return [entry_of(row) for row in db.execute(query.order_by(_ORDER.c.settle_after))]

    def attempts(self, keys: Sequence[str]) -> list[Attempt]:
        """Return every POST of these keys, oldest first within each."""
        query = sa.select(_ATTEMPT).where(*self._mine(_ATTEMPT)).order_by(_ATTEMPT.c.intent_at)
        return [attempt_of(row) for row in self._of_keys(query, _ATTEMPT, keys)]

    def sent_ids(self, keys: Sequence[str]) -> dict[str, set[str]]:
        """Return the kkOrderIds of what was created by a POST of ours, by key.

        What was only found in KK's list says nothing about that list.
        """
        query = sa.select(_ORDER.c.custom_order_number, _ORDER.c.kk_order_ids).where(
            *self._mine(_ORDER), _ORDER.c.state == State.CREATED.value, _ORDER.c.attempt > 0
        )
        ids: dict[str, set[str]] = {}
        for row in self._of_keys(query, _ORDER, keys):
            ids.setdefault(row.custom_order_number, set()).update(json.loads(row.kk_order_ids))
        return ids

    def newest_sent(self, *, before: float, limit: int) -> list[Entry]:
        """Return orders that POSTs of ours have created before a time, newest first."""
        query = (
            sa.select(_ORDER)
            .where(*self._mine(_ORDER), _ORDER.c.state == State.CREATED.value, _ORDER.c.attempt > 0)
            .where(_ORDER.c.created_at < before, _ORDER.c.kk_order_ids != "[]")
            .order_by(_ORDER.c.created_at.desc())
            .limit(limit)
        )
        with self.database.read() as db:
            return [entry_of(row) for row in db.execute(query)]

    def is_of_another_key(self, kk_order_id: str, key: str) -> bool:
        """Whether the ledger knows this kkOrderId under another order number; reads the whole account."""
        query = sa.select(sa.literal(1)).where(
            *self._mine(_ORDER),
            _ORDER.c.custom_order_number != key,
            _ORDER.c.kk_order_ids.like(f'%"{kk_order_id}"%'),
        )
        with self.database.read() as db:
            return db.execute(query.limit(1)).first() is not None

    def now(self) -> float:
        """Return the database's clock, epoch seconds."""
        return self.database.read_now()

    # The rows --------------------------------------------------------------------------------------

    def _compare_and_set(self, seen: Entry, event: Event, values: Mapping[str, Any]) -> Entry | None:
        values = dict(
            {"claim_token": secrets.token_hex(16), "updated_at": self.database.now()},
            **dict(values, state=follow(seen.state, event).value),
        )
        with self.database.write() as db:
            if db.execute(self._if_unchanged(seen).values(values)).rowcount != 1:
                return None
            return self._read(db, seen.key, seen.generation)

    def _change(self, db: Connection, entry: Entry, changes: Mapping[str, Any]) -> Entry:
        # A fresh token with every change: whoever has looked before must look again.
        values = dict(changes, claim_token=secrets.token_hex(16), updated_at=self.database.now())
        db.execute(_ORDER.update().where(*self._is(_ORDER, entry.key, entry.generation)).values(values))
        return self._read(db, entry.key, entry.generation)

    def _lock(self, db: Connection, key: str, generation: int) -> Entry | None:
        query = sa.select(_ORDER).where(*self._is(_ORDER, key, generation)).with_for_update()
        row = db.execute(query).one_or_none()
        return entry_of(row) if row else None

    def _read(self, db: Connection, key: str, generation: int) -> Entry:
        return entry_of(db.execute(sa.select(_ORDER).where(*self._is(_ORDER, key, generation))).one())

    def _if_unchanged(self, seen: Entry) -> Any:
        return _ORDER.update().where(
            *self._is(_ORDER, seen.key, seen.generation),
            _ORDER.c.state == seen.state.value,
            _ORDER.c.attempt == seen.attempt,
            _ORDER.c.claim_token == seen.claim_token,
        )

    def _at_least(self, epoch: float, from_now_s: float) -> Any:
        soonest = self.database.now() + from_now_s
        return sa.case((soonest > epoch, soonest), else_=epoch)

    def _mine(self, table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
        return (table.c.host == self.host, table.c.account == self.account)

    def _is(self, table: sa.Table, key: str, generation: int) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            *self._mine(table),
            table.c.custom_order_number == key,
            table.c.generation == generation,
        )

    def _key(self, key: str, generation: int) -> dict[str, Any]:
        return dict(self._is_mine, custom_order_number=key, generation=generation)
