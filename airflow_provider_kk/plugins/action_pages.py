"""The pages that change something: resolve and retry orders, pause and resume an account's sending.

Each has a preview that the user confirms, and then a page with the results. The forms work without scripts.
Only users who may edit the kk connection get them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Query
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from airflow_provider_kk.delivery.model import Pause
from airflow_provider_kk.delivery.resolution import ResolutionRejected
from airflow_provider_kk.delivery.sql.storage import SqlStorage
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
from airflow_provider_kk.plugins.page_parts import PAGE_SIZE, PageError, PauseBanner, View, banners_of, page
from airflow_provider_kk.plugins.query_params import address_query
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

#: Characters of a reason. The ledger keeps 250 characters of the user's name and the reason.
MAX_REASON = 180
#: Each cancellation takes some requests within KK's rate limit, and the browser waits for all of them.
_MAX_CANCELLED = 10
_RESULT_IS_OLD = "This result is too old, or another user's. See the page of the order for its state."


router = APIRouter(dependencies=[Depends(may_read_connections)])


@dataclass(frozen=True)
class Target:
    """A ledger whose orders or refunds the user may resolve, and the page from which the user came."""

    reader: Reader
    view: View
    source: LedgerSource
    kind: RecordType
    back: str

    def page(self, template: str, **values: Any) -> HTMLResponse:
        """Render a page, with the values that all of its forms need."""
        token = form_token(self.reader.user)
        return page(template, self.view, token=token, back=self.back, max_reason=MAX_REASON, **values)

    def banners(self, pause: Pause | None) -> list[PauseBanner]:
        """Return the banner of the ledger if its sending is paused."""
        return banners_of(pause, self.source, self.reader)


def _target(reader: ReaderDep, kk_conn_id: str = "", kind: str = ORDERS.many, back: str = "") -> Target:
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
    return Target(reader, view, view.source, kinds[kind], query_params.back(back))


def _target_of_form(reader: ReaderDep, form: TrustedFormDep) -> Target:
    return _target(reader, form.one("kk_conn_id"), form.one("kind"), form.one("back"))


TargetDep = Annotated[Target, Depends(_target)]
FormTargetDep = Annotated[Target, Depends(_target_of_form)]


# Resolve -------------------------------------------------------------------------------------------


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
def choose(target: TargetDep, row: Annotated[list[str] | None, Query()] = None) -> HTMLResponse:
    """Show the form with the choices for the chosen orders."""
    rows = _rows(row or [])
    with target.view.reported_errors(), open_report(target.source, target.reader) as (report, _settings):
        records = target.kind.report(report).look_up([one.key for one in rows])
        banners = target.banners(report.pause())
    known = [one for one in rows if one.key in records]
    return target.page(
        "resolve.html",
        rows=rows,
        records=records,
        moved=[one.key for one in known if records[one.key].version != one.version],
        choices=choices_for([records[one.key].state for one in known], target.kind),
        banners=banners,
    )


@router.post("/resolve/plan")
def plan(target: FormTargetDep, form: TrustedFormDep) -> HTMLResponse:
    """Show the planned result for each order. Nothing changes."""
    why = _reason(form)
    with target.view.reported_errors(status=409, back=target.back):
        request = _request(form, target.kind)
        with open_ledger_of(target.source, target.reader, target.kind) as (hook, ledger):
            results = plan_resolutions(request, hook, ledger)
            banners = target.banners(ledger.storage.pause())
    return target.page(
        "plan.html",
        results=results,
        banners=banners,
        choice=request.choice,
        ids=",".join(request.ids),
        why=why,
        needs_acceptance=request.choice == "created" and any(one.doubt for one in results),
        rows=[ChosenRow(one.key, one.record.version) for one in results if one.record is not None],
    )


@router.post("/resolve/apply", response_model=None)
def apply(target: FormTargetDep, form: TrustedFormDep) -> Response:
    """Apply the confirmed plan, then redirect to the page with the results."""

    def accepts(_doubt: str) -> bool:
        return form.one("accept_other_goods") == "yes"

    user, why = target.reader.user, _reason(form)
    with target.view.reported_errors(status=409, back=target.back):
        request, resolved_by = _request(form, target.kind), ResolvedBy(user.get_name(), why)
        with open_ledger_of(target.source, target.reader, target.kind) as (hook, ledger):
            results = list(apply_resolutions(request, resolved_by, hook, ledger, accepts))
    done = sign("result", [[one.key, one.is_done, one.message] for one in results], user)
    values = {"kk_conn_id": target.source.kk_conn_id, "kind": target.kind.many, "back": target.back}
    # After a redirect, reloading the page does not send the form a second time.
    return RedirectResponse(f"{root()}/resolve/result{address_query(done=done, **values)}", 303)


@router.get("/resolve/result")
def result(target: TargetDep, done: str = "") -> HTMLResponse:
    """Show the result for each order."""
    results = read_signed("result", done, target.reader.user, _RESULT_IS_OLD)
    try:
        with open_report(target.source, target.reader) as (report, _settings):
            banners = target.banners(report.pause())
    except CannotReadLedgerError:
        banners = []
    return target.page("result.html", results=results, banners=banners)


def _rows(texts: list[str]) -> list[ChosenRow]:
    if not texts:
        raise HTTPException(400, "No order is chosen. Go back and choose at least one.")
    # Their results are in an address.
    if len(texts) > PAGE_SIZE:
        raise HTTPException(400, f"Choose at most {PAGE_SIZE} orders at once.")
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


# Pause and resume ----------------------------------------------------------------------------------


@router.get("/pause")
def pause(target: TargetDep) -> HTMLResponse:
    """Show whether sending is paused, with the form to pause or resume it."""
    with (
        target.view.reported_errors(back=target.back),
        open_report(target.source, target.reader) as (report, _settings),
    ):
        found = report.pause()
    return target.page("pause.html", pause=found, pause_id=_pause_id(found))


@router.post("/pause/begin", response_model=None)
def begin_pause(target: FormTargetDep, form: TrustedFormDep) -> Response:
    """Stop all sending of the account. If it is stopped already, nothing changes."""
    return _change_pause(target, form, SqlStorage.add_pause)


@router.post("/pause/end", response_model=None)
def end_pause(target: FormTargetDep, form: TrustedFormDep) -> Response:
    """Allow sending again if the pause is still the one that the user saw."""

    def end(storage: SqlStorage, who: str, why: str) -> bool:
        return _pause_id(storage.pause()) == form.one("pause") and storage.end_pause(who, why)

    return _change_pause(target, form, end)


def _change_pause(
    target: Target, form: TrustedForm, change: Callable[[SqlStorage, str, str], bool]
) -> Response:
    who, why = target.reader.user.get_name(), _reason(form)
    with (
        target.view.reported_errors(status=409, back=target.back),
        open_ledger_of(target.source, target.reader, ORDERS) as (_hook, ledger),
    ):
        is_changed, found = change(ledger.storage, who, why), ledger.storage.pause()
    if not is_changed:
        state = str(found) if found else "sending is not paused now"
        message = f"Nothing changed, since another user was first: {state}"
        raise PageError(target.view, message, status=409, back=target.back)
    back = target.back or f"orders{address_query(kk_conn_id=target.source.kk_conn_id)}"
    return RedirectResponse(f"{root()}/{back}", 303)


def _pause_id(found: Pause | None) -> str:
    return f"{found.at!r} {found.by}" if found else ""
