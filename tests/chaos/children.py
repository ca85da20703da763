"""Tasks in forked processes, each with points at which it stops or dies."""

from __future__ import annotations

import ctypes
import json
import logging
import mmap
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.killpoints import Counts, KillPoints, Point
from tests.chaos.virtual_time import ABSENT, FROZEN, RUNNING, SLEEPING, SLOTS, VirtualTime, pause

_LOOK_AGAIN_S = 0.0005

Task = Callable[[], dict[str, Any]]


@dataclass
class Ended:
    """What became of a task: killed (by us), or its own account of it."""

    killed: bool
    told: dict[str, Any] | None = None


@dataclass
class Child:
    """A task that runs."""

    name: str
    pid: int
    slot: int
    arms: Sequence[tuple[Point, int]]
    pipe: int
    counts: Counts
    stopped: bool = False
    ended: Ended | None = None
    at: Point | None = None
    """Where it was stopped or killed last."""


class Nursery:
    """Forks children; this process has no other threads, so that nothing is half done in them."""

    def __init__(self, points: KillPoints, clock: VirtualTime) -> None:
        self.points = points
        self.clock = clock
        self._memory = mmap.mmap(-1, ctypes.sizeof(Counts) * SLOTS)
        self._counts = (Counts * SLOTS).from_buffer(self._memory)
        self.started = 0
        self._children: dict[int, Child] = {}

    def start(self, name: str, task: Task, *arms: tuple[Point, int]) -> Child:
        """Run `task` in a child, with these points armed."""
        slot = min(set(range(SLOTS)) - {child.slot for child in self._children.values()})
        counts = self._counts[slot]
        ctypes.memset(ctypes.byref(counts), 0, ctypes.sizeof(Counts))
        counts.struck_kind = -1
        self.clock.shared.slots[slot].state = RUNNING
        self.started += 1
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._be_child(slot, counts, task, arms, writing)
        os.close(writing)
        child = Child(name, pid, slot, arms, reading, counts)
        self._children[pid] = child
        return child

    def wait(self, *children: Child) -> None:
        """Until each of them has stopped or ended; meanwhile others may."""
        while any(child.ended is None and not child.stopped for child in children):
            self.wait_for_any()

    def wait_for_any(self) -> None:
        """Until one of all children has stopped or ended."""
        self._note(*os.waitpid(-1, os.WUNTRACED))

    def wait_or_sleep(self, child: Child) -> None:
        """Until it has stopped or ended, or waits for time to pass."""
        while child.ended is None and not child.stopped:
            pid, status = os.waitpid(-1, os.WUNTRACED | os.WNOHANG)
            if pid:
                self._note(pid, status)
            elif self.clock.shared.slots[child.slot].state == SLEEPING:
                return
            else:
                pause(_LOOK_AGAIN_S)

    def wake(self, child: Child) -> None:
        """Let a stopped one go on."""
        child.stopped = False
        child.at = None
        child.counts.struck_kind = -1
        self.clock.shared.slots[child.slot].state = RUNNING
        os.kill(child.pid, signal.SIGCONT)

    def go_on(self, child: Child) -> None:
        """Time passes for the others although this one stands still; they do not wait for it any more."""
        if child.stopped:
            self.clock.shared.slots[child.slot].state = FROZEN

    def clear(self) -> None:
        """End all that is still there."""
        for child in list(self._children.values()):
            os.kill(child.pid, signal.SIGKILL)
            child.stopped = False
            while child.ended is None:
                self._note(*os.waitpid(child.pid, 0))

    def _note(self, pid: int, status: int) -> None:
        child = self._children[pid]
        if child.counts.struck_kind >= 0:
            kind = self.points.kinds[child.counts.struck_kind]
            point, _signal = child.arms[child.counts.struck_arm]
            child.at = Point(kind, child.counts.struck_call, point.after)
        if os.WIFSTOPPED(status):
            child.stopped = True
            return
        self.clock.shared.slots[child.slot].state = ABSENT
        del self._children[pid]
        with os.fdopen(child.pipe) as pipe:
            text = pipe.read()
        was_killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if not was_killed and not text:
            raise RuntimeError(f"{child.name} ended with status {status} and said nothing")
        child.ended = Ended(was_killed, json.loads(text) if text else None)

    def _be_child(
        self, slot: int, counts: Counts, task: Task, arms: Sequence[tuple[Point, int]], pipe: int
    ) -> None:
        """Never returns."""
        status = 1
        try:
            logging.disable(logging.CRITICAL)
            self.clock.enter(slot)
            self.points.use_virtual_time(self.clock.shared, slot)
            for point, signal_number in arms:
                self.points.arm(point, signal_number)
            self.points.start(counts)
            told = task()
            self.points.stop()
            os.write(pipe, json.dumps(told).encode())
            status = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
