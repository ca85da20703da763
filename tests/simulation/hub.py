"""Processes, their threads and a clock, all within one Python thread: who runs next is drawn by a seed.

A thread gives way wherever a real one waits for something outside of it: a database's commit, a socket, a
sleep. There its process may also be killed (nothing of it runs any more) or frozen (SIGSTOP).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from concurrent.futures import Future
from contextlib import suppress
from random import Random
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

T = TypeVar("T")

START = 1_800_000_000.0
#: A thread passes so many places at which it could give way, on average, before it does.
_FUSE = 6


class Dead(BaseException):
    """This thread's process was killed."""


class Process:
    """A process: dead or alive, frozen or not."""

    def __init__(self, name: str, when_killed: Callable[[], object] = lambda: None) -> None:
        self.name = name
        self.when_killed = when_killed
        self.is_dead = False
        self.frozen_until = 0.0
        self.thaw_by: list[float] = []
        """Until when each POST of its that has passed its last check must have sent its first byte."""


class _Thread(greenlet):
    process: Process


class Hub:
    """The clock, and what happens when.

    :param kills: the chance that a thread that gives way is killed with its process.
    :param freezes: the same for being frozen.
    """

    def __init__(self, random: Random, *, kills: float, freezes: float) -> None:
        self.now = START
        self.random = random
        self.kills, self.freezes = kills, freezes
        self.workers_skew_s = 0.0
        """By how much the clocks of the workers are ahead."""
        self.trace: list[str] | None = None
        self.meddle: Callable[[], object] = lambda: None
        """Called now and then while a thread gives way: somebody from outside does something."""
        self.killed = self.frozen = 0
        self._ready: list[_Thread] = []
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._sequence = 0
        self._fuse = 1 + int(random.random() * 2 * _FUSE)
        self._main = getcurrent()

    # For the world ---------------------------------------------------------------------------------

    def at(self, time: float, action: Callable[[], object]) -> None:
        """Let something happen at a time, whoever lives then."""
        self._sequence += 1
        heapq.heappush(self._events, (time, self._sequence, action))

    def spawn(self, process: Process, work: Callable[[], object]) -> None:
        """Start a thread of a process."""
        thread = _Thread(lambda: self._live(work), self._main)
        thread.process = process
        self._ready.append(thread)

    def run(self, until: float | None = None) -> None:
        """Let everything happen, up to a time, or until nothing happens any more."""
        ready, events, random = self._ready, self._events, self.random.random
        while True:
            while events and events[0][0] <= self.now:
                heapq.heappop(events)[2]()
            if ready:
                place = int(random() * len(ready)) if len(ready) > 1 else 0
                thread = ready[place]
                ready[place] = ready[-1]
                ready.pop()
                if thread.process.is_dead:
                    continue
                if thread.process.frozen_until > self.now:
                    self.at(thread.process.frozen_until, lambda thread=thread: ready.append(thread))
                    continue
                thread.switch()
            elif events and (until is None or events[0][0] <= until):
                self.now = max(self.now, events[0][0])
            else:
                break
        if until is not None:
            self.now = max(self.now, until)

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        if not process.is_dead:
            process.is_dead = True
            self.killed += 1
            self.note("killed")
            process.when_killed()

    def note(self, what: str, *details: object) -> None:
        """Add a line to the trace, when one is kept."""
        if self.trace is not None:
            thread = getcurrent()
            who = thread.process.name if isinstance(thread, _Thread) else "-"
            told = " ".join(str(detail) for detail in details)
            self.trace.append(f"{self.now - START:10.1f} {who:>8} {what} {told}".rstrip())

    # For a thread ----------------------------------------------------------------------------------

    def pause(self, where: str) -> None:
        """Somebody else may run now, and this process may be killed or frozen."""
        thread = getcurrent()
        if not isinstance(thread, _Thread):
            return
        if thread.process.is_dead:
            raise Dead
        self._fuse -= 1
        if self._fuse > 0:
            return
        random = self.random.random
        self._fuse = 1 + int(random() * 2 * _FUSE)
        chance = random()
        if chance < self.kills:
            self.note("at", where)
            self.kill(thread.process)
            raise Dead
        if chance < self.kills + self.freezes:
            self._freeze(thread.process, where)
        elif chance > 0.95:
            self.meddle()
        elif chance > 0.7:
            self.now += random() * 2.0
        self._ready.append(thread)
        self._give_way(thread)

    def process(self) -> Process:
        """The running thread's process."""
        thread = getcurrent()
        assert isinstance(thread, _Thread)
        return thread.process

    def _freeze(self, process: Process, where: str) -> None:
        seconds = self.random.choice((5.0, 60.0, 85.0, 130.0, 400.0, 800.0, 2_400.0))
        if process.thaw_by:
            seconds = min(seconds, min(process.thaw_by) - self.now)
            if seconds <= 0:
                return
        process.frozen_until = max(process.frozen_until, self.now + seconds)
        self.frozen += 1
        self.note("frozen", f"for {seconds:g} s at {where}")

    def sleep(self, seconds: float) -> None:
        """Wait."""
        thread = getcurrent()
        if not isinstance(thread, _Thread):
            self.now += seconds
            return
        if thread.process.is_dead:
            raise Dead
        ready = self._ready
        self.at(self.now + seconds, lambda: ready.append(thread))
        self._give_way(thread)

    def _give_way(self, thread: _Thread) -> None:
        self._main.switch()
        if thread.process.is_dead:
            raise Dead

    def _live(self, work: Callable[[], object]) -> None:
        with suppress(Dead):
            work()


class Fibers:
    """A stream's pool, of threads of a process in the hub."""

    def __init__(self, hub: Hub, number: int) -> None:
        self._hub, self._number = hub, number
        self._running = 0
        self._queue: list[Callable[[], None]] = []
        self._waiting: _Thread | None = None

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        future: Future[T] = Future()

        def job() -> None:
            try:
                result = work(*arguments)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            self._running -= 1
            self._start()
            if self._waiting is not None:
                self._hub._ready.append(self._waiting)
                self._waiting = None

        self._queue.append(job)
        self._start()
        return future

    def _start(self) -> None:
        thread = getcurrent()
        assert isinstance(thread, _Thread)
        while self._queue and self._running < self._number:
            self._running += 1
            self._hub.spawn(thread.process, self._queue.pop(0))

    def wait(self, futures: Collection[Future[Any]], timeout_s: float) -> Collection[Future[Any]]:
        thread = getcurrent()
        assert isinstance(thread, _Thread)
        if thread.process.is_dead:
            raise Dead
        done = [future for future in futures if future.done()]
        if not done:
            self._waiting = thread
            self._hub._give_way(thread)
            done = [future for future in futures if future.done()]
        return done

    def close(self) -> None:
        self._queue.clear()
