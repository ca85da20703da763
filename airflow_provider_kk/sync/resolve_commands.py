"""The `kk ledger` commands that can resolve an order or refund, by its state.

`kk ledger show` prints them, and the Orders page has them as text to copy.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import NamedTuple

from airflow_provider_kk.delivery.states import DOUBTFUL, State


class Command(NamedTuple):
    """A command line, and the case in which it is right."""

    when: str
    line: str


class ResolveCommands(NamedTuple):
    """Advice to read first, and the commands from which to choose."""

    first: str
    commands: tuple[Command, ...]


def resolve_commands(
    key: str, state: State, ids: Sequence[str], *, options: str = "", is_refund: bool = False
) -> ResolveCommands | None:
    """Return the commands for an order or refund in this state; None if there is nothing to resolve.

    :param key: the order number, or the refund's key.
    :param ids: the kkOrderIds or refund numbers in its ledger row.
    :param options: the options of `kk` that select the ledger, as text.
    """
    if state is State.REJECTED:
        first = "KK rejected it. Fix the cause first. Until its back-off ends, it is not sent again."
        again = "If the cause is fixed, send it without waiting for the back-off"
        return ResolveCommands(first, (Command(again, _line("retry", key, "", options, is_refund)),))
    if state is not State.HELD and state not in DOUBTFUL:
        return None
    first = _FIRST[is_refund]
    if state is not State.HELD:
        first = f"{_BY_ITSELF[is_refund]} Until then only --created is accepted. {first}"
    commands = [*_created(ids, is_refund), *_never(ids, is_refund)]
    return ResolveCommands(
        first,
        tuple(
            Command(when, _line("resolve", key, arguments, options, is_refund))
            for when, arguments in commands
        ),
    )


_FIRST = {
    False: "Find the order on KK's site, then run the command that fits.",
    True: "Find the refunds of its order on KK's site, then run the command that fits.",
}
_BY_ITSELF = {
    False: "Every sync of the account reconciles it after its settle window.",
    True: "The next try of its task reconciles it after its settle window.",
}


def _created(ids: Sequence[str], is_refund: bool) -> list[tuple[str, str]]:
    named = ",".join(ids) or ("REFUND_NO" if is_refund else "ID[,ID...]")
    what = "these refund numbers" if is_refund else "these kkOrderIds"
    return [(f"If KK has it under {what}", f"--created {shlex.quote(named) if ids else named}")]


def _never(ids: Sequence[str], is_refund: bool) -> list[tuple[str, str]]:
    if not ids:
        then = "the next try of its task sends it" if is_refund else "the next sync sends it"
        return [(f"If KK never created it ({then})", "--never-created")]
    if is_refund:
        return []
    # KK lists 007 as 7, so a row may have the ids of another number.
    arguments = f"--never-created --not-mine {shlex.quote(','.join(ids))}"
    return [
        ("If KK has these ids under another number, and never created this order", arguments),
        (
            "If KK has this number for an order that is not yours, perhaps made by hand, run the first "
            "command, then this one. The next sync sends your order, too",
            "--order-again",
        ),
    ]


def _line(action: str, key: str, arguments: str, options: str, is_refund: bool) -> str:
    command = ["kk", "ledger", action, "--refunds" if is_refund else ""]
    words = [arguments, "--why '...'", options]
    name = shlex.quote(key)
    # A number that begins with - must follow the options.
    parts = [*words, "--", name] if key.startswith("-") else [name, *words]
    return " ".join(filter(None, [*command, *parts]))
