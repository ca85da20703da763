"""A dispatcher's executor in a simulation: its workers are threads of the hub."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from tests.simulation.hub import Hub, Thread


class _Job:
    """A piece of work, and as much of its `Future` as is asked of one."""

    __slots__ = ("_arguments", "_error", "_executor", "_result", "_work", "is_done")

    def __init__(self, executor: Fibers, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._executor, self._work, self._arguments = executor, work, arguments
        self._error: Exception | None = None
        self.is_done = False

    def run(self) -> None:
        try:
            self._result = self._work(*self._arguments)
        except Exception as error:
            self._error = error
        self.is_done = True
        self._executor.ended()

    def result(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._result


class Fibers:
    """A dispatcher's executor, of threads of a process in the hub."""

    def __init__(self, hub: Hub, number: int) -> None:
        self._hub, self._number = hub, number
        self._running = 0
        self._queue: list[_Job] = []
        self._waiting: Thread | None = None

    def submit(self, work: Callable[..., Any], *arguments: Any) -> _Job:
        job = _Job(self, work, arguments)
        self._queue.append(job)
        self._start()
        return job

    def _start(self) -> None:
        while self._queue and self._running < self._number:
            self._running += 1
            self._hub.spawn(self._hub.current().process, self._queue.pop(0).run)

    def ended(self) -> None:
        self._running -= 1
        self._start()
        if self._waiting is not None:
            self._hub.wake(self._waiting)
            self._waiting = None

    def wait_for_one(self, futures: Collection[_Job]) -> Collection[_Job]:
        thread = self._hub.current()
        done = [one for one in futures if one.is_done]
        if not done:
            self._waiting = thread
            self._hub.give_way(thread)
            done = [one for one in futures if one.is_done]
        return done

    def shutdown(self, *, cancel_futures: bool) -> None:
        self._queue.clear()
