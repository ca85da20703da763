"""Points at which a process stops or dies: before and after its system calls.

With a compiler, `killpoints.c` is preloaded and sees the calls themselves. Without one, Python's functions
around them are wrapped: those of sockets, and the statements and commits of the ledger.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.chaos.virtual_time import Shared

_SOURCE = Path(__file__).with_name("killpoints.c")


@dataclass(frozen=True)
class Point:
    """The n-th call of a kind (of any, with "any"), counted from 1; before it or after it."""

    kind: str
    call: int
    after: bool

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} {self.kind} {self.call}"


class Counts(ctypes.Structure):
    """What a process has called, and where it was struck; killpoints.c knows this form, too."""

    _fields_ = [
        ("calls", ctypes.c_uint32 * 32),
        ("total", ctypes.c_uint32),
        ("struck_kind", ctypes.c_int32),
        ("struck_call", ctypes.c_uint32),
        ("struck_arm", ctypes.c_uint32),
    ]


class KillPoints(Protocol):
    """Arms points in this process. What is armed strikes once `start` was called."""

    name: str
    kinds: tuple[str, ...]

    def arm(self, point: Point, signal_number: int) -> None: ...

    def start(self, counts: Counts) -> None: ...

    def stop(self) -> None: ...

    def use_virtual_time(self, shared: Shared, slot: int) -> None: ...


# At system calls ---------------------------------------------------------------------------------------


def build(folder: Path) -> Path | None:
    """Compile the library; None where there is no C compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        return None
    library = folder / "killpoints.so"
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True)
    return library


class SystemCalls:
    """The preloaded library."""

    name = "system calls"

    def __init__(self, library: str) -> None:
        self._library: Any = ctypes.CDLL(library)
        self._library.kp_arm.argtypes = [ctypes.c_int, ctypes.c_uint32, ctypes.c_int, ctypes.c_int]
        self.kinds = tuple(ctypes.c_char_p(ctypes.addressof(self._names())).value.decode().split())

    def _names(self) -> Any:
        return ctypes.c_char.in_dll(self._library, "kp_names")

    def arm(self, point: Point, signal_number: int) -> None:
        kind = -1 if point.kind == "any" else self.kinds.index(point.kind)
        self._library.kp_arm(kind, point.call, int(point.after), signal_number)

    def start(self, counts: Counts) -> None:
        self._library.kp_start(ctypes.byref(counts))

    def stop(self) -> None:
        self._library.kp_stop()

    def use_virtual_time(self, shared: Shared, slot: int) -> None:
        """Let SQLite wait for locks in virtual time."""
        offset = ctypes.byref(shared)  # its first field
        self._library.kp_virtual_time(offset, ctypes.byref(shared.slots), len(shared.slots), slot)


# In Python ---------------------------------------------------------------------------------------------


class PythonCalls:
    """The functions of Python around the system calls that matter most."""

    name = "Python functions (no C compiler was found)"
    kinds = ("connect", "send", "recv", "execute", "commit")

    def __init__(self) -> None:
        self._armed: list[tuple[Point, int]] = []
        self._counts: Counts | None = None

    def install(self) -> None:
        """Wrap the functions."""
        from sqlalchemy.engine.default import DefaultDialect

        for owner, function, kind in (
            (socket.socket, "connect", "connect"),
            (socket.socket, "sendall", "send"),
            (socket.socket, "recv_into", "recv"),
            (DefaultDialect, "do_execute", "execute"),
            (DefaultDialect, "do_commit", "commit"),
        ):
            setattr(owner, function, self._around(kind, getattr(owner, function)))

    def arm(self, point: Point, signal_number: int) -> None:
        self._armed.append((point, signal_number))

    def start(self, counts: Counts) -> None:
        self._counts = counts

    def stop(self) -> None:
        self._counts = None

    def use_virtual_time(self, shared: Shared, slot: int) -> None:
        """SQLite's own waiting cannot be reached from here."""

    def _around(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        index = self.kinds.index(kind)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            counts = self._counts
            if counts is None:
                return real(*args, **kwargs)
            counts.calls[index] += 1
            counts.total += 1
            call, total = counts.calls[index], counts.total
            self._look(counts, kind, call, total, after=False)
            result = real(*args, **kwargs)
            self._look(counts, kind, call, total, after=True)
            return result

        return wrapped

    def _look(self, counts: Counts, kind: str, call: int, total: int, *, after: bool) -> None:
        for number, (point, signal_number) in enumerate(self._armed):
            if point.after == after and (point.kind, point.call) in ((kind, call), ("any", total)):
                counts.struck_kind, counts.struck_call = self.kinds.index(kind), call
                counts.struck_arm = number
                signal.pthread_kill(_thread(), signal_number)


def _thread() -> int:
    import threading

    return threading.get_ident()
