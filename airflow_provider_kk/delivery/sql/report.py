"""Read-only reports of an account's ledger: counts, pages of orders or refunds, the orders of a DAG run.

Lists by time read a page along an index, since a ledger may have millions of rows. A search reads the whole
account. Counts, filters and other sort orders read the period. Nothing is created, registered or changed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from airflow_provider_kk.delivery.model import Attempt, Goods, Record
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.ledger_rows import RECORD_FIELDS, record_of, where_equal
from airflow_provider_kk.delivery.sql.storage import SqlStorage
from airflow_provider_kk.delivery.states import State

_RUN = tables.sync_run
#: Later than the time of any row. MySQL has no infinity.
_FOREVER = 1e12
#: Sort order of states: those that need a person, then those that may change, then those that are done.
_WORST_FIRST = (
    State.HELD,
    State.IN_DOUBT,
    State.SENDING,
    State.REJECTED,
    State.INVALID,
    State.NOT_SENT,
    State.CREATED,
)
#: The sort orders of `Report.lines`.
SORTS = ("time", "number", "state", "code", "country")
_MAX_DAGS = 100
_EXPORTED_AT_ONCE = 1_000


@dataclass(frozen=True)
class RowFilter:
    """The filter of a list: an order must fit all of these."""

    states: tuple[State, ...] = tuple(State)
    since: float = 0.0
    """The first time, epoch seconds; see `Line.at`."""
    until: float = _FOREVER
    """The end of the period, exclusive."""
    dag_id: str = ""
    """The DAG that sent it, or whose sync changed it last."""
    country: str = ""
    code: int | None = None
    text: str = ""
    """The beginning of the key, with or without a `#` before it, or one whole id of KK's."""


@dataclass(frozen=True)
class Line(Record):
    """An order in a list."""

    dag_id: str = ""
    """The DAG that sent it last, else the one whose sync changed it last; empty if there is none."""
    run_id: str = ""

    @property
    def at(self) -> float:
        """The time of its creation at KK, else of its last change; epoch seconds."""
        return self.created_at if self.state is State.CREATED else self.updated_at

    @property
    def goods(self) -> Goods:
        """SKU to quantity."""
        return self.content.goods

    @property
    def country(self) -> str:
        """The country of the address."""
        return self.content.country


@dataclass(frozen=True)
class RunOrder:
    """An order of a DAG run in its current state, with the POSTs of that run."""

    line: Line
    attempts: tuple[Attempt, ...]


class Report:
    """Reads the ledger of one account's orders, or refunds. `storage` need not be opened."""

    def __init__(self, storage: SqlStorage) -> None:
        self._storage = storage
        self.look_up, self.pause = storage.look_up, storage.pause
        self._jobs = jobs = storage.jobs
        self._columns = jobs.job.c
        self._key = jobs.job.c[jobs.key]
        self._ids = jobs.job.c[jobs.ids]
        self._account_filter = self._in_account(jobs.job)

    def _in_account(self, table: Any) -> tuple[sa.ColumnElement[bool], ...]:
        return where_equal(table, {"host": self._storage.host, "account": self._storage.account})

    def of_refunds(self) -> Report:
        """Return the report of the account's refunds: its keys are refund keys, its ids refund numbers."""
        return Report(self._storage.of_refunds())

    @property
    def engine(self) -> sa.engine.Engine:
        """The ledger's database, to read other tables of it."""
        return self._storage.database.engine.execution_options(kk_read=True)

    def is_there(self) -> bool:
        """Return whether the ledger's tables exist, those of refunds included."""
        found = sa.inspect(self._storage.database.engine)
        return all(found.has_table(table.name) for table in (tables.order, tables.refund))

    # Counts ----------------------------------------------------------------------------------------

    def over_time(
        self, since: float, until: float, step_s: float, selection: RowFilter | None = None
    ) -> dict[State, dict[int, int]]:
        """Count the orders by state and by step of a period.

        :param selection: count only orders that fit it; its states and its period are ignored.
        """
        conditions = self._conditions(selection or RowFilter())
        counts: dict[State, dict[int, int]] = {state: {} for state in State}
        others = [state for state in State if state is not State.CREATED]
        for states in ([State.CREATED], others):
            at = self._time_of(states[0])
            step = self._whole((at - since) / step_s)
            query = (
                sa.select(self._columns.state, step, sa.func.count())
                .where(*self._account_filter, self._columns.state.in_([state.value for state in states]))
                .where(at >= since, at < until, *conditions)
                .group_by(self._columns.state, step)
            )
            for state, number, count in self._rows(query):
                counts[State(state)][int(number)] = count
        return counts

    def count(self, states: Iterable[State]) -> dict[State, int]:
        """Return the number of orders in each of these states now, over all days."""
        wanted = [state.value for state in states]
        query = (
            sa.select(self._columns.state, sa.func.count())
            .where(*self._account_filter, self._columns.state.in_(wanted))
            .group_by(self._columns.state)
        )
        return {State(state): count for state, count in self._rows(query)}

    def count_selected(self, selection: RowFilter) -> dict[State, int]:
        """Return the number of orders that fit a selection, by state."""
        counts = {}
        for state in selection.states:
            query = sa.select(sa.func.count()).select_from(self._jobs.job)
            counts[state] = self._rows(query.where(*self._where(selection, state)))[0][0]
        return {state: count for state, count in counts.items() if count}

    def dag_ids(self) -> list[str]:
        """Return the DAGs that sent or changed orders, by name, at most 100; each is one index lookup."""
        found: set[str] = set()
        with self._storage.database.read() as db:
            for table in (self._jobs.attempt, _RUN):
                dag_id = table.c.dag_id
                first = sa.select(sa.func.min(dag_id)).where(*self._in_account(table))
                last: str | None = ""
                for _ in range(_MAX_DAGS):
                    last = db.scalar(first.where(dag_id > last))
                    if last is None:
                        break
                    found.add(last)
        return sorted(found)

    def oldest(self) -> float | None:
        """Return the earliest time of all orders, epoch seconds; None if there are none."""
        found = []
        for state in State:
            first = sa.select(sa.func.min(self._time_of(state)))
            found += self._rows(first.where(*self._account_filter, self._columns.state == state.value))
        return min((float(time) for (time,) in found if time is not None), default=None)

    def _whole(self, number: Any) -> Any:
        # SQLite may lack floor, and its cast truncates where other databases round.
        if self._storage.database.kind == "sqlite":
            return sa.cast(number, sa.Integer)
        return sa.func.floor(number)

    # Lists -----------------------------------------------------------------------------------------

    def lines(
        self,
        selection: RowFilter,
        *,
        sort: str = "time",
        descending: bool = True,
        offset: int = 0,
        limit: int,
    ) -> list[Line]:
        """Return a page of the orders that fit a selection.

        :param sort: one of `SORTS`; `state` puts orders that need a person first.
        """
        query = self._sorted(selection, sort, descending, offset + limit).limit(limit).offset(offset)
        return self._lines(self._rows(query))

    def export(self, selection: RowFilter, *, sort: str = "time", descending: bool = True) -> Iterator[Line]:
        """Yield all orders that fit a selection, in the order of `lines`, in constant memory."""
        query = self._sorted(selection, sort, descending, None)
        with self._storage.database.read() as db:
            streamed = db.execution_options(stream_results=True, max_row_buffer=_EXPORTED_AT_ONCE)
            for rows in streamed.execute(query).partitions(_EXPORTED_AT_ONCE):
                yield from self._lines(rows)

    def _sorted(self, selection: RowFilter, sort: str, descending: bool, most: int | None) -> Any:
        """Return the query of a list.

        :param most: the most rows to read; None: all.
        """
        # Each state is read along the index of its time. A limit for each state is right only in order of
        # time.
        found = _union_of(self._parts(selection, descending, most if sort == "time" else None))
        is_created = found.c.state == State.CREATED.value
        columns = {
            "time": sa.case((is_created, found.c.created_at), else_=found.c.updated_at),
            "number": found.c[self._jobs.key],
            "state": _rank(found.c.state),
            "code": found.c.code,
            "country": found.c.country,
        }
        orders = [columns[sort], found.c[self._jobs.key], found.c.generation]
        if sort == "code":
            # Databases sort NULL differently.
            orders.insert(0, sa.case((found.c.code.is_(None), 0), else_=1))
        return sa.select(found).order_by(*_directed(orders, descending))

    def _lines(self, rows: Sequence[Any]) -> list[Line]:
        """Return rows with the DAG and run that sent each last, else those whose sync changed it last."""
        entries = [record_of(row) for row in rows]
        sent = {
            (one.key, one.generation): (one.dag_id, one.run_id)
            for one in self._storage.attempts([entry.key for entry in entries])
        }
        runs = sa.select(_RUN.c.sync_id, _RUN.c.dag_id, _RUN.c.run_id)
        runs = runs.where(_RUN.c.sync_id.in_({entry.sync_id for entry in entries}))
        moved = {sync_id: (dag_id, run_id) for sync_id, dag_id, run_id in self._rows(runs)}
        lines = []
        for entry in entries:
            origin = sent.get((entry.key, entry.generation), ("", ""))
            lines.append(_line(entry, *(origin if any(origin) else moved.get(entry.sync_id, origin))))
        return lines

    def _parts(self, selection: RowFilter, descending: bool = True, most: int | None = None) -> list[Any]:
        """Return a query for each state of a selection, with its first rows by time if there is a limit."""
        parts = []
        for state in selection.states:
            at = self._time_of(state)
            query = self._select().where(*self._where(selection, state))
            if most is not None:
                orders = (at, self._key, self._columns.generation)
                query = query.order_by(*_directed(orders, descending)).limit(most)
            parts.append(query)
        return parts

    def _where(self, selection: RowFilter, state: State) -> list[Any]:
        """Return the conditions of a selection for orders of one state."""
        at = self._time_of(state)
        return [
            *self._account_filter,
            self._columns.state == state.value,
            at >= selection.since,
            at < selection.until,
            *self._conditions(selection),
        ]

    def _conditions(self, selection: RowFilter) -> list[Any]:
        """Return the conditions of a selection without state and time."""
        conditions: list[Any] = []
        if selection.country:
            conditions.append(self._columns.country == selection.country)
        if selection.code is not None:
            conditions.append(self._columns.code == selection.code)
        if selection.dag_id:
            conditions.append(self._is_of_dag(selection.dag_id))
        if selection.text:
            plain = selection.text.removeprefix("#")
            holds_id = self._ids.contains(json.dumps(selection.text), autoescape=True)
            conditions.append(sa.or_(self._begins_with(plain), self._begins_with("#" + plain), holds_id))
        return conditions

    def _begins_with(self, text: str) -> Any:
        if self._storage.database.kind == "postgresql":
            return self._key.startswith(text, autoescape=True)
        # LIKE of SQLite ignores case.
        return sa.and_(self._key >= text, self._key < text + chr(0x10FFFF))

    def _is_of_dag(self, dag_id: str) -> Any:
        attempt = self._jobs.attempt
        syncs = sa.select(_RUN.c.sync_id).where(_RUN.c.dag_id == dag_id)
        is_sent = sa.exists().where(
            *self._in_account(attempt),
            attempt.c[self._jobs.key] == self._key,
            attempt.c.generation == self._columns.generation,
            attempt.c.dag_id == dag_id,
        )
        return sa.or_(self._columns.sync_id.in_(syncs), is_sent)

    def find(self, text: str, *, limit: int) -> list[Line]:
        """Return the orders with this key, else those with this id of KK's, which reads the whole account."""
        query = self._select().where(*self._account_filter)
        rows = self._rows(query.where(self._key == text).order_by(self._columns.generation))
        holds_id = self._ids.contains(json.dumps(text), autoescape=True)
        return [_line(record_of(row)) for row in rows or self._rows(query.where(holds_id).limit(limit))]

    def _select(self) -> Any:
        return sa.select(*self._jobs.columns(RECORD_FIELDS))

    def _time_of(self, state: State) -> Any:
        return self._columns.created_at if state is State.CREATED else self._columns.updated_at

    # One order, one run ----------------------------------------------------------------------------

    def all_of(self, key: str) -> tuple[list[Record], list[Attempt]]:
        """Return all generations of a key, and all its POSTs, oldest first."""
        return self._storage.entries(key=key), self._storage.attempts([key])

    def refunds_of(self, kk_order_ids: Iterable[str]) -> list[Line]:
        """Return the refunds of orders at KK, each order's oldest first."""
        refunds = self._storage.of_refunds()
        return [_line(one) for kk_order_id in kk_order_ids for one in refunds.refunds_of(kk_order_id)]

    def of_run(self, dag_id: str, run_id: str, *, limit: int, offset: int = 0) -> list[RunOrder]:
        """Return a page of the orders that a DAG run sent or changed; those that need a person come first."""
        newest = self._of_run(dag_id, run_id)
        query = newest.order_by(_rank(self._columns.state), self._key).limit(limit).offset(offset)
        lines = [_line(record_of(row)) for row in self._rows(query)]
        attempts: dict[str, list[Attempt]] = {}
        for one in self._storage.attempts([line.key for line in lines]):
            if (one.dag_id, one.run_id) == (dag_id, run_id):
                attempts.setdefault(one.key, []).append(one)
        return [RunOrder(line, tuple(attempts.get(line.key, ()))) for line in lines]

    def count_run(self, dag_id: str, run_id: str) -> dict[State, int]:
        """Return the number of orders that a DAG run sent or changed, by state."""
        # Counted in Python, since SQLite would read the whole account by state to group them.
        query = self._of_run(dag_id, run_id).with_only_columns(self._columns.state)
        return dict(Counter(State(state) for (state,) in self._rows(query)))

    def _of_run(self, dag_id: str, run_id: str) -> Any:
        """Return the query of the orders that a DAG run sent or changed, in their newest generations."""
        attempt, columns = self._jobs.attempt, self._columns
        sent = sa.select(attempt.c[self._jobs.key].label("key")).where(
            *self._in_account(attempt), attempt.c.dag_id == dag_id, attempt.c.run_id == run_id
        )
        syncs = sa.select(_RUN.c.sync_id).where(_RUN.c.dag_id == dag_id, _RUN.c.run_id == run_id)
        moved = sa.select(self._key.label("key")).where(*self._account_filter, columns.sync_id.in_(syncs))
        keys = sa.union(sent, moved).subquery()
        newer = self._jobs.job.alias("newer")
        is_replaced = sa.exists().where(
            *self._in_account(newer),
            newer.c[self._jobs.key] == self._key,
            newer.c.generation > columns.generation,
        )
        return (
            self._select()
            .select_from(keys.join(self._jobs.job, self._key == keys.c.key))
            .where(*self._account_filter, sa.not_(is_replaced))
        )

    def _rows(self, query: Any) -> list[Any]:
        with self._storage.database.read() as db:
            return list(db.execute(query).all())


def _union_of(parts: Sequence[Any]) -> Any:
    """Return all rows of several queries, each of which may have its own limit."""
    # SQLite accepts a limit only inside a subquery.
    return sa.union_all(*[sa.select(part.subquery()) for part in parts]).subquery()


def _directed(columns: Iterable[Any], descending: bool) -> list[Any]:
    return [column.desc() if descending else column.asc() for column in columns]


def _rank(state: Any) -> Any:
    return sa.case(*[(state == one.value, rank) for rank, one in enumerate(_WORST_FIRST)])


def _line(entry: Record, dag_id: str = "", run_id: str = "") -> Line:
    return Line(**vars(entry), dag_id=dag_id, run_id=run_id)
