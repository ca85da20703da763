"""The sandbox's clock: what it stamps on orders and in the `Date` header."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime


class SandboxClock:
    """Epoch seconds from a source, moved by an offset.

    Everything that happens after a while (payment, late commits, refunds, the bucket) goes by this clock,
    so a test moves hours in no time. Only stalls and latency are real seconds.
    """

    def __init__(self, source: Callable[[], float] = time.time, offset_s: float = 0.0) -> None:
        self._source = source
        self.offset_s = offset_s

    def now(self) -> float:
        """Epoch seconds."""
        return self._source() + self.offset_s

    def advance(self, seconds: float) -> None:
        """Move the clock; negative seconds move it back."""
        self.offset_s += seconds


def iso(epoch: float) -> str:
    """The form of KK's dates: `2016-01-18T23:41:00Z`."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_iso(text: str) -> float:
    """Read KK's form of a date.

    Raises:
        ValueError: not of that form.
    """
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
