"""The ledger's rows as Python sees them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from airflow_provider_kk.delivery.job import Content, Job
from airflow_provider_kk.delivery.states import Event, State

#: Longer order numbers cannot be.
MAX_KEY = 40
#: Longer texts of KK are cut.
MAX_MESSAGE = 500


@dataclass(frozen=True)
class Origin:
    """Who sends: a task's try."""

    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    try_number: int = 0


@dataclass(frozen=True)
class Timing:
    """How long things may take, in seconds."""

    timeout_s: float = 30.0
    lease_s: float = 120.0
    settle_window_s: float = 600.0


@dataclass(frozen=True)
class Record:
    """The ledger's row of a key: its newest generation."""

    key: str
    generation: int
    state: State
    kk_order_ids: tuple[str, ...]
    content: Content
    attempt: int
    version: str
    lease_until: float
    settle_after: float
    retry_after: float
    rejections: int
    resends: int
    code: int | None
    message: str
    resolved_by: str
    sync_id: str
    adopted: bool
    created_at: float
    updated_at: float


@dataclass(frozen=True)
class Attempt:
    """The ledger's row of one POST."""

    key: str
    generation: int
    attempt: int
    version: str
    content: Content
    intent_at: float
    settle_after: float
    token_fingerprint: str
    outcome: str
    code: int | None
    message: str
    kk_order_ids: tuple[str, ...]
    recorded_at: float
    dag_id: str
    run_id: str
    task_id: str
    try_number: int


@dataclass(frozen=True)
class Claim:
    """The right to POST one job once."""

    job: Job
    generation: int
    attempt: int
    token: str
    kk_skew_s: float = 0.0
    """KK's clock minus the worker's; 0 while it is not known."""
    entry: Record | None = None
    """The row as the intent has left it; whose answer finds it so has nothing to look up."""


@dataclass(frozen=True)
class AttemptResult:
    """What became of a POST."""

    event: Event
    """One of CREATED, REJECTED, NOT_SENT, UNKNOWN."""
    kk_order_ids: tuple[str, ...] = ()
    code: int | None = None
    message: str = ""


def fingerprint_of_token(token: str) -> str:
    """Return a digest that tells two access tokens apart and gives neither away."""
    return hashlib.sha256(f"kk token\n{token}".encode()).hexdigest()[:16]


BLANK: dict[str, Any] = {
    "kk_order_ids": (),
    "content": Content(),
    "attempt": 0,
    "lease_until": 0.0,
    "settle_after": 0.0,
    "retry_after": 0.0,
    "rejections": 0,
    "resends": 0,
    "code": None,
    "message": "",
    "resolved_by": "",
    "sync_id": "",
    "adopted": False,
    "created_at": 0.0,
}


def created_values(entry: Record, ids: Iterable[str], now: Any) -> dict[str, Any]:
    """Return the values of a row that is created, with these ids beside those that it has."""
    return {
        "state": State.CREATED,
        "kk_order_ids": union(entry.kk_order_ids, ids),
        "created_at": entry.created_at or now,
        "code": None,
        "message": "",
    }


def union(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    """Return both without repeats, in order."""
    return tuple(dict.fromkeys([*first, *second]))
