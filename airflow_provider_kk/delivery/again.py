"""What a database has undone is done again: a deadlock, or a lock held for long, is nobody's fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: A database that restarts is waited for, so that an answer of KK is not lost for a blip.
RETRY_PAUSES_S = (0.1, 0.5, 2.0, 5.0, 10.0)


def again(work: Callable[[], T], may_pass: Callable[[Exception], bool]) -> T:
    """Do `work`, again after pauses while what it raises may pass."""
    for pause_s in RETRY_PAUSES_S:
        try:
            return work()
        except Exception as error:
            if not may_pass(error):
                raise
        time.sleep(pause_s)
    return work()
