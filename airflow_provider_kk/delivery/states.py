"""The states of an order in the ledger, and every way from one to another, as data."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.run_queue import QueuedOrder


class State(StrEnum):
    """What the ledger knows of a key."""

    INVALID = "invalid"
    """Seen, with faults; nothing was ever sent."""
    SENDING = "sending"
    """An intent is committed; its lease says for how long a worker may still be at it."""
    IN_DOUBT = "in_doubt"
    """The last POST has an unknown outcome."""
    NOT_SENT = "not_sent"
    """Proven never to have reached KK, or declared so by a human."""
    REJECTED = "rejected"
    """KK said no."""
    CREATED = "created"
    """KK has it, and the ledger has KK's ids."""
    HELD = "held"
    """Only a human can move it on."""


class Event(StrEnum):
    """What can happen to a key."""

    FAULT = "fault"
    """Its data was found to be invalid."""
    INTENT = "intent"
    """A worker is about to send it."""
    CREATED = "created"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"
    """The four outcomes of a POST."""
    FOUND = "found"
    """It was found at KK, complete."""
    INCOMPLETE = "incomplete"
    """Only a part of it was found at KK, so far."""
    CONFLICT = "conflict"
    """KK has something else, or more, under this key."""
    GIVEN_UP = "given_up"
    """It is not at KK, and may not be sent again without a human."""
    RESOLVED_CREATED = "declared_created"
    RESOLVED_NEVER_CREATED = "declared_never"
    """The two ways in which a human closes a key."""
    BACKOFF_CLEARED = "backoff_cleared"
    """A human wants a rejected one asked for again without its pause."""


#: (from, event) -> to. What is not here cannot happen.
TRANSITIONS: dict[tuple[State | None, Event], State] = {
    (None, Event.FAULT): State.INVALID,
    (State.INVALID, Event.FAULT): State.INVALID,
    (State.NOT_SENT, Event.FAULT): State.INVALID,
    (None, Event.INTENT): State.SENDING,
    (State.INVALID, Event.INTENT): State.SENDING,
    (State.NOT_SENT, Event.INTENT): State.SENDING,
    # These three only after a complete look at KK's list: see settle.py.
    (State.REJECTED, Event.INTENT): State.SENDING,
    (State.IN_DOUBT, Event.INTENT): State.SENDING,
    (State.SENDING, Event.INTENT): State.SENDING,
    (State.SENDING, Event.CREATED): State.CREATED,
    (State.SENDING, Event.REJECTED): State.REJECTED,
    (State.SENDING, Event.NOT_SENT): State.NOT_SENT,
    (State.SENDING, Event.UNKNOWN): State.IN_DOUBT,
    # What turns up at KK (heal, settle, or a worker that answers late).
    (None, Event.FOUND): State.CREATED,
    (State.INVALID, Event.FOUND): State.CREATED,
    (State.NOT_SENT, Event.FOUND): State.CREATED,
    (State.REJECTED, Event.FOUND): State.CREATED,
    (State.SENDING, Event.FOUND): State.CREATED,
    (State.IN_DOUBT, Event.FOUND): State.CREATED,
    (State.HELD, Event.FOUND): State.CREATED,
    (State.CREATED, Event.FOUND): State.CREATED,
    (State.REJECTED, Event.INCOMPLETE): State.IN_DOUBT,
    (State.SENDING, Event.INCOMPLETE): State.IN_DOUBT,
    (State.IN_DOUBT, Event.INCOMPLETE): State.IN_DOUBT,
    (State.REJECTED, Event.CONFLICT): State.HELD,
    (State.SENDING, Event.CONFLICT): State.HELD,
    (State.IN_DOUBT, Event.CONFLICT): State.HELD,
    (State.CREATED, Event.CONFLICT): State.HELD,
    (State.HELD, Event.CONFLICT): State.HELD,
    (State.SENDING, Event.GIVEN_UP): State.HELD,
    (State.IN_DOUBT, Event.GIVEN_UP): State.HELD,
    (State.HELD, Event.RESOLVED_CREATED): State.CREATED,
    (State.SENDING, Event.RESOLVED_CREATED): State.CREATED,
    (State.IN_DOUBT, Event.RESOLVED_CREATED): State.CREATED,
    (State.REJECTED, Event.RESOLVED_CREATED): State.CREATED,
    (State.HELD, Event.RESOLVED_NEVER_CREATED): State.NOT_SENT,
    (State.SENDING, Event.RESOLVED_NEVER_CREATED): State.NOT_SENT,
    (State.IN_DOUBT, Event.RESOLVED_NEVER_CREATED): State.NOT_SENT,
    (State.REJECTED, Event.BACKOFF_CLEARED): State.REJECTED,
}

#: The outcomes of a POST that has bought nothing, as the ledger keeps them.
NOTHING_BOUGHT = (Event.NOT_SENT.value, Event.REJECTED.value)

#: The outcome of a key's last POST is not known.
DOUBTFUL = frozenset({State.SENDING, State.IN_DOUBT})

#: Sent again only after a look at KK's list.
RECONCILE_FIRST = DOUBTFUL | {State.REJECTED}

#: A generation in one of these is over: a human may order the same number again.
CLOSED = frozenset({State.CREATED, State.REJECTED, State.NOT_SENT})


def follow(state: State | None, event: Event) -> State:
    """Return the state that `event` leads to.

    :raises ValueError: when that event cannot happen in that state.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        name = state.value if state else "nothing"
        raise ValueError(f"{event.value!r} cannot follow {name!r}") from None


def can_follow(state: State | None, event: Event) -> bool:
    """Whether `event` can happen in that state."""
    return (state, event) in TRANSITIONS


class Action(Enum):
    """The next thing with a job."""

    SEND = auto()
    COMPARE = auto()
    """KK has it: what matters is whether it is still the same order."""
    HOLD = auto()
    BACK_OFF = auto()
    """KK has refused it, and the pause is not over."""
    RECONCILE_FIRST = auto()
    """KK's list has to say what became of it."""


def next_action(item: QueuedOrder, entry: Record | None, now: Callable[[], float]) -> Action:
    """Return what to do with a job; `now` asks the ledger's clock, which may be far away."""
    if entry is None or is_unsent(entry):
        return Action.SEND
    if entry.state is State.CREATED:
        return Action.COMPARE
    if entry.state is State.HELD:
        return Action.HOLD
    is_refused_so = entry.state is State.REJECTED and entry.content.fingerprint == item.content.fingerprint
    return Action.BACK_OFF if is_refused_so and entry.retry_after > now() else Action.RECONCILE_FIRST


def is_unsent(entry: Record | None) -> bool:
    """Whether KK has never had it, as far as the ledger knows."""
    return entry is None or entry.state in (State.INVALID, State.NOT_SENT)
