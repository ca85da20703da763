"""The `kk ledger` commands that may resolve an order or refund, by its state.

The command line prints them, and the Orders page offers them to be copied.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import NamedTuple

from airflow_provider_kk.delivery.states import DOUBTFUL, State


class Command(NamedTuple):
    """A command line, and when it is the right one."""

    when: str
    line: str


class ResolveCommands(NamedTuple):
    """What to know first, and the commands of which one may be right."""

    first: str
    commands: tuple[Command, ...]


def resolve_commands(
    key: str, state: State, ids: Sequence[str], *, options: str = "", is_refund: bool = False
) -> ResolveCommands | None:
    """Return what may be said in that state; None where there is nothing to say.

    :param key: the order number, or the refund's key.
    :param ids: the kkOrderIds or refund numbers that the ledger has of it.
    :param options: what leads `kk` to the ledger, as part of a command line.
    """
    if state is State.REJECTED:
        first = "KK rejected it. Fix the cause first."
        again = "After the cause is fixed, end the back-off"
        return ResolveCommands(first, (Command(again, _line("retry", key, "", options, is_refund)),))
    if state is not State.HELD and state not in DOUBTFUL:
        return None
    first = _FIRST[is_refund]
    if state is not State.HELD:
        first = f"{_BY_ITSELF[is_refund]} Until then only --created is possible. {first}"
    commands = [*_created(ids, is_refund), *_never(ids, is_refund)]
    return ResolveCommands(
        first,
        tuple(
            Command(when, _line("resolve", key, arguments, options, is_refund))
            for when, arguments in commands
        ),
    )


_FIRST = {
    False: "Search for the order on KK's site, then resolve it.",
    True: "Search for the refunds of its order on KK's site, then resolve this one.",
}
_BY_ITSELF = {
    False: "Each sync of the account reconciles it after its settle window.",
    True: "The next try of its task reconciles it after its settle window.",
}


def _created(ids: Sequence[str], is_refund: bool) -> list[tuple[str, str]]:
    named = ",".join(ids) or ("REFUND_NO" if is_refund else "ID[,ID...]")
    what = "these refund numbers" if is_refund else "these kkOrderIds"
    return [(f"If KK has it under {what}", f"--created {shlex.quote(named) if ids else named}")]


def _never(ids: Sequence[str], is_refund: bool) -> list[tuple[str, str]]:
    if not ids:
        then = "the next try of its task requests it" if is_refund else "the next sync sends it"
        return [(f"If KK does not have it, so that {then}", "--never-created")]
    if is_refund:
        return []
    # KK lists 007 as 7, so a row may have come to hold another order's ids.
    arguments = f"--never-created --not-mine {shlex.quote(','.join(ids))}"
    return [
        (
            "If KK does not have it, and these ids belong to another order, so that the next sync sends it",
            arguments,
        )
    ]


def _line(action: str, key: str, arguments: str, options: str, is_refund: bool) -> str:
    command = ["kk", "ledger", action, "--refunds" if is_refund else ""]
    words = [arguments, "--why '...'", options]
    name = shlex.quote(key)
    # A number that looks like an option has to stand behind the options.
    parts = [*words, "--", name] if key.startswith("-") else [name, *words]
    return " ".join(filter(None, [*command, *parts]))
