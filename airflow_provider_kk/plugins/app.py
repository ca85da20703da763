"""The page's application: routes, and who may see what.

Loaded by the API server at the first request to the page. Airflow does not protect an application that it
mounts, so every route asks for a user, and FastAPI's own pages, which would not, are off.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import (
    GetUserDep,
    get_user,
    requires_access_connection,
    requires_access_dag,
)
from fastapi import Depends, FastAPI, Query
from fastapi.responses import FileResponse, HTMLResponse
from starlette.exceptions import HTTPException

from airflow_provider_kk.delivery.refunds import order_of_key
from airflow_provider_kk.delivery.sql.report import Line, Report, Selection
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.plugins import chart, pages, query_params
from airflow_provider_kk.plugins.ledgers import CannotReadLedgerError, LedgerSource, Reader, open_report
from airflow_provider_kk.plugins.pages import View, page
from airflow_provider_kk.plugins.query_params import Period
from airflow_provider_kk.plugins.record_types import GROUPS, ORDERS, REFUNDS, RecordType

_STATIC = Path(__file__).with_name("static")
PAGE_SIZE = 50

app = FastAPI(dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)
_may_read_connections = Depends(requires_access_connection("GET"))
_may_read_run = Depends(requires_access_dag("GET", DagAccessEntity.RUN))


def _reader(user: GetUserDep, session: SessionDep) -> Reader:
    return Reader(user, session)


ReaderDep = Annotated[Reader, Depends(_reader)]


# Routes --------------------------------------------------------------------------------------------


@app.get("/orders", dependencies=[_may_read_connections])
def orders(
    reader: ReaderDep,
    kk_conn_id: str = "",
    since: str = "",
    until: str = "",
    state: str = "",
    q: str = "",
    page_number: Annotated[str, Query(alias="page")] = "",
) -> HTMLResponse:
    """All orders of a ledger: counts, chart, table."""
    text = query_params.text("q", q).strip()
    return _list(
        reader, ORDERS, kk_conn_id, Period.parse(since, until), query_params.group(state), text, page_number
    )


@app.get("/refunds", dependencies=[_may_read_connections])
def refunds(
    reader: ReaderDep,
    kk_conn_id: str = "",
    since: str = "",
    until: str = "",
    state: str = "",
    q: str = "",
    page_number: Annotated[str, Query(alias="page")] = "",
) -> HTMLResponse:
    """All refunds of a ledger, in the same way."""
    text = query_params.text("q", q).strip()
    return _list(
        reader, REFUNDS, kk_conn_id, Period.parse(since, until), query_params.group(state), text, page_number
    )


@app.get("/order", dependencies=[_may_read_connections])
def order(reader: ReaderDep, number: str = "", kk_conn_id: str = "") -> HTMLResponse:
    """All that is known of an order number, and its refunds."""
    return _detail(reader, ORDERS, query_params.text("number", number), kk_conn_id)


@app.get("/refund", dependencies=[_may_read_connections])
def refund(reader: ReaderDep, key: str = "", kk_conn_id: str = "") -> HTMLResponse:
    """All that is known of a refund."""
    return _detail(reader, REFUNDS, query_params.text("key", key), kk_conn_id)


@app.get("/runs/{dag_id}/{run_id:path}", dependencies=[_may_read_run])
def run(
    reader: ReaderDep,
    dag_id: str,
    run_id: str,
    kk_conn_id: str = "",
    kind: str = "",
    page_number: Annotated[str, Query(alias="page")] = "",
) -> HTMLResponse:
    """The orders and refunds of a DAG run, in every ledger whose connections the user may read."""
    dag_id, run_id = query_params.text("dag_id", dag_id), query_params.text("run_id", run_id)
    view, number = View.of(reader, kk_conn_id, None), query_params.page(page_number)
    found, unread = [], 0
    for one in [view.source] if kk_conn_id and view.source else view.sources:
        try:
            with open_report(one, reader) as (report, _settings):
                for each in (ORDERS, REFUNDS):
                    if kind in ("", each.many):
                        found += _of_run(report, each, one, dag_id, run_id, number)
        except CannotReadLedgerError:
            # Why is a subject of the list, where it stands beside the connection's name.
            unread += 1
    return page("run.html", view, run_id=run_id, found=found, unread=unread, number=number)


@app.get("/{name}.css")
def style(name: str) -> FileResponse:
    """The page's one style sheet."""
    return _static(name, "css", "text/css")


@app.get("/{name}.js")
def script(name: str) -> FileResponse:
    """The page's one script."""
    return _static(name, "js", "text/javascript")


@app.exception_handler(HTTPException)
def query_error(_request: Any, error: Any) -> HTMLResponse:
    """A page for whoever is not let in, or asks for what there is not."""
    message = _REFUSALS.get(error.status_code, error.detail)
    if message == HTTPStatus.NOT_FOUND.phrase:
        message = "There is no such page."
    return page("message.html", View([], None), status=error.status_code, message=message)


_REFUSALS = {
    401: "Log in to Airflow to see this page.",
    403: "This page shows what connections lead to. Your role in Airflow may not read those, or this DAG.",
}
_NO_CONNECTION = (
    "There is no connection of type 'kk' that you may read. Make one under Admin, Connections, or name those "
    "of a secrets backend in Airflow's configuration: [kk] orders_page = kk_default"
)


# How pages come about ------------------------------------------------------------------------------


def _list(
    reader: Reader, kind: RecordType, kk_conn_id: str, period: Period, state: str, text: str, page_number: str
) -> HTMLResponse:
    view, number = View.of(reader, kk_conn_id, kind), query_params.page(page_number)
    if view.source is None:
        return page("message.html", view, message=_NO_CONNECTION)
    states = GROUPS[state] if state else tuple(State)
    try:
        with open_report(view.source, reader) as (report, settings):
            mine = kind.report(report)
            values: dict[str, Any] = {"settings": settings, "open_now": _open_now(report)}
            if text:
                values |= {"rows": pages.rows(_found(report, kind, text), kind, view.source)}
                return page("found.html", view, period=period, text=text, **values)
            selection = Selection(states, period.begin, period.end)
            lines = mine.lines(selection, limit=PAGE_SIZE + 1, offset=(number - 1) * PAGE_SIZE)
            series, drawn = _over_time(mine, period, settings.rate_limit_per_second)
    except CannotReadLedgerError as error:
        return page("message.html", view, message=str(error))
    return page(
        "list.html",
        view,
        period=period,
        chart=drawn,
        counts={name: sum(steps.values()) for name, steps in series.items()},
        state=state,
        text="",
        number=number,
        rows=pages.rows(lines[:PAGE_SIZE], kind, view.source),
        has_more=len(lines) > PAGE_SIZE,
        **values,
    )


def _found(report: Report, kind: RecordType, text: str) -> list[Line]:
    of_order = report.refunds_of([text]) if kind.is_refund else []
    return of_order or kind.report(report).find(text, limit=PAGE_SIZE)


def _open_now(report: Report) -> list[tuple[RecordType, str, int]]:
    """Count what waits for a human, and what is looked up by itself, whatever its day."""
    waiting = {name: GROUPS[name] for name in ("held", "in doubt")}
    found = []
    for kind in (ORDERS, REFUNDS):
        counts = kind.report(report).count([state for states in waiting.values() for state in states])
        for name, states in waiting.items():
            if number := sum(counts.get(state, 0) for state in states):
                found.append((kind, name, number))
    return found


def _over_time(
    report: Report, period: Period, limit_per_second: float
) -> tuple[dict[str, dict[int, int]], chart.Chart]:
    # A chart of all years is one of those in which there was something.
    begin = max(period.begin, min(report.oldest() or 0.0, period.end - chart.DAY_S))
    begin -= begin % chart.DAY_S
    step_s = chart.step_for(begin, period.end)
    counts = report.over_time(begin, period.end, step_s)
    series = {name: _summed([counts[state] for state in states]) for name, states in GROUPS.items()}
    return series, chart.draw(series, begin, period.end, step_s, limit_per_second)


def _summed(series: Iterable[dict[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for one in series:
        for step, count in one.items():
            total[step] = total.get(step, 0) + count
    return total


def _detail(reader: Reader, kind: RecordType, key: str, kk_conn_id: str) -> HTMLResponse:
    view = View.of(reader, kk_conn_id, kind)
    if view.source is None:
        return page("message.html", view, message=_NO_CONNECTION)
    try:
        with open_report(view.source, reader) as (report, _settings):
            generations, attempts = kind.report(report).all_of(key)
            ids = [one for entry in generations for one in entry.kk_order_ids]
            of_order = [] if kind.is_refund else report.refunds_of(ids)
    except CannotReadLedgerError as error:
        return page("message.html", view, message=str(error))
    if not generations:
        raise HTTPException(404, f"The ledger of {view.source.kk_conn_id!r} does not know {key!r}.")
    return page(
        "detail.html",
        view,
        key=key,
        generations=generations[::-1],
        attempts=attempts,
        advice=pages.commands_for(generations[-1], kind, view.source),
        refunds=pages.rows(of_order, REFUNDS, view.source),
        kk_order_id=order_of_key(key) if kind.is_refund else "",
    )


def _of_run(
    report: Report, kind: RecordType, source: LedgerSource, dag_id: str, run_id: str, number: int
) -> list[dict[str, Any]]:
    found = kind.report(report).of_run(dag_id, run_id, limit=PAGE_SIZE + 1, offset=(number - 1) * PAGE_SIZE)
    if not found:
        return []
    shown = found[:PAGE_SIZE]
    return [
        {
            "kind": kind,
            "source": source,
            "rows": [pages.row(one.line, kind, source, one.attempts) for one in shown],
            "more": len(found) > PAGE_SIZE,
        }
    ]


def _static(name: str, ending: str, media_type: str) -> FileResponse:
    if name != "page":
        raise HTTPException(404)
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return FileResponse(_STATIC / f"page.{ending}", media_type=media_type, headers=headers)
