"""What the page lists: orders and refunds, what it calls them, and the states that it counts together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_kk.delivery.sql.report import Report
from airflow_provider_kk.delivery.states import State

#: What people ask for, and the ledger's states behind it, in the order of the chart's columns.
GROUPS: dict[str, tuple[State, ...]] = {
    "created": (State.CREATED,),
    "rejected": (State.REJECTED,),
    "in doubt": (State.SENDING, State.IN_DOUBT),
    "held": (State.HELD,),
    "invalid": (State.INVALID,),
    "not sent": (State.NOT_SENT,),
}


def group_of(state: State) -> str:
    """Return the word under which the page counts a state."""
    return next(name for name, states in GROUPS.items() if state in states)


def by_group(by_state: Mapping[State, int]) -> dict[str, int]:
    """Return counts by the word under which the page counts a state."""
    return {name: sum(by_state.get(state, 0) for state in states) for name, states in GROUPS.items()}


@dataclass(frozen=True)
class RecordType:
    """What the ledger has rows of: the words and addresses of their pages."""

    one: str
    """Of one; also where its page is."""
    many: str
    parameter: str
    """What an address calls the key."""
    key: str
    ids: str
    searched: str
    """What a search takes."""
    is_refund: bool = False

    def report(self, orders: Report) -> Report:
        """Return what tells of this kind in a ledger."""
        return orders.of_refunds() if self.is_refund else orders


ORDERS = RecordType("order", "orders", "number", "order number", "kkOrderIds", "Order number or kkOrderId")
REFUNDS = RecordType(
    "refund", "refunds", "key", "refund", "refund numbers", "Refund, its number, or kkOrderId", is_refund=True
)
