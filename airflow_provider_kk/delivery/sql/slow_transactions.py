"""What is said while the ledger's database keeps one waiting: a lock is silent, and so is a lost network."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_log = logging.getLogger(__name__)

_CHECK_EVERY_S = 5.0
_WORTH_LOGGING_S = 10.0
_WARN_EVERY_S = 30.0


class SlowTransactions:
    """Watches transactions and logs those that take long, from a thread that lives while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: dict[object, float] = {}
        self._is_watched = False
        self._pause = threading.Event()  # never set

    @contextmanager
    def warn_if_slow(self) -> Iterator[None]:
        """Say so if the block lasts long."""
        key = object()
        with self._lock:
            self._since[key] = time.monotonic()
            if not self._is_watched:
                self._begin_to_watch()
        try:
            yield
        finally:
            del self._since[key]

    def _begin_to_watch(self) -> None:
        # Where no thread can be had, a transaction had better be silent than fail.
        with suppress(RuntimeError):
            threading.Thread(target=self._watch, name="kk-waits", daemon=True).start()
            self._is_watched = True

    def _watch(self) -> None:
        told_at = -_WARN_EVERY_S
        while True:
            # No sleep: tests on a virtual clock would take this thread for the one that does the work.
            self._pause.wait(_CHECK_EVERY_S)
            now = time.monotonic()
            with self._lock:
                if not self._since:
                    self._is_watched = False
                    return
                waited_s = now - min(self._since.copy().values())
            if waited_s >= _WORTH_LOGGING_S and now - told_at >= _WARN_EVERY_S:
                told_at = now
                _log.warning(
                    "Waiting for the ledger's database for %.0f s: it is locked, busy or out of reach",
                    waited_s,
                )
