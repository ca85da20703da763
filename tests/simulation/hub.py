"""Processes, their threads and a clock, all within one Python thread: who runs next is drawn by a seed.

A thread gives way wherever a real one waits for something outside of it: a database's commit, a socket, a
sleep. There its process may also be killed (nothing of it runs any more) or frozen (SIGSTOP).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from heapq import heappop, heappush
from random import Random

from greenlet import getcurrent, greenlet

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
        self.began_at = 0.0
        self.threads: list[Thread] = []
        """Those that have not ended."""
        self.thaw_by: list[float] = []
        """Until when each POST of its that has passed its last check must have sent its first byte."""


class Thread:
    """A thread of a process."""

    __slots__ = ("_carrier", "process", "work")

    def __init__(self, process: Process, work: Callable[[], object]) -> None:
        self.process, self.work = process, work
        self._carrier: _Carrier | None = None

    def switch(self, main: greenlet) -> None:
        """Begin it, or go on with it."""
        if self._carrier is None:
            self._carrier = _IDLE.pop() if _IDLE else _Carrier(parent=main)
            self._carrier.thread = self
        self._carrier.switch()

    def end(self) -> None:
        """Let it die where it stands."""
        if self._carrier is not None:
            self._carrier.throw(Dead)


class _Carrier(greenlet):
    """What threads run on, one after another: to make one costs more than most threads do."""

    thread: Thread

    def run(self) -> None:
        while True:
            with suppress(Dead):
                while True:
                    self.thread.work()
                    self._rest()
            self._rest()

    def _rest(self) -> None:
        self.thread.process.threads.remove(self.thread)
        del self.thread
        _IDLE.append(self)
        self.parent.switch()


_IDLE: list[_Carrier] = []


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
        self.database_skew_s = 0.0
        self.trace: list[str] | None = None
        self.meddle: Callable[[], object] = lambda: None
        """Called now and then while a thread gives way: somebody from outside does something."""
        self.killed = self.frozen = 0
        self._ready: list[Thread] = []
        self._events: list[tuple[float, int, Thread | Callable[[], object]]] = []
        """What happens when; a thread that wakes up."""
        self._sequence = 0
        self._until: float | None = None
        self._fuse = 1 + int(random.random() * 2 * _FUSE)
        self._main = getcurrent()
        self._running: Thread | None = None
        self._dead: list[Process] = []

    # For the world ---------------------------------------------------------------------------------

    def at(self, time: float, action: Callable[[], object]) -> None:
        """Let something happen at a time, whoever lives then."""
        self._sequence += 1
        heappush(self._events, (time, self._sequence, action))

    def spawn(self, process: Process, work: Callable[[], object]) -> None:
        """Start a thread of a process."""
        thread = Thread(process, work)
        process.began_at = process.began_at or self.now
        process.threads.append(thread)
        self._ready.append(thread)

    def run(self, until: float | None = None) -> None:
        """Let everything happen, up to a time, or until nothing happens any more."""
        self._until = until
        while True:
            thread = self._next()
            if thread is not None:
                self._running = thread
                thread.switch(self._main)
                self._running = None
                if self._dead:
                    self._bury()
            elif self._events and self._events[0][0] <= self.now:
                heappop(self._events)[2]()  # type: ignore[operator]
            else:
                break
        if until is not None:
            self.now = max(self.now, until)

    def kill(self, process: Process) -> None:
        """SIGKILL."""
        if not process.is_dead:
            process.is_dead = True
            self.killed += 1
            self._dead.append(process)
            self.note("killed")
            process.when_killed()

    def note(self, what: str, *details: object) -> None:
        """Add a line to the trace, when one is kept."""
        if self.trace is not None:
            who = self._running.process.name if self._running is not None else "-"
            told = " ".join(str(detail) for detail in details)
            self.trace.append(f"{self.now - START:10.1f} {who:>8} {what} {told}".rstrip())

    # For a thread ----------------------------------------------------------------------------------

    def pause(self, where: str, *, weight: int = 1) -> None:
        """Somebody else may run now, and this process may be killed or frozen.

        :param weight: how much likelier it is here than elsewhere.
        """
        thread = self._running
        if thread is None:
            return
        if thread.process.is_dead:
            raise Dead
        self._fuse -= weight
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
        self.give_way(thread)

    def current(self) -> Thread:
        """Return the running thread, which lives."""
        thread = self._running
        assert thread is not None
        if thread.process.is_dead:
            raise Dead
        return thread

    @property
    def began_at(self) -> float:
        """When the running process began; infinite while none runs."""
        return self._running.process.began_at if self._running is not None else math.inf

    def sleep(self, seconds: float) -> None:
        """Wait."""
        thread = self._running
        if thread is None:
            self.now += seconds
            return
        if thread.process.is_dead:
            raise Dead
        self._wake_at(self.now + seconds, thread)
        self.give_way(thread)

    def give_way(self, thread: Thread) -> None:
        """Let others run until it is this thread's turn again, which may be at once."""
        following = self._next()
        if following is thread:
            return
        self._running = following
        if following is None:
            self._main.switch()
        else:
            following.switch(self._main)
        self._running = thread

    def wake(self, thread: Thread) -> None:
        """Let a thread go on that has given way."""
        self._ready.append(thread)

    # How it goes on --------------------------------------------------------------------------------

    def _freeze(self, process: Process, where: str) -> None:
        seconds = self.random.choice((5.0, 60.0, 85.0, 85.0, 130.0, 400.0, 800.0, 2_400.0))
        if process.thaw_by:
            seconds = min(seconds, min(process.thaw_by) - self.now)
            if seconds <= 0:
                return
        process.frozen_until = max(process.frozen_until, self.now + seconds)
        self.frozen += 1
        self.note("frozen", f"for {seconds:g} s at {where}")

    def _wake_at(self, time: float, thread: Thread) -> None:
        self._sequence += 1
        heappush(self._events, (time, self._sequence, thread))

    def _next(self) -> Thread | None:
        """Return the thread that runs next; None when something else is due before, or nothing at all."""
        ready, events = self._ready, self._events
        while True:
            while events and events[0][0] <= self.now:
                due = events[0][2]
                if type(due) is not Thread:
                    return None
                heappop(events)
                ready.append(due)
            if ready:
                place = int(self.random.random() * len(ready)) if len(ready) > 1 else 0
                thread = ready[place]
                ready[place] = ready[-1]
                ready.pop()
                if thread.process.is_dead:
                    continue
                if thread.process.frozen_until <= self.now:
                    return thread
                self._wake_at(thread.process.frozen_until, thread)
            elif events and (self._until is None or events[0][0] <= self._until):
                self.now = max(self.now, events[0][0])
            else:
                return None

    def _bury(self) -> None:
        """End what is left of killed processes, so that nothing keeps their worlds in memory."""
        while self._dead:
            process = self._dead.pop()
            for thread in list(process.threads):
                self._running = thread
                thread.end()
            process.threads.clear()
            self._running = None
