"""What a stream asks of a clock, a throttle and a log, in a simulated world."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_provider_kk.delivery.model import Pause, SendingPausedError
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
    """A throttle that never waits, and gives no permit to send while a person has paused the account."""

    def __init__(self, pause: Callable[[], Pause | None]) -> None:
        self._pause = pause

    def acquire(self, stop: object = None, *, to_send: bool = False) -> None:
        if to_send and (pause := self._pause()):
            raise SendingPausedError(pause)

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
