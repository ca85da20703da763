"""The types of records in a ledger, orders and refunds, and all that differs between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.report import Report


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
