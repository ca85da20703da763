"""The ledger's tables.

Times are epoch seconds of the database's clock. No table has a name, a street or a phone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import SQLAlchemyError

#: Increased with each change of a table. `kk_account` has the version that wrote the ledger.
SCHEMA_VERSION = 2

METADATA = sa.MetaData()

_EPOCH = sa.Float(53)


def _mysql(**options: Any) -> dict[str, Any]:
    return {f"{name}_{option}": value for name in ("mysql", "mariadb") for option, value in options.items()}


#: Arguments of a table by which MySQL has transactions, accepts any letter, and distinguishes A-1 and a-1.
AS_ELSEWHERE = _mysql(engine="InnoDB", charset="utf8mb4", collate="utf8mb4_bin")


def _account_columns(*, is_key: bool = True) -> tuple[sa.Column[str], ...]:
    return (
        sa.Column("host", sa.String(255), primary_key=is_key, nullable=False),
        sa.Column("account", sa.String(64), primary_key=is_key, nullable=False),
    )


def _origin_columns() -> tuple[sa.Column[str], ...]:
    names = ("dag_id", "run_id", "task_id")
    return tuple(sa.Column(name, sa.String(250), nullable=False, server_default="") for name in names)


account = sa.Table(
    "kk_account",
    METADATA,
    *_account_columns(),
    sa.Column("schema_version", sa.Integer, nullable=False),
    sa.Column("conn_ids", sa.Text, nullable=False, comment="Airflow connections that use it, JSON list"),
    sa.Column("recovered_until", _EPOCH, nullable=False, comment="KK's list was recovered up to here"),
    sa.Column("bucket_tat", _EPOCH, nullable=False, comment="the time at which the leaky bucket is empty"),
    sa.Column("paused_until", _EPOCH, nullable=False, comment="after a 429, no request until then"),
    comment="One KK store as one app",
    **AS_ELSEWHERE,
)
#: The row of a new account, without its key.
NEW_ACCOUNT = {
    "schema_version": SCHEMA_VERSION,
    "conn_ids": "[]",
    "recovered_until": 0.0,
    "bucket_tat": 0.0,
    "paused_until": 0.0,
}


pause = sa.Table(
    "kk_pause",
    METADATA,
    sa.Column("pause_id", sa.String(32), primary_key=True),
    *_account_columns(is_key=False),
    sa.Column("paused_at", _EPOCH, nullable=False),
    sa.Column("paused_by", sa.String(250), nullable=False),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("resumed_at", _EPOCH, nullable=False, comment="0: sending is still paused"),
    sa.Column("resumed_by", sa.String(250), nullable=False),
    sa.Column("why_resumed", sa.Text, nullable=False),
    sa.Index("kk_pause_account", "host", "account", "resumed_at"),
    comment="One row for each pause of an account's sending by a person",
    **AS_ELSEWHERE,
)


def _key_columns(key: str) -> tuple[sa.Column[str] | sa.Column[int], ...]:
    return (
        *_account_columns(),
        sa.Column(key, sa.String(40), primary_key=True),
        sa.Column("generation", sa.Integer, primary_key=True, comment="above 1 only by manual resolution"),
    )


def _content_columns() -> tuple[sa.Column[str], ...]:
    return (
        sa.Column("fingerprint", sa.String(80), nullable=False, comment="of goods and address"),
        sa.Column("goods", sa.Text, nullable=False, comment="JSON object: SKU to quantity"),
        sa.Column("country", sa.String(2), nullable=False),
        sa.Column("zip_digest", sa.String(16), nullable=False),
    )


def _job_table(name: str, key: str, ids: str, comment: str) -> sa.Table:
    return sa.Table(
        name,
        METADATA,
        *_key_columns(key),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column(ids, sa.Text, nullable=False, comment="JSON list of text"),
        *_content_columns(),
        sa.Column("attempt", sa.Integer, nullable=False, comment="number of POSTs; 0: adopted"),
        sa.Column("version", sa.String(32), nullable=False, comment="changes with every change"),
        sa.Column("lease_until", _EPOCH, nullable=False),
        sa.Column("settle_after", _EPOCH, nullable=False, comment="KK's list is a proof from here on"),
        sa.Column("retry_after", _EPOCH, nullable=False, comment="end of a rejected order's back-off"),
        sa.Column("rejections", sa.Integer, nullable=False),
        sa.Column("resends", sa.Integer, nullable=False, comment="number of automatic resends"),
        sa.Column("code", sa.Integer, comment="KK's code of the last answer"),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("resolved_by", sa.String(250), nullable=False),
        sa.Column("sync_id", sa.String(32), nullable=False, comment="the sync that changed it last"),
        sa.Column("adopted", sa.Integer, nullable=False, comment="1: by KK's list, not by a response"),
        sa.Column("created_at", _EPOCH, nullable=False, comment="0: not created"),
        sa.Column("updated_at", _EPOCH, nullable=False),
        sa.Index(f"{name}_state", "host", "account", "state", "settle_after"),
        sa.Index(f"{name}_sync", "host", "account", "sync_id", key),
        sa.Index(f"{name}_created", "host", "account", "state", "created_at"),
        sa.Index(f"{name}_changed", "host", "account", "state", "updated_at"),
        comment=comment,
        **AS_ELSEWHERE,
    )


def _attempt_table(name: str, key: str, ids: str) -> sa.Table:
    return sa.Table(
        name,
        METADATA,
        *_key_columns(key),
        sa.Column("attempt", sa.Integer, primary_key=True),
        sa.Column("version", sa.String(32), primary_key=True),
        *_content_columns(),
        sa.Column("intent_at", _EPOCH, nullable=False),
        sa.Column("settle_after", _EPOCH, nullable=False),
        sa.Column("token_fingerprint", sa.String(16), nullable=False, comment="of the access token"),
        sa.Column("outcome", sa.String(16), nullable=False, comment="empty: none was recorded"),
        sa.Column("code", sa.Integer),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column(ids, sa.Text, nullable=False, comment="JSON list of text"),
        sa.Column("recorded_at", _EPOCH, nullable=False),
        *_origin_columns(),
        sa.Column("try_number", sa.Integer, nullable=False),
        sa.Index(
            f"{name}_run",
            "host",
            "account",
            "dag_id",
            "run_id",
            key,
            **_mysql(length={"host": 100, "dag_id": 100, "run_id": 100}),
        ),
        sa.Index(f"{name}_settle", "host", "account", "settle_after"),
        comment="One row for each POST",
        **AS_ELSEWHERE,
    )


@dataclass(frozen=True)
class JobTables:
    """The two tables of one kind of job, and their column names for its key and KK's ids."""

    job: sa.Table
    attempt: sa.Table
    key: str
    ids: str

    def column(self, name: str) -> str:
        """Return the column name of a row's field."""
        if name == "key":
            return self.key
        return self.ids if name == "kk_order_ids" else name

    def columns(self, names: Sequence[str]) -> list[sa.Column[Any]]:
        """Return the job's columns for the fields of a row."""
        return [self.job.c[self.column(name)] for name in names]


def _job_tables(name: str, key: str, ids: str, comment: str) -> JobTables:
    job, attempt = _job_table(name, key, ids, comment), _attempt_table(f"{name}_attempt", key, ids)
    return JobTables(job, attempt, key, ids)


ORDERS = _job_tables(
    "kk_order", "custom_order_number", "kk_order_ids", "One row for each generation of an order number"
)
#: Refunds have tables of their own, so that no query for orders finds them.
REFUNDS = _job_tables("kk_refund", "refund_key", "refund_nos", "One row for each refund")
order, attempt, refund = ORDERS.job, ORDERS.attempt, REFUNDS.job

sync_run = sa.Table(
    "kk_sync_run",
    METADATA,
    sa.Column("sync_id", sa.String(32), primary_key=True),
    *_account_columns(is_key=False),
    *_origin_columns(),
    sa.Column("map_index", sa.Integer, nullable=False),
    sa.Column("try_number", sa.Integer, nullable=False),
    sa.Column("started_at", _EPOCH, nullable=False),
    sa.Column("try_started_at", _EPOCH, nullable=False),
    sa.Column("ended_at", _EPOCH, nullable=False, comment="0: not yet"),
    sa.Column("state", sa.String(16), nullable=False, comment="running, waiting, failed, done"),
    sa.Column("summary", sa.Text, nullable=False, comment="JSON object"),
    sa.Index("kk_sync_run_task", "dag_id", "run_id", "task_id", **_mysql(length=100)),
    comment="One row for each sync, its retries included",
    **AS_ELSEWHERE,
)


def create_missing(connection: Connection) -> None:
    """Create the missing tables and indexes, one worker at a time."""
    with _creating_alone(connection):
        # MySQL commits each statement, so a killed worker leaves a part. The table without an index is
        # created last, so it exists only if all others do.
        others = [table for table in METADATA.sorted_tables if table is not account]
        METADATA.create_all(connection, tables=others)
        if _is_mysql(connection):
            for index in [index for table in others for index in sorted_indexes(table)]:
                index.create(connection, checkfirst=True)
        METADATA.create_all(connection)


@contextmanager
def _creating_alone(connection: Connection) -> Iterator[None]:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(7502240919)"))
    if not _is_mysql(connection):
        yield
        return
    # A lock of the session, since each CREATE statement ends the transaction.
    connection.execute(sa.text("SELECT get_lock('kk_ledger', 60)"))
    release = sa.text("SELECT release_lock('kk_ledger')")
    try:
        yield
    except BaseException:
        with suppress(SQLAlchemyError):  # a lost connection has released it
            connection.execute(release)
        raise
    connection.execute(release)


def _is_mysql(connection: Connection) -> bool:
    return connection.dialect.name in ("mysql", "mariadb")


def ddl(dialect_name: str, metadata: sa.MetaData = METADATA) -> str:
    """Return the statements that create the tables, for users who may not create them from a task."""
    from sqlalchemy.dialects import registry
    from sqlalchemy.schema import CreateIndex, CreateTable

    dialect = registry.load(dialect_name)()
    statements = []
    for table in metadata.sorted_tables:
        statements.append(str(CreateTable(table).compile(dialect=dialect)).strip())
        statements += [str(CreateIndex(index).compile(dialect=dialect)) for index in sorted_indexes(table)]
    return "".join(f"{statement};\n" for statement in statements)


def sorted_indexes(table: sa.Table) -> list[sa.Index]:
    """Return a table's indexes in a stable order."""
    return sorted(table.indexes, key=lambda index: str(index.name))
