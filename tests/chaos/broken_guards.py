"""Guards that are switched off: what the crash tests must notice.

python -m tests.chaos.kills --count 300 --patch tests.chaos.broken_guards:no_cap
"""

from __future__ import annotations

from typing import Any


def no_cap() -> None:
    """Let each worker send as if the account had no daily cap."""
    from airflow_provider_kk.delivery.ledger import Ledger

    Ledger._require_below_cap = lambda *_arguments: None  # type: ignore[method-assign]


def cap_without_doubts() -> None:
    """Let an order in doubt give its share of the cap back."""
    from airflow_provider_kk.delivery.sql import ledger_rows

    ledger_rows.NOTHING_BOUGHT = ("", "unknown", "not_sent", "rejected")  # type: ignore[attr-defined]


def no_pause() -> None:
    """Let each permit be one to send, also while the account is paused."""
    from airflow_provider_kk.delivery.sql.bucket import LedgerBucket

    acquire = LedgerBucket.acquire

    def heedless(self: Any, stop: Any = None, *, to_send: bool = False) -> None:
        acquire(self, stop)

    LedgerBucket.acquire = heedless  # type: ignore[method-assign]


def pause_read_once() -> None:
    """Let each worker read only once whether it may send."""
    from airflow_provider_kk.delivery.sql.bucket import LedgerBucket

    acquire = LedgerBucket.acquire

    def reading_once(self: Any, stop: Any = None, *, to_send: bool = False) -> None:
        acquire(self, stop, to_send=to_send and not getattr(self, "_may_send", False))
        self._may_send = to_send or getattr(self, "_may_send", False)

    LedgerBucket.acquire = reading_once  # type: ignore[method-assign]


def no_time_of_outcome() -> None:
    """Store outcomes without their time, which only the ledger's history shows."""
    from airflow_provider_kk.delivery.sql.ledger_rows import SqlTransaction

    answer = SqlTransaction.answer_attempt

    def untimed(self: Any, claim: Any, values: Any) -> bool:
        return answer(self, claim, {**values, "recorded_at": 0.0})

    SqlTransaction.answer_attempt = untimed  # type: ignore[method-assign]
