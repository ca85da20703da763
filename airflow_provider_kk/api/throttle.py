"""KK's rate limit within one process: a leaky bucket of 120 requests, 2 a second; beyond it HTTP 429.

The bucket is GCRA: its whole state is one number, the theoretical arrival time ("tat"). That of an unused
bucket is in the past. The bucket that processes share in the ledger does the same in SQL.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Protocol

_log = logging.getLogger(__name__)

#: Requests of the burst that are left free, since travel times vary and clocks disagree. The steady rate
#: does not change.
HEADROOM = 2
MAX_BACK_OFF_S = 300.0
"""The longest pause in seconds that a `Retry-After` can cause."""
_LONG_WAIT_S = 5.0
_LOG_WAITS_EVERY_S = 30.0


class Throttle(Protocol):
    """Gives a client the permit for each request."""

    def acquire(self) -> None:
        """Block until one request may be sent."""

    def back_off(self, retry_after_s: float | None) -> None:
        """Pause after a 429. `retry_after_s`: the seconds that KK asked for, if any."""


def log_backoff(who: str, pause_s: float) -> None:
    """Log a 429 and its pause."""
    _log.warning("KK's rate limit is reached (HTTP 429): %s for %.0f s", who, pause_s)


class WaitLog:
    """Logs long waits for the rate limit, at most one in half a minute."""

    def __init__(self) -> None:
        self._silent_until = float("-inf")

    def note(self, now: float, seconds: float) -> None:
        """Log a wait that begins `now` (monotonic), unless it is short or another was logged just before."""
        if seconds >= _LONG_WAIT_S and now >= self._silent_until:
            self._silent_until = now + _LOG_WAITS_EVERY_S
            _log.warning(
                "Waiting %.0f s for KK's rate limit: other requests come first, or KK asked for a pause",
                seconds,
            )


class LocalBucket:
    """KK's bucket for the threads of one process.

    `burst` and `per_second` are KK's limits; `headroom` requests of the burst are left free.
    """

    def __init__(
        self,
        burst: int = 120,
        per_second: float = 2.0,
        headroom: int = HEADROOM,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._burst = max(1, burst - headroom)
        self._interval_s = 1.0 / per_second
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._tat = self._not_before = clock()
        self._wait_log = WaitLog()

    def acquire(self) -> None:
        """Block until one request may be sent."""
        with self._lock:
            now = self._clock()
            self._tat = max(self._tat, now) + self._interval_s
            due = self._tat - self._burst * self._interval_s
        # A 429 meanwhile delays this request, too.
        while (pause_s := max(due, self._not_before) - self._clock()) > 0:
            self._wait_log.note(now, pause_s)
            self._sleep(pause_s)

    def min_duration_s(self, requests: int) -> float:
        """Return the least seconds that so many requests take, if nobody else sends."""
        with self._lock:
            free_in_s = max(0.0, self._tat - self._clock())
        return max(0.0, free_in_s + (requests - self._burst) * self._interval_s)

    def back_off(self, retry_after_s: float | None) -> None:
        """Hold everything back after a 429: later requests queue behind the pause at the steady rate."""
        wanted_s = max(self._interval_s, 1.0) if retry_after_s is None else retry_after_s
        pause_s = min(max(wanted_s, 0.0), MAX_BACK_OFF_S)
        with self._lock:
            now = self._clock()
            self._tat = max(self._tat, now + (self._burst - 1) * self._interval_s + pause_s)
            is_new = now >= self._not_before
            self._not_before = max(self._not_before, now + pause_s)
        if is_new:
            log_backoff("this process pauses", pause_s)
