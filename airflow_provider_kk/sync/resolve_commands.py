"""The `kk ledger` commands that can resolve an order or refund, by its state.

`kk ledger show` prints them, and the Orders page has them as text to copy.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import NamedTuple

from airflow_provider_kk.delivery.states import DOUBTFUL, State
from airflow_provider_kk.sync.record_types import RecordType


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
    if not record_type.may_have_ids_of_others:
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
