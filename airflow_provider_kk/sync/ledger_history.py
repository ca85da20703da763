"""Check the ledger's own history against the rules of the protocol.

The rules are those of the code itself: the transitions of `states.TRANSITIONS` and the settle windows. If a
history breaks one, another program changed the ledger, or the protocol has a fault.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, pairwise

from airflow_provider_kk.delivery.log import utc
from airflow_provider_kk.delivery.model import Attempt, Record
from airflow_provider_kk.delivery.states import CLOSED, NOTHING_BOUGHT, TRANSITIONS, Event, State

DAY_S = 86_400.0
#: KK's clock shows whole seconds, and the time of an intent is the earliest of three clocks.
_TOLERANCE_S = 5.0
_OUTCOMES = {"", *(event.value for (state, event) in TRANSITIONS if state is State.SENDING)}
_ANSWERS = {Event.CREATED.value, Event.REJECTED.value, Event.NOT_SENT.value}
_BY_A_POST = {Event.INTENT, Event.CREATED, Event.REJECTED, Event.NOT_SENT, Event.UNKNOWN}
_BY_A_PERSON = {Event.RESOLVED_CREATED, Event.RESOLVED_NEVER_CREATED, Event.BACKOFF_CLEARED}


class Rule(StrEnum):
    """The rules that a history keeps."""

    ATTEMPTS = "attempts"
    """Each POST has a committed intent: they are numbered 1, 2, ... and the order's row counts them."""
    OUTCOME = "outcome"
    """An outcome is one that a POST can have, and follows its intent."""
    ONE_ORDER = "one order"
    """One generation of an order number is created by one POST."""
    ONE_ATTEMPT = "one attempt at a time"
    """An attempt begins after the one before it was answered, or after its settle window."""
    TRANSITION = "transition"
    """The order's state can follow from its attempts. A manual resolution has a person's name."""
    GENERATION = "generation"
    """A new generation begins only after the one before it ended, and by a person."""
    DAILY_CAP = "daily cap"
    """No day has more orders than the account's cap."""


@dataclass(frozen=True)
class BrokenRule:
    """A rule that the history of an order number breaks."""

    rule: Rule
    key: str
    generation: int
    message: str


def broken_rules(
    generations: Sequence[Record], attempts: Sequence[Attempt], *, settle_delay_s: float
) -> list[BrokenRule]:
    """Return the rules that the rows of one order number break.

    :param generations: all generations of the number, oldest first.
    :param attempts: all POSTs of the number, oldest first.
    :param settle_delay_s: see `Ledger.settle_delay_s`.
    """
    found: list[BrokenRule] = []
    for entry in generations:
        own = [one for one in attempts if one.generation == entry.generation]
        broken = chain(
            _attempts(entry, own),
            _outcomes(own),
            _one_order(own),
            _one_at_a_time(entry, own, settle_delay_s),
            _transition(entry, own),
        )
        found += [BrokenRule(rule, entry.key, entry.generation, text) for rule, text in broken]
    known = {entry.generation for entry in generations}
    for number in sorted({one.generation for one in attempts} - known):
        text = f"generation {number} has attempts but no row"
        found.append(BrokenRule(Rule.ATTEMPTS, attempts[0].key, number, text))
    for before, after in pairwise(generations):
        if before.state not in CLOSED or not after.resolved_by:
            text = (
                f"begins without a person's name, or while generation {before.generation} is "
                f"{before.state.value}"
            )
            found.append(BrokenRule(Rule.GENERATION, after.key, after.generation, text))
    return found


def over_cap(attempts: Iterable[Attempt], max_orders_per_day: int) -> Iterator[BrokenRule]:
    """Yield each attempt that exceeds the account's daily limit.

    :param attempts: all attempts of the account, by the time of their intents.
    """
    day: deque[float] = deque()
    for one in attempts:
        if one.outcome in NOTHING_BOUGHT:
            continue
        while day and day[0] <= one.intent_at - DAY_S + _TOLERANCE_S:
            day.popleft()
        day.append(one.intent_at)
        if len(day) > max_orders_per_day:
            text = (
                f"is order {len(day)} within a day at {utc(one.intent_at)}, and "
                f"max_orders_per_day is {max_orders_per_day}"
            )
            yield BrokenRule(Rule.DAILY_CAP, one.key, one.generation, text)


_Found = Iterator[tuple[Rule, str]]


def _attempts(entry: Record, attempts: Sequence[Attempt]) -> _Found:
    numbers = [one.attempt for one in attempts]
    if numbers != list(range(1, entry.attempt + 1)):
        shown = ", ".join(map(str, numbers)) or "none"
        yield Rule.ATTEMPTS, f"the order's row counts {entry.attempt} attempts, but the ledger has {shown}"
    if entry.state is State.SENDING and attempts and attempts[-1].version != entry.version:
        yield Rule.ATTEMPTS, f"attempt {entry.attempt} is being sent, but its intent has another version"


def _outcomes(attempts: Sequence[Attempt]) -> _Found:
    for one in attempts:
        if one.outcome not in _OUTCOMES:
            yield Rule.OUTCOME, f"attempt {one.attempt} has the unknown outcome {one.outcome[:20]!r}"
        if bool(one.outcome) != (one.recorded_at > 0):
            yield Rule.OUTCOME, f"attempt {one.attempt} has an outcome without a time, or a time without one"
        elif one.outcome and one.recorded_at < one.intent_at - _TOLERANCE_S:
            yield (
                Rule.OUTCOME,
                f"attempt {one.attempt} ended at {utc(one.recorded_at)}, before its intent at "
                f"{utc(one.intent_at)}",
            )
        if bool(one.kk_order_ids) != (one.outcome == Event.CREATED.value):
            yield Rule.OUTCOME, f"attempt {one.attempt} has kkOrderIds that do not fit its outcome"


def _one_order(attempts: Sequence[Attempt]) -> _Found:
    created = [one for one in attempts if one.outcome == Event.CREATED.value]
    for before, after in pairwise(created):
        # Two answers that share an id describe one order.
        if not set(before.kk_order_ids) & set(after.kk_order_ids):
            yield Rule.ONE_ORDER, f"attempts {before.attempt} and {after.attempt} both created an order"


def _one_at_a_time(entry: Record, attempts: Sequence[Attempt], settle_delay_s: float) -> _Found:
    for before, after in pairwise(attempts):
        # A clock that was ahead stored a late settle time. A sync shortens it once the clock is right.
        window_end = min(before.settle_after, before.intent_at + settle_delay_s)
        if after.intent_at >= window_end - _TOLERANCE_S:
            continue
        # An answer has the database's time, an intent the earliest of three clocks, so use the latest here.
        latest = after.settle_after - min(settle_delay_s, after.settle_after - after.intent_at)
        if before.outcome in _ANSWERS and latest >= before.recorded_at - _TOLERANCE_S:
            continue
        if entry.resolved_by:  # a person decided before the window had passed
            continue
        yield (
            Rule.ONE_ATTEMPT,
            f"attempt {after.attempt} began at {utc(after.intent_at)}, before attempt {before.attempt} was "
            f"answered or its settle window ended at {utc(window_end)}",
        )


def _transition(entry: Record, attempts: Sequence[Attempt]) -> _Found:
    start: State | None = None
    if attempts:
        outcome = attempts[-1].outcome
        start = (
            TRANSITIONS.get((State.SENDING, Event(outcome))) if outcome in _OUTCOMES - {""} else State.SENDING
        )
    reachable = _reachable(start, by_a_person=bool(entry.resolved_by))
    if start is not None:
        # A late answer of an older attempt also makes the order created.
        reachable |= (
            _reachable(State.CREATED, by_a_person=bool(entry.resolved_by)) if _is_late(attempts) else set()
        )
    if entry.state not in reachable:
        what = f"after {attempts[-1].outcome or 'an open attempt'}" if attempts else "without an attempt"
        yield Rule.TRANSITION, f"is {entry.state.value} {what}"
    if entry.state is State.CREATED and not entry.kk_order_ids:
        yield Rule.TRANSITION, "is created without a kkOrderId"


def _is_late(attempts: Sequence[Attempt]) -> bool:
    return any(one.outcome == Event.CREATED.value for one in attempts[:-1])


def _reachable(start: State | None, *, by_a_person: bool) -> set[State | None]:
    """Return the states that can follow without another POST."""
    events = set(Event) - _BY_A_POST - (set() if by_a_person else _BY_A_PERSON)
    found, queue = {start}, [start]
    while queue:
        state = queue.pop()
        for (before, event), after in TRANSITIONS.items():
            if before is state and event in events and after not in found:
                found.add(after)
                queue.append(after)
    return found
