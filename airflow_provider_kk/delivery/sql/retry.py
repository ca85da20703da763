"""What a database has undone is done again: a deadlock, or a server that restarts, is nobody's fault."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from airflow_provider_kk.delivery.sql.driver_errors import number, sqlstate

T = TypeVar("T")

#: A database that restarts is waited for, so that an answer of KK is not lost for a blip.
RETRY_PAUSES_S = (0.1, 0.5, 2.0, 5.0, 10.0)

#: A lock was held for too long, a deadlock; SQL Server's number of a deadlock is one of them, too.
_MYSQLS_UNDONE = (1205, 1213)
#: The standard's word for it, PostgreSQL's deadlock and its lock that was held for too long.
_UNDONE = ("40001", "40P01", "55P03")
#: No socket, no connection, no such host (a name moves while another server takes over); KILL QUERY, and
#: MariaDB's max_statement_time.
_MYSQLS_PASSING = (2002, 2003, 2005, 1317, 1969)
#: Lost connections; full disks and too many sessions; what an operator does: servers tell of it in their
#: own languages.
_PASSING = ("08", "53", "57")
#: --read-only, and InnoDB's own. Its words are not enough, since others quote what stands in a row.
_MYSQLS_READ_ONLY = (1290, 1836)
_READ_ONLY = "25006"


def retry(work: Callable[[], T], is_retryable: Callable[[Exception], bool]) -> T:
    """Do `work`, again after pauses while what it raises is worth it."""
    for pause_s in RETRY_PAUSES_S:
        try:
            return work()
        except Exception as error:
            if not is_retryable(error):
                raise
        time.sleep(pause_s)
    return work()


def is_serialization_failure(error: BaseException) -> bool:
    """Whether the database has undone a transaction for another one's sake: doing it again helps."""
    cause = _drivers(error)
    return number(cause) in _MYSQLS_UNDONE or sqlstate(cause) in _UNDONE


def is_transient_code(error: BaseException) -> bool:
    """Whether a server was away or full, as while it restarts, or somebody has cut a statement short."""
    cause = _drivers(error)
    is_known = number(cause) in _MYSQLS_PASSING or sqlstate(cause).startswith(_PASSING)
    return is_known or takes_no_writes(cause)


def takes_no_writes(error: BaseException) -> bool:
    """Whether the server only reads, as one that a failover has left behind, or not yet promoted."""
    cause = _drivers(error)
    return number(cause) in _MYSQLS_READ_ONLY or sqlstate(cause) == _READ_ONLY


def _drivers(error: BaseException) -> BaseException:
    """Return the driver's own error, which SQLAlchemy wraps."""
    return getattr(error, "orig", None) or error
