"""Create and fill the warehouse's tables of orders, lines and packages at KK."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.types import TypeDecorator, TypeEngine

from airflow_provider_kk.api.fulfilment import FulfilmentStatus, PackageStatus
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.driver_errors import describe_error, is_serialization_failure, retry
from airflow_provider_kk.delivery.sql.tables import AS_ELSEWHERE
from airflow_provider_kk.warehouse.merge_statuses import (
    KEY_WIDTH,
    MONEY_DIGITS,
    MONEY_SCALE,
    LineRow,
    OrderRow,
    PackageRow,
    StatusRows,
    merge,
)
from airflow_provider_kk.warehouse.sql import Name

#: Below every database's limit of parameters.
_IDS_AT_ONCE = 300


class StatusTablesError(Exception):
    """The warehouse's status tables cannot be used; the text has the reason and what to do."""


if TYPE_CHECKING:
    _Decorator = TypeDecorator[Any]
else:
    _Decorator = TypeDecorator  # no generic before SQLAlchemy 2


class _Money(_Decorator):
    """An exact amount: DECIMAL, and text on SQLite, which would make a float of it."""

    impl = sa.Numeric(MONEY_DIGITS, MONEY_SCALE)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.engine.Dialect) -> TypeEngine[Any]:
        text: TypeEngine[Any] = sa.String(MONEY_DIGITS + 2)
        return dialect.type_descriptor(
            text if dialect.name == "sqlite" else sa.Numeric(MONEY_DIGITS, MONEY_SCALE)
        )

    def process_bind_param(self, value: Decimal | None, dialect: sa.engine.Dialect) -> Any:
        return format(value, "f") if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: sa.engine.Dialect) -> Decimal | None:
        return None if value is None else Decimal(value).normalize()


class _Time(_Decorator):
    """A point in time, UTC: with its zone on PostgreSQL, without one elsewhere."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.engine.Dialect) -> TypeEngine[Any]:
        kinds: dict[str, TypeEngine[Any]] = {
            "postgresql": sa.DateTime(timezone=True),
            "mysql": mysql.DATETIME(fsp=6),
            "mariadb": mysql.DATETIME(fsp=6),
        }
        return dialect.type_descriptor(kinds.get(dialect.name, sa.DateTime()))

    def process_bind_param(self, value: datetime | None, dialect: sa.engine.Dialect) -> Any:
        if value is None or dialect.name == "postgresql":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: sa.engine.Dialect) -> datetime | None:
        if value is None or value.tzinfo is None:
            return value and value.replace(tzinfo=UTC)
        return value.astimezone(UTC)


#: By the annotations of the rows' fields.
_TYPES: dict[str, Any] = {
    "str": sa.String(KEY_WIDTH),
    "int": sa.Integer(),
    "ShortText": sa.String(KEY_WIDTH),
    "LongText": sa.Text(),
    "Money": _Money(),
    "Quantity": sa.BigInteger(),
    "Time": _Time(),
    "FulfilmentStatus": sa.String(20),
    "PackageStatus | None": sa.String(20),
}
#: The columns of a table's key, after those of the account.
_KEYS: dict[type, tuple[str, ...]] = {
    OrderRow: ("kk_order_id",),
    LineRow: ("kk_order_id", "line_no"),
    PackageRow: ("kk_order_id", "package_id"),
}


def _account_columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("host", sa.String(255), primary_key=True),
        sa.Column("account", sa.String(64), primary_key=True),
    ]


class _Described:
    """How the tables look in a database of this dialect."""

    def __init__(self, dialect_name: str, prefix: str) -> None:
        Name.parse(prefix, "table_prefix", max_parts=2)
        # SQLAlchemy quotes names with upper case, which would make another name of them on PostgreSQL.
        plain = prefix.strip().lower() if dialect_name == "postgresql" else prefix.strip()
        schema, _, self._prefix = plain.rpartition(".")
        self.metadata = sa.MetaData(schema=schema or None)
        self.orders = self._table("order_status", OrderRow, "KK's orders: where each is")
        sa.Index(
            f"{self._prefix}order_status_number",
            *(self.orders.c[name] for name in ("host", "account", "custom_order_number")),
        )
        self.lines = self._table("order_line", LineRow, "Their lines")
        self.packages = self._table("package", PackageRow, "Their parcels")
        self.watermark = sa.Table(
            f"{self._prefix}status_sync",
            self.metadata,
            *_account_columns(),
            sa.Column("synced_until", _Time(), nullable=False),
            comment="Up to when KK's changes are in these tables, on KK's clock",
            **AS_ELSEWHERE,
        )

    def _table(self, name: str, row: type, comment: str) -> sa.Table:
        columns = [
            sa.Column(
                field.name,
                _TYPES[str(field.type)],
                primary_key=field.name in _KEYS[row],
                nullable=field.name not in _KEYS[row],
                autoincrement=False,
            )
            for field in fields(row)
        ]
        return sa.Table(
            f"{self._prefix}{name}",
            self.metadata,
            *_account_columns(),
            *columns,
            comment=comment,
            **AS_ELSEWHERE,
        )


def ddl(dialect_name: str, prefix: str = "kk_") -> str:
    """Return the statements that create the tables, for those who may not create them from a task.

    Raises ValueError for a prefix that is no plain name.
    """
    return tables.ddl(dialect_name, _Described(dialect_name, prefix).metadata)


class StatusTables(_Described):
    """The tables of one account in SQLite, PostgreSQL or MySQL, where rows are updated one by one.

    Raises StatusTablesError from every method when the database does not take part.

    :param prefix: the start of the tables' names; its first part may name a schema.
    :raises ValueError: the prefix is no plain name.
    """

    def __init__(self, engine: Engine, host: str, account: str, prefix: str = "kk_") -> None:
        super().__init__(engine.dialect.name, prefix)
        self._engine = engine
        self._mine = {"host": host, "account": account}

    def create(self) -> None:
        """Create what is missing; somebody else may be doing the same."""
        for _ in self.metadata.tables:
            # One may be lost to somebody else, who has created it by now, or it fails again with its reason.
            with suppress(IntegrityError, OperationalError, ProgrammingError):
                return self._create()
        with _named_errors():
            self._create()

    def _create(self) -> None:
        with self._engine.begin() as db:
            self.metadata.create_all(db)

    def close(self) -> None:
        """Let go of the database's connections."""
        self._engine.dispose()

    def synced_until(self) -> datetime | None:
        """Return up to when, on KK's clock, all changes are in the tables; None before the first sync."""
        with _named_errors(), self._engine.connect() as db:
            return db.execute(
                sa.select(self.watermark.c.synced_until).where(*self._account_filter(self.watermark))
            ).scalar()

    def is_there(self) -> bool:
        """Return whether the tables exist."""
        with _named_errors():
            found = sa.inspect(self._engine)
            return all(
                found.has_table(table.name, schema=table.schema) for table in self.metadata.sorted_tables
            )

    def of_ids(self, kk_order_ids: Iterable[str]) -> dict[str, StatusRows]:
        """Return the rows of these orders at KK, by their kkOrderId."""
        found: dict[str, StatusRows] = {}
        with _named_errors(), self._engine.connect() as db:
            for some in _chunks(sorted(set(kk_order_ids))):
                found |= self._read(db, some)
        return found

    def of_numbers(self, numbers: Iterable[str]) -> dict[str, list[StatusRows]]:
        """Return the rows of all orders with these order numbers, by number."""
        found: dict[str, list[StatusRows]] = {}
        column = self.orders.c.custom_order_number
        with _named_errors(), self._engine.connect() as db:
            for some in _chunks(sorted(set(numbers))):
                query = sa.select(self.orders.c.kk_order_id).where(
                    *self._account_filter(self.orders), column.in_(some)
                )
                for rows in self._read(db, list(db.execute(query).scalars())).values():
                    found.setdefault(str(rows.order.custom_order_number), []).append(rows)
        return found

    def store(self, observed: Sequence[StatusRows], until: datetime) -> int:
        """Join what was observed with what is there, and move the watermark: all or nothing, durably.

        Returns how many orders have changed by it.
        """

        def once() -> int:
            with self._engine.begin() as db:
                self._move_watermark(db, until)
                return sum(self._join(db, some) for some in _chunks(observed))

        with _named_errors():
            return retry(once, is_serialization_failure)

    def _move_watermark(self, db: Connection, until: datetime) -> None:
        # First of all, since it also keeps two syncs of an account apart until the transaction ends.
        self._upsert(db, self.watermark, [{"synced_until": until}])

    def _join(self, db: Connection, observed: Sequence[StatusRows]) -> int:
        known = self._read(db, [rows.order.kk_order_id for rows in observed])
        joined: dict[str, StatusRows] = {}
        for rows in observed:
            key = rows.order.kk_order_id
            before = joined.get(key) or known.get(key)
            joined[key] = rows if before is None else merge(before, rows)
        changed = [rows for key, rows in joined.items() if rows != known.get(key)]
        for rows in changed:
            key, c = rows.order.kk_order_id, self.lines.c
            if len(rows.lines) < len(known.get(key, rows).lines):
                mine = (*self._account_filter(self.lines), c.kk_order_id == key)
                db.execute(self.lines.delete().where(*mine, c.line_no > len(rows.lines)))
        self._upsert(db, self.orders, [_values(rows.order) for rows in changed])
        self._upsert(db, self.lines, [_values(line) for rows in changed for line in rows.lines])
        self._upsert(db, self.packages, [_values(one) for rows in changed for one in rows.packages])
        return len(changed)

    def _read(self, db: Connection, ids: Sequence[str]) -> dict[str, StatusRows]:
        if not ids:
            return {}
        orders = self._rows(db, self.orders, OrderRow, ids)
        lines = self._rows(db, self.lines, LineRow, ids)
        packages = self._rows(db, self.packages, PackageRow, ids)
        return {
            key: StatusRows(order, tuple(lines.get(key, ())), tuple(packages.get(key, ())))
            for key, (order,) in orders.items()
        }

    def _rows(self, db: Connection, table: sa.Table, kind: Any, ids: Sequence[str]) -> dict[str, list[Any]]:
        query = sa.select(*(table.c[field.name] for field in fields(kind))).where(
            *self._account_filter(table), table.c.kk_order_id.in_(ids)
        )
        found: dict[str, list[Any]] = {}
        for row in db.execute(query):
            values = dict(row._mapping)
            if values.get("status") is not None:
                values["status"] = (FulfilmentStatus if kind is OrderRow else PackageStatus)(values["status"])
            found.setdefault(values["kk_order_id"], []).append(kind(**values))
        for rows in found.values():
            # Not by the database, which may sort text by a language's rules.
            rows.sort(key=attrgetter(*_KEYS[kind]))
        return found

    def _upsert(self, db: Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
        if rows:
            db.execute(upsert(table, self._engine.dialect.name), [{**self._mine, **row} for row in rows])

    def _account_filter(self, table: sa.Table) -> tuple[sa.ColumnElement[bool], ...]:
        return tuple(table.c[name] == value for name, value in self._mine.items())


def upsert(table: sa.Table, dialect_name: str) -> Any:
    """Insert rows, or give those that are there new values, in the words of a database."""
    names = [column.name for column in table.columns if not column.primary_key]
    if dialect_name in ("mysql", "mariadb"):
        insert = mysql.insert(table)
        return insert.on_duplicate_key_update({name: insert.inserted[name] for name in names})
    statement: Any = (postgresql if dialect_name == "postgresql" else sqlite).insert(table)
    key = [column.name for column in table.primary_key]
    return statement.on_conflict_do_update(
        index_elements=key, set_={name: statement.excluded[name] for name in names}
    )


def _values(row: OrderRow | LineRow | PackageRow) -> dict[str, Any]:
    return {name: value.value if isinstance(value, Enum) else value for name, value in vars(row).items()}


def _chunks(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (values[start : start + _IDS_AT_ONCE] for start in range(0, len(values), _IDS_AT_ONCE))


@contextmanager
def _named_errors() -> Iterator[None]:
    try:
        yield
        return
    except DBAPIError as error:
        message = f"The status tables cannot be used: {describe_error(error)}"
    # Outside of the handler: the driver's own text may hold rows.
    raise StatusTablesError(message)
