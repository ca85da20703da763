"""The sandbox in a process of its own, which tells when nothing is on its way to it any more."""

from __future__ import annotations

import array
import fcntl
import multiprocessing
import socket
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.chaos.virtual_time import pause

_CALM_S = 0.0003


class KKProcess:
    """A KK that is asked over HTTP, and steered without."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self.url, self.token = pipe.recv()

    def quiet(self) -> None:
        """Return when all that was sent to KK has been acted upon."""
        self.ask("quiet")

    def ask(self, what: str, *args: Any, **kwargs: Any) -> Any:
        """Call a function of `_Steering`."""
        self._pipe.send((what, args, kwargs))
        is_error, answer = self._pipe.recv()
        if is_error:
            raise RuntimeError(f"the sandbox's {what}: {answer}")
        return answer


@contextmanager
def kk_process() -> Iterator[KKProcess]:
    """A sandbox, forked from this process, whose clocks are its own."""
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield KKProcess(ours)
    finally:
        ours.close()
        process.join(timeout=10)


def _serve(pipe: Any) -> None:
    from airflow_provider_kk.sandbox.server import SandboxServer

    with SandboxServer(clock=time.time, rate_limit=False) as sandbox:
        steering = _Steering(sandbox)
        pipe.send((sandbox.url, sandbox.token))
        while True:
            try:
                what, args, kwargs = pipe.recv()
            except EOFError:
                return
            try:
                pipe.send((False, getattr(steering, what)(*args, **kwargs)))
            except Exception as error:
                pipe.send((True, repr(error)))


class _Steering:
    """The sandbox's own functions, past HTTP: a trial asks a dozen times and would spend half of its time."""

    def __init__(self, sandbox: Any) -> None:
        self._kk, self._server = sandbox._kk, sandbox._server

    def begin(self, faults: dict[str, list[dict[str, Any]]], **settings: Any) -> None:
        """Forget everything, then arm these faults: by order number, one after the other."""
        self._kk.reset()
        self._kk.settings.change(**settings)
        for number, plan in faults.items():
            for fault in plan:
                self._kk.armory.arm(**fault, number=number)

    def disarm(self) -> None:
        self._kk.armory.disarm()

    def record(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, int]]:
        """What KK has, what it was asked, and which faults struck how often."""
        from airflow_provider_kk.sandbox.app import orders

        self._kk.catch_up()
        posts = [entry for entry in self._kk.log.entries() if entry["method"] == "POST"]
        return orders(self._kk), posts, dict(self._kk.armory.hits)

    def quiet(self) -> None:
        # Connections are accepted in turn: behind this one, none is left that came before.
        socket.create_connection(("127.0.0.1", self._server.port)).close()
        calm = 0
        while calm < 2:
            pause(_CALM_S)
            calm = calm + 1 if self._is_idle() else 0

    def _is_idle(self) -> bool:
        frames = sys._current_frames()
        return all(
            _is_reading(frames.get(thread.ident or 0)) and _unread(connection) == 0
            for connection, thread in list(self._server.connections.items())
        )


def _is_reading(frame: Any) -> bool:
    return frame is not None and frame.f_code.co_name == "readinto"


def _unread(connection: socket.socket) -> int:
    waiting = array.array("i", [0])
    try:
        fcntl.ioctl(connection.fileno(), termios.FIONREAD, waiting)
    except (OSError, ValueError):
        return 1
    return waiting[0]
