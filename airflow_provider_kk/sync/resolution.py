"""Manual resolution: what people decide about orders and refunds. Plan first, then apply.

DAGs resolve one order by `resolve`. `kk ledger`, `kk cancel` and the Orders page resolve several. A plan
decides nothing. It describes what `apply_resolutions` would do with each. Both take the version of each row
that the user has seen. If a row has another one by now, a sync or a colleague was first, and the row stays as
it is: so the same form sent twice acts once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_kk.delivery import resolution as decisions
from airflow_provider_kk.delivery.log import utc
from airflow_provider_kk.delivery.resolution import ResolutionRejected
from airflow_provider_kk.delivery.states import CLOSED, DOUBTFUL, Event, State
from airflow_provider_kk.sync import resolution_checks as checks
from airflow_provider_kk.sync.errors import SyncError
from airflow_provider_kk.sync.record_types import ORDERS, REFUNDS, RecordType
from airflow_provider_kk.sync.resolution_checks import Candidates, ResolutionUnavailable, reading_kk

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook

_LOG = logging.getLogger(__name__)
#: The choices of a DAG and of `kk ledger resolve`. The others are `kk ledger retry` and `kk cancel`.
RESOLUTIONS = ("created", "never_created", "order_again")
RETRY, CANCEL = "retry", "cancel"
_MOST_REMARK = 200


@dataclass(frozen=True)
class ResolvedBy:
    """The person who resolves an order, and the reason. The ledger keeps both, so use no customer's name.

    :raises ResolutionRejected: one of them is empty.
    """

    who: str
    why: str

    def __post_init__(self) -> None:
        """Require both."""
        if not self.who.strip() or not self.why.strip():
            raise ResolutionRejected("set who and why: the next person on call reads them in the ledger")


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
        if self.choice not in ORDERS.choices:
            raise ResolutionRejected(f"choose one of {', '.join(ORDERS.choices)}, not {self.choice!r}")
        if len(self.versions) > 1 and (self.ids or self.choice == "created"):
            raise ResolutionRejected("the ids belong to one order, so choose only one")
        # Only an order's row may have ids of another, since KK lists number 007 as 7.
        names_others = bool(self.ids) and self.choice == "never_created"
        if self.record_type is REFUNDS and (names_others or self.choice not in REFUNDS.choices):
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


def split_ids(text: str) -> list[str]:
    """Split comma-separated kkOrderIds."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def newest(entries: Iterable[Record], ledger: SqlLedger) -> list[Record]:
    """Return the entries without generations that a newer one replaced."""
    entries = list(entries)
    last = ledger.look_up(sorted({one.key for one in entries}))
    return [one for one in entries if one.key in last and last[one.key].generation == one.generation]


def choices_for(states_of_rows: Sequence[State], record_type: RecordType) -> list[str]:
    """Return the choices that may be right for at least one row in these states, without asking KK."""
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


# Plan and apply ------------------------------------------------------------------------------------


def plan_resolutions(request: ResolutionRequest, hook: KKHook, ledger: SqlLedger) -> list[ResolutionResult]:
    """Return the planned result for each order, in the order of the request.

    :param ledger: the ledger of the request's record type.
    :raises ResolutionUnavailable: KK does not answer.
    """
    results = []
    with reading_kk():
        checked = _CheckedRequest(request, hook, ledger, _LOG)
        for key in request.versions:
            try:
                one = checked.prepare(key)
                results.append(ResolutionResult(key, True, one.effect, one.record, one.doubt))
            except ResolutionRejected as error:
                results.append(ResolutionResult(key, False, str(error)))
    return results


def apply_resolutions(
    request: ResolutionRequest,
    resolved_by: ResolvedBy,
    hook: KKHook,
    ledger: SqlLedger,
    accepts: Callable[[str], bool],
    log: Log = _LOG,
) -> Iterator[ResolutionResult]:
    """Resolve the orders and yield the result for each, in the order of the request.

    Everything is checked once more. The ledger keeps who and why with each order.

    :param ledger: the ledger of the request's record type.
    :param accepts: whether the user resolves an order as created in spite of this doubt.
    :raises ResolutionUnavailable: KK does not answer from the first order on.
    """
    from airflow_provider_kk.api.errors import KKError

    checked = _CheckedRequest(request, hook, ledger, log)
    has_results = False
    for key in request.versions:
        try:
            one = checked.prepare(key)
            if one.doubt and request.choice == "created" and not accepts(one.doubt):
                raise ResolutionRejected(
                    f"{one.doubt}. To resolve it nevertheless, accept the other goods (in a DAG: "
                    "accept_other_goods=True)"
                )
            message = one.apply(resolved_by)
            if message is None:
                raise ResolutionRejected(f"it changed meanwhile. See `kk ledger show {key}`")
            yield ResolutionResult(key, True, message)
        except ResolutionRejected as error:
            yield ResolutionResult(key, False, str(error))
        except KKError as error:
            message = f"KK cannot be read: {error}. Try again later"
            if not has_results:
                raise ResolutionUnavailable(message) from error
            yield ResolutionResult(key, False, message)
        has_results = True


def resolve(
    number: str,
    resolution: str,
    resolved_by: ResolvedBy,
    hook: KKHook,
    ledger: SqlLedger,
    *,
    ids: Sequence[str] = (),
    accept_other_goods: bool = False,
    generation: int | None = None,
    version: str | None = None,
) -> str:
    """Resolve one order for a DAG and return what happens next. A repeated call changes nothing more.

    :param resolution: one of `RESOLUTIONS`; `operators.held.resolve_order` describes all arguments.
    :raises ResolutionRejected: the resolution is rejected; the text has the reason.
    :raises ResolutionUnavailable: KK does not answer; nothing changed.
    """

    def apply(choice: str, expected: Record) -> str:
        request = ResolutionRequest(
            ORDERS, choice, {number: expected.version}, tuple(ids) if choice == "created" else ()
        )
        (result,) = apply_resolutions(request, resolved_by, hook, ledger, lambda _doubt: accept_other_goods)
        if not result.is_done:
            raise ResolutionRejected(result.message)
        return result.message

    if resolution not in RESOLUTIONS:
        raise ResolutionRejected(f"resolution must be one of {', '.join(RESOLUTIONS)}, not {resolution!r}")
    entry = _known(number, ledger)
    is_resolved_so = entry.resolved_by == decisions.as_kept(resolved_by.who, resolved_by.why)
    if resolution == "order_again" and generation == entry.generation - 1 and is_resolved_so:
        return "ordered once more by an earlier try"
    if generation not in (None, entry.generation):
        raise ResolutionRejected(f"it was ordered again meanwhile, as generation {entry.generation}")
    if version not in (None, entry.version) and not is_resolved_so:
        raise ResolutionRejected(
            f"it changed meanwhile, and is {entry.state.value.replace('_', ' ')} now. See "
            f"`kk ledger show {entry.key}`"
        )
    if resolution == "never_created" and entry.state is State.NOT_SENT:
        return "never created, as resolved before"
    if resolution == "created" and entry.state is State.CREATED and set(entry.kk_order_ids) == set(ids):
        return "created, as resolved before"
    if resolution == "order_again" and entry.state not in CLOSED:
        apply("created", entry)
        entry = _known(number, ledger)
    return apply(resolution, entry)


def _known(number: str, ledger: SqlLedger) -> Record:
    if entry := ledger.look_up([number]).get(number):
        return entry
    raise ResolutionRejected(f"it is not in the ledger of {ledger.account} at {ledger.host}")


# The choices ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prepared:
    """A row that was checked, and the function that resolves it."""

    record: Record
    effect: str
    apply: Callable[[ResolvedBy], str | None]
    """Returns the result in words; None if the row changed meanwhile."""
    doubt: str = ""


class _CheckedRequest:
    """A request after the checks that its rows share: KK's list is read once for all of them.

    :raises ResolutionUnavailable: KK does not answer.
    """

    def __init__(self, request: ResolutionRequest, hook: KKHook, ledger: SqlLedger, log: Log) -> None:
        self._request, self._hook, self._ledger, self._log = request, hook, ledger, log
        self._known = ledger.look_up(list(request.versions))
        self._rows = Candidates(self._known.values())
        self._rows.check(self._require_unchanged)
        if request.choice in RESOLUTIONS:
            for key, record in self._rows.records.items():
                self._rows.records[key] = checks.shorten_waits(record, hook, ledger)
        choices: dict[str, Callable[[], Callable[[Record], _Prepared]]] = {
            "created": self._created,
            "never_created": self._never_created,
            "order_again": self._order_again,
            RETRY: lambda: self._retry,
            CANCEL: lambda: self._cancel,
        }
        self._prepare = choices[request.choice]()

    def prepare(self, key: str) -> _Prepared:
        """Make the checks of one row.

        :raises ResolutionRejected: it cannot be resolved so.
        :raises KKError: KK does not answer.
        """
        if key not in self._known:
            raise ResolutionRejected("it is not in the ledger")
        if key in self._rows.rejected:
            raise self._rows.rejected[key]
        return self._prepare(self._rows.records[key])

    def _require_unchanged(self, record: Record) -> None:
        if record.version != self._request.versions.get(record.key):
            state = record.state.value.replace("_", " ")
            by = f", resolved by {record.resolved_by}" if record.resolved_by else ""
            raise ResolutionRejected(
                f"it changed meanwhile, and is {state} now{by}. Your choice was not applied to it"
            )

    def _created(self) -> Callable[[Record], _Prepared]:
        is_refund, ids = self._request.record_type is REFUNDS, self._request.ids
        doubt_of = checks.doubt_of_refunds if is_refund else checks.doubt_of_orders
        with reading_kk():
            doubts = self._rows.check(lambda one: doubt_of(ids, one, self._hook, self._ledger))
        done = f"created as {', '.join(ids)}"
        return lambda record: self._resolved(
            record, Event.RESOLVED_CREATED, f"becomes {done}; nothing is sent", done, doubts[record.key]
        )

    def _never_created(self) -> Callable[[Record], _Prepared]:
        is_refund, next_run = self._request.record_type is REFUNDS, self._request.record_type.next_run
        if ids := self._request.ids:
            with reading_kk():
                self._rows.check(lambda one: checks.require_other_number(ids, one, self._hook, self._ledger))
        doubts_of = checks.doubts_of_absent_refunds if is_refund else checks.doubts_of_absent_orders
        doubts = doubts_of(self._rows, self._hook, self._ledger, ids)

        def prepare(record: Record) -> _Prepared:
            done, doubt = f"never created; {next_run} sends it", doubts[record.key]
            if doubt:
                done += f". KK's list could not confirm that ({doubt}), so this relies on you"
                doubt = f"KK's list cannot confirm that KK never created it ({doubt}), so this relies on you"
            effect = f"becomes not sent, and {next_run} sends it"
            return self._resolved(record, Event.RESOLVED_NEVER_CREATED, effect, done, doubt)

        return prepare

    def _resolved(self, record: Record, event: Event, effect: str, done: str, doubt: str) -> _Prepared:
        def apply(by: ResolvedBy) -> str | None:
            ids = self._request.ids
            moved = decisions.resolve(self._ledger, record, event, ids=ids, who=by.who, why=by.why)
            return done if moved else None

        return _Prepared(record, effect, apply, doubt)

    def _order_again(self) -> Callable[[Record], _Prepared]:
        ids_at_kk = checks.ids_to_reorder(self._rows, self._hook, self._ledger)

        def prepare(record: Record) -> _Prepared:
            ids, generation = ids_at_kk[record.key], record.generation + 1
            beside = f", in addition to {', '.join(ids)}" if ids else ""
            effect = f"the next sync that selects it orders it once more (generation {generation}){beside}"

            def apply(by: ResolvedBy) -> str | None:
                is_done = decisions.order_again(self._ledger, record, ids=ids, who=by.who, why=by.why)
                return effect if is_done else None

            return _Prepared(record, effect, apply)

        return prepare

    def _retry(self, record: Record) -> _Prepared:
        checks.require_rejected(record)
        next_run = self._request.record_type.next_run

        def apply(by: ResolvedBy) -> str | None:
            if decisions.clear_backoff(self._ledger, record, who=by.who, why=by.why) is None:
                return None
            if record.settle_after <= self._ledger.now():
                return f"{next_run} sends it"
            return f"its settle window ends at {utc(record.settle_after)}. After that, {next_run} sends it"

        effect = f"its back-off ends; {next_run} sends it if KK's list does not have it"
        return _Prepared(record, effect, apply)

    def _cancel(self, record: Record) -> _Prepared:
        checks.require_cancellable(record, self._hook, self._ledger)
        ids = ", ".join(record.kk_order_ids)
        effect = f"KK is asked once to refund all of {ids} and decides within a day. No sync sends it again"

        def apply(by: ResolvedBy) -> str | None:
            # Many cancellations take minutes. A newer generation was not checked.
            if _known(record.key, self._ledger).version != record.version:
                return None
            return _cancel(record.key, by.who, by.why, self._hook, self._ledger, self._log)

        return _Prepared(record, effect, apply)


def _cancel(number: str, who: str, why: str, hook: KKHook, ledger: SqlLedger, log: Log) -> str:
    """Ask KK to refund a whole order, once however often this is called, and return the result in words.

    `why` is the remark at KK. KK decides later, usually within an hour (page "Refund").

    :raises ResolutionRejected: the refund was not sent, or KK rejected it; the text has the reason.
    :raises ResolutionUnavailable: the refund is in doubt; the same call later continues.
    :raises KKError: KK cannot be read.
    """
    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.model import InconclusiveError, Origin
    from airflow_provider_kk.delivery.refunds import RefundImpossibleError, RefundPostponedError
    from airflow_provider_kk.sync.refund_task import RefundTask

    bucket = hook.settings.shared_bucket(ledger)
    origin = Origin(run_id="kk cancel", task_id=who)
    with hook.client(bucket) as client:
        # After a wrong run, a person pauses the account and cancels the orders of that run.
        task = RefundTask(ledger, client, bucket, origin, Stop(), log, goes_on_while_paused=True)
        try:
            task.prepare(number, None, None, why[:_MOST_REMARK], "Other")
            wait_s = task.advance()
            if wait_s is not None:
                raise ResolutionUnavailable(
                    f"the refund of {number} is in doubt. Cancel it again in {wait_s:.0f} s to reconcile it. "
                    "No refund is sent twice"
                )
            task.require_sent()
        except RefundImpossibleError as error:
            raise ResolutionRejected(f"{number} cannot be cancelled: {error}") from error
        except (RefundPostponedError, InconclusiveError) as error:
            raise ResolutionUnavailable(f"{number} cannot be cancelled yet: {error}") from error
        except SyncError as error:
            raise ResolutionRejected(f"{number}: {error}") from error
        refunds = ", ".join(one["refund_no"] for one in task.result())
        return f"KK has refund {refunds} of {', '.join(task.kk_order_ids)}, and decides on it within a day"
