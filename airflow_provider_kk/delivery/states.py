"""The states of an order in the ledger, every transition as data, and the next action with an order.

`next_action` decides whether an order is sent or retried. `Ledger.record` sets the times that it compares.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.run_queue import QueuedOrder


class State(StrEnum):
    """The state of a key in the ledger."""

    INVALID = "invalid"
    """The order's data has faults; it was never sent."""
    SENDING = "sending"
    """An intent is committed; until its lease ends, a worker may be sending it."""
    IN_DOUBT = "in_doubt"
    """The last POST has an unknown outcome."""
    NOT_SENT = "not_sent"
    """It is proven that KK did not receive it, or a person resolved it so."""
    REJECTED = "rejected"
    """KK answered that it does not accept it."""
    CREATED = "created"
    """KK has the order, and the ledger has KK's ids."""
    HELD = "held"
    """Only a person can move it on."""


class Event(StrEnum):
    """An event of a key."""

    FAULT = "fault"
    """The order's data is invalid."""
    INTENT = "intent"
    """A worker is about to send it."""
    CREATED = "created"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    UNKNOWN = "unknown"
    """The four outcomes of a POST, as in `api.errors.Outcome`."""
    FOUND = "found"
    """KK lists the whole order."""
    INCOMPLETE = "incomplete"
    """KK lists only a part of it so far."""
    CONFLICT = "conflict"
    """KK has other or more goods under this key."""
    GIVEN_UP = "given_up"
    """It is absent at KK, and only a person may allow a resend."""
    RESOLVED_CREATED = "declared_created"
    RESOLVED_NEVER_CREATED = "declared_never"
    """A person resolved the order."""
    BACKOFF_CLEARED = "backoff_cleared"
    """A person ended its back-off."""


#: By event: the state that it leads to, and the states in which it can happen. None: the key is new.
_EVENTS: dict[Event, tuple[State, tuple[State | None, ...]]] = {
    Event.FAULT: (State.INVALID, (None, State.INVALID, State.NOT_SENT)),
    Event.INTENT: (
        State.SENDING,
        # The last three only after KK's list was read completely; see reconcile.py.
        (None, State.INVALID, State.NOT_SENT, State.REJECTED, State.IN_DOUBT, State.SENDING),
    ),
    Event.CREATED: (State.CREATED, (State.SENDING,)),
    Event.REJECTED: (State.REJECTED, (State.SENDING,)),
    Event.NOT_SENT: (State.NOT_SENT, (State.SENDING,)),
    Event.UNKNOWN: (State.IN_DOUBT, (State.SENDING,)),
    # KK lists it (recover, reconcile), or a worker records a late result.
    Event.FOUND: (State.CREATED, (None, *State)),
    Event.INCOMPLETE: (State.IN_DOUBT, (State.REJECTED, State.SENDING, State.IN_DOUBT)),
    Event.CONFLICT: (
        State.HELD,
        (State.REJECTED, State.SENDING, State.IN_DOUBT, State.CREATED, State.HELD),
    ),
    Event.GIVEN_UP: (State.HELD, (State.SENDING, State.IN_DOUBT)),
    Event.RESOLVED_CREATED: (State.CREATED, (State.HELD, State.SENDING, State.IN_DOUBT, State.REJECTED)),
    Event.RESOLVED_NEVER_CREATED: (State.NOT_SENT, (State.HELD, State.SENDING, State.IN_DOUBT)),
    Event.BACKOFF_CLEARED: (State.REJECTED, (State.REJECTED,)),
}
#: (from, event) -> to. All other events are impossible.
TRANSITIONS = {(state, event): to for event, (to, states) in _EVENTS.items() for state in states}

#: The outcomes of a POST that bought nothing, as text in the ledger.
NOTHING_BOUGHT = (Event.NOT_SENT.value, Event.REJECTED.value)

#: The outcome of the last POST is unknown.
DOUBTFUL = frozenset({State.SENDING, State.IN_DOUBT})

#: Sent again only after reconciling.
TO_RECONCILE = DOUBTFUL | {State.REJECTED}

#: In these states a generation is over, and a person may order its number again.
CLOSED = frozenset({State.CREATED, State.REJECTED, State.NOT_SENT})


def follow(state: State | None, event: Event) -> State:
    """Return the state that `event` leads to.

    :raises ValueError: the event cannot happen in that state.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        name = state.value if state else "nothing"
        raise ValueError(f"{event.value!r} cannot follow {name!r}") from None


class Action(Enum):
    """The next action with an order."""

    SEND = auto()
    COMPARE = auto()
    """KK has the order: check that its content is still the same."""
    HOLD = auto()
    BACK_OFF = auto()
    """KK rejected the order, and its back-off is not over."""
    RECONCILE_FIRST = auto()
    """The order must be reconciled with KK's list first."""


def next_action(item: QueuedOrder, entry: Record | None, now: Callable[[], float]) -> Action:
    """Return the next action with an order. `now` reads the ledger's clock, which may cost a query."""
    if entry is None or is_unsent(entry):
        return Action.SEND
    if entry.state is State.CREATED:
        return Action.COMPARE
    if entry.state is State.HELD:
        return Action.HOLD
    is_rejected_unchanged = (
        entry.state is State.REJECTED and entry.content.fingerprint == item.content.fingerprint
    )
    return Action.BACK_OFF if is_rejected_unchanged and entry.retry_after > now() else Action.RECONCILE_FIRST


def is_unsent(entry: Record | None) -> bool:
    """Return whether KK never received the order, by the ledger."""
    return entry is None or entry.state in (State.INVALID, State.NOT_SENT)
