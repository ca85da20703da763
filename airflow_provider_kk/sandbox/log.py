"""What was asked of the sandbox: tests and people read here what a client really did."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import Any

KEPT = 50_000


@dataclass
class Entry:
    """One request. It is there as soon as the request has come whole, with the outcome `pending`.

    Attributes:
        at: epoch seconds of the sandbox's clock.
        outcome: `created`, `ok`, `refused`, `unauthorized`, `rate_limited`, `late`, `struck` (a fault before
            the commit) or `pending`.
        status: HTTP status of the answer; of a broken connection, what it would have been.
        fault: the kind that struck it.
        kk_order_ids: the orders that it made.
    """

    at: float
    method: str
    path: str
    number: str | None
    outcome: str = "pending"
    status: int | None = None
    fault: str | None = None
    kk_order_ids: list[str] = field(default_factory=list)


class RequestLog:
    """The last requests, and counts of all of them. No tokens, no addresses, no query values."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def begin(self, entry: Entry) -> Entry:
        """A request has come."""
        with self._lock:
            self._entries.append(entry)
            self.counts["requests"] += 1
            self.counts[entry.method] += 1
        return entry

    def end(self, entry: Entry, outcome: str, status: int) -> None:
        """It has been answered."""
        with self._lock:
            entry.outcome, entry.status = outcome, status
            self.counts[outcome] += 1

    def count(self, name: str) -> None:
        """Count something else."""
        with self._lock:
            self.counts[name] += 1

    def entries(self) -> list[dict[str, Any]]:
        """The kept requests, the oldest first."""
        with self._lock:
            return [asdict(entry) for entry in self._entries]

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries: deque[Entry] = deque(maxlen=KEPT)
            self.counts: Counter[str] = Counter()
