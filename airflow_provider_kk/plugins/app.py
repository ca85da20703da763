"""The application of the Orders page: its routes and their permissions.

The API server loads it at the first request to the page. Airflow does not protect an application that it
mounts, so each route requires a user, and FastAPI's own pages, which do not, are disabled.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import get_user, requires_access_dag
from fastapi import Depends, FastAPI, Query
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.exceptions import HTTPException

from airflow_provider_kk.delivery.refunds import order_of_key
from airflow_provider_kk.delivery.sql.report import Report
from airflow_provider_kk.plugins import action_pages, chart, page_parts, query_params
from airflow_provider_kk.plugins.ledgers import (
    CannotReadLedgerError,
    LedgerSource,
    Reader,
    ReaderDep,
    fulfilment_of,
    may_read_connections,
    open_report,
)
from airflow_provider_kk.plugins.page_parts import Pager, View, csv_response, page
from airflow_provider_kk.plugins.query_params import ListQuery, list_query
from airflow_provider_kk.plugins.state_groups import GROUPS, by_group
from airflow_provider_kk.sync.record_types import ORDERS, REFUNDS, RecordType
from airflow_provider_kk.sync.resolution import choices_for

_STATIC = Path(__file__).with_name("static")
PAGE_SIZE = 50

app = FastAPI(dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)
_may_read_connections = Depends(may_read_connections)
app.include_router(action_pages.router)
_may_read_run = Depends(requires_access_dag("GET", DagAccessEntity.RUN))


QueryDep = Annotated[ListQuery, Depends(list_query)]


# Routes --------------------------------------------------------------------------------------------


@app.get("/orders", dependencies=[_may_read_connections])
def orders(reader: ReaderDep, query: QueryDep) -> HTMLResponse:
    """Show the orders of a ledger: counts, chart, table."""
    return _list(reader, ORDERS, query)


@app.get("/refunds", dependencies=[_may_read_connections])
def refunds(reader: ReaderDep, query: QueryDep) -> HTMLResponse:
    """Show the refunds of a ledger in the same way."""
    return _list(reader, REFUNDS, query)


@app.get("/orders.csv", dependencies=[_may_read_connections], response_model=None)
def orders_as_csv(reader: ReaderDep, query: QueryDep) -> Response:
    """Return all orders of a list, over all its pages, as CSV."""
    return _csv(reader, ORDERS, query)


@app.get("/refunds.csv", dependencies=[_may_read_connections], response_model=None)
def refunds_as_csv(reader: ReaderDep, query: QueryDep) -> Response:
    """Return all refunds of a list, over all its pages, as CSV."""
    return _csv(reader, REFUNDS, query)


@app.get("/order", dependencies=[_may_read_connections])
def order(reader: ReaderDep, number: str = "", kk_conn_id: str = "", back: str = "") -> HTMLResponse:
    """Show an order number with all its data and its refunds."""
    return _detail(reader, ORDERS, query_params.text("number", number), kk_conn_id, query_params.back(back))


@app.get("/refund", dependencies=[_may_read_connections])
def refund(reader: ReaderDep, key: str = "", kk_conn_id: str = "", back: str = "") -> HTMLResponse:
    """Show a refund with all its data."""
    return _detail(reader, REFUNDS, query_params.text("key", key), kk_conn_id, query_params.back(back))


@app.get("/runs/{dag_id}/{run_id:path}", dependencies=[_may_read_run])
def run(
    reader: ReaderDep,
    dag_id: str,
    run_id: str,
    kk_conn_id: str = "",
    kind: str = "",
    page_number: Annotated[str, Query(alias="page")] = "",
) -> HTMLResponse:
    """Show the orders and refunds of a DAG run, of each ledger whose connections the user may read."""
    dag_id, run_id = query_params.text("dag_id", dag_id), query_params.text("run_id", run_id)
    view, number = View.of(reader, kk_conn_id, None), query_params.page(page_number)
    found, banners, unread = [], [], 0
    for one in [view.source] if kk_conn_id and view.source else view.sources:
        try:
            with open_report(one, reader) as (report, _settings):
                banners += page_parts.banners_of(report, one, reader)
                for each in (ORDERS, REFUNDS):
                    if kind in ("", each.many):
                        found += _of_run(report, each, one, dag_id, run_id, number)
        except CannotReadLedgerError:
            # The list of that ledger has the reason, with the connection's name.
            unread += 1
    here = f"runs/{quote(dag_id, safe='')}/{quote(run_id, safe='')}"
    return page(
        "run.html", view, banners=banners, run_id=run_id, found=found, unread=unread, number=number, here=here
    )


@app.get("/{name}.css")
def style(name: str) -> FileResponse:
    """Return the page's style sheet."""
    return _static(name, "css", "text/css")


@app.get("/{name}.svg")
def icon(name: str) -> FileResponse:
    """Return the icon, which Airflow's menu uses, too."""
    return _static(name, "svg", "image/svg+xml")


@app.get("/{name}.js")
def script(name: str) -> FileResponse:
    """Return the page's script."""
    return _static(name, "js", "text/javascript")


@app.exception_handler(HTTPException)
def query_error(_request: Any, error: Any) -> HTMLResponse:
    """Show a page for a request that is not allowed or not possible."""
    # Airflow's own error has only its number.
    is_generic = error.status_code == 401 or error.detail == HTTPStatus(error.status_code).phrase
    message = _REJECTIONS.get(error.status_code, error.detail) if is_generic else error.detail
    return page("message.html", View([], None), status=error.status_code, message=message)


_REJECTIONS = {
    401: "Log in to Airflow to see this page.",
    404: "There is no such page.",
    403: "Your role in Airflow may not read the connections of this page, or this DAG. Ask an admin.",
}
_NO_CONNECTION = (
    "There is no connection of type 'kk' that you may read. Create one under Admin, Connections. For those "
    "of a secrets backend, set their names in Airflow's configuration: [kk] orders_page = kk_default"
)


# Building pages ------------------------------------------------------------------------------------


def _list(reader: Reader, kind: RecordType, query: ListQuery) -> HTMLResponse:
    view = View.of(reader, query.kk_conn_id, kind)
    if view.source is None:
        return page("message.html", view, message=_NO_CONNECTION)
    query = replace(query, kk_conn_id=view.source.kk_conn_id)
    try:
        with open_report(view.source, reader) as (report, settings):
            mine = kind.report(report)
            if query.q:
                by_state, drawn = mine.count_selected(query.selection), None
                counts = {
                    name: sum(by_state.get(one, 0) for one in states) for name, states in GROUPS.items()
                }
            else:
                counts, drawn = _over_time(mine, query, settings.rate_limit_per_second)
            lines = mine.lines(
                replace(query.selection, states=query.states),
                sort=query.column,
                descending=query.is_descending,
                offset=(query.page - 1) * PAGE_SIZE,
                limit=PAGE_SIZE,
            )
            open_now, dag_ids = _open_now(report), mine.dag_ids()
            banners = page_parts.banners_of(report, view.source, reader)
    except CannotReadLedgerError as error:
        return page("message.html", view, message=str(error))
    total = counts[query.state] if query.state else sum(counts.values())
    return page(
        "list.html",
        view,
        query=query,
        settings=settings,
        chart=drawn,
        counts=counts,
        open_now=open_now,
        banners=banners,
        dag_ids=dag_ids,
        rows=page_parts.rows(lines, kind, view.source),
        pager=Pager(query.page, PAGE_SIZE, total),
        may_edit=reader.may_edit(view.source.kk_conn_id),
        here=kind.many + query.address(page=query.page),
    )


def _csv(reader: Reader, kind: RecordType, query: ListQuery) -> Response:
    view = View.of(reader, query.kk_conn_id, kind)
    if view.source is None:
        return page("message.html", view, message=_NO_CONNECTION)
    try:
        with open_report(view.source, reader) as (report, _settings):
            lines = kind.report(report).export(
                replace(query.selection, states=query.states),
                sort=query.column,
                descending=query.is_descending,
            )
            # Written before it is sent, so that an error gives a page with the reason instead of half a file.
            return csv_response(lines, kind, f"kk-{kind.many}-{query.period.since}-{query.period.until}.csv")
    except CannotReadLedgerError as error:
        return page("message.html", view, message=str(error))


def _open_now(report: Report) -> list[tuple[RecordType, str, int]]:
    """Count the held orders and those in doubt, over all days."""
    waiting = {name: GROUPS[name] for name in ("held", "in doubt")}
    found = []
    for kind in (ORDERS, REFUNDS):
        counts = kind.report(report).count([state for states in waiting.values() for state in states])
        for name, states in waiting.items():
            if number := sum(counts.get(state, 0) for state in states):
                found.append((kind, name, number))
    return found


def _over_time(
    report: Report, query: ListQuery, limit_per_second: float
) -> tuple[dict[str, int], chart.Chart]:
    """Return the number of orders of each group, in total and over time."""
    period = query.period
    # The chart of all days begins with the first day that has orders.
    begin = max(period.begin, min(report.oldest() or 0.0, period.end - chart.DAY_S))
    begin -= begin % chart.DAY_S
    step_s = chart.step_for(begin, period.end)
    counts = report.over_time(begin, period.end, step_s, query.selection)
    series = {name: _summed([counts[state] for state in states]) for name, states in GROUPS.items()}
    drawn = chart.draw(series, begin, period.end, step_s, limit_per_second)
    return {name: sum(steps.values()) for name, steps in series.items()}, drawn


def _summed(series: Iterable[dict[int, int]]) -> dict[int, int]:
    total: dict[int, int] = {}
    for one in series:
        for step, count in one.items():
            total[step] = total.get(step, 0) + count
    return total


def _detail(reader: Reader, kind: RecordType, key: str, kk_conn_id: str, back: str) -> HTMLResponse:
    view = View.of(reader, kk_conn_id, kind)
    if view.source is None:
        return page("message.html", view, message=_NO_CONNECTION)
    try:
        with open_report(view.source, reader) as (report, settings):
            generations, attempts = kind.report(report).all_of(key)
            ids = [one for entry in generations for one in entry.kk_order_ids]
            of_order = report.refunds_of(ids) if kind is ORDERS else []
            banners = page_parts.banners_of(report, view.source, reader)
            fulfilment = fulfilment_of(report, settings, ids) if kind is ORDERS else None
    except CannotReadLedgerError as error:
        return page("message.html", view, message=str(error))
    if not generations:
        raise HTTPException(404, f"The ledger of {view.source.kk_conn_id!r} does not have {key!r}.")
    return page(
        "detail.html",
        view,
        key=key,
        generations=generations[::-1],
        attempts=attempts,
        advice=page_parts.commands_for(generations[-1], kind, view.source),
        refunds=page_parts.rows(of_order, REFUNDS, view.source),
        fulfilment=fulfilment,
        banners=banners,
        may_resolve=reader.may_edit(view.source.kk_conn_id)
        and bool(choices_for([generations[-1].state], kind)),
        kk_order_id=order_of_key(key) if kind is REFUNDS else "",
        back=back,
        here=kind.one + page_parts.query(**{kind.parameter: key, "kk_conn_id": view.source.kk_conn_id}),
    )


def _of_run(
    report: Report, kind: RecordType, source: LedgerSource, dag_id: str, run_id: str, number: int
) -> list[dict[str, Any]]:
    mine = kind.report(report)
    counts = by_group(mine.count_run(dag_id, run_id))
    if not any(counts.values()):
        return []
    found = mine.of_run(dag_id, run_id, limit=PAGE_SIZE, offset=(number - 1) * PAGE_SIZE)
    return [
        {
            "kind": kind,
            "source": source,
            "rows": [page_parts.row(one.line, kind, source, one.attempts) for one in found],
            "counts": {name: count for name, count in counts.items() if count},
            "pager": Pager(number, PAGE_SIZE, sum(counts.values())),
            "address": partial(page_parts.query, kk_conn_id=source.kk_conn_id, kind=kind.many),
        }
    ]


def _static(name: str, ending: str, media_type: str) -> FileResponse:
    if name != "page":
        raise HTTPException(404)
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return FileResponse(_STATIC / f"page.{ending}", media_type=media_type, headers=headers)
