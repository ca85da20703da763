"""The pages that change something: resolve and retry orders, pause and resume an account's sending.

Each has a preview that the user confirms, and then a page with the results. The forms work without scripts.
Only users who may edit the kk connection get them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import APIRouter, Depends, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from airflow_provider_kk.delivery.log import describe_pause
from airflow_provider_kk.delivery.resolution import ResolutionRejected
from airflow_provider_kk.plugins import query_params
from airflow_provider_kk.plugins.ledgers import (
    CannotReadLedgerError,
    LedgerSource,
    Reader,
    ReaderDep,
    may_read_connections,
    open_ledger_of,
    open_report,
)
from airflow_provider_kk.plugins.page_parts import PageError, View, banners_of, page, query
from airflow_provider_kk.plugins.trusted_forms import (
    TrustedForm,
    TrustedFormDep,
    form_token,
    read_signed,
    sign,
)
from airflow_provider_kk.plugins.urls import root
from airflow_provider_kk.sync.record_types import ORDERS, REFUNDS, RecordType
from airflow_provider_kk.sync.resolution import (
    CANCEL,
    ResolutionRequest,
    ResolvedBy,
    apply_resolutions,
    choices_for,
    plan_resolutions,
    split_ids,
)

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Pause
    from airflow_provider_kk.delivery.sql.storage import SqlStorage

#: Characters of a reason. The ledger keeps 250 characters of the user's name and the reason.
MAX_REASON = 180
#: As many rows as a page of a list has, since their results are in an address.
_MAX_ROWS = 50
#: Each cancellation takes some requests within KK's rate limit, and the browser waits for all of them.
_MAX_CANCELLED = 10
_RESULT_IS_OLD = "This result is too old, or another user's. See the page of the order for its state."


router = APIRouter(dependencies=[Depends(may_read_connections)])


class ChosenRow(NamedTuple):
    """An order or refund that the user chose, and its version on the page where it was chosen."""

    key: str
    version: str

    @classmethod
    def parse(cls, text: str) -> ChosenRow:
        """Parse the text that `str` returned."""
        version, separator, key = query_params.text("row", text).partition("~")
        if not separator or not key or not version:
            raise HTTPException(400, "row: this is not an order of a list. Choose the orders on the page.")
        return cls(key, version)

    def __str__(self) -> str:
        return f"{self.version}~{self.key}"


@router.get("/resolve")
def choose(
    reader: ReaderDep,
    kk_conn_id: str = "",
    kind: str = "",
    row: Annotated[list[str] | None, Query()] = None,
    back: str = "",
) -> HTMLResponse:
    """Show the form with the choices for the chosen orders."""
    back = query_params.back(back)
    view, source, record_type = _target(reader, kk_conn_id, kind)
    rows = _rows(row or [])
    with view.reported_errors(), open_report(source, reader) as (report, _settings):
        records = record_type.report(report).look_up([one.key for one in rows])
        banners = banners_of(report.pause(), source, reader)
    known = [records[one.key] for one in rows if one.key in records]
    return page(
        "resolve.html",
        view,
        rows=rows,
        records=records,
        moved=[one.key for one in rows if one.key in records and records[one.key].version != one.version],
        choices=choices_for([one.state for one in known], record_type),
        banners=banners,
        max_reason=MAX_REASON,
        **_form_values(reader, back),
    )


@router.post("/resolve/plan")
def plan(reader: ReaderDep, form: TrustedFormDep) -> HTMLResponse:
    """Show the planned result for each order. Nothing changes."""
    view, source, kind = _target(reader, form.one("kk_conn_id"), form.one("kind"))
    why, back = _reason(form), query_params.back(form.one("back"))
    with view.reported_errors(status=409, back=back):
        request = _request(form, kind)
        with open_ledger_of(source, reader, kind) as (hook, ledger):
            results = plan_resolutions(request, hook, ledger)
            banners = banners_of(ledger.storage.pause(), source, reader)
    return page(
        "plan.html",
        view,
        results=results,
        banners=banners,
        choice=request.choice,
        ids=",".join(request.ids),
        why=why,
        needs_acceptance=request.choice == "created" and any(one.doubt for one in results),
        rows=[ChosenRow(one.key, one.record.version) for one in results if one.record is not None],
        **_form_values(reader, back),
    )


@router.post("/resolve/apply", response_model=None)
def apply(reader: ReaderDep, user: GetUserDep, form: TrustedFormDep) -> Response:
    """Apply the confirmed plan, then redirect to the page with the results."""

    def accepts(_doubt: str) -> bool:
        return form.one("accept_other_goods") == "yes"

    view, source, kind = _target(reader, form.one("kk_conn_id"), form.one("kind"))
    why, back = _reason(form), query_params.back(form.one("back"))
    with view.reported_errors(status=409, back=back):
        request, resolved_by = _request(form, kind), ResolvedBy(user.get_name(), why)
        with open_ledger_of(source, reader, kind) as (hook, ledger):
            results = list(apply_resolutions(request, resolved_by, hook, ledger, accepts))
    done = sign("result", [[one.key, one.is_done, one.message] for one in results], user)
    address = query(kk_conn_id=source.kk_conn_id, kind=kind.many, done=done, back=back)
    # After a redirect, reloading the page does not send the form a second time.
    return RedirectResponse(f"{root()}/resolve/result{address}", 303)


@router.get("/resolve/result")
def result(
    reader: ReaderDep, user: GetUserDep, kk_conn_id: str = "", kind: str = "", done: str = "", back: str = ""
) -> HTMLResponse:
    """Show the result for each order."""
    results = read_signed("result", done, user, _RESULT_IS_OLD)
    view, source, _kind = _target(reader, kk_conn_id, kind)
    try:
        with open_report(source, reader) as (report, _settings):
            banners = banners_of(report.pause(), source, reader)
    except CannotReadLedgerError:
        banners = []
    return page("result.html", view, results=results, banners=banners, back=query_params.back(back))


# Pause and resume ----------------------------------------------------------------------------------


@router.get("/pause")
def pause(reader: ReaderDep, kk_conn_id: str = "", back: str = "") -> HTMLResponse:
    """Show whether sending is paused, with the form to pause or resume it."""
    back = query_params.back(back)
    view, source, _kind = _target(reader, kk_conn_id, ORDERS.many)
    with view.reported_errors(back=back), open_report(source, reader) as (report, _settings):
        found = report.pause()
    return page(
        "pause.html",
        view,
        pause=found,
        pause_id=_pause_id(found),
        max_reason=MAX_REASON,
        **_form_values(reader, back),
    )


@router.post("/pause/begin", response_model=None)
def begin_pause(reader: ReaderDep, user: GetUserDep, form: TrustedFormDep) -> Response:
    """Stop all sending of the account. If it is stopped already, nothing changes."""
    return _change_pause(reader, form, lambda storage, why: storage.add_pause(user.get_name(), why))


@router.post("/pause/end", response_model=None)
def end_pause(reader: ReaderDep, user: GetUserDep, form: TrustedFormDep) -> Response:
    """Allow sending again if the pause is still the one that the user saw."""

    def end(storage: SqlStorage, why: str) -> bool:
        is_unchanged = _pause_id(storage.pause()) == form.one("pause")
        return is_unchanged and storage.end_pause(user.get_name(), why)

    return _change_pause(reader, form, end)


def _change_pause(reader: Reader, form: TrustedForm, change: Callable[[SqlStorage, str], bool]) -> Response:
    view, source, _kind = _target(reader, form.one("kk_conn_id"), ORDERS.many)
    why, back = _reason(form), query_params.back(form.one("back"))
    with (
        view.reported_errors(status=409, back=back),
        open_ledger_of(source, reader, ORDERS) as (_hook, ledger),
    ):
        is_changed, found = change(ledger.storage, why), ledger.storage.pause()
    if not is_changed:
        state = describe_pause(found) if found else "sending is not paused now"
        message = f"Nothing changed, since another user was first: {state}"
        raise PageError(view, message, status=409, back=back)
    return RedirectResponse(f"{root()}/{back or 'orders' + query(kk_conn_id=source.kk_conn_id)}", 303)


def _pause_id(found: Pause | None) -> str:
    return f"{found.at!r} {found.by}" if found else ""


# What they share -----------------------------------------------------------------------------------


def _target(reader: Reader, kk_conn_id: str, kind: str) -> tuple[View, LedgerSource, RecordType]:
    """Return the ledger of this connection if the user may resolve its orders or refunds.

    :raises HTTPException: the user may not, or there is no such connection.
    """
    kinds = {one.many: one for one in (ORDERS, REFUNDS)}
    if kind not in kinds:
        raise HTTPException(400, f"kind: use one of {', '.join(kinds)}.")
    view = View.of(reader, kk_conn_id, kinds[kind])
    if not kk_conn_id or view.source is None:
        raise HTTPException(404, "There is no connection of this name that you may read.")
    if not reader.may_edit(kk_conn_id):
        raise HTTPException(
            403, f"To change orders here, you need permission to edit the connection {kk_conn_id!r}."
        )
    return view, view.source, kinds[kind]


def _rows(texts: list[str]) -> list[ChosenRow]:
    if not texts:
        raise HTTPException(400, "No order is chosen. Go back and choose at least one.")
    if len(texts) > _MAX_ROWS:
        raise HTTPException(400, f"Choose at most {_MAX_ROWS} orders at once.")
    return [ChosenRow.parse(one) for one in dict.fromkeys(texts)]


def _request(form: TrustedForm, kind: RecordType) -> ResolutionRequest:
    choice = form.one("choice")
    ids = form.one({"created": "ids", "never_created": "not_mine"}.get(choice, ""))
    versions = {one.key: one.version for one in _rows(form.many("row"))}
    if choice == CANCEL and len(versions) > _MAX_CANCELLED:
        raise ResolutionRejected(
            f"choose at most {_MAX_CANCELLED} orders to cancel. To cancel more, use `kk cancel`"
        )
    return ResolutionRequest(kind, choice, versions, tuple(split_ids(query_params.text("ids", ids))))


def _reason(form: TrustedForm) -> str:
    why = form.one("why")
    if not why or len(why) > MAX_REASON or not why.isprintable():
        raise HTTPException(
            400, f"Nothing changed. Enter a reason in one line of at most {MAX_REASON} characters."
        )
    return why


def _form_values(reader: Reader, back: str) -> dict[str, Any]:
    return {"token": form_token(reader.user), "back": back}
