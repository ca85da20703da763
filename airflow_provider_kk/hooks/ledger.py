"""Where an account's ledger lives, by one rule for all operators and commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.sql_ledger import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook

#: Connection types whose databases enforce unique keys; what only looks like one is found out at first use.
_KEEPS_KEYS = ("sqlite", "postgres", "mysql")


def ledger_place(
    hook: KKHook, ledger_conn_id: str | None, warehouse_conn_id: str | None = None
) -> str | None:
    """Return the connection id of the ledger: the operator's, else the connection's, else a fit warehouse.

    :raises LedgerUnusableError: when there is a warehouse that cannot keep a ledger and nothing else is set.
    """
    from airflow_provider_kk.delivery.database import LedgerUnusableError

    if chosen := ledger_conn_id or hook.settings.ledger_conn_id:
        return chosen
    if warehouse_conn_id is None:
        return None
    conn_type = BaseHook.get_connection(warehouse_conn_id).conn_type
    if conn_type in _KEEPS_KEYS:
        return warehouse_conn_id
    raise LedgerUnusableError(
        f"The warehouse {warehouse_conn_id!r} is of type {conn_type!r}, which does not enforce unique keys, "
        "so it cannot keep the ledger that prevents doubled orders. Set ledger_conn_id, on the operator or "
        f"in the extra of {hook.kk_conn_id!r}, to a connection to PostgreSQL, MySQL or SQLite."
    )


def open_ledger(hook: KKHook, conn_id: str, *, threads: int = 8, log: Log | None = None) -> SqlLedger:
    """Open the ledger that the connection `conn_id` leads to, for the account of `hook`.

    :param log: is told of settings of the database by which it may lose what it has committed.
    :raises LedgerUnusableError: says why and what to do.
    """
    ledger = ledger_behind(BaseHook.get_connection(conn_id), hook, threads=threads)
    if log is not None:
        _tell_weaknesses(ledger, log)
    return ledger


def ledger_behind(connection: Any, hook: KKHook, *, threads: int = 8) -> SqlLedger:
    """Open the ledger behind an Airflow connection that is at hand, for the account of `hook`."""
    from airflow_provider_kk.delivery.database import pool_arguments

    db_hook = connection.get_hook()
    # It would ask Airflow for the connection once more, which a trigger's thread had better not do.
    db_hook.get_connection = lambda _conn_id: connection
    # A thread holds one connection for the ledger and, at the same time, one for the bucket at most.
    arguments = pool_arguments(connection.conn_type or "", threads + 2)
    return ledger_on(db_hook.get_sqlalchemy_engine(engine_kwargs=arguments), hook)


def ledger_on(engine: Any, hook: KKHook) -> SqlLedger:
    """Open the ledger in the database of a SQLAlchemy engine, for the account of `hook`."""
    from airflow_provider_kk.delivery.rows import Terms, fingerprint_of_token
    from airflow_provider_kk.delivery.sql_ledger import SqlLedger

    settings = hook.settings
    ledger = SqlLedger(
        engine,
        settings.host,
        settings.account,
        terms=Terms(settings.timeout_s, settings.lease_s, settings.settle_window_s),
        token_fingerprint=fingerprint_of_token(settings.token),
    )
    ledger.open(hook.kk_conn_id, account_is_explicit=settings.account_is_explicit)
    return ledger


def _tell_weaknesses(ledger: SqlLedger, log: Log) -> None:
    from airflow_provider_kk.delivery.durability import weaknesses

    with ledger.database.read() as db:
        for weakness in weaknesses(db):
            (log.info if weakness.is_note else log.warning)("%s", weakness.text)
