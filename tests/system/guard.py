"""Ends what a stack has started as soon as the stack is gone, however it went.

A process of its own, with a pipe from the stack as its stdin: each line is a session's leader or a folder.
The pipe closes when the stack ends, is killed or crashes.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import psutil


def processes_of(sessions: Iterable[int]) -> list[psutil.Process]:
    """All that runs in these sessions: tasks get process groups of their own, orphans other parents."""
    wanted, found = set(sessions), []
    for process in psutil.process_iter():
        with suppress(OSError, psutil.Error):
            if os.getsid(process.pid) in wanted and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def kill_sessions(sessions: Iterable[int]) -> None:
    """Kill all that runs in these sessions, also what is started meanwhile."""
    sessions = list(sessions)
    while left := processes_of(sessions):
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        time.sleep(0.05)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    lines = sys.stdin.read().splitlines()
    kill_sessions(int(line) for line in lines if line.isdecimal())
    for line in lines:
        if not line.isdecimal():
            shutil.rmtree(line, ignore_errors=True)


if __name__ == "__main__":
    main()
