"""Which ledgers the page shows, and how they are opened to be read."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook, conf

from airflow_provider_kk.hooks.connection import InvalidConnectionError
from airflow_provider_kk.hooks.database import engine_behind
from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.hooks.ledger import require_type

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.report import Report
    from airflow_provider_kk.hooks.connection import ConnectionSettings

#: Nobody waits longer for a page.
_CONNECT_TIMEOUT_S = 5
_ENV = "AIRFLOW_CONN_"


class CannotShowError(Exception):
    """Says why there is nothing to show, and what to do."""


@dataclass(frozen=True)
class Place:
    """A connection to KK, and where its ledger is: None where the connection says it itself."""

    kk_conn_id: str
    ledger_conn_id: str | None = None

    @property
    def options(self) -> str:
        """What leads `kk` to this ledger, for a command line."""
        words = ["--kk-conn-id", self.kk_conn_id]
        if self.ledger_conn_id:
            words += ["--ledger-conn-id", self.ledger_conn_id]
        return shlex.join(words)


def places() -> list[Place]:
    """Return what `[kk] orders_page` names, else every connection of type `kk` that can be listed.

    Connections of a secrets backend cannot be listed. An entry is `kk_conn_id`, or
    `kk_conn_id@ledger_conn_id` for a ledger in the warehouse, which only the DAGs name.
    """
    named = conf.get("kk", "orders_page", fallback="") or ""
    if entries := [entry.strip() for entry in named.split(",") if entry.strip()]:
        return [
            Place(kk.strip(), ledger.strip() or None)
            for kk, _, ledger in (entry.partition("@") for entry in entries)
        ]
    return [Place(conn_id) for conn_id in sorted({*_of_environment(), *_of_database()})]


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if name.startswith(_ENV) and _is_kk(value):
            yield name.removeprefix(_ENV).lower()


def _is_kk(value: str) -> bool:
    if not value.lstrip().startswith("{"):
        return value.startswith("kk:")
    try:
        return bool(json.loads(value).get("conn_type") == "kk")
    except ValueError:
        return False


def _of_database() -> list[str]:
    from airflow.models.connection import Connection
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session() as session:
        return list(session.scalars(select(Connection.conn_id).where(Connection.conn_type == "kk")))


@contextmanager
def opened(place: Place) -> Iterator[tuple[Report, ConnectionSettings]]:
    """Give what can be read at a place, for as long as the block lasts.

    :raises CannotShowError: when it cannot be reached, or there is no ledger yet.
    """
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    from airflow_provider_kk.delivery.driver_errors import told
    from airflow_provider_kk.delivery.sql.database import LedgerUnusableError
    from airflow_provider_kk.delivery.sql.ledger import SqlLedger
    from airflow_provider_kk.delivery.sql.report import Report

    try:
        settings = KKHook(place.kk_conn_id).settings
        ledger = SqlLedger(_engine(place, settings), settings.host, settings.account)
        try:
            report = Report(ledger)
            if not report.is_there():
                raise CannotShowError(_NO_LEDGER_YET.format(place.ledger_conn_id or settings.ledger_conn_id))
            yield report, settings
        finally:
            ledger.close()
    except (AirflowNotFoundException, InvalidConnectionError, LedgerUnusableError) as error:
        raise CannotShowError(str(error)) from error
    except DBAPIError as error:
        raise CannotShowError(f"The ledger's database cannot be read: {told(error)}") from error
    except (AirflowException, SQLAlchemyError, ImportError, ValueError) as error:
        # Its text may hold an address with a password.
        raise CannotShowError(
            f"The ledger's connection {place.ledger_conn_id or 'of ' + place.kk_conn_id!r} cannot be used "
            f"by this API server: {type(error).__name__}"
        ) from error


def _engine(place: Place, settings: ConnectionSettings) -> Any:
    from sqlalchemy.pool import NullPool

    conn_id = place.ledger_conn_id or settings.ledger_conn_id
    if conn_id is None:
        raise CannotShowError(_NO_PLACE.format(kk=place.kk_conn_id))
    connection: Any = BaseHook.get_connection(conn_id)
    require_type(connection)
    timeout = "timeout" if connection.conn_type == "sqlite" else "connect_timeout"
    engine = engine_behind(
        connection,
        {
            "poolclass": NullPool,
            "hide_parameters": True,
            "connect_args": {timeout: _CONNECT_TIMEOUT_S},
        },
    )
    file = engine.url.database
    if engine.dialect.name == "sqlite" and file and not Path(file).exists():
        raise CannotShowError(_NO_LEDGER_YET.format(conn_id))  # connecting would create it
    return engine


_NO_LEDGER_YET = "There is no ledger at {!r} yet: the first sync makes one."
_NO_PLACE = (
    "The connection {kk!r} names no ledger. When it is in the warehouse, tell the page so in Airflow's "
    "configuration, with the warehouse's connection id: [kk] orders_page = {kk}@warehouse"
)
