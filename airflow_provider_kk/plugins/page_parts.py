"""The parts of pages: the ledgers to choose from, rows with their commands, CSV, and templates."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urlencode

from fastapi.responses import HTMLResponse, Response, StreamingResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from airflow_provider_kk.delivery.log import format_goods, utc
from airflow_provider_kk.delivery.model import Attempt, Pause
from airflow_provider_kk.delivery.sql.report import Line
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.plugins.chart import HEIGHT
from airflow_provider_kk.plugins.ledgers import LedgerSource, Reader
from airflow_provider_kk.plugins.state_groups import group_of
from airflow_provider_kk.plugins.urls import airflow_path, root
from airflow_provider_kk.sync.record_types import (
    ORDERS,
    REFUNDS,
    RecordType,
    ResolveCommands,
    resolve_commands,
)
from airflow_provider_kk.sync.resolution import choices_for

#: No script, style, picture or form of another site. Only Airflow may put the page in a frame.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class View:
    """The ledgers that the user may see, the current one, and the page's record type."""

    sources: list[LedgerSource]
    source: LedgerSource | None
    kind: RecordType | None = ORDERS

    @classmethod
    def of(cls, reader: Reader, name: str, kind: RecordType | None = ORDERS) -> View:
        """Return the view of this connection's ledger, else of the first ledger.

        :raises HTTPException: there is none, or the user may not read it, with the same text for both.
        """
        known = reader.sources()
        if not name:
            return cls(known, known[0] if known else None, kind)
        for one in known:
            if one.kk_conn_id == name:
                return cls(known, one, kind)
        raise HTTPException(
            404,
            f"There is no connection {name!r} that you may read. If it is in a secrets backend, set its name "
            f"in Airflow's configuration: [kk] orders_page = {name}",
        )


class PauseBanner(NamedTuple):
    """The notice at the top of a page that sending is paused."""

    kk_conn_id: str
    pause: Pause
    may_edit: bool


class _KnowsPause(Protocol):
    def pause(self) -> Pause | None: ...


def banners_of(ledger: _KnowsPause, source: LedgerSource, reader: Reader) -> list[PauseBanner]:
    """Return the banner of a ledger if its sending is paused."""
    pause = ledger.pause()
    return [PauseBanner(source.kk_conn_id, pause, reader.may_edit(source.kk_conn_id))] if pause else []


class Row(NamedTuple):
    """A line of a list, with the commands that resolve it and its POSTs."""

    line: Line
    resolve_commands: ResolveCommands | None
    posts: tuple[Attempt, ...] = ()
    can_act: bool = False
    """Whether a person can do something with it."""


def row(line: Line, kind: RecordType, source: LedgerSource, posts: tuple[Attempt, ...] = ()) -> Row:
    """Add the commands to a line that needs a person."""
    commands = commands_for(line, kind, source) if line.state is State.HELD else None
    return Row(line, commands, posts, bool(choices_for([line.state], kind)))


def rows(lines: Iterable[Line], kind: RecordType, source: LedgerSource) -> list[Row]:
    """Add the commands to each line that needs a person."""
    return [row(line, kind, source) for line in lines]


def commands_for(line: Any, kind: RecordType, source: LedgerSource) -> ResolveCommands | None:
    """Return the commands that resolve a line or an entry."""
    return resolve_commands(line.key, line.state, line.kk_order_ids, kind, options=source.options)


@dataclass(frozen=True)
class Pager:
    """The number of a list's page, and of all its pages."""

    number: int
    size: int
    total: int

    @property
    def last(self) -> int:
        """The number of the last page."""
        return max(1, -(-self.total // self.size))

    @property
    def first_row(self) -> int:
        """The position of the page's first row in the list; the first is 1."""
        return (self.number - 1) * self.size + 1

    @property
    def last_row(self) -> int:
        """The position of the page's last row."""
        return min(self.number * self.size, self.total)


def page(template: str, view: View, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a page, with the values that all templates need."""
    text = _TEMPLATES.get_template(template).render(view=view, root=root(), **values)
    return HTMLResponse(text, status, headers=_HEADERS)


def query(**values: Any) -> str:
    """Return the query of an address, without empty values."""
    return "?" + urlencode({name: value for name, value in values.items() if value})


# CSV -----------------------------------------------------------------------------------------------


def csv_response(lines: Iterable[Line], kind: RecordType, name: str) -> Response:
    """Return rows as a file that spreadsheets open."""
    # Larger files are written to the disk.
    file = SpooledTemporaryFile(_CSV_IN_MEMORY, mode="w+", encoding="utf-8", newline="")  # noqa: SIM115
    file.write("\ufeff")  # without it, Excel does not read the file as UTF-8
    writer = csv.writer(file)
    writer.writerow(
        [
            kind.key,
            "generation",
            "state",
            kind.ids,
            "goods",
            "country",
            "dag",
            "run",
            "time (UTC)",
            "code",
            "message",
        ]
    )
    for line in lines:
        cells = (
            line.key,
            line.generation,
            line.state.value,
            ", ".join(line.kk_order_ids),
            format_goods(line.goods) if line.goods else "",
            line.country,
            line.dag_id,
            line.run_id,
            _at(line.at),
            "" if line.code is None else line.code,
            line.message,
        )
        writer.writerow([_defuse(str(cell)) for cell in cells])
    file.seek(0)
    headers = {**_HEADERS, "Content-Disposition": f'attachment; filename="{name}"'}
    chunks = iter(lambda: file.read(_CSV_CHUNK), "")
    return StreamingResponse(chunks, media_type="text/csv; charset=utf-8", headers=headers)


def _defuse(cell: str) -> str:
    """Keep a spreadsheet from running a cell as a formula."""
    return "'" + cell if cell.startswith(_FORMULA_STARTS) else cell


_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_CSV_IN_MEMORY = 2_000_000
_CSV_CHUNK = 65_536


# Templates -----------------------------------------------------------------------------------------


def _run_link(dag_id: str, run_id: str) -> str:
    return f"{airflow_path()}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def _back_name(address: str) -> str:
    return address.partition("?")[0].partition("/")[0].replace("runs", "run")


def _at(epoch: float) -> str:
    return utc(epoch).removesuffix(" UTC")


#: The sort orders of a list, by their name in the address, with their labels.
_SORT_NAMES = {
    "-time": "newest first",
    "time": "oldest first",
    "state": "held first",
    "number": "number",
    "country": "country",
    "-code": "code",
}

#: The choices for orders, with their labels.
_CHOICE_NAMES = {
    "created": "Created: KK has it",
    "never_created": "Never created: KK does not have it",
    "order_again": "Order again",
    "retry": "Retry now",
    "cancel": "Cancel at KK",
}
_CHOICE_HINTS = {
    "created": "Nothing is sent. KK must list each id under this number.",
    "never_created": "It is sent in its next run. It is skipped if KK lists it by now.",
    "order_again": "A second order: the next sync that selects it orders the number once more, in addition "
    "to KK's orders of it.",
    "cancel": "KK is asked once to refund all of it, if it is not shipped. KK gets your reason as remark.",
    "retry": "It is sent in its next run, without waiting for its back-off.",
}

_TEMPLATES = Environment(
    loader=PackageLoader("airflow_provider_kk.plugins"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"at": _at, "back_name": _back_name, "group": group_of, "figure": "{:,}".format}
_TEMPLATES.globals |= {
    "HEIGHT": HEIGHT,
    "ORDERS": ORDERS,
    "REFUNDS": REFUNDS,
    "link": query,
    "run_link": _run_link,
    "SORTS": _SORT_NAMES,
    "CHOICE_NAMES": _CHOICE_NAMES,
    "CHOICE_HINTS": _CHOICE_HINTS,
}
