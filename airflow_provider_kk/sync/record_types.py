"""The types of records in a ledger, orders and refunds, and all that differs between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.report import Report
    from airflow_provider_kk.delivery.sql.storage import SqlLedger


@dataclass(frozen=True, kw_only=True)
class RecordType:
    """A type of records in the ledger."""

    one: str
    """The label of one record, also the address of its page."""
    many: str
    parameter: str
    """The name of the key in an address."""
    key: str
    """The label of the key, as are the next two of ids and of the search field."""
    ids: str
    searched: str
    option: str
    """The option of `kk ledger` for this type; empty for none."""
    ids_placeholder: str
    """The ids in a command, until a person knows them."""
    at_kk: str
    """The words for all that KK's site may have of a record."""
    reconciled_by: str
    next_run: str
    """The words for the run that sends a record which KK never created, or whose back-off ended."""
    choices: tuple[str, ...]
    """The ways to resolve a record."""
    may_have_ids_of_others: bool
    """Whether its row may have ids of another record, since KK lists number 007 as 7."""

    def count(self, number: int) -> str:
        """Return `1 order`, `2 orders`."""
        return f"{number} {self.one if number == 1 else self.many}"

    def ledger(self, orders: SqlLedger) -> SqlLedger:
        """Return the ledger of this type's records, in the database of a ledger of orders."""
        from airflow_provider_kk.delivery.sql.storage import refund_ledger

        return refund_ledger(orders) if self is REFUNDS else orders

    def report(self, orders: Report) -> Report:
        """Return the report of this type's records, in the database of a report of orders."""
        return orders.of_refunds() if self is REFUNDS else orders


ORDERS = RecordType(
    one="order",
    many="orders",
    parameter="number",
    key="order number",
    ids="kkOrderIds",
    searched="Order number or kkOrderId",
    option="",
    ids_placeholder="ID[,ID...]",
    at_kk="the order",
    reconciled_by="every sync of the account",
    next_run="the next sync that selects it",
    choices=("created", "never_created", "order_again", "retry", "cancel"),
    may_have_ids_of_others=True,
)
REFUNDS = RecordType(
    one="refund",
    many="refunds",
    parameter="key",
    key="refund",
    ids="refund numbers",
    searched="Refund, its number, or kkOrderId",
    option="--refunds",
    ids_placeholder="REFUND_NO",
    at_kk="the refunds of its order",
    reconciled_by="the next try of its task",
    next_run="the next try of its task",
    choices=("created", "never_created", "retry"),
    may_have_ids_of_others=False,
)
