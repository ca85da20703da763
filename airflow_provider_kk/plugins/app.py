"""The application of the Orders page: its routes and their permissions.

The API server loads it at the first request to the page. Airflow does not protect an application that it
mounts, so each route requires a user, and FastAPI's own pages, which do not, are disabled.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from airflow.api_fastapi.core_api.security import get_user, requires_access_dag
from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import FileResponse, HTMLResponse, Response
from starlette.exceptions import HTTPException

from airflow_provider_kk.delivery.refunds import order_of_key
from airflow_provider_kk.delivery.sql.report import Report
from airflow_provider_kk.plugins import action_pages, chart, query_params
from airflow_provider_kk.plugins.ledgers import (
    CannotReadLedgerError,
    LedgerSource,
    ReaderDep,
    fulfilment_of,
    may_read_connections,
    open_report,
)
from airflow_provider_kk.plugins.page_parts import (
    PAGE_SIZE,
    PageError,
    Pager,
    View,
    banners_of,
    csv_response,
    page,
)
from airflow_provider_kk.plugins.query_params import GROUPS, ListQuery, address_query, by_group
from airflow_provider_kk.sync.record_types import ORDERS, REFUNDS, RecordType, resolve_commands
from airflow_provider_kk.sync.resolution import choices_for

_STATIC = Path(__file__).with_name("static")
_MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}

app = FastAPI(dependencies=[Depends(get_user)], docs_url=None, redoc_url=None, openapi_url=None)
app.include_router(action_pages.router)
_may_read_connections = Depends(may_read_connections)
_may_read_run = Depends(requires_access_dag("GET", DagAccessEntity.RUN))


def _kind_of(request: Request) -> RecordType:
    return REFUNDS if request.scope["route"].path.startswith("/refund") else ORDERS


KindDep = Annotated[RecordType, Depends(_kind_of)]
QueryDep = Annotated[ListQuery, Depends()]


@app.get("/orders", dependencies=[_may_read_connections])
@app.get("/refunds", dependencies=[_may_read_connections])
def record_list(reader: ReaderDep, kind: KindDep, query: QueryDep) -> HTMLResponse:
    """Show the orders or refunds of a ledger: counts, chart, table."""
    view, source = View.of_ledger(reader, query.kk_conn_id, kind)
    query.kk_conn_id = source.kk_conn_id
    with view.reported_errors(), open_report(source, reader) as (report, settings):
        mine = kind.report(report)
        if query.q:
            counts, drawn = by_group(mine.count_selected(query.selection)), None
        else:
            counts, drawn = _over_time(mine, query, settings.rate_limit_per_second)
        lines = mine.lines(
            replace(query.selection, states=query.states),
            sort=query.column,
            descending=query.is_descending,
            offset=(query.number - 1) * PAGE_SIZE,
            limit=PAGE_SIZE,
        )
        open_now, dag_ids = _open_now(report), mine.dag_ids()
        banners = banners_of(report.pause(), source, reader)
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
        lines=lines,
        pager=Pager(query.number, total),
        may_edit=reader.may_edit(source.kk_conn_id),
        here=kind.many + query.address(page=query.page),
    )


def _open_now(report: Report) -> list[tuple[RecordType, str, int]]:
    """Count the held orders and those in doubt, over all days."""
    waiting = ("held", "in doubt")
    states = [state for name in waiting for state in GROUPS[name]]
    found = [(kind, by_group(kind.report(report).count(states))) for kind in (ORDERS, REFUNDS)]
    return [(kind, name, counts[name]) for kind, counts in found for name in waiting if counts[name]]


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
    series = {
        name: sum((Counter(counts[state]) for state in states), Counter()) for name, states in GROUPS.items()
    }
    drawn = chart.draw(series, begin, period.end, step_s, limit_per_second)
    return {name: steps.total() for name, steps in series.items()}, drawn


@app.get("/orders.csv", dependencies=[_may_read_connections], response_model=None)
@app.get("/refunds.csv", dependencies=[_may_read_connections], response_model=None)
def all_as_csv(reader: ReaderDep, kind: KindDep, query: QueryDep) -> Response:
    """Return all orders or refunds of a list, over all its pages, as CSV."""
    view, source = View.of_ledger(reader, query.kk_conn_id, kind)
    with view.reported_errors(), open_report(source, reader) as (report, _settings):
        lines = kind.report(report).export(
            replace(query.selection, states=query.states),
            sort=query.column,
            descending=query.is_descending,
        )
        # Written before it is sent, so that an error gives a page with the reason instead of half a file.
        return csv_response(lines, kind, f"kk-{kind.many}-{query.period.since}-{query.period.until}.csv")


@app.get("/order", dependencies=[_may_read_connections])
@app.get("/refund", dependencies=[_may_read_connections])
def detail(
    reader: ReaderDep,
    kind: KindDep,
    number: str = "",
    key: str = "",
    kk_conn_id: str = "",
    back: str = "",
) -> HTMLResponse:
    """Show an order number or a refund with all its data, and the refunds of the order."""
    key = query_params.text(kind.parameter, key if kind is REFUNDS else number)
    back = query_params.back(back)
    view, source = View.of_ledger(reader, kk_conn_id, kind)
    with view.reported_errors(), open_report(source, reader) as (report, settings):
        generations, attempts = kind.report(report).all_of(key)
        ids = [one for entry in generations for one in entry.kk_order_ids]
        of_order = report.refunds_of(ids) if kind is ORDERS else []
        banners = banners_of(report.pause(), source, reader)
        fulfilment = fulfilment_of(report, settings, ids) if kind is ORDERS else None
    if not generations:
        raise HTTPException(404, f"The ledger of {source.kk_conn_id!r} does not have {key!r}.")
    last = generations[-1]
    return page(
        "detail.html",
        view,
        key=key,
        generations=generations[::-1],
        attempts=attempts,
        advice=resolve_commands(key, last.state, last.kk_order_ids, kind, options=source.options),
        refunds=of_order,
        fulfilment=fulfilment,
        banners=banners,
        may_resolve=reader.may_edit(source.kk_conn_id) and bool(choices_for([last.state], kind)),
        kk_order_id=order_of_key(key) if kind is REFUNDS else "",
        back=back,
        here=kind.one + address_query(**{kind.parameter: key, "kk_conn_id": source.kk_conn_id}),
    )


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
    view, number = View.of(reader, kk_conn_id, None), query_params.page_number(page_number)
    found, banners, unread = [], [], 0
    for one in [view.source] if kk_conn_id and view.source else view.sources:
        try:
            with open_report(one, reader) as (report, _settings):
                banners += banners_of(report.pause(), one, reader)
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
            "lines": [one.line for one in found],
            "posts": [one.attempts for one in found],
            "counts": {name: count for name, count in counts.items() if count},
            "pager": Pager(number, sum(counts.values())),
            "address": partial(address_query, kk_conn_id=source.kk_conn_id, kind=kind.many),
        }
    ]


@app.get("/page.{ending}")
def static(ending: str) -> FileResponse:
    """Return the page's style sheet, its script, or the icon, which Airflow's menu uses, too."""
    if ending not in _MEDIA_TYPES:
        raise HTTPException(404)
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return FileResponse(_STATIC / f"page.{ending}", media_type=_MEDIA_TYPES[ending], headers=headers)


# Errors --------------------------------------------------------------------------------------------


@app.exception_handler(PageError)
def page_error(_request: Any, error: Any) -> HTMLResponse:
    """Show a page with a message only."""
    return error.response  # type: ignore[no-any-return]


@app.exception_handler(HTTPException)
def query_error(_request: Any, error: Any) -> HTMLResponse:
    """Show a page for a request that is not allowed or not possible."""
    # Airflow's own error has only its number.
    is_generic = error.status_code == 401 or error.detail == HTTPStatus(error.status_code).phrase
    message = _REJECTIONS.get(error.status_code, error.detail) if is_generic else error.detail
    return page("message.html", View([], None, None), status=error.status_code, message=message)


_REJECTIONS = {
    401: "Log in to Airflow to see this page.",
    404: "There is no such page.",
    403: "Your role in Airflow may not read the connections of this page, or this DAG. Ask an admin.",
}
