"""How much to send now, and when the next job will not do better than the last ones did."""

from __future__ import annotations

from dataclasses import dataclass

from airflow_provider_kk.delivery.model import Record
from airflow_provider_kk.delivery.states import State

_SAME_REFUSALS = 10
_UNKNOWNS_IN_A_ROW = 5
_NOT_SENT_IN_A_ROW = 10
_OPEN_DOUBTS = 20


@dataclass
class Limits:
    """How much of it to do now."""

    max_in_flight: int = 8
    send_until: float | None = None
    """Nothing new is sent after this, epoch seconds of the worker."""
    max_sent: int | None = None


@dataclass
class CircuitBreaker:
    """When the next job will not do better than the last ones did."""

    open_doubts: int = 0
    last_code: int | None = None
    same_refusals: int = 0
    unknowns: int = 0
    not_sent: int = 0

    def note(self, entry: Record) -> str | None:
        """Take note of an outcome; return why to stop, if so."""
        is_same = entry.state is State.REJECTED and entry.code == self.last_code
        self.same_refusals = self.same_refusals + 1 if is_same else int(entry.state is State.REJECTED)
        self.last_code = entry.code if entry.state is State.REJECTED else None
        self.unknowns = self.unknowns + 1 if entry.state is State.IN_DOUBT else 0
        self.not_sent = self.not_sent + 1 if entry.state is State.NOT_SENT else 0
        self.open_doubts += entry.state is State.IN_DOUBT
        return self.reason(entry.message)

    def reason(self, message: str = "") -> str | None:
        """Return why nothing more should be sent, None when it may."""
        if self.same_refusals >= _SAME_REFUSALS:
            return f"KK refused {_SAME_REFUSALS} orders in a row with code {self.last_code}: {message}"
        if self.unknowns >= _UNKNOWNS_IN_A_ROW:
            return f"the outcome of {_UNKNOWNS_IN_A_ROW} orders in a row is unknown: {message}"
        if self.not_sent >= _NOT_SENT_IN_A_ROW:
            return f"{_NOT_SENT_IN_A_ROW} orders in a row could not be sent: {message}"
        if self.open_doubts >= _OPEN_DOUBTS:
            return f"{self.open_doubts} orders of this account are in doubt"
        return None
