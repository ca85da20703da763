"""The ledgers that a user may see on the page, and opening them to read or to resolve orders."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_connection
from airflow.models.connection import Connection
from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException, BaseHook, conf
from fastapi import Depends
from sqlalchemy import select

from airflow_provider_kk.hooks.connection import InvalidConnectionError
from airflow_provider_kk.hooks.kk import KKHook, settings_of
from airflow_provider_kk.hooks.ledger_connection import engine_behind, require_type
from airflow_provider_kk.sync.record_types import RecordType

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
    from sqlalchemy.orm import Session

    from airflow_provider_kk.delivery.sql.report import Report
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.connection import ConnectionSettings
    from airflow_provider_kk.warehouse.merge_statuses import StatusRows

#: Seconds that a page waits for a ledger's database.
_CONNECT_TIMEOUT_S = 5
_ENV = "AIRFLOW_CONN_"
#: In multi-team mode `AIRFLOW_CONN__<TEAM>___<ID>` is a connection that only the team's tasks find.
_TEAM = "___"


class CannotReadLedgerError(Exception):
    """A ledger cannot be read. The text has the reason and what to do."""


@dataclass(frozen=True)
class LedgerSource:
    """A connection to KK, and its ledger connection: None if the kk connection names it."""

    kk_conn_id: str
    ledger_conn_id: str | None = None

    @property
    def options(self) -> str:
        """The options of `kk` that select this ledger, as text."""
        words = ["--kk-conn-id", self.kk_conn_id]
        if self.ledger_conn_id:
            words += ["--ledger-conn-id", self.ledger_conn_id]
        return shlex.join(words)


@dataclass(frozen=True)
class Reader:
    """The user of a request, with a session of Airflow's database."""

    user: BaseUser
    session: Session

    def sources(self) -> list[LedgerSource]:
        """Return the ledgers whose connections the user may read.

        These are the entries of `[kk] orders_page`, else every connection of type `kk` that can be listed.
        Connections of a secrets backend cannot be listed. An entry is `kk_conn_id`, or
        `kk_conn_id@ledger_conn_id` for a ledger in the warehouse, which only DAGs name.
        """
        return [
            source
            for source in self._all_sources()
            if self.may_read(source.kk_conn_id)
            and (source.ledger_conn_id is None or self.may_read(source.ledger_conn_id))
        ]

    def _all_sources(self) -> list[LedgerSource]:
        named = conf.get("kk", "orders_page", fallback="") or ""
        if entries := [entry.strip() for entry in named.split(",") if entry.strip()]:
            return [
                LedgerSource(kk.strip(), ledger.strip() or None)
                for kk, _, ledger in (entry.partition("@") for entry in entries)
            ]
        in_database = select(Connection.conn_id).where(Connection.conn_type == "kk")
        conn_ids = {*_of_environment(), *self.session.scalars(in_database)}
        return [LedgerSource(conn_id) for conn_id in sorted(conn_ids)]

    def may_read(self, conn_id: str) -> bool:
        """Return whether Airflow's auth manager lets the user read a connection."""
        return self._may("GET", conn_id)

    def may_edit(self, conn_id: str) -> bool:
        """Return whether Airflow's auth manager lets the user edit a connection."""
        return self._may("PUT", conn_id)

    def _may(self, method: ResourceMethod, conn_id: str) -> bool:
        details = ConnectionDetails(conn_id=conn_id, team_name=self._team_of(conn_id))
        return get_auth_manager().is_authorized_connection(method=method, details=details, user=self.user)

    def connection(self, conn_id: str) -> Any:
        """Return a connection that the user may read.

        :raises CannotReadLedgerError: the user may not read it.
        """
        if not self.may_read(conn_id):
            raise CannotReadLedgerError(
                f"The ledger is in the connection {conn_id!r}, which you may not read. Ask an admin."
            )
        team = self._team_of(conn_id)
        if team and _is_multi_team():
            return Connection.get_connection_from_secrets(conn_id, team_name=team)
        return BaseHook.get_connection(conn_id)

    def _team_of(self, conn_id: str) -> str | None:
        return Connection.get_team_name(conn_id, session=self.session)


def _reader(user: GetUserDep, session: SessionDep) -> Reader:
    return Reader(user, session)


ReaderDep = Annotated[Reader, Depends(_reader)]
may_read_connections = requires_access_connection("GET")


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        is_of_team = _TEAM in name and _is_multi_team()
        if name.startswith(_ENV) and not is_of_team and _is_kk(value):
            yield name.removeprefix(_ENV).lower()


def _is_multi_team() -> bool:
    return bool(conf.getboolean("core", "multi_team", fallback=False))


def _is_kk(value: str) -> bool:
    if not value.lstrip().startswith("{"):
        return value.startswith("kk:")
    try:
        return bool(json.loads(value).get("conn_type") == "kk")
    except ValueError:
        return False


@contextmanager
def open_report(source: LedgerSource, reader: Reader) -> Iterator[tuple[Report, ConnectionSettings]]:
    """Open the report of a ledger until the end of the block.

    :raises CannotReadLedgerError: it cannot be reached, the user may not read it, or there is none yet.
    """
    from airflow_provider_kk.delivery.clock import Clock
    from airflow_provider_kk.delivery.sql.report import Report
    from airflow_provider_kk.delivery.sql.storage import SqlStorage

    with _translated_errors(source):
        settings = settings_of(reader.connection(source.kk_conn_id))
        engine = _engine(source, settings, reader)
        storage = SqlStorage(engine, settings.host, settings.account, Clock())
        try:
            report = Report(storage)
            if not report.is_there():
                raise CannotReadLedgerError(
                    _NO_LEDGER_YET.format(source.ledger_conn_id or settings.ledger_conn_id)
                )
            yield report, settings
        finally:
            storage.close()


@contextmanager
def open_ledger_of(
    source: LedgerSource, reader: Reader, kind: RecordType
) -> Iterator[tuple[KKHook, SqlLedger]]:
    """Open a ledger until the end of the block, to resolve orders or refunds in it.

    :raises CannotReadLedgerError: as `open_report`. It creates no ledger either.
    """
    from airflow_provider_kk.hooks.ledger_connection import ledger_behind

    with open_report(source, reader):
        pass  # raises within seconds if there is none
    with _translated_errors(source):
        connection = reader.connection(source.kk_conn_id)
        hook = KKHook(source.kk_conn_id)
        # The hook's own lookup does not check the user's permissions and teams.
        hook.get_connection = lambda _conn_id: connection  # type: ignore[method-assign,assignment]
        ledger = ledger_behind(
            reader.connection(str(source.ledger_conn_id or hook.settings.ledger_conn_id)), hook, threads=1
        )
        try:
            yield hook, kind.ledger(ledger)
        finally:
            ledger.close()


@contextmanager
def _translated_errors(source: LedgerSource) -> Iterator[None]:
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    from airflow_provider_kk.delivery.model import LedgerUnusableError
    from airflow_provider_kk.delivery.resolution import ResolutionRejected
    from airflow_provider_kk.delivery.sql.driver_errors import describe_error

    try:
        yield
    except ResolutionRejected:
        raise
    except (AirflowNotFoundException, InvalidConnectionError, LedgerUnusableError) as error:
        raise CannotReadLedgerError(str(error)) from error
    except DBAPIError as error:
        raise CannotReadLedgerError(
            f"The ledger's database cannot be used: {describe_error(error)}"
        ) from error
    except (AirflowException, SQLAlchemyError, ImportError, ValueError) as error:
        # The error's text may have an address with a password.
        raise CannotReadLedgerError(
            f"The ledger's connection {source.ledger_conn_id or 'of ' + source.kk_conn_id!r} cannot be used "
            f"by this API server: {type(error).__name__}. Test the connection on this machine"
        ) from error


@dataclass(frozen=True)
class Fulfilment:
    """The data of some orders in the status tables of the ledger's database."""

    orders: list[StatusRows]
    synced_until: datetime | None
    error: str = ""
    """The reason why the tables cannot be read; empty if they can."""


def fulfilment_of(report: Report, settings: ConnectionSettings, ids: Iterable[str]) -> Fulfilment | None:
    """Return the fulfilment status and parcels of orders at KK; None if there are no status tables.

    The tables must be in the ledger's database under their default names. Only DAGs name those with another
    prefix, or in another database.
    """
    from airflow_provider_kk.warehouse.status_tables import StatusTables, StatusTablesError

    tables = StatusTables(report.engine, settings.host, settings.account)
    try:
        if not tables.is_there():
            return None
        return Fulfilment(list(tables.of_ids(ids).values()), tables.synced_until())
    except StatusTablesError as error:
        return Fulfilment([], None, str(error))


def _engine(source: LedgerSource, settings: ConnectionSettings, reader: Reader) -> Any:
    from sqlalchemy.pool import NullPool

    conn_id = source.ledger_conn_id or settings.ledger_conn_id
    if conn_id is None:
        raise CannotReadLedgerError(_NO_LEDGER_CONNECTION.format(kk=source.kk_conn_id))
    connection = reader.connection(conn_id)
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
        raise CannotReadLedgerError(_NO_LEDGER_YET.format(conn_id))  # connecting would create it
    return engine


_NO_LEDGER_YET = "Connection {!r} has no ledger yet. The first sync creates one."
_NO_LEDGER_CONNECTION = (
    "The connection {kk!r} names no ledger. If the ledger is in the warehouse, set the warehouse's "
    "connection id in Airflow's configuration: [kk] orders_page = {kk}@warehouse"
)
