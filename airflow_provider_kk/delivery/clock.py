"""Time as delivery sees it, so that tests can bring their own."""

from __future__ import annotations

import time
from typing import Protocol

from airflow_provider_kk.api.throttle import StopSignal


class Stop:
    """A request to send nothing new, safe to set from a signal handler.

    `threading.Event` is not: its `set()` takes a lock that the interrupted main thread may hold.
    """

    def __init__(self) -> None:
        self.reason: str | None = None

    def set(self, reason: str = "stopped") -> None:
        """Ask everybody to come to an end; the first reason given is kept."""
        self.reason = self.reason or reason

    def is_set(self) -> bool:
        """Whether anybody has asked."""
        return self.reason is not None

    def wait(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds for the request; True when it came."""
        until = time.monotonic() + timeout
        while not self.is_set() and (rest := until - time.monotonic()) > 0:
            time.sleep(min(rest, 0.1))
        return self.is_set()


class Clock(Protocol):
    """The worker's clocks, in seconds."""

    def wall(self) -> float:
        """Seconds since the epoch; may jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backwards; stands still while the machine is suspended."""
        ...

    def sleep(self, seconds: float, stop: StopSignal) -> None:
        """Sleep, at most until `stop` is set."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def wall(self) -> float:
        """Return the machine's time, in seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Return the machine's monotonic time in seconds."""
        return time.monotonic()

    def sleep(self, seconds: float, stop: StopSignal) -> None:
        """Sleep, at most until `stop` is set."""
        stop.wait(seconds)
