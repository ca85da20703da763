"""What a long run says while it lasts."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_kk.delivery.clock import Clock
from airflow_provider_kk.delivery.log import Log
from airflow_provider_kk.delivery.run_queue import RunQueue, RunStatus

_EVERY_S = 5.0


class Progress:
    """Logs how far a run is, every few seconds."""

    def __init__(self, log: Log, clock: Clock, min_duration_s: Callable[[int], float]) -> None:
        """`min_duration_s`: seconds that so many requests take at KK's rate, without the first burst."""
        self._log, self._clock, self._min_duration_s = log, clock, min_duration_s
        self._started = self._last = clock.monotonic()
        self._total = 0

    def start(self, total: int) -> None:
        """Begin to count, over `total` jobs."""
        self._started = self._last = self._clock.monotonic()
        self._total = total

    def tick(self, run_queue: RunQueue) -> None:
        """Log where the run stands, when it is time."""
        now = self._clock.monotonic()
        if now - self._last < _EVERY_S:
            return
        self._last = now
        counts = run_queue.counts()
        left = counts.get(RunStatus.PENDING, 0)
        done = max(self._total - left, 0)
        rate = done / (now - self._started)
        self._log.info(
            "%d of %d orders done, %.1f a second; %d created, %d rejected, %d in doubt, %d not sent; %s left",
            done,
            self._total,
            rate,
            counts.get(RunStatus.CREATED, 0),
            counts.get(RunStatus.REJECTED, 0),
            counts.get(RunStatus.WAITING, 0),
            counts.get(RunStatus.NOT_SENT, 0),
            _duration(max(left / rate, self._min_duration_s(left))) if rate else "?",
        )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
