"""One clock for several processes, which runs on by as much as they would have slept.

`install()` replaces the functions of `time` in this process and in what it forks later. Real seconds go on
passing as well. A sleeper moves the clock only when nobody else is running, so no process is ever overtaken
by time that it did not spend, unless it is stopped.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
import time

SLOTS = 4
ABSENT, RUNNING, SLEEPING, FROZEN = range(4)

_real_time, _real_monotonic = time.time, time.monotonic
#: Sleeps in real time.
pause = time.sleep
_LOOK_AGAIN_S = 0.0005


class Slot(ctypes.Structure):
    """What one process is doing; `wake` is on the virtual clock."""

    wake: float
    state: int
    _fields_ = [("wake", ctypes.c_double), ("state", ctypes.c_int32)]


class Shared(ctypes.Structure):
    """The memory that all processes see; killpoints.c knows this form, too."""

    offset: float
    _fields_ = [("offset", ctypes.c_double), ("slots", Slot * SLOTS)]


class VirtualTime:
    """The machine's clocks plus an offset that is shared with forked processes."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, ctypes.sizeof(Shared))
        self.shared = Shared.from_buffer(self._memory)
        self.own: Slot | None = None
        self._number = -1
        self._wakes: dict[int, float] = {}
        self._lock = threading.Lock()

    def install(self) -> None:
        """Replace the clocks of this process."""
        from airflow_provider_kk.delivery.clock import Stop

        shared = self.shared
        self._installed_at = _real_time()
        time.time = lambda: _real_time() + shared.offset
        time.monotonic = lambda: _real_monotonic() + shared.offset
        time.sleep = self.sleep

        def wait(stop: Stop, timeout: float) -> bool:
            if not stop.is_set():
                self.sleep(timeout)
            return stop.is_set()

        # It would sleep in steps of 0.1 s, of which an hour has many.
        Stop.wait = wait  # type: ignore[method-assign]

    def advance(self, seconds: float) -> None:
        """Move the clock for everybody."""
        self.shared.offset += seconds

    def passed(self) -> float:
        """Seconds since `install`, for people to read."""
        return time.time() - self._installed_at

    def enter(self, slot: int) -> None:
        """This process, just forked, is the one of that slot from now on."""
        self._number = slot
        self.own = self.shared.slots[slot]
        self._wakes.clear()
        self._lock = threading.Lock()

    def sleep(self, seconds: float) -> None:
        """Sleep, mostly by moving the clock."""
        if self.own is None:
            self.advance(max(0.0, seconds))
            return
        wake = time.time() + seconds
        self._note(wake)
        while time.time() < wake:
            self._move()
        self._note(None)

    def _note(self, wake: float | None) -> None:
        """Say how long the threads of this process sleep; one that is awake may be waiting for them."""
        assert self.own is not None
        with self._lock:
            if wake is None:
                del self._wakes[threading.get_ident()]
            else:
                self._wakes[threading.get_ident()] = wake
            self.own.wake = min(self._wakes.values(), default=0.0)
            self.own.state = SLEEPING if self._wakes else RUNNING

    def _move(self) -> None:
        """Move the clock to this sleeper's end, if nobody is running and it is the first to wake."""
        assert self.own is not None
        slots = self.shared.slots
        if all(slot.state != RUNNING for slot in slots):
            sleepers = [(slot.wake, number) for number, slot in enumerate(slots) if slot.state == SLEEPING]
            ahead = self.own.wake - time.time()
            if ahead > 0 and min(sleepers)[1] == self._number:
                self.advance(ahead)
                return
        pause(_LOOK_AGAIN_S)
