"""Write the results of orders to the warehouse, as new rows or into the orders' own rows.

The ledger stays the record of what was sent: a write-back may be lost, or repeated, without harm.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.delivery.log import OrderLog, count_orders
from airflow_provider_kk.delivery.sql.driver_errors import (
    is_of_statement,
    is_serialization_failure,
    redact_db_error,
    retry,
)
from airflow_provider_kk.warehouse.sql import (
    Name,
    SqlDialect,
    Statement,
    dialect_of,
    leave_autocommit,
    plain_cursor,
    style_of,
    tuples,
)

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

    from airflow_provider_kk.delivery.log import Log

_Parameters = Sequence[str | None] | Mapping[str, str | None]
_MAX_MESSAGE = 1_000
_WAREHOUSE_ERROR = "write_back: the warehouse rejected the statement: "
_NOT_WRITTEN = "the results of {orders} are not written: {reason}"
_MORE_ROWS = (
    "table {reason} has more rows of {orders} than lines were ordered, and all of them are marked created. "
    "If the query leaves out lines of an order, such as those on hold, no run sends them. Change the query "
    "so that it selects whole orders"
)
_APPENDED = ("custom_order_number", "state", "kk_order_ids", "message", "at")


class WriteBackError(RuntimeError):
    """The warehouse does not take the results. The orders are not affected: the ledger has their outcomes.

    :param is_retryable: whether a retry can succeed without a change by a person.
    """

    def __init__(self, message: str, *, is_retryable: bool = True) -> None:
        super().__init__(message)
        self.is_retryable = is_retryable


@dataclass(frozen=True)
class Result:
    """The result of one order number. `at` is an aware time.

    `lines`: of how many lines the order was just created; None when it was not just now.
    """

    custom_order_number: str
    state: str
    kk_order_ids: Sequence[str]
    message: str | None
    at: datetime
    lines: int | None = None


class WriteBack(ABC):
    """Where results go: `parse`, then `prepare` before the first order is sent, and `write` at the end."""

    table: Name

    @staticmethod
    def parse(argument: object) -> WriteBack:
        """Parse an operator's `write_back`: `"schema.table"` or `{"table", "key", "ids", "state"}`.

        Raises ValueError for any other shape, and for names that are not plain SQL names.
        """
        if isinstance(argument, str):
            return Append(Name.parse(argument, "write_back", max_parts=3))
        wanted = ("table", "key", "ids", "state")
        if not isinstance(argument, Mapping) or set(argument) != set(wanted):
            raise ValueError(
                'write_back must be "schema.table", to which results are appended, or '
                '{"table": ..., "key": ..., "ids": ..., "state": ...}, whose rows are updated: the table, '
                "and its columns of order numbers, KK's order ids and states"
            )
        names, faults = [], []
        for part in wanted:
            try:
                most = 3 if part == "table" else 1
                names.append(Name.parse(argument[part], f"write_back's {part}", max_parts=most))
            except ValueError as error:
                faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))
        return Update(*names)

    def prepare(self, hook: DbApiHook) -> None:
        """Make sure that the table can take results, before anything is sent. Raises WriteBackError."""
        with _WriteSession.open(hook) as session:
            self._prepare(session)

    def write(self, hook: DbApiHook, results: Iterable[Result], log: Log) -> int:
        """Write the results in batches, each in a transaction of its own. Returns how many were written.

        Raises WriteBackError; the batches before it then stay written. May be repeated.
        """
        written = 0
        remaining, order_log = iter(results), OrderLog(log)
        with _WriteSession.open(hook) as session:
            self._prepare(session)
            # Results are taken before a transaction begins: they may come from a ledger in the same database.
            try:
                while batch := list(islice(remaining, session.dialect.rows_per_statement)):
                    written += self._write(session, batch, order_log)
            finally:
                order_log.flush()
        log.info("Wrote the results of %s to %s", count_orders(written), self.table)
        return written

    @abstractmethod
    def _prepare(self, session: _WriteSession) -> None: ...

    @abstractmethod
    def _write(self, session: _WriteSession, batch: Sequence[Result], log: OrderLog) -> int: ...


@dataclass(frozen=True)
class Append(WriteBack):
    """A new row for each result: `(custom_order_number, state, kk_order_ids, message, at)`.

    Right for warehouses of columns. For each number the latest row by `at` counts; a result that equals
    that one is not added again, so that a repeated write, or a run over old orders, adds nothing.
    """

    table: Name

    def ddl(self, dialect: SqlDialect) -> str:
        """Return the statement that makes the table; ids are joined by commas, times are UTC."""
        short, long, time = dialect.types
        types = dict(zip(_APPENDED, (short, short, long, long, time), strict=True))
        columns = ", ".join(f"{Name((name,)).sql(dialect)} {kind}" for name, kind in types.items())
        return f"CREATE TABLE {self.table.sql(dialect)} ({columns})"

    def _prepare(self, session: _WriteSession) -> None:
        names = [Name((name,)) for name in _APPENDED]
        fault = session.fault_of_columns(self.table, names)
        if fault and session.dialect.creates_table:
            # It fails when it was not the table that was missing, or somebody else was faster: look again.
            with contextlib.suppress(WriteBackError):
                session.run(self.ddl(session.dialect))
            fault = session.fault_of_columns(self.table, names)
        if fault:
            raise WriteBackError(
                f"write_back: results cannot be appended to {self.table}: {fault}. "
                f"To create it, run: {self.ddl(session.dialect)}",
                is_retryable=fault.is_retryable,
            )

    def _write(self, session: _WriteSession, batch: Sequence[Result], log: OrderLog) -> int:
        dialect, statement = session.dialect, Statement(session.style)
        known = self._latest(session, batch)
        # What is longer than any order number was invalid, and fits no such column.
        rows = [_row(result, dialect) for result in batch if len(result.custom_order_number) <= 40]
        news = [row for row in rows if known.get(str(row[0])) != row[1:4]]
        if not news:
            return len(rows)
        columns = ", ".join(Name((name,)).sql(dialect) for name in _APPENDED)
        values = ", ".join(statement.values(row) for row in news)
        table = self.table.sql(dialect)
        session.run(f"INSERT INTO {table} ({columns}) VALUES {values}", statement.parameters)  # noqa: S608 - checked names
        return len(rows)

    def _latest(self, session: _WriteSession, batch: Sequence[Result]) -> dict[str, tuple[Any, ...]]:
        """Return the latest state, ids and message in the table, by order number."""
        dialect, add = session.dialect, Statement(session.style)
        number, *text, at = (Name((name,)).sql(dialect) for name in _APPENDED)
        numbers = add.values(tuple(result.custom_order_number for result in batch))
        sql = (
            f"SELECT {number}, {', '.join(text)} FROM {self.table.sql(dialect)} "  # noqa: S608 - checked names
            f"WHERE {number} IN {numbers} ORDER BY {at}"
        )
        return {row[0]: tuple(row[1:]) for row in session.fetch_all(sql, add.parameters)}


@dataclass(frozen=True)
class Update(WriteBack):
    """The orders' own rows get ids and state, found by their order number. Ids once there are never emptied.

    A number is compared letter by letter, whatever the column's collation. Where a warehouse cannot, an order
    whose number equals another row's there is not written. Each batch is one UPDATE. Right for databases of
    rows; on the others concurrent ones queue.
    """

    table: Name
    key: Name
    ids: Name
    state: Name

    def _prepare(self, session: _WriteSession) -> None:
        names = (self.table, self.key, self.ids, self.state)
        if fault := session.fault_of_columns(self.table, names[1:]):
            advice = "".join(name.folding(session.dialect) for name in names)
            raise WriteBackError(
                f"write_back: {self.table} cannot be updated: {fault}{advice}",
                is_retryable=fault.is_retryable,
            )

    def _write(self, session: _WriteSession, batch: Sequence[Result], log: OrderLog) -> int:
        results = {result.custom_order_number: result for result in batch}
        found, mistaken = self._read_matches(session, results)
        for one in mistaken:
            why = (
                f"by the collation of {self.key}, a row of another order in {self.table} has the same number"
            )
            log.warning(_NOT_WRITTEN, one, why)
        if results:
            session.run(*self._change(session, list(results.values())))
        for number, result in results.items():
            if number not in found:
                why = (
                    f"no row of {self.table} has exactly this number in {self.key}. Check for blanks "
                    "around it"
                )
                log.warning(_NOT_WRITTEN, number, why)
            if result.lines and found[number] > result.lines:
                log.warning(_MORE_ROWS, f"{number} ({result.lines} ordered)", str(self.table))
        return len(found)

    def _read_matches(
        self, session: _WriteSession, results: dict[str, Result]
    ) -> tuple[Counter[str], list[str]]:
        """Take out what another order's row would get; return the others' numbers of rows, and what went."""
        mistaken: list[str] = []
        while results:
            rows = self._rows(session, results)
            # A number in a column of numbers may look otherwise than in the query.
            wrong = {number for key, number in rows if isinstance(key, str) and key.strip() != number}
            if not wrong:
                return Counter(number for _, number in rows), mistaken
            mistaken += sorted(wrong)
            for number in wrong:
                # Now its own row may equal another one's.
                del results[number]
        return Counter(), mistaken

    def _rows(self, session: _WriteSession, results: Mapping[str, Result]) -> list[tuple[Any, str]]:
        """Return each row's number as it stands there, and the order whose result it would get."""
        add, numbers = Statement(session.style), list(results)
        key, table = self._text_key(session.dialect), self.table.sql(session.dialect)
        places = " ".join(f"{_when(number, add, session.dialect)} {n}" for n, number in enumerate(numbers))
        where = f"{key} IN {add.values(tuple(numbers))}"
        sql = f"SELECT {key}, CASE {key} {places} END FROM {table} WHERE {where}"  # noqa: S608 - checked names
        rows = session.fetch_all(sql, add.parameters)
        return [(found, numbers[int(place)]) for found, place in rows if place is not None]

    def _change(self, session: _WriteSession, results: Sequence[Result]) -> tuple[str, _Parameters]:
        add, dialect = Statement(session.style), session.dialect
        table, ids, state = (name.sql(dialect) for name in (self.table, self.ids, self.state))
        key = self._text_key(dialect)
        states = [(result, result.state) for result in results]
        with_ids = [(result, text) for result in results if (text := _ids(result))]
        changes = []
        for column, values in ((state, states), (ids, with_ids)):
            new = " ".join(
                f"{_when(result.custom_order_number, add, dialect)} {add.value(text)}"
                for result, text in values
            )
            changes += [f"{column} = CASE {key} {new} ELSE {column} END"] if new else []
        numbers = add.values(tuple(result.custom_order_number for result in results))
        return f"UPDATE {table} SET {', '.join(changes)} WHERE {key} IN {numbers}", add.parameters  # noqa: S608 - checked names

    def _text_key(self, dialect: SqlDialect) -> str:
        key = self.key.sql(dialect)
        return f"CAST({key} AS {dialect.key_as})" if dialect.key_as else key


def _when(number: str, add: Statement, dialect: SqlDialect) -> str:
    """Return a branch that distinguishes the rows that `IN` has found, letter by letter."""
    return f"WHEN {dialect.exact.format(add.value(number))} THEN"


def _row(result: Result, dialect: SqlDialect) -> tuple[str | None, ...]:
    return (
        result.custom_order_number,
        result.state,
        _ids(result),
        (result.message or "")[:_MAX_MESSAGE] or None,
        _time(result.at, dialect),
    )


def _ids(result: Result) -> str | None:
    """Join the ids; NULL rather than empty, since statements select orders that have no id yet."""
    return ",".join(result.kk_order_ids) or None


def _time(at: datetime, dialect: SqlDialect) -> str:
    # As text it fits columns of time and of text, and sorts in both.
    text = at.astimezone(UTC).isoformat(sep=" ", timespec="microseconds")
    return text if dialect.time_has_offset else text.removesuffix("+00:00")


@dataclass(frozen=True)
class _WriteSession:
    """A connection for as long as a write-back takes."""

    connection: Any
    dialect: SqlDialect
    style: str
    #: Whether changes last only once they are committed.
    needs_commit: bool

    @staticmethod
    @contextlib.contextmanager
    def open(hook: DbApiHook) -> Iterator[_WriteSession]:
        connection = _connected(hook)
        try:
            needs_commit = leave_autocommit(hook, connection)
            session = _WriteSession(
                connection, dialect_of(hook, connection), style_of(hook, connection), needs_commit
            )
            for statement in session.dialect.setup:
                session.run(statement)
            yield session
        finally:
            with contextlib.suppress(Exception):
                connection.close()

    def run(self, sql: str, parameters: _Parameters = ()) -> None:
        """Run a statement in a transaction, where there are such. Raises WriteBackError."""
        self._in_transaction(sql, parameters, lambda cursor: None)

    def fetch_all(self, sql: str, parameters: _Parameters = ()) -> Any:
        """Return the rows of a query. Raises WriteBackError."""
        return self._in_transaction(sql, parameters, lambda cursor: tuples(cursor, cursor.fetchall()))

    def _in_transaction(self, sql: str, parameters: _Parameters, read: Callable[[Any], Any]) -> Any:
        try:
            # Others write the orders' rows, too: the shop itself, and syncs that take them in another order.
            return retry(lambda: self._once(sql, parameters, read), is_serialization_failure)
        except Exception as error:
            fault, is_permanent = redact_db_error(error, sql), is_of_statement(error)
        # Raised outside of the handler: the driver's error may hold a whole row.
        raise WriteBackError(f"{_WAREHOUSE_ERROR}{fault}", is_retryable=not is_permanent)

    def _once(self, sql: str, parameters: _Parameters, read: Callable[[Any], Any]) -> Any:
        try:
            with contextlib.closing(plain_cursor(self.connection)) as cursor:
                _execute(cursor, sql, parameters)
                value = read(cursor)
            if self.needs_commit:
                # A driver without transactions may have no commit: each statement is stored at once.
                with contextlib.suppress(NotImplementedError):
                    self.connection.commit()
        except Exception:
            # BigQuery's driver has no rollback, and a broken connection raises any error.
            with contextlib.suppress(Exception):
                self.connection.rollback()
            raise
        return value

    def fault_of_columns(self, table: Name, columns: Sequence[Name]) -> WriteBackError | None:
        """Return why the table's columns cannot be read; None when they can."""
        names = ", ".join(column.sql(self.dialect) for column in columns)
        try:
            # MySQL's own connector does nothing more until a query's rows are fetched, though there are none.
            self.fetch_all(f"SELECT {names} FROM {table.sql(self.dialect)} WHERE 1 = 0")  # noqa: S608 - checked names
        except WriteBackError as error:
            reason = str(error).removeprefix(_WAREHOUSE_ERROR)
            return WriteBackError(reason, is_retryable=error.is_retryable)
        return None


def _connected(hook: DbApiHook) -> Any:
    try:
        return hook.get_conn()
    except Exception as error:
        first_line = (str(error).strip().splitlines() or [""])[0]
        fault = f"{type(error).__name__}: {first_line}"
    raise WriteBackError(f"write_back: the warehouse cannot be reached: {fault}")


def _execute(cursor: Any, sql: str, parameters: _Parameters) -> None:
    # Without parameters a % is a %.
    cursor.execute(*((sql, parameters) if parameters else (sql,)))
