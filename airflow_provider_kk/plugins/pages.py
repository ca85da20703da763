"""What pages are made of: the ledgers to choose from, rows with their commands, and the templates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from airflow_provider_kk.delivery.log import utc
from airflow_provider_kk.delivery.model import Attempt
from airflow_provider_kk.delivery.sql.report import Line
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.plugins.chart import HEIGHT
from airflow_provider_kk.plugins.ledgers import LedgerSource, Reader
from airflow_provider_kk.plugins.record_types import ORDERS, REFUNDS, RecordType, group_of
from airflow_provider_kk.plugins.urls import airflow_path, root
from airflow_provider_kk.sync.resolve_commands import ResolveCommands, resolve_commands

#: No script, style, picture or form of anybody else; framed by Airflow only.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class View:
    """The places that the user may see, and the one that is looked at; `kind` is what the page is about."""

    sources: list[LedgerSource]
    source: LedgerSource | None
    kind: RecordType | None = ORDERS

    @classmethod
    def of(cls, reader: Reader, name: str, kind: RecordType | None = ORDERS) -> View:
        """Return the place of this name, else the first.

        :raises HTTPException: when there is no such place, or the reader may not read it: both look the same.
        """
        known = reader.sources()
        if not name:
            return cls(known, known[0] if known else None, kind)
        for one in known:
            if one.kk_conn_id == name:
                return cls(known, one, kind)
        raise HTTPException(
            404,
            f"This page knows no connection {name!r} that you may read. One that cannot be listed, such as "
            f"that of a secrets backend, is named in Airflow's configuration: [kk] orders_page = {name}",
        )


class Row(NamedTuple):
    """A line of a list, what may be said of it, and the POSTs that belong beside it."""

    line: Line
    resolve_commands: ResolveCommands | None
    posts: tuple[Attempt, ...] = ()


def row(line: Line, kind: RecordType, source: LedgerSource, posts: tuple[Attempt, ...] = ()) -> Row:
    """Put the commands beside what waits for a human."""
    return Row(line, commands_for(line, kind, source) if line.state is State.HELD else None, posts)


def rows(lines: Iterable[Line], kind: RecordType, source: LedgerSource) -> list[Row]:
    """Do so with each."""
    return [row(line, kind, source) for line in lines]


def commands_for(line: Any, kind: RecordType, source: LedgerSource) -> ResolveCommands | None:
    """Return what may be said of a line or an entry."""
    return resolve_commands(
        line.key, line.state, line.kk_order_ids, options=source.options, is_refund=kind.is_refund
    )


def page(template: str, view: View, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Make a page, with what all templates need."""
    text = _TEMPLATES.get_template(template).render(view=view, root=root(), **values)
    return HTMLResponse(text, status, headers=_HEADERS)


def _query(**values: Any) -> str:
    return "?" + urlencode({name: value for name, value in values.items() if value})


def _run_link(dag_id: str, run_id: str) -> str:
    return f"{airflow_path()}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def _at(epoch: float) -> str:
    return utc(epoch).removesuffix(" UTC")


_TEMPLATES = Environment(
    loader=PackageLoader("airflow_provider_kk.plugins"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"at": _at, "group": group_of, "figure": "{:,}".format}
_TEMPLATES.globals |= {
    "HEIGHT": HEIGHT,
    "ORDERS": ORDERS,
    "REFUNDS": REFUNDS,
    "query": _query,
    "run_link": _run_link,
}
