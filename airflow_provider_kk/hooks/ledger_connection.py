"""Find and open an account's ledger by one rule for all operators and commands; read KK at its rate."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseHook

from airflow_provider_kk.delivery.model import LedgerUnusableError, Timing, fingerprint_of_token

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.throttle import Throttle
    from airflow_provider_kk.delivery.listing import KKOrderList
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook

#: Connection types whose databases enforce unique keys.
_TYPES = ("sqlite", "postgres", "mysql")
#: Extras by which Airflow's PostgreSQL hook connects to Redshift, which does not enforce unique keys.
_REDSHIFT = ("redshift", "redshift-serverless")
NEEDED = "a connection to PostgreSQL, MySQL or SQLite"


def type_without_keys(connection: Any) -> str | None:
    """Return a connection's type as a message names it; None if such databases enforce unique keys."""
    if connection.conn_type not in _TYPES:
        return repr(connection.conn_type)
    is_redshift = any(connection.extra_dejson.get(name) for name in _REDSHIFT)
    return f"{connection.conn_type!r} with the extra of a Redshift" if is_redshift else None


def hook_behind(connection: Any, hook_params: Mapping[str, Any] | None = None) -> Any:
    """Return the hook of an Airflow connection that was looked up before."""
    hook = connection.get_hook(hook_params=dict(hook_params or {}))
    # Avoid a second lookup: a trigger's thread must not ask Airflow for a connection.
    hook.get_connection = lambda _conn_id: connection
    return hook


def engine_behind(
    connection: Any, arguments: Mapping[str, Any], hook_params: Mapping[str, Any] | None = None
) -> Any:
    """Return the SQLAlchemy engine of an Airflow connection.

    :param arguments: for `create_engine`.
    :param hook_params: for the connection's hook, such as `{"database": "shop"}`.
    """
    from sqlalchemy import event

    engine = hook_behind(connection, hook_params).get_sqlalchemy_engine(engine_kwargs=dict(arguments))
    event.listen(engine, "do_connect", _drop_cursor)
    return engine


def _drop_cursor(_of_engine: Any, _record: Any, _arguments: Any, parameters: dict[str, Any]) -> None:
    # Airflow's MySQL hook puts all extras of a connection into the URL. No driver takes this one, and
    # SQLAlchemy needs rows that are tuples.
    parameters.pop("cursor", None)


def resolve_ledger_conn_id(
    hook: KKHook, ledger_conn_id: str | None, warehouse_conn_id: str | None = None
) -> str | None:
    """Return the connection id of the ledger: the operator's, else the connection's, else a fit warehouse.

    :raises LedgerUnusableError: the operator's is empty, or nothing is set and the warehouse cannot keep one.
    """
    if ledger_conn_id is not None and ledger_conn_id.strip() in ("", "None"):
        raise LedgerUnusableError(
            "ledger_conn_id is empty: its template rendered to nothing. Fix the template. Do not leave the "
            "argument out: another ledger does not know what was sent"
        )
    if chosen := ledger_conn_id or hook.settings.ledger_conn_id:
        return chosen
    if warehouse_conn_id is None:
        return None
    unfit = type_without_keys(BaseHook.get_connection(warehouse_conn_id))
    if unfit is None:
        return warehouse_conn_id
    raise LedgerUnusableError(
        f"The warehouse {warehouse_conn_id!r} is of type {unfit}, which cannot keep the ledger "
        "that prevents doubled orders. Set ledger_conn_id on the operator, or in the extra of "
        f"{hook.kk_conn_id!r}, to {NEEDED}."
    )


def open_ledger(
    hook: KKHook,
    conn_id: str,
    *,
    threads: int = 8,
    log: Log | None = None,
    hook_params: Mapping[str, Any] | None = None,
) -> SqlLedger:
    """Open the ledger that the connection `conn_id` leads to, for the account of `hook`.

    :param log: gets warnings of settings by which the database may lose what it has committed.
    :param hook_params: for the connection's hook, when it is the warehouse's.
    :raises LedgerUnusableError: with the reason and what to do.
    """
    connection = BaseHook.get_connection(conn_id)
    if hook_params:
        _require_no_other_ledger(connection, hook, hook_params)
    return ledger_behind(connection, hook, threads=threads, log=log, hook_params=hook_params)


def _require_no_other_ledger(connection: Any, hook: KKHook, hook_params: Mapping[str, Any]) -> None:
    """Require that the connection's default database has no ledger of the account, unless this one has, too.

    :raises LedgerUnusableError: a new, empty ledger would send again what the other one knows.
    """
    from sqlalchemy.exc import SQLAlchemyError

    if own := ledger_to_read(connection, hook, hook_params):
        own.close()
        return
    try:
        other = ledger_to_read(connection, hook)
    except SQLAlchemyError:
        return  # there is no default database that this user can read
    if other is not None:
        other.close()
        raise LedgerUnusableError(
            "hook_params select a database without a ledger, but the default database of "
            f"{connection.conn_id!r} has the account's ledger. To continue with that ledger, set "
            f"ledger_conn_id to {connection.conn_id!r}: a new one does not know what was sent"
        )


def ledger_behind(
    connection: Any,
    hook: KKHook,
    *,
    threads: int = 8,
    log: Log | None = None,
    hook_params: Mapping[str, Any] | None = None,
) -> SqlLedger:
    """Open the ledger behind an Airflow connection that was looked up before; see `open_ledger`."""
    ledger = ledger_on(_engine(connection, threads, hook_params), hook)
    if log is not None:
        _warn_of_durability(ledger, log)
    return ledger


def ledger_to_read(
    connection: Any, hook: KKHook, hook_params: Mapping[str, Any] | None = None
) -> SqlLedger | None:
    """Return the ledger behind an Airflow connection, and make nothing there.

    None when there is none yet, or when the account of `hook` has never sent anything by it.
    """
    from sqlalchemy import inspect, select

    from airflow_provider_kk.delivery.sql import tables

    engine = _engine(connection, threads=1, hook_params=hook_params)
    file = _sqlite_file(engine)
    if file is not None and not file.exists():
        return None  # connecting would create it
    ledger = _ledger_on(engine, hook)
    account = tables.account.c
    mine = select(account.host).where(account.host == ledger.host, account.account == ledger.account)
    with ledger.storage.database.read() as db:
        is_there = inspect(db).has_table(tables.account.name) and db.execute(mine).first() is not None
    return ledger if is_there else None


def _engine(connection: Any, threads: int, hook_params: Mapping[str, Any] | None = None) -> Any:
    from airflow_provider_kk.delivery.sql.database import pool_arguments

    require_type(connection)
    # A thread holds one connection for the ledger and, at the same time, one for the bucket at most.
    engine = engine_behind(connection, pool_arguments(connection.conn_type, threads + 2), hook_params)
    file = _sqlite_file(engine)
    if file is not None and not file.is_absolute():
        raise LedgerUnusableError(
            f"The path of the ledger {str(file)!r} is relative, so it is another file in each working "
            f"directory. Enter the whole path in connection {connection.conn_id!r}, such as "
            f"{str(file.absolute())!r}"
        )
    return engine


def database_of(connection: Any) -> tuple[Any, ...]:
    """Return what identifies the database behind an Airflow connection, whatever its user."""
    engine = _engine(connection, threads=1)
    file = _sqlite_file(engine)
    if file is not None:
        return (file.resolve(),)
    return engine.dialect.name, engine.url.host, engine.url.port, engine.url.database


def _sqlite_file(engine: Any) -> Path | None:
    """Return the file of a SQLite database; None in memory, for a URI, or for another database."""
    name = engine.url.database or ""
    is_file = engine.dialect.name == "sqlite" and name and not name.startswith((":", "file:"))
    return Path(name) if is_file else None


def require_type(connection: Any) -> None:
    """Check by its type that a ledger can live behind an Airflow connection.

    :raises LedgerUnusableError: it cannot.
    """
    if unfit := type_without_keys(connection):
        raise LedgerUnusableError(
            f"The ledger's connection {connection.conn_id!r} is of type {unfit}. The ledger "
            "needs a database that enforces unique keys, to prevent doubled orders: set ledger_conn_id to "
            f"{NEEDED}."
        )


def ledger_on(engine: Any, hook: KKHook) -> SqlLedger:
    """Open the ledger in the database of a SQLAlchemy engine, for the account of `hook`."""
    ledger = _ledger_on(engine, hook)
    settings = hook.settings
    ledger.storage.open(
        hook.kk_conn_id,
        settle_window_s=settings.settle_window_s,
        account_is_explicit=settings.account_is_explicit,
    )
    return ledger


def _ledger_on(engine: Any, hook: KKHook) -> SqlLedger:
    from airflow_provider_kk.delivery.sql.storage import sql_ledger

    settings = hook.settings
    return sql_ledger(
        engine,
        settings.host,
        settings.account,
        timing=Timing(settings.timeout_s, settings.lease_s, settings.settle_window_s),
        max_orders_per_day=settings.max_orders_per_day,
        token_fingerprint=fingerprint_of_token(settings.token),
    )


def _warn_of_durability(ledger: SqlLedger, log: Log) -> None:
    from airflow_provider_kk.delivery.sql.database import durability_warnings

    for account in ledger.storage.accounts_of_token():
        log.warning(
            "Account %r of this ledger has the access token of account %r. If both are one KK store, its "
            "orders can be sent twice. Set the same account in the extra of all its connections",
            ledger.account,
            account,
        )
    with ledger.storage.database.read() as db:
        for weakness in durability_warnings(db):
            (log.info if weakness.is_note else log.warning)("%s", weakness.text)


@contextmanager
def reading(
    hook: KKHook, ledger_connection: Any | None, otherwise: Throttle | None = None
) -> Iterator[tuple[KKClient, SqlLedger | None]]:
    """Open a client within the rate limit that all workers share through the ledger, and the ledger.

    Without a ledger, the limit is `otherwise`, else one of this process alone.
    """
    if ledger_connection is None:
        with hook.client(otherwise or hook.settings.local_bucket()) as client:
            yield client, None
        return
    with (
        closing(ledger_behind(ledger_connection, hook, threads=1)) as ledger,
        hook.client(hook.settings.shared_bucket(ledger)) as client,
    ):
        yield client, ledger


@contextmanager
def open_order_list(hook: KKHook, ledger: SqlLedger) -> Iterator[KKOrderList]:
    """Open KK's list of orders, within the rate limit that the account's syncs share.

    :raises KKError: when KK cannot be asked.
    """
    from airflow_provider_kk.delivery.listing import KKOrderList

    with hook.client(hook.settings.shared_bucket(ledger)) as client:
        client.list_orders(page_size=1)  # measures KK's clock, and fails early
        yield KKOrderList(client)
