"""What delivery asks of a logger: a plain one of Python's serves, and so does a task's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import pendulum


class Log(Protocol):
    """Where a run says what it does; never with a customer's data."""

    def info(self, msg: Any, /, *args: Any) -> Any:
        """Say what is going on."""
        ...

    def warning(self, msg: Any, /, *args: Any) -> Any:
        """Say what somebody may want to look at."""
        ...

    def error(self, msg: Any, /, *args: Any) -> Any:
        """Say what somebody has to look at."""
        ...


def printable(text: str) -> str:
    """`text` with what cannot be printed escaped as in Python: it forges no line of a log or a terminal."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def orders(number: int) -> str:
    """Return `1 order`, `2 orders`."""
    return f"{number} order" if number == 1 else f"{number} orders"


def some_of(names: Sequence[str], number: int) -> str:
    """Return `A-1, A-2 and 4 more`: the first of `number` names."""
    more = number - len(names)
    return printable(", ".join(names)) + (f" and {more} more" if more > 0 else "")


def utc(epoch: float) -> str:
    """Return a time as people read it; empty for 0."""
    return pendulum.from_timestamp(epoch).format("YYYY-MM-DD HH:mm:ss [UTC]") if epoch else ""
