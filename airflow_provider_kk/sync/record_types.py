"""The types of records in a ledger: orders and refunds, their differences, the commands to resolve them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_kk.delivery.states import DOUBTFUL, State

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
)


# Commands ------------------------------------------------------------------------------------------


class Command(NamedTuple):
    """A command line, and the case in which it is right."""

    when: str
    line: str


class ResolveCommands(NamedTuple):
    """Advice to read first, and the commands from which to choose."""

    first: str
    commands: tuple[Command, ...]


def resolve_commands(
    key: str, state: State, ids: Sequence[str], record_type: RecordType, *, options: str = ""
) -> ResolveCommands | None:
    """Return the commands for an order or refund in this state; None if there is nothing to resolve.

    :param key: the order number, or the refund's key.
    :param ids: the kkOrderIds or refund numbers in its ledger row.
    :param options: the options of `kk` that select the ledger, as text.
    """
    if state is State.REJECTED:
        first = "KK rejected it. Fix the cause first. Until its back-off ends, it is not sent again."
        again = "If the cause is fixed, send it without waiting for the back-off"
        return ResolveCommands(first, (Command(again, _line("retry", key, "", options, record_type)),))
    if state is not State.HELD and state not in DOUBTFUL:
        return None
    first = f"Find {record_type.at_kk} on KK's site, then run the command that fits."
    if state is not State.HELD:
        by = record_type.reconciled_by.capitalize()
        first = f"{by} reconciles it after its settle window. Until then only --created is accepted. {first}"
    named = shlex.quote(",".join(ids)) if ids else record_type.ids_placeholder
    commands = [
        (f"If KK has it under these {record_type.ids}", f"--created {named}"),
        *_never(ids, record_type),
    ]
    return ResolveCommands(
        first,
        tuple(
            Command(when, _line("resolve", key, arguments, options, record_type))
            for when, arguments in commands
        ),
    )


def _never(ids: Sequence[str], record_type: RecordType) -> list[tuple[str, str]]:
    if not ids:
        return [(f"If KK never created it ({record_type.next_run} sends it)", "--never-created")]
    if record_type is REFUNDS:
        return []
    arguments = f"--never-created --not-mine {shlex.quote(','.join(ids))}"
    return [
        ("If KK has these ids under another number, and never created this order", arguments),
        (
            "If KK has this number for an order that is not yours, perhaps made by hand, run the first "
            "command, then this one. The next sync sends your order, too",
            "--order-again",
        ),
    ]


def _line(action: str, key: str, arguments: str, options: str, record_type: RecordType) -> str:
    command = ["kk", "ledger", action, record_type.option]
    words = [arguments, "--why '...'", options]
    name = shlex.quote(key)
    # A number that begins with - must follow the options.
    parts = [*words, "--", name] if key.startswith("-") else [name, *words]
    return " ".join(filter(None, [*command, *parts]))
