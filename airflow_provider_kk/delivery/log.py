"""Log lines that combine many orders, and the text form of numbers, times and goods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import pendulum

#: The most orders that a line names, and the most reasons of one text.
_NAMED = 20
_REASONS = 20
_FLUSH_EVERY_S = 60.0
HELD = "{orders} {are} held: {reason}. See `kk ledger show`, then run `kk ledger resolve`"


class Log(Protocol):
    """A logger of Python's, or of a task. It never gets personal data."""

    def info(self, msg: Any, /, *args: Any) -> Any:
        """Log progress."""

    def warning(self, msg: Any, /, *args: Any) -> Any:
        """Log a message that a person may want to check."""

    def error(self, msg: Any, /, *args: Any) -> Any:
        """Log a message that a person must check."""


def printable(text: str) -> str:
    """Escape characters that cannot be printed, so that a text cannot forge a line of a log."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def count_orders(number: int) -> str:
    """Return `1 order`, `2 orders`."""
    return f"{number} order" if number == 1 else f"{number} orders"


def some_of(names: Sequence[str], number: int) -> str:
    """Return `A-1, A-2 and 4 more`: the first of `number` names."""
    more = number - len(names)
    return printable(", ".join(names)) + (f" and {more} more" if more > 0 else "")


@dataclass
class _Line:
    """A log line for the orders with the same text and reason."""

    level: Literal["info", "warning", "error"]
    text: str
    reason: str
    total: int = 0
    names: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        first = some_of(self.names, self.total)
        named = f"order {first}" if self.total == 1 else f"{count_orders(self.total)} ({first})"
        are = "is" if self.total == 1 else "are"
        line = self.text.format(orders=named, are=are, reason=self.reason)
        return printable(line[0].upper() + line[1:])


class OrderLog:
    """Logs one line for all orders with the same text and reason: how many, and the first of them.

    `text` has `{orders}`, and may have `{are}` (is or are) and `{reason}`. Memory does not grow with the
    number of orders: from the 21st reason of a text on, reasons share a line.
    """

    def __init__(self, log: Log) -> None:
        self._log = log
        self._lines: dict[tuple[str, str], _Line] = {}
        self._since: float | None = None

    def info(self, text: str, name: str, reason: str = "") -> None:
        """Add an order to an info line."""
        self._note("info", text, name, reason)

    def warning(self, text: str, name: str, reason: str = "") -> None:
        """Add an order to a warning."""
        self._note("warning", text, name, reason)

    def error(self, text: str, name: str, reason: str = "") -> None:
        """Add an order to an error."""
        self._note("error", text, name, reason)

    def tick(self, now: float) -> None:
        """Log the lines once a minute, by a clock in seconds."""
        if self._since is None:
            self._since = now
        elif now - self._since >= _FLUSH_EVERY_S:
            self.flush()
            self._since = now

    def flush(self) -> None:
        """Log the lines."""
        lines, self._lines, self._since = self._lines, {}, None
        for line in lines.values():
            getattr(self._log, line.level)("%s", line)

    def _note(self, level: Literal["info", "warning", "error"], text: str, name: str, reason: str) -> None:
        is_new = (text, reason) not in self._lines
        if is_new and sum(known == text for known, _ in self._lines) >= _REASONS:
            reason = "other reasons"
        line = self._lines.setdefault((text, reason), _Line(level, text, reason))
        line.total += 1
        if len(line.names) < _NAMED:
            line.names.append(name)


def utc(epoch: float) -> str:
    """Return epoch seconds as text in UTC; empty for 0."""
    return pendulum.from_timestamp(epoch).format("YYYY-MM-DD HH:mm:ss [UTC]") if epoch else ""


def format_goods(goods: Mapping[str, int]) -> str:
    """Return `2 x SKU, ...`."""
    return ", ".join(f"{quantity} x {sku}" for sku, quantity in sorted(goods.items())) or "nothing"
