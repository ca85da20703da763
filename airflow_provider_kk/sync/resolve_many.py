"""Resolve several orders or refunds at once, for the Orders page and `kk ledger`: plan first, then apply.

A plan decides nothing. It describes what `apply_resolutions` would do with each, by the rules of
`resolution`. Both take the version of each row that the user has seen. If a row has another one by now, a
sync or a colleague was first, and the row stays as it is: so the same form sent twice acts once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_kk.sync import resolution as rules
from airflow_provider_kk.sync import resolution_checks as checks
from airflow_provider_kk.sync.cancel import cancel, require_cancellable
from airflow_provider_kk.sync.errors import ResolutionRejected, ResolutionUnavailable
from airflow_provider_kk.sync.record_types import RecordType
from airflow_provider_kk.sync.resolution import ResolvedBy

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.delivery.states import State
    from airflow_provider_kk.hooks.kk import KKHook

_LOG = logging.getLogger(__name__)
#: The commands `kk ledger retry` and `kk cancel`; the other choices are options of `kk ledger resolve`.
RETRY, CANCEL = "retry", "cancel"
#: Each cancellation takes some requests within KK's rate limit, and the browser waits for all of them.
MAX_CANCELLED = 10


@dataclass(frozen=True)
class ResolutionRequest:
    """A user's choice for some orders or refunds.

    :raises ResolutionRejected: the choice does not fit them.
    """

    record_type: RecordType
    choice: str
    """One of its choices."""
    versions: Mapping[str, str]
    """The version that the user has seen, by order number or refund key."""
    ids: tuple[str, ...] = ()
    """With `created`: its ids at KK. With `never_created`: ids in its row that belong to another number."""

    def __post_init__(self) -> None:
        """Require a possible choice."""
        if self.choice not in _PREPARE:
            raise ResolutionRejected(f"choose one of {', '.join(_PREPARE)}, not {self.choice!r}")
        if not self.versions:
            raise ResolutionRejected("choose at least one order")
        if self.choice == "created" and not self.ids:
            raise ResolutionRejected("to resolve an order as created, enter its ids at KK")
        if self.ids and len(self.versions) > 1:
            raise ResolutionRejected("the ids belong to one order, so choose only one")
        if self.choice == CANCEL and len(self.versions) > MAX_CANCELLED:
            raise ResolutionRejected(
                f"choose at most {MAX_CANCELLED} orders to cancel. To cancel more, use `kk cancel`"
            )
        names_others = bool(self.ids) and self.choice == "never_created"
        if self.choice not in self.record_type.choices or (
            names_others and not self.record_type.may_have_ids_of_others
        ):
            raise ResolutionRejected("this choice is only for orders. To refund more, use another task")


@dataclass(frozen=True)
class ResolutionResult:
    """The planned or actual result for one order or refund."""

    key: str
    is_done: bool
    """In a plan: whether it can be done."""
    message: str
    record: Record | None = None
    """Its ledger row, in a plan."""
    doubt: str = ""
    """A reason against it, which the user may accept."""


@dataclass(frozen=True)
class _Prepared:
    """One row, and the function that resolves it."""

    record: Record
    effect: str
    apply: Callable[[ResolvedBy], str]
    doubt: str = ""


def choices_for(states_of_rows: Sequence[State], record_type: RecordType) -> list[str]:
    """Return the choices that may be right for at least one row in these states, without asking KK."""
    from airflow_provider_kk.delivery.states import DOUBTFUL, State

    states = set(states_of_rows)
    is_open = bool(states & {State.HELD, *DOUBTFUL})
    found = {
        # The ids are of one order.
        "created": len(states_of_rows) == 1 and (is_open or State.REJECTED in states),
        "never_created": is_open,
        # What is not sent is sent by the next sync as it is.
        "order_again": bool(states & {State.CREATED, State.REJECTED}),
        RETRY: State.REJECTED in states,
        CANCEL: State.CREATED in states,
    }
    return [name for name in record_type.choices if found[name]]


def plan_resolutions(request: ResolutionRequest, hook: KKHook, ledger: SqlLedger) -> list[ResolutionResult]:
    """Return the planned result for each order, in the order of the request.

    :param ledger: the ledger of the request's record type.
    :raises ResolutionUnavailable: KK does not answer.
    """
    return [
        ResolutionResult(key, False, str(one))
        if isinstance(one, ResolutionRejected)
        else ResolutionResult(key, True, one.effect, one.record, one.doubt)
        for key, one in _prepare(request, hook, ledger).items()
    ]


def apply_resolutions(
    request: ResolutionRequest,
    resolved_by: ResolvedBy,
    hook: KKHook,
    ledger: SqlLedger,
    accepts: Callable[[str], bool],
) -> Iterator[ResolutionResult]:
    """Resolve the orders and yield the result for each, in the order of the request.

    Everything is checked once more. The ledger keeps who and why with each order.

    :param ledger: the ledger of the request's record type.
    :param accepts: whether the user resolves an order as created in spite of this doubt.
    :raises ResolutionRejected: the reason is empty; nothing changed.
    :raises ResolutionUnavailable: KK does not answer; nothing changed.
    """
    from airflow_provider_kk.api.errors import KKError

    if not resolved_by.who.strip() or not resolved_by.why.strip():
        raise ResolutionRejected("enter a reason: the next person on call reads it in the ledger")
    for key, one in _prepare(request, hook, ledger).items():
        try:
            prepared = checks.accepted(one)
            if prepared.doubt and request.choice == "created" and not accepts(prepared.doubt):
                raise ResolutionRejected(
                    f"{prepared.doubt}. To resolve it nevertheless, accept the other goods"
                )
            yield ResolutionResult(key, True, prepared.apply(resolved_by))
        except ResolutionRejected as error:
            yield ResolutionResult(key, False, str(error))
        except KKError as error:
            yield ResolutionResult(key, False, f"KK cannot be read: {error}. Try again later")


def _prepare(
    request: ResolutionRequest, hook: KKHook, ledger: SqlLedger
) -> dict[str, _Prepared | ResolutionRejected]:
    from airflow_provider_kk.api.errors import KKError

    prepared: dict[str, _Prepared | ResolutionRejected] = {}
    records = []
    known = ledger.look_up(list(request.versions))
    for key, version in request.versions.items():
        record = known.get(key)
        if record is None:
            prepared[key] = ResolutionRejected("it is not in the ledger")
        elif record.version != version:
            prepared[key] = ResolutionRejected(_has_changed(record))
        elif request.choice in rules.RESOLUTIONS:
            records.append(rules.shorten_waits(record, hook, ledger))
        else:
            records.append(record)
    if records:
        try:
            prepared |= _PREPARE[request.choice](request, records, hook, ledger)
        except ResolutionRejected:
            raise
        except KKError as error:
            raise ResolutionUnavailable(
                f"KK cannot be read: {error}. Nothing changed. Try again when KK answers"
            ) from error
    return {key: prepared[key] for key in request.versions}


def _has_changed(record: Record) -> str:
    state = record.state.value.replace("_", " ")
    by = f", resolved by {record.resolved_by}" if record.resolved_by else ""
    return f"it changed meanwhile, and is {state} now{by}. Your choice was not applied to it"


def _prepare_created(
    request: ResolutionRequest, records: Sequence[Record], hook: KKHook, ledger: SqlLedger
) -> dict[str, _Prepared | ResolutionRejected]:
    (record,) = records
    try:
        doubt = request.record_type.doubt_created(request.ids, record, hook, ledger)
    except ResolutionRejected as error:
        return {record.key: error}
    effect = f"becomes created as {', '.join(request.ids)}; nothing is sent"
    return {
        record.key: _Prepared(
            record, effect, lambda by: rules.resolve_created(record, request.ids, ledger, by), doubt
        )
    }


def _prepare_never_created(
    request: ResolutionRequest, records: Sequence[Record], hook: KKHook, ledger: SqlLedger
) -> dict[str, _Prepared | ResolutionRejected]:
    if request.ids:
        try:
            checks.require_other_number(request.ids, records[0], hook, ledger)
        except ResolutionRejected as error:
            return {records[0].key: error}
    kind = request.record_type
    doubts = kind.doubts_never_created(records, hook, ledger, request.ids)

    def prepare(record: Record) -> _Prepared:
        doubt = checks.accepted(doubts[record.key])
        return _Prepared(
            record,
            f"becomes not sent, and {kind.next_run} sends it",
            lambda by: rules.resolve_never_created(record, doubt, kind, ledger, by, request.ids),
            doubt and f"KK's list cannot confirm that KK never created it ({doubt}), so this relies on you",
        )

    return _each(records, prepare)


def _prepare_reorder(
    request: ResolutionRequest, records: Sequence[Record], hook: KKHook, ledger: SqlLedger
) -> dict[str, _Prepared | ResolutionRejected]:
    at_kk = checks.all_at_kk_of(records, hook, ledger)

    def prepare(record: Record) -> _Prepared:
        ids = checks.require_reorder(record, checks.accepted(at_kk[record.key]))
        beside = f", in addition to {', '.join(ids)}" if ids else ""
        effect = (
            f"the next sync that selects it orders it once more (generation {record.generation + 1}){beside}"
        )
        return _Prepared(record, effect, lambda by: rules.order_again(record, ids, ledger, by))

    return _each(records, prepare)


def _prepare_retry(
    request: ResolutionRequest, records: Sequence[Record], hook: KKHook, ledger: SqlLedger
) -> dict[str, _Prepared | ResolutionRejected]:
    kind = request.record_type

    def prepare(record: Record) -> _Prepared:
        checks.require_rejected(record)
        effect = f"its back-off ends; {kind.next_run} sends it if KK's list does not have it"
        return _Prepared(record, effect, lambda by: rules.clear_backoff(record, kind, ledger, by))

    return _each(records, prepare)


def _prepare_cancel(
    request: ResolutionRequest, records: Sequence[Record], hook: KKHook, ledger: SqlLedger
) -> dict[str, _Prepared | ResolutionRejected]:
    def prepare(record: Record) -> _Prepared:
        require_cancellable(record.key, hook, ledger)
        ids = ", ".join(record.kk_order_ids)
        effect = f"KK is asked once to refund all of {ids} and decides within a day. No sync sends it again"
        return _Prepared(record, effect, lambda by: cancel(record.key, by, hook, ledger, _LOG))

    return _each(records, prepare)


def _each(
    records: Sequence[Record], prepare: Callable[[Record], _Prepared]
) -> dict[str, _Prepared | ResolutionRejected]:
    prepared: dict[str, _Prepared | ResolutionRejected] = {}
    for record in records:
        try:
            prepared[record.key] = prepare(record)
        except ResolutionRejected as error:
            prepared[record.key] = error
    return prepared


_PREPARE = {
    "created": _prepare_created,
    "never_created": _prepare_never_created,
    "order_again": _prepare_reorder,
    RETRY: _prepare_retry,
    CANCEL: _prepare_cancel,
}
