"""The traces of the ledger's rows, against the transitions that the code runs on.

A trace is what became of one generation of an order number: its state and its number of attempts after each
change. `kk audit --history` judges rows by the same `TRANSITIONS`, from what is left of them.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from functools import cache

from airflow_provider_kk.delivery.states import TRANSITIONS, Event, State

#: A row after a change: its state, and how many attempts it counts.
Step = tuple[State, int]

#: From, to, and how many attempts more: an intent is one more, and no other event is.
_STEPS = {(before, after, int(event is Event.INTENT)) for (before, event), after in TRANSITIONS.items()}
#: The same without what a person decides: nobody does so in the crash tests.
_UNAIDED_STEPS = {
    (before, after, int(event is Event.INTENT))
    for (before, event), after in TRANSITIONS.items()
    if event not in (Event.RESOLVED_CREATED, Event.RESOLVED_NEVER_CREATED, Event.BACKOFF_CLEARED)
}
#: A change of other fields: longer or shorter waits, ids of an older attempt, a person's name.
_STEPS |= {(state, state, 0) for state in State}


def rejected_step(generation: int, trace: Sequence[Step]) -> str:
    """Return the first step of a trace that no transition allows, as text; empty when all are allowed."""
    return _rejected_step(generation > 1, tuple(trace))


@cache
def _rejected_step(is_ordered_again: bool, trace: tuple[Step, ...]) -> str:
    before: State | None = None
    attempts = 0
    for number, (after, new_attempts) in enumerate(trace, start=1):
        # A person orders a number again: its new generation begins as what was never sent.
        is_begun = is_ordered_again and number == 1 and (after, new_attempts) == (State.NOT_SENT, 0)
        if not is_begun and (before, after, new_attempts - attempts) not in _STEPS:
            name = before.value if before else "nothing"
            return f"step {number}, {name} to {after.value} with {new_attempts - attempts:+d} attempts"
        before, attempts = after, new_attempts
    return ""


def rejected_jump(seen: Sequence[Step]) -> str:
    """Return the first change between two looks at a row that no series of transitions allows, as text.

    For the rows that killed processes leave: what happened between two looks is not known. Empty when all is
    allowed.
    """
    before: State | None = None
    attempts = 0
    for number, (after, new_attempts) in enumerate(seen, start=1):
        if after not in _reachable(before, new_attempts - attempts):
            name = before.value if before else "nothing"
            return f"look {number}, {name} to {after.value} with {new_attempts - attempts:+d} attempts"
        before, attempts = after, new_attempts
    return ""


@cache
def _reachable(before: State | None, intents: int) -> frozenset[State | None]:
    """Return the states that follow a state after so many intents and any other events."""
    if intents < 0:
        return frozenset()
    found = {before} if intents == 0 else _following(_reachable(before, intents - 1), intents=1)
    while more := _following(found, intents=0) - found:
        found |= more
    return frozenset(found)


def _following(states: Set[State | None], *, intents: int) -> set[State | None]:
    return {after for before, after, more in _UNAIDED_STEPS if before in states and more == intents}
