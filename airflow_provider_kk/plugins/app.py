"""The page's application: routes, who may see what, and what each page is made of.

Loaded by the API server at the first request to the page. Airflow does not protect an application that it
mounts, so every route asks for a user, and FastAPI's own pages, which would not, are off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import get_user, requires_access_connection, requires_access_dag
from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException

from airflow_provider_kk.delivery.log import utc
from airflow_provider_kk.delivery.report import Cursor, Line, Report
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.plugins import chart
from airflow_provider_kk.plugins.commands import commands
from airflow_provider_kk.plugins.orders_page import airflow_path, root
from airflow_provider_kk.plugins.places import CannotShowError, Place, opened, places

_STATIC = Path(__file__).with_name("static")
PAGE_SIZE = 50
#: What people ask for, and the ledger's states behind it, in the order of the chart's columns.
GROUPS: dict[str, tuple[State, ...]] = {
    "created": (State.CREATED,),
    "rejected": (State.REJECTED,),
    "in doubt": (State.SENDING, State.IN_DOUBT),
    "held": (State.HELD,),
    "invalid": (State.INVALID,),
    "not sent": (State.NOT_SENT,),
}
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

app = FastAPI(dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)
_may_read_connections = Depends(requires_access_connection("GET"))
_may_read_run = Depends(requires_access_dag("GET", DagAccessEntity.RUN))


# Routes --------------------------------------------------------------------------------------------


@app.get("/orders", dependencies=[_may_read_connections])
def orders(
    place: str = "", since: str = "", until: str = "", state: str = "", q: str = "", after: str = ""
) -> HTMLResponse:
    """All orders of a ledger: counts, chart, table."""
    view = _View.of(place)
    if view.place is None:
        return _page("message.html", view, message=_NO_CONNECTION)
    period = _Period.parse(since, until)
    states = GROUPS.get(state) or tuple(one for group in GROUPS.values() for one in group)
    text = q.strip()
    try:
        with opened(view.place) as (report, settings):
            step_s = chart.step_for(period.begin, period.end)
            series = _series(report, period, step_s)
            open_now = report.count((*GROUPS["in doubt"], *GROUPS["held"]))
            lines = _lines(report, states, period, text, _cursor(after))
    except CannotShowError as error:
        return _page("message.html", view, message=str(error))
    rows = _rows(lines[:PAGE_SIZE], view.place)
    return _page(
        "orders.html",
        view,
        period=period,
        chart=chart.draw(series, period.begin, period.end, step_s, settings.rate_limit_per_second),
        counts={name: sum(steps.values()) for name, steps in series.items()},
        open_now={name: sum(open_now.get(one, 0) for one in GROUPS[name]) for name in ("in doubt", "held")},
        state=state if state in GROUPS else "",
        text=text,
        is_later_page=bool(after),
        rows=rows,
        older=str(Cursor.after(lines[PAGE_SIZE - 1])) if len(lines) > PAGE_SIZE else "",
        settings=settings,
    )


@app.get("/order", dependencies=[_may_read_connections])
def order(number: str = "", place: str = "") -> HTMLResponse:
    """All that is known of an order number."""
    view = _View.of(place)
    if view.place is None:
        return _page("message.html", view, message=_NO_CONNECTION)
    try:
        with opened(view.place) as (report, _settings):
            generations, attempts = report.order(number)
    except CannotShowError as error:
        return _page("message.html", view, message=str(error))
    if not generations:
        return _page("message.html", view, status=404, message=f"The ledger does not know {number!r}.")
    newest = generations[-1]
    return _page(
        "order.html",
        view,
        number=number,
        generations=generations[::-1],
        attempts=attempts,
        commands=commands(number, newest.state, newest.kk_order_ids, view.place.options),
    )


@app.get("/runs/{dag_id}/{run_id:path}", dependencies=[_may_read_run])
def run(dag_id: str, run_id: str, place: str = "", after: str = "") -> HTMLResponse:
    """The orders of a DAG run, in every ledger that the page knows."""
    view = _View.of(place)
    found, troubles = [], []
    for one in [view.place] if place and view.place else view.places:
        try:
            with opened(one) as (report, _settings):
                orders_of_run = report.of_run(dag_id, run_id, limit=PAGE_SIZE + 1, after=after or None)
        except CannotShowError as error:
            troubles.append(f"{one.kk_conn_id}: {error}")
            continue
        if orders_of_run:
            shown = orders_of_run[:PAGE_SIZE]
            rows = _rows([each.line for each in shown], one)
            posts = [each.attempts for each in shown]
            more = shown[-1].line.key if len(orders_of_run) > PAGE_SIZE else ""
            found.append({"place": one, "rows": list(zip(rows, posts, strict=True)), "more": more})
    return _page("run.html", view, dag_id=dag_id, run_id=run_id, found=found, troubles=troubles, after=after)


@app.get("/{name}.css")
def style(name: str) -> FileResponse:
    """The page's one style sheet."""
    return _static(name, "css", "text/css")


@app.get("/{name}.js")
def script(name: str) -> FileResponse:
    """The page's one script."""
    return _static(name, "js", "text/javascript")


def _static(name: str, ending: str, media_type: str) -> FileResponse:
    if name != "page":
        raise HTTPException(404)
    headers = {"Cache-Control": "no-cache"}
    return FileResponse(_STATIC / f"page.{ending}", media_type=media_type, headers=headers)


@app.exception_handler(HTTPException)
def refused(_request: Any, error: Any) -> HTMLResponse:
    """A page for whoever is not let in, or asks for what there is not."""
    message = _REFUSALS.get(error.status_code, str(error.detail))
    return _page("message.html", _View([], None), status=error.status_code, message=message)


_REFUSALS = {
    401: "Log in to Airflow to see this page.",
    403: "This page shows what connections lead to. Your role in Airflow may not read those, or this DAG.",
    404: "There is no such page.",
}
_NO_CONNECTION = (
    "No connection of type 'kk' was found. Make one under Admin, Connections, or name those of a secrets "
    "backend in Airflow's configuration: [kk] orders_page = kk_default"
)


# What pages are made of ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _View:
    """The places there are, and the one that is looked at."""

    places: list[Place]
    place: Place | None

    @classmethod
    def of(cls, name: str) -> _View:
        known = places()
        chosen = next((one for one in known if one.kk_conn_id == name), None)
        return cls(known, chosen or (known[0] if known else None))


@dataclass(frozen=True)
class _Period:
    """Whole days of UTC, both included."""

    since: date
    until: date

    @classmethod
    def parse(cls, since: str, until: str) -> _Period:
        today = datetime.now(UTC).date()
        last = _date(until) or today
        first = _date(since) or min(today, last)
        return cls(min(first, last), max(first, last))

    @property
    def begin(self) -> float:
        return _midnight(self.since)

    @property
    def end(self) -> float:
        return _midnight(self.until) + chart.DAY_S

    @property
    def shortcuts(self) -> dict[str, tuple[date, date]]:
        today = datetime.now(UTC).date()
        days = {"Today": 1, "7 days": 7, "30 days": 30, "365 days": 365}
        return {name: (today - timedelta(days=number - 1), today) for name, number in days.items()}


def _date(text: str) -> date | None:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if 2000 <= found.year < 2200 else None


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()


def _cursor(text: str) -> Cursor | None:
    try:
        return Cursor.parse(text) if text else None
    except ValueError:
        return None


def _series(report: Report, period: _Period, step_s: int) -> dict[str, dict[int, int]]:
    counts = report.over_time(period.begin, period.end, step_s)
    return {name: _summed([counts[state] for state in states]) for name, states in GROUPS.items()}


def _summed(series: Iterable[dict[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for one in series:
        for step, count in one.items():
            total[step] = total.get(step, 0) + count
    return total


def _lines(
    report: Report, states: Sequence[State], period: _Period, text: str, after: Cursor | None
) -> list[Line]:
    if text:
        return report.find(text, limit=PAGE_SIZE)
    return report.lines(states, period.begin, period.end, limit=PAGE_SIZE + 1, after=after)


def _rows(lines: Iterable[Line], place: Place) -> list[dict[str, Any]]:
    return [
        {
            "line": line,
            "group": group_of(line.state),
            "commands": commands(line.key, line.state, line.kk_order_ids, place.options)
            if line.state is State.HELD
            else [],
        }
        for line in lines
    ]


def group_of(state: State) -> str:
    """Return the word under which the page counts a state."""
    return next(name for name, states in GROUPS.items() if state in states)


def _page(template: str, view: _View, *, status: int = 200, **values: Any) -> HTMLResponse:
    text = _TEMPLATES.get_template(template).render(
        root=root(), view=view, groups=GROUPS, query=_query, run_link=_run_link, **values
    )
    return HTMLResponse(text, status, headers=_HEADERS)


def _query(**values: Any) -> str:
    return "?" + urlencode({name: value for name, value in values.items() if value})


def _run_link(dag_id: str, run_id: str) -> str:
    return f"{airflow_path()}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


_TEMPLATES = Environment(
    loader=PackageLoader("airflow_provider_kk.plugins"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {"utc": utc, "group": group_of}
