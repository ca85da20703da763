"""The progress of `kk send` on a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from airflow_provider_kk.delivery.run_queue import RunQueue, RunStatus


class ProgressBar:
    """A bar at the last line of standard error; lines of the log go above it."""

    def __init__(self) -> None:
        columns = (TextColumn("orders"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # What programs read is on standard output: it is left alone.
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
        self._task = self._bar.add_task("orders", total=None)

    def start(self, total: int) -> None:
        """Show the bar."""
        self._bar.update(self._task, total=total)
        self._bar.start()

    def advance(self) -> None:
        """Count an order."""
        self._bar.advance(self._task)

    def stop(self) -> None:
        """Take the bar away."""
        self._bar.stop()


class WatchedQueue(RunQueue):
    """A run queue that moves a bar when an order has its result."""

    def __init__(self, bar: ProgressBar) -> None:
        super().__init__()
        self._progress = bar

    def set(self, position: int, status: RunStatus, **details: Any) -> None:
        """Note where a job stands."""
        super().set(position, status, **details)
        if status not in (RunStatus.PENDING, RunStatus.WAITING):
            self._progress.advance()
