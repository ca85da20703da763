"""The record types of the page, orders and refunds, with their labels and groups of states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from airflow_provider_kk.delivery.sql.report import Report
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


@dataclass(frozen=True)
class RecordType:
    """A type of records in the ledger, with the labels and addresses of its pages."""

    one: str
    """The label of one record, also the address of its page."""
    many: str
    parameter: str
    """The name of the key in an address."""
    key: str
    ids: str
    searched: str
    """The label of the search field."""
    is_refund: bool = False

    def report(self, orders: Report) -> Report:
        """Return the report of this type's records in a ledger."""
        return orders.of_refunds() if self.is_refund else orders


ORDERS = RecordType("order", "orders", "number", "order number", "kkOrderIds", "Order number or kkOrderId")
REFUNDS = RecordType(
    "refund", "refunds", "key", "refund", "refund numbers", "Refund, its number, or kkOrderId", is_refund=True
)
