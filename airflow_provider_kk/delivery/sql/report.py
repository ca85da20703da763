"""What the ledger of an account tells those who only look: counts, pages of orders, a DAG run's orders.

The same of its refunds. Every query but the search by KK's id goes along an index, and asks for a page at
most: a ledger may have millions of rows. Nothing is created, registered or changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from airflow_provider_kk.delivery.model import Attempt, Record
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.storage import SqlStorage
from airflow_provider_kk.delivery.states import State

_RUN = tables.sync_run
#: Where orders of the same second stand among each other.
_RANK = {state: rank for rank, state in enumerate(State)}


@dataclass(frozen=True)
class Line:
    """An order as a list shows it."""

    key: str
    generation: int
    state: State
    kk_order_ids: tuple[str, ...]
    code: int | None
    message: str
    at: float
    """When it was created at KK, else when it last changed; epoch seconds."""


@dataclass(frozen=True)
class Cursor:
    """The last line of a page, from which the next one goes on."""

    at: float
    state: State
    generation: int
    key: str

    @classmethod
    def after(cls, line: Line) -> Cursor:
        """Return the place behind a line."""
        return cls(line.at, line.state, line.generation, line.key)

    def __str__(self) -> str:
        return f"{self.at!r}~{self.state.value}~{self.generation}~{self.key}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `str` gave.

        :raises ValueError: when it did not.
        """
        at, state, generation, key = text.split("~", 3)
        return cls(float(at), State(state), int(generation), key)


@dataclass(frozen=True)
class RunOrder:
    """An order of a DAG run, as it stands now, with the POSTs that the run made for it."""

    line: Line
    attempts: tuple[Attempt, ...]


class Report:
    """Reads the ledger of one account's orders, or refunds; `storage` need not be opened."""

    def __init__(self, storage: SqlStorage) -> None:
        self._storage = storage
        self._jobs = jobs = storage.jobs
        self._columns = jobs.job.c
        self._key = jobs.job.c[jobs.key]
        self._ids = jobs.job.c[jobs.ids]
        self._account_filter = (self._columns.host == storage.host, self._columns.account == storage.account)

    def of_refunds(self) -> Report:
        """Return what tells the same of refunds: keys are theirs, and kkOrderIds are refund numbers."""
        return Report(self._storage.of_refunds())

    def is_there(self) -> bool:
        """Whether the ledger's tables exist, those of refunds included."""
        found = sa.inspect(self._storage.database.engine)
        return all(found.has_table(table.name) for table in (tables.order, tables.refund))

    # Counts ----------------------------------------------------------------------------------------

    def over_time(self, since: float, until: float, step_s: float) -> dict[State, dict[int, int]]:
        """Return how many orders of each state have their time in each step of a period, by its number."""
        counts: dict[State, dict[int, int]] = {state: {} for state in State}
        others = [state for state in State if state is not State.CREATED]
        for states in ([State.CREATED], others):
            at = self._time_of(states[0])
            step = self._whole((at - since) / step_s)
            query = (
                sa.select(self._columns.state, step, sa.func.count())
                .where(*self._account_filter, self._columns.state.in_([state.value for state in states]))
                .where(at >= since, at < until)
                .group_by(self._columns.state, step)
            )
            for state, number, count in self._rows(query):
                counts[State(state)][int(number)] = count
        return counts

    def count(self, states: Iterable[State]) -> dict[State, int]:
        """Return how many orders are in these states now, whenever they came there."""
        wanted = [state.value for state in states]
        query = (
            sa.select(self._columns.state, sa.func.count())
            .where(*self._account_filter, self._columns.state.in_(wanted))
            .group_by(self._columns.state)
        )
        return {State(state): count for state, count in self._rows(query)}

    def oldest(self) -> float | None:
        """Return the first time that anything has, epoch seconds; None where there is nothing."""
        found = []
        for state in State:
            first = sa.select(sa.func.min(self._time_of(state)))
            found += self._rows(first.where(*self._account_filter, self._columns.state == state.value))
        return min((float(time) for (time,) in found if time is not None), default=None)

    def _whole(self, number: Any) -> Any:
        # SQLite may lack floor, and only its cast cuts off where others round.
        if self._storage.database.kind == "sqlite":
            return sa.cast(number, sa.Integer)
        return sa.func.floor(number)

    # Lists -----------------------------------------------------------------------------------------

    def lines(
        self, states: Iterable[State], since: float, until: float, *, limit: int, after: Cursor | None = None
    ) -> list[Line]:
        """Return orders of these states whose time is in a period, newest first, from behind `after`."""
        found: list[Line] = []
        for state in states:
            at = self._time_of(state)
            query = (
                self._select(at)
                .where(*self._account_filter, self._columns.state == state.value, at >= since)
                .order_by(at.desc(), self._key.desc(), self._columns.generation.desc())
                .limit(limit)
            )
            # One upper bound only: SQLite takes the first of two, and reads all that is between them.
            if after is not None and after.at < until:
                query = query.where(*self._behind(after, state, at))
            else:
                query = query.where(at < until)
            found += [_line(row) for row in self._rows(query)]
        # Stable: within a state, orders of one time keep the order that the database gives them.
        found.sort(key=lambda line: (-line.at, _RANK[line.state]))
        return found[:limit]

    def find(self, text: str, *, limit: int) -> list[Line]:
        """Return what has this key, else this id of KK's, which reads the whole account."""
        at = sa.case((self._columns.created_at > 0, self._columns.created_at), else_=self._columns.updated_at)
        query = self._select(at).where(*self._account_filter)
        by_key = query.where(self._key == text).order_by(self._columns.generation)
        if found := [_line(row) for row in self._rows(by_key)]:
            return found
        holds_id = self._ids.contains(json.dumps(text), autoescape=True)
        return [_line(row) for row in self._rows(query.where(holds_id).limit(limit))]

    def _select(self, at: Any) -> Any:
        names = ("generation", "state", "code", "message")
        return sa.select(
            self._key.label("key"),
            self._ids.label("ids"),
            *(self._columns[name] for name in names),
            at.label("at"),
        )

    def _time_of(self, state: State) -> Any:
        return self._columns.created_at if state is State.CREATED else self._columns.updated_at

    def _behind(self, cursor: Cursor, state: State, at: Any) -> tuple[Any, ...]:
        if _RANK[state] < _RANK[cursor.state]:
            return (at < cursor.at,)
        if _RANK[state] > _RANK[cursor.state]:
            return (at <= cursor.at,)
        generation = self._columns.generation
        is_same = sa.and_(self._key == cursor.key, generation < cursor.generation)
        # The first bound is what an index can use.
        return at <= cursor.at, sa.or_(at < cursor.at, self._key < cursor.key, is_same)

    # One order, one run ----------------------------------------------------------------------------

    def all_of(self, key: str) -> tuple[list[Record], list[Attempt]]:
        """Return all generations of a key, and all its POSTs, oldest first."""
        return self._storage.entries(key=key), self._storage.attempts([key])

    def refunds_of(self, kk_order_ids: Iterable[str]) -> list[Line]:
        """Return the refunds of orders at KK, each order's oldest first."""
        refunds = self._storage.of_refunds()
        return [_line_of(one) for kk_order_id in kk_order_ids for one in refunds.refunds_of(kk_order_id)]

    def of_run(self, dag_id: str, run_id: str, *, limit: int, after: str | None = None) -> list[RunOrder]:
        """Return what a DAG run has sent or moved, by key, from behind `after`."""
        attempt = self._jobs.attempt
        syncs = sa.select(_RUN.c.sync_id).where(_RUN.c.dag_id == dag_id, _RUN.c.run_id == run_id)
        of_run = (attempt.c.dag_id == dag_id, attempt.c.run_id == run_id)
        keys = self._keys(attempt, of_run, after, limit)
        # One by one: asked for all syncs at once, SQLite reads the account in the order of its numbers.
        for (sync_id,) in self._rows(syncs):
            keys |= self._keys(self._jobs.job, (self._columns.sync_id == sync_id,), after, limit)
        page = self._in_order(keys)[:limit]
        entries = self._storage.look_up(page)
        attempts: dict[str, list[Attempt]] = {}
        for one in self._storage.attempts(page):
            if (one.dag_id, one.run_id) == (dag_id, run_id):
                attempts.setdefault(one.key, []).append(one)
        return [
            RunOrder(_line_of(entries[key]), tuple(attempts.get(key, ()))) for key in page if key in entries
        ]

    def _keys(self, table: sa.Table, conditions: Sequence[Any], after: str | None, limit: int) -> set[str]:
        key = table.c[self._jobs.key]
        account_filter = (table.c.host == self._storage.host, table.c.account == self._storage.account)
        query = sa.select(key).where(*account_filter, *conditions).distinct().order_by(key).limit(limit)
        if after is not None:
            query = query.where(key > after)
        return {row[0] for row in self._rows(query)}

    def _in_order(self, keys: Iterable[str]) -> list[str]:
        """Sort as the database does, whose collation decides what is behind a key."""
        query = sa.select(self._key).where(*self._account_filter, self._key.in_(list(keys)))
        return [row[0] for row in self._rows(query.distinct().order_by(self._key))]

    def _rows(self, query: Any) -> list[Any]:
        with self._storage.database.read() as db:
            return list(db.execute(query).all())


def time_of(entry: Record) -> float:
    """Return when an order was created at KK, else when it last changed."""
    return entry.created_at if entry.state is State.CREATED else entry.updated_at


def _line(row: Any) -> Line:
    ids = tuple(json.loads(row.ids))
    return Line(row.key, row.generation, State(row.state), ids, row.code, row.message, float(row.at))


def _line_of(entry: Record) -> Line:
    return Line(
        entry.key,
        entry.generation,
        entry.state,
        entry.kk_order_ids,
        entry.code,
        entry.message,
        time_of(entry),
    )
