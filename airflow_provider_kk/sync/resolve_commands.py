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
        first = "KK has refused it. Mend the cause first: the next try rests for a while by itself."
        again = "The cause is mended: let it be asked for again without that pause"
        return ResolveCommands(first, (Command(again, _line("retry", key, "", options, is_refund)),))
    if state is not State.HELD and state not in DOUBTFUL:
        return None
    first = _FIRST[is_refund]
    if state is not State.HELD:
        first = f"{_BY_ITSELF[is_refund]} Until then only --created is taken. {first}"
    commands = [*_created(ids, is_refund), *_never(ids, is_refund)]
    return ResolveCommands(
        first,
        tuple(
            Command(when, _line("resolve", key, arguments, options, is_refund))
            for when, arguments in commands
        ),
    )


_FIRST = {
    False: "Look the order up on KK's site, then say what became of it.",
    True: "Look at the refunds of its order on KK's site, then say what became of this one.",
}
_BY_ITSELF = {
    False: "Every sync of the account looks it up by itself once its settle window is over.",
    True: "The next try of its task looks it up by itself once its settle window is over.",
}


def _created(ids: Sequence[str], is_refund: bool) -> list[tuple[str, str]]:
    named = ",".join(ids) or ("REFUND_NO" if is_refund else "ID[,ID...]")
    what = "these refund numbers" if is_refund else "these kkOrderIds"
    return [(f"KK has it, under {what}", f"--created {shlex.quote(named) if ids else named}")]


def _never(ids: Sequence[str], is_refund: bool) -> list[tuple[str, str]]:
    if not ids:
        then = "the next try of its task asks for it again" if is_refund else "the next sync sends it again"
        return [(f"KK never made it: {then}", "--never-created")]
    if is_refund:
        return []
    # KK lists 007 as 7, so a row may have come to hold another order's ids.
    arguments = f"--never-created --not-mine {shlex.quote(','.join(ids))}"
    return [("KK never made it, and these ids are another order's: the next sync sends it", arguments)]


def _line(action: str, key: str, arguments: str, options: str, is_refund: bool) -> str:
    command = ["kk", "ledger", action, "--refunds" if is_refund else ""]
    words = [arguments, "--why '...'", options]
    name = shlex.quote(key)
    # A number that looks like an option has to stand behind the options.
    parts = [*words, "--", name] if key.startswith("-") else [name, *words]
    return " ".join(filter(None, [*command, *parts]))
