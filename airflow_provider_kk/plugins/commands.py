"""The commands by which a human has the last word on an order, to be copied from the page."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_kk.delivery.states import State

if TYPE_CHECKING:
    from collections.abc import Sequence


class Command(NamedTuple):
    """A command line, and when it is the right one."""

    when: str
    line: str


def commands(number: str, state: State, kk_order_ids: Sequence[str], options: str) -> list[Command]:
    """Return what may be said of an order in that state; `options` lead to its ledger."""

    def line(action: str, word: str = "") -> str:
        # A number that looks like an option has to stand behind the options.
        name = shlex.quote(number)
        words = [word, "--why '...'", options]
        parts = [*words, "--", name] if number.startswith("-") else [name, *words]
        return " ".join(["kk", "ledger", action, *filter(None, parts)])

    if state is State.REJECTED:
        return [
            Command("Its cause is mended: ask KK again without waiting for the pause to end", line("retry"))
        ]
    if state not in (State.HELD, State.IN_DOUBT, State.SENDING):
        return []
    ids = ",".join(kk_order_ids)
    created = Command(
        "KK has it, under these kkOrderIds", line("resolve", f"--created {ids or 'ID[,ID...]'}")
    )
    if not ids:
        never = Command("KK never made it: the next sync sends it again", line("resolve", "--never-created"))
    else:
        word = f"--never-created --not-mine {ids}"
        never = Command("KK never made it, and these ids are another order's", line("resolve", word))
    return [created, never]
