"""SQLAlchemy engines of Airflow connections, for the ledger and the status tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Connection types whose databases enforce unique keys.
_TYPES = ("sqlite", "postgres", "mysql")
#: Extras by which Airflow's PostgreSQL hook connects to Redshift, which does not enforce unique keys.
_REDSHIFT = ("redshift", "redshift-serverless")
NEEDED = "a connection to PostgreSQL, MySQL or SQLite"


def enforces_keys(connection: Any) -> bool:
    """Return whether the database behind an Airflow connection enforces unique keys, by its type."""
    extra = connection.extra_dejson
    return connection.conn_type in _TYPES and not any(extra.get(name) for name in _REDSHIFT)


def type_of(connection: Any) -> str:
    """Return a connection's type as a message names it."""
    is_redshift = connection.conn_type in _TYPES and not enforces_keys(connection)
    return f"{connection.conn_type!r}" + (" with the extra of a Redshift" if is_redshift else "")


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
