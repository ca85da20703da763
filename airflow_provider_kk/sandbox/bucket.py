"""KK's rate limit: a leaky bucket of one account."""

from __future__ import annotations

import threading


class LeakyBucket:
    """Holds `burst` requests and leaks `per_second`; what would spill over is refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._level = 0.0
        self._at: float | None = None

    def take(self, now: float, burst: int, per_second: float) -> bool:
        """Whether one more request fits in."""
        with self._lock:
            leaked = per_second * max(0.0, now - self._at) if self._at is not None else 0.0
            self._level = max(0.0, self._level - leaked)
            self._at = now
            if self._level + 1 > burst:
                return False
            self._level += 1
            return True

    def empty(self) -> None:
        """As if nothing had been asked yet."""
        with self._lock:
            self._level, self._at = 0.0, None
