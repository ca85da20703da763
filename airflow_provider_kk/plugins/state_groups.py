"""The groups in which the page shows the states of the ledger."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_provider_kk.delivery.states import State

#: The groups of the page and their ledger states, in the order of the chart's columns.
GROUPS: dict[str, tuple[State, ...]] = {
    "created": (State.CREATED,),
    "rejected": (State.REJECTED,),
    "in doubt": (State.SENDING, State.IN_DOUBT),
    "held": (State.HELD,),
    "invalid": (State.INVALID,),
    "not sent": (State.NOT_SENT,),
}


def group_of(state: State) -> str:
    """Return the group of a state."""
    return next(name for name, states in GROUPS.items() if state in states)


def by_group(by_state: Mapping[State, int]) -> dict[str, int]:
    """Add up counts of states by group."""
    return {name: sum(by_state.get(state, 0) for state in states) for name, states in GROUPS.items()}
