"""The parts of pages: the ledgers to choose from, rows with their commands, CSV, and templates."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile
from typing import Any, NamedTuple
from urllib.parse import quote

from fastapi.responses import HTMLResponse, Response, StreamingResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from airflow_provider_kk.delivery.log import format_goods, utc
from airflow_provider_kk.delivery.model import Pause
from airflow_provider_kk.delivery.resolution import ResolutionRejected
from airflow_provider_kk.delivery.sql.report import Line
from airflow_provider_kk.plugins.chart import HEIGHT
from airflow_provider_kk.plugins.ledgers import CannotReadLedgerError, LedgerSource, Reader
from airflow_provider_kk.plugins.query_params import address_query, group_of
from airflow_provider_kk.plugins.urls import airflow_path, root
from airflow_provider_kk.sync.record_types import ORDERS, REFUNDS, RecordType, resolve_commands
from airflow_provider_kk.sync.resolution import choices_for

PAGE_SIZE = 50
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
    kind: RecordType | None

    @classmethod
    def of_ledger(cls, reader: Reader, name: str, kind: RecordType) -> tuple[View, LedgerSource]:
        """Return the view of this connection's ledger, else of the first ledger, and the ledger.

        :raises HTTPException: see `of`.
        :raises PageError: the user may read no ledger.
        """
        view = cls.of(reader, name, kind)
        if view.source is None:
            raise PageError(view, _NO_CONNECTION)
        return view, view.source

    @contextmanager
    def reported_errors(self, *, status: int = 200, back: str = "") -> Iterator[None]:
        """Report an error until the end of the block.

        :raises PageError: the ledger cannot be read, or a resolution is rejected.
        """
        try:
            yield
        except (ResolutionRejected, CannotReadLedgerError) as error:
            raise PageError(self, error, status=status, back=back) from error

    @classmethod
    def of(cls, reader: Reader, name: str, kind: RecordType | None) -> View:
        """Return the view of this connection's ledger, else of the first ledger.

        :raises HTTPException: there is none, or the user may not read it, with the same text for both.
        """
        known = reader.sources()
        found = [one for one in known if name in ("", one.kk_conn_id)]
        if name and not found:
            raise HTTPException(
                404,
                f"There is no connection {name!r} that you may read. If it is in a secrets backend, set its "
                f"name in Airflow's configuration: [kk] orders_page = {name}",
            )
        return cls(known, found[0] if found else None, kind)


_NO_CONNECTION = (
    "There is no connection of type 'kk' that you may read. Create one under Admin, Connections. For those "
    "of a secrets backend, set their names in Airflow's configuration: [kk] orders_page = kk_default"
)


class PauseBanner(NamedTuple):
    """The notice at the top of a page that sending is paused."""

    kk_conn_id: str
    pause: Pause
    may_edit: bool


def banners_of(pause: Pause | None, source: LedgerSource, reader: Reader) -> list[PauseBanner]:
    """Return the banner of a ledger if its sending is paused."""
    return [PauseBanner(source.kk_conn_id, pause, reader.may_edit(source.kk_conn_id))] if pause else []


@dataclass(frozen=True)
class Pager:
    """The number of a list's page, and of all its pages."""

    number: int
    total: int

    @property
    def last(self) -> int:
        """The number of the last page."""
        return max(1, -(-self.total // PAGE_SIZE))

    @property
    def first_row(self) -> int:
        """The position of the page's first row in the list; the first is 1."""
        return (self.number - 1) * PAGE_SIZE + 1

    @property
    def last_row(self) -> int:
        """The position of the page's last row."""
        return min(self.number * PAGE_SIZE, self.total)


def page(template: str, view: View, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a page, with the values that all templates need."""
    text = _TEMPLATES.get_template(template).render(view=view, root=root(), **values)
    return HTMLResponse(text, status, headers=_HEADERS)


class PageError(Exception):
    """A page has only a message: why it cannot be shown, and what to do."""

    def __init__(self, view: View, error: object, *, status: int = 200, back: str = "") -> None:
        text = str(error).rstrip(".")
        super().__init__(text)
        message = f"{text[:1].upper()}{text[1:]}."
        self.response = page("message.html", view, status=status, message=message, back=back)


# CSV -----------------------------------------------------------------------------------------------


def csv_response(lines: Iterable[Line], kind: RecordType, name: str) -> Response:
    """Return rows as a file that spreadsheets open."""
    # Larger files are written to the disk.
    file = SpooledTemporaryFile(_CSV_IN_MEMORY, mode="w+", encoding="utf-8", newline="")  # noqa: SIM115
    names = f"{kind.key},generation,state,{kind.ids},goods,country,dag,run,time (UTC),code,message"
    file.write(f"\ufeff{names}\r\n")  # without the first character, Excel does not read the file as UTF-8
    writer = csv.writer(file)
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
    "choices_for": choices_for,
    "commands_for": resolve_commands,
    "link": address_query,
    "run_link": _run_link,
    "SORTS": _SORT_NAMES,
    "CHOICE_NAMES": _CHOICE_NAMES,
    "CHOICE_HINTS": _CHOICE_HINTS,
}
