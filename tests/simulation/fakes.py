"""What a stream asks of a clock, a throttle and a log, in a simulated world."""

from __future__ import annotations

from typing import Any

from tests.simulation.hub import Hub


class HubClock:
    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def wall(self) -> float:
        return self._hub.now + self._hub.workers_skew_s

    def monotonic(self) -> float:
        return self._hub.now

    def sleep(self, seconds: float, stop: object = None) -> None:
        self._hub.sleep(seconds)


class DatabaseClock(HubClock):
    def wall(self) -> float:
        return self._hub.now + self._hub.database_skew_s


class NoThrottle:
    """A throttle that never waits."""

    def acquire(self, stop: object = None) -> None:
        return

    def min_duration_s(self, requests: int) -> float:
        return 0.0

    def release(self, held_s: float) -> None:
        return

    def back_off(self, retry_after_s: float | None) -> None:
        return


class Silence:
    def info(self, msg: Any, /, *args: Any) -> None:
        return

    warning = error = info


SILENT = Silence()


class TracedLog:
    """What the syncs say, in the trace."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def info(self, msg: Any, /, *args: Any) -> None:
        self._hub.note("says:", str(msg) % args)

    warning = error = info
