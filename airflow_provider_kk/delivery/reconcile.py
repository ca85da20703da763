"""Reconcile orders in doubt, and rejected ones, with one reading of KK's list.

This decides the outcome of a request whose response was lost. Rejected orders are also reconciled before
they are sent again, since KK may have created a part of a split. An entry is the ledger's row of an order.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from airflow_provider_kk.api.errors import KKError
from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.listing import (
    KKOrderList,
    Listing,
    is_part,
    kk_skew_s,
    trusted_now,
)
from airflow_provider_kk.delivery.log import Log, OrderLog, count_orders
from airflow_provider_kk.delivery.model import (
    Attempt,
    Content,
    InconclusiveError,
    ListedOrder,
    Record,
    add_goods,
    zip_digest,
)
from airflow_provider_kk.delivery.states import TO_RECONCILE, Event, State

#: Seconds after its last intent. An older order is held, not resent.
_RESEND_WITHIN_S = 86_400.0
#: Seconds after the settle window. An order without a number that KK creates later is not the effect of the
#: POST.
_UNNUMBERED_WITHIN_S = 3_600.0


@dataclass(frozen=True)
class AbsencePolicy:
    """The policy for an order in doubt that KK's list lacks."""

    on_absence: str = "resend"
    """`resend`, or `hold` it for a person."""
    max_resends: int = 1


@dataclass
class Reconciliation:
    """The result of reconciling.

    An order is in none of these while it waits for its other splits, or if its row changed meanwhile.
    """

    adopted: list[Record] = field(default_factory=list)
    held: list[Record] = field(default_factory=list)
    absent: list[Record] = field(default_factory=list)
    """Proven absent at KK: they may be resent, by compare-and-set on these rows."""
    unresolved: dict[str, str] = field(default_factory=dict)
    """Still in doubt or still rejected, with the reason why they are not resent now."""


def reconcile(
    ledger: AnyLedger,
    order_list: KKOrderList,
    candidates: Iterable[Record],
    *,
    resendable: Collection[str],
    policy: AbsencePolicy,
    sync_id: str,
    log: Log,
) -> Reconciliation:
    """Reconcile those `candidates` whose settle window is over: adopt them, hold them, or allow a resend.

    :param candidates: rows as they were read before this call, hence before any listing.
    :param resendable: the keys that this sync can resend; the others can only be adopted or held.
    """
    result = Reconciliation()
    now = trusted_now(ledger, order_list)
    # `settle_after` is after the end of the lease, so none of them is being sent.
    due = [entry for entry in candidates if entry.state in TO_RECONCILE and entry.settle_after <= now]
    if not due:
        return result
    log.info("Reading KK's list for %s in doubt or rejected", count_orders(len(due)))
    attempts = attempts_of(ledger, due)
    try:
        # The attempts before each order's newest are reconciled already. The list is read up to now, because
        # a restored backup may lack later attempts.
        since = min(newest_first[0].intent_at for newest_first in attempts.values())
        listing = Listing(due, ledger, order_list, now)
        listing.read(since)
    except (KKError, InconclusiveError) as error:
        log.warning("KK's list cannot be used, so orders in doubt stay in doubt: %s", error)
        result.unresolved.update((entry.key, f"KK's list cannot be used: {error}") for entry in due)
        return result
    for entry in due:
        decision = _decide(entry, attempts[entry.key], listing, now, ledger)
        can_resend = entry.key in resendable
        _apply(
            _by_policy(decision, entry, policy) if can_resend else decision,
            entry,
            result,
            ledger,
            can_resend=can_resend,
            # An order that this sync did not select stays in the counts of its own sync.
            sync_id=sync_id if can_resend else None,
            kk_skew_s=kk_skew_s(order_list),
        )
    return result


# Attempts ------------------------------------------------------------------------------------------


def attempts_of(ledger: AnyLedger, due: Sequence[Record]) -> dict[str, list[Attempt]]:
    """Return the attempts that may have reached KK, newest first."""
    generation = {entry.key: entry.generation for entry in due}
    grouped: dict[str, list[Attempt]] = {key: [] for key in generation}
    for one in ledger.attempts(list(generation)):
        if one.generation == generation[one.key] and one.outcome != Event.NOT_SENT.value:
            grouped[one.key].insert(0, one)
    for entry in due:
        grouped[entry.key] = grouped[entry.key] or [_attempt_from_row(entry, ledger)]
    return grouped


def _attempt_from_row(entry: Record, ledger: AnyLedger) -> Attempt:
    """Return an attempt that a restored backup lacks, by the data in its row."""
    return Attempt(
        key=entry.key,
        generation=entry.generation,
        attempt=entry.attempt,
        version="",
        content=entry.content,
        intent_at=entry.settle_after - ledger.settle_delay_s,
        settle_after=entry.settle_after,
    )


# Deciding ------------------------------------------------------------------------------------------


class _Kind(Enum):
    ADOPT = "adopt"
    WAIT = "wait"
    """KK lists a part of the order: read the list again after one more settle window."""
    CONFLICT = "conflict"
    ABSENT = "absent"
    """Proven absent: the policy decides whether to resend or hold it."""
    GIVEN_UP = "given_up"
    """Not listed, and never resent: its last intent is too old, or the policy of the sync forbids it."""
    UNPROVEN = "unproven"
    """Not listed, but the list does not prove that KK lacks it."""


class _Part(StrEnum):
    """The part of an order that KK's list has, while it may have the other splits later."""

    GOODS = "only a part of the goods"
    UNREADABLE = "goods that cannot be parsed"

    @property
    def so_far(self) -> str:
        """The message in the row of an order that waits for its other splits.

        With another text, orders that wait during an upgrade wait one more settle window.
        """
        return f"KK's list has {self} so far"

    def was_awaited(self, entry: Record) -> bool:
        """Return whether the order has waited a settle window since KK's list had this part."""
        return entry.message == self.so_far


@dataclass(frozen=True)
class _Decision:
    kind: _Kind
    message: str = ""
    ids: tuple[str, ...] = ()
    attempt: Attempt | None = None
    created_at: float | None = None


def _decide(
    entry: Record, attempts: Sequence[Attempt], listing: Listing, now: float, ledger: AnyLedger
) -> _Decision:
    """Decide the outcome of an order by KK's list, and change nothing. `_by_policy` adds the policy."""
    own, maybe_others = listing.found(entry)
    if maybe_others and not own:
        return _Decision(
            _Kind.CONFLICT, "conflict: KK lists it as an integer that may be another order's number"
        )
    if set(entry.kk_order_ids) - {one.id for one in own}:
        ids = tuple(sorted(one.id for one in own))
        return _Decision(_Kind.CONFLICT, "conflict: KK confirmed an id that its list lacks", ids)
    if own:
        return _decide_found(entry, attempts, own, now, ledger)
    return _decide_absence(entry, attempts, listing, now, ledger)


def _decide_found(
    entry: Record, attempts: Sequence[Attempt], found: Sequence[ListedOrder], now: float, ledger: AnyLedger
) -> _Decision:
    ids = tuple(sorted(one.id for one in found))
    fitting = [one for one in attempts if all(_has_same_country_and_zip(listed, one) for listed in found)]
    if not fitting:
        return _Decision(_Kind.CONFLICT, "conflict: KK has this number for another country or zip", ids)
    is_readable = all(one.goods is not None for one in found)
    total = add_goods([one.goods or {} for one in found])
    for one in fitting:
        if is_readable and total == one.content.goods:
            created_at = min((listed.created_at or one.intent_at) for listed in found)
            return _Decision(_Kind.ADOPT, ids=ids, attempt=one, created_at=created_at)
    if not any(is_part(total, one.content.goods) for one in fitting):
        return _Decision(_Kind.CONFLICT, "conflict: KK has this number with more or other goods", ids)
    part = _Part.GOODS if is_readable else _Part.UNREADABLE
    # The settle time alone does not limit the waits: a wrong clock may have written one far ahead.
    if not part.was_awaited(entry) and now < fitting[0].settle_after + ledger.timing.settle_window_s:
        return _Decision(_Kind.WAIT, part.so_far, ids)
    return _Decision(_Kind.CONFLICT, f"conflict: KK's list has {part}", ids)


def _decide_absence(
    entry: Record, attempts: Sequence[Attempt], listing: Listing, now: float, ledger: AnyLedger
) -> _Decision:
    if listing.has_unnumbered(
        entry.content.goods, max(one.settle_after for one in attempts) + _UNNUMBERED_WITHIN_S
    ):
        doubt = "KK's list has an order that may be this one, and its number cannot be parsed"
    elif not listing.shows_sentinel and not _needs_no_sentinel(entry, now, ledger):
        doubt = "KK's list has no order that this ledger sent, so it may be of another store or token"
    else:
        doubt = ""
    # An age of a day also ends a doubt that no list can resolve. A rejected order is not in doubt.
    if entry.state is not State.REJECTED and now - max(one.intent_at for one in attempts) > _RESEND_WITHIN_S:
        return _Decision(_Kind.GIVEN_UP, doubt or "not in KK's list, and too old to be resent automatically")
    if doubt:
        return _Decision(_Kind.UNPROVEN, doubt)
    return _Decision(_Kind.ABSENT, "not in KK's list. Only a sync that selects its row can resend it")


def _needs_no_sentinel(entry: Record, now: float, ledger: AnyLedger) -> bool:
    # KK rejected this order, and there is no order yet that its list could have.
    return entry.state is State.REJECTED and not ledger.storage.newest_sent(before=now, limit=1)


def _has_same_country_and_zip(listed: ListedOrder, attempt: Attempt) -> bool:
    shown = Content(
        country=(listed.country or "").strip().upper(), zip_digest=zip_digest(attempt.key, listed.zip)
    )
    return not attempt.content.goes_elsewhere(shown)


# Acting --------------------------------------------------------------------------------------------


def _by_policy(decision: _Decision, entry: Record, policy: AbsencePolicy) -> _Decision:
    """Return the decision of the sync that selects an order: to hold it if it may not resend it."""
    if decision.kind is not _Kind.ABSENT or entry.state is State.REJECTED:
        return decision
    if policy.on_absence == "hold":
        return _Decision(_Kind.GIVEN_UP, "not in KK's list (on_absence='hold')")
    if entry.resends >= policy.max_resends:
        why = f"not in KK's list, and resent before (max_resends={policy.max_resends})"
        return _Decision(_Kind.GIVEN_UP, why)
    return decision


def _apply(
    decision: _Decision,
    entry: Record,
    result: Reconciliation,
    ledger: AnyLedger,
    *,
    can_resend: bool,
    sync_id: str | None,
    kk_skew_s: float,
) -> None:
    ids = decision.ids
    match decision.kind:
        case _Kind.ADOPT if decision.attempt is not None:
            created_at = decision.created_at
            moved = ledger.adopt(entry, decision.attempt, ids, created_at=created_at, sync_id=sync_id)
            result.adopted += [moved] if moved else []
        case _Kind.WAIT:
            ledger.wait_for_splits(entry, decision.message, ids, kk_skew_s=kk_skew_s)
        case _Kind.CONFLICT | _Kind.GIVEN_UP:
            event = Event.CONFLICT if decision.kind is _Kind.CONFLICT else Event.GIVEN_UP
            moved = ledger.hold(entry, event, decision.message, ids, sync_id=sync_id)
            result.held += [moved] if moved else []
        case _Kind.ABSENT if can_resend:
            result.absent.append(entry)
        case _:  # unproven, or absent and not selected by this sync
            result.unresolved[entry.key] = decision.message


# A wait that a wrong clock made too long -----------------------------------------------------------


def shorten_wait(ledger: AnyLedger, entry: Record, order_log: OrderLog, *, kk_skew_s: float | None) -> Record:
    """Shorten a wait that a wrong clock made too long; return the row."""
    shortened = ledger.shorten_waits(entry, kk_skew_s)
    if shortened is None:
        return entry
    order_log.warning(
        "the settle time of {orders} was later than any settle window: {reason}",
        entry.key,
        "a clock was ahead when it was stored, and is right again. KK's list is read one settle delay from "
        "now",
    )
    return shortened
