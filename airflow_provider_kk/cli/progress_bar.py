"""The progress of `kk send` on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from airflow_provider_kk.delivery.run_queue import RunQueue, RunStatus


class WatchedQueue(RunQueue):
    """A run queue with a bar at the last line of standard error; lines of the log go above it."""

    def __init__(self) -> None:
        super().__init__()
        columns = (TextColumn("orders"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # What programs read is on standard output: it is left alone.
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
        self._task = self._bar.add_task("orders", total=None)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Show the bar, which moves when an order has its result."""
        self._bar.update(self._task, total=self.counts().get(RunStatus.PENDING, 0))
        with self._bar:
            yield

    def set(self, position: int, status: RunStatus, **details: Any) -> None:
        """Note where a job stands."""
        super().set(position, status, **details)
        if status not in (RunStatus.PENDING, RunStatus.WAITING):
            self._bar.advance(self._task)
