"""How the demo speaks: plain text, coloured on a terminal only."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

from demo.verdict import Line, Seen

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_NUMBER_WIDTH = 20


def styled(text: str, style: str) -> str:
    """The text in a style of `_STYLES`, when someone looks at it."""
    if not (sys.stdout.isatty() and os.environ.get("NO_COLOR") is None and style in _STYLES):
        return text
    return f"\033[{_STYLES[style]}m{text}\033[0m"


def say(text: str = "", style: str = "") -> None:
    """Print at once, also into a pipe."""
    print(styled(text, style), flush=True)


def heading(text: str) -> None:
    """Begin a part."""
    say()
    say(text, "bold")


def fitting(text: str, indent: int = 0) -> str:
    """The text, cut to one line of the terminal when there is one."""
    if not sys.stdout.isatty():
        return text
    width = max(40, shutil.get_terminal_size().columns - indent)
    return text if len(text) <= width else text[: width - 1] + "…"


def show_table(lines: Sequence[Line]) -> None:
    """A line for each order, and one for all those to which nothing happened."""
    groups: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        alike = (line.order.story.text, *_cells(line.seen))
        own = "" if line.order.story.is_ordinary and not line.fault else line.order.number
        groups.setdefault((own, *alike), []).append(line)
    rows = [_row(group) for group in groups.values()]
    rows.sort(key=lambda row: not row[0].endswith(" orders"))
    head = ("order", "what happens to it", "warehouse", "ledger", "sent", "at KK", "verdict")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    say("  " + _padded(head, widths).rstrip(), "bold")
    for row in rows:
        style = "green" if row[-1] == "ok" else "red"
        say("  " + _padded(row[:-1], widths) + styled(row[-1], style))


def _row(group: Sequence[Line]) -> tuple[str, ...]:
    first = group[0]
    number = first.order.number if len(group) == 1 else f"{len(group)} orders"
    if len(number) > _NUMBER_WIDTH:
        number = number[: _NUMBER_WIDTH - 1] + "…"
    return (number, first.order.story.text, *_cells(first.seen), first.fault or "ok")


def _cells(seen: Seen) -> tuple[str, ...]:
    parts = f" in {len(seen.kk_order_ids)}" if len(seen.kk_order_ids) > seen.creates else ""
    return (seen.warehouse or "-", seen.ledger or "-", str(seen.sent), f"{seen.creates}{parts}")


def _padded(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "".join(f"{cell:{width + 2}}" for cell, width in zip(cells, widths, strict=False))
