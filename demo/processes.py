"""Processes that the demo starts: none outlives it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil  # type: ignore[import-untyped]


def exit_on_signals() -> None:
    """Clean up when told to stop, or when the terminal is closed (unless under nohup)."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, _: sys.exit(128 + number))


@contextmanager
def child(
    command: list[str], env: Mapping[str, str], *, grace_s: float = 3.0, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, which ends with the block, and all that it has started with it."""
    given: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
    process = None
    try:
        with _uninterrupted():
            process = subprocess.Popen(
                command, env=dict(env), stdin=subprocess.DEVNULL, text=True, start_new_session=True, **given
            )
        yield process
    finally:
        if process is not None:
            with _uninterrupted():
                _end(process, grace_s)


@contextmanager
def limited(process: subprocess.Popen[str], limit_s: float) -> Iterator[threading.Event]:
    """Kill the process when the block lasts longer; the event tells whether that has happened."""
    is_over = threading.Event()

    def kill() -> None:
        is_over.set()
        _signal_session(process, signal.SIGKILL)

    timer = threading.Timer(limit_s, kill)
    timer.daemon = True
    timer.start()
    try:
        yield is_over
    finally:
        timer.cancel()


def _end(process: subprocess.Popen[str], grace_s: float) -> None:
    """Ask the process and all it has started to end, then make them."""
    until = time.monotonic() + grace_s
    _signal_session(process, signal.SIGTERM)
    # The first to end is often the one that started the others.
    while _session(process) and time.monotonic() < until:
        time.sleep(0.05)
    _signal_session(process, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Put signals off to the end of the block: what is only half started or half ended would be left."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for missed in came:
        signal.raise_signal(missed)


def _signal_session(process: subprocess.Popen[str], number: signal.Signals) -> None:
    for pid in _session(process):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _session(process: subprocess.Popen[str]) -> list[int]:
    """All that runs in the session of the process; Airflow gives its tasks process groups of their own."""
    process.poll()
    found = []
    for pid in psutil.pids():
        with suppress(OSError, psutil.Error):
            if os.getsid(pid) == process.pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
    return found
