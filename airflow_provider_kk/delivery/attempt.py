"""One attempt: claim, intent, POST, record. The rate limit, the limits of a run and its circuit breaker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from airflow_provider_kk.api.errors import KKError, Outcome
from airflow_provider_kk.api.throttle import StopSignal
from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.model import AttemptResult, Claim, Job, Origin, Record
from airflow_provider_kk.delivery.states import Event, State

_SAME_REFUSALS = 10
_UNKNOWNS_IN_A_ROW = 5
_NOT_SENT_IN_A_ROW = 10
_OPEN_DOUBTS = 20


class LeaseTooShortError(Exception):
    """The worker was delayed for so long that its lease no longer covers a POST."""


class Lease:
    """How long this worker owns its claim, by two clocks that fail differently.

    The monotonic clock stops while the machine is suspended; the wall clock can be set.
    """

    def __init__(self, ledger: AnyLedger) -> None:
        self._clock = ledger.clock
        self._lease_s = ledger.timing.lease_s
        self._monotonic, self._wall = self._clock.monotonic(), self._clock.wall()

    def check(self, call_s: float) -> None:
        """Raise unless a call of `call_s` seconds would end within the lease.

        :raises LeaseTooShortError: there is too little left.
        """
        elapsed = max(self._clock.monotonic() - self._monotonic, self._clock.wall() - self._wall)
        if elapsed + call_s > self._lease_s or self._clock.wall() < self._wall - self._lease_s:
            raise LeaseTooShortError(
                f"{elapsed:.0f} s of a lease of {self._lease_s:.0f} s had passed before the first byte"
            )


def attempt(
    job: Job,
    expected: Record | None,
    ledger: AnyLedger,
    *,
    origin: Origin,
    sync_id: str,
    kk_skew_s: Callable[[], float],
) -> tuple[Record, KKError | None] | None:
    """Send one job once and record the result.

    Acquire the permit before, so that the wait for it is no part of the lease.

    :param expected: the ledger's row, read before any listing that allowed this; None when there was none.
    :param kk_skew_s: returns KK's clock minus the worker's, which a response of KK may show anew.
    :return: the row afterwards and the error of the call; None when another worker has claimed the job.
    """
    lease = Lease(ledger)  # before the intent, so that it ends before the ledger's own
    claim = ledger.claim(job, expected, origin=origin, sync_id=sync_id, kk_skew_s=kk_skew_s())
    if claim is None:
        return None
    answer, error = _post(claim, lease)
    # A clock may have been set since the intent.
    return ledger.record(replace(claim, kk_skew_s=kk_skew_s()), answer), error


def _post(claim: Claim, lease: Lease) -> tuple[AttemptResult, KKError | None]:
    job = claim.job
    try:
        ids = job.send(lease.check)
    except KKError as error:
        text = job.redact(error.kk_message or str(error))
        return AttemptResult(_EVENTS[error.outcome], code=error.code, message=text), error
    except Exception as error:
        # A bug proves nothing about the POST. Its text may hold personal data, so only its name is kept.
        return AttemptResult(Event.UNKNOWN, message=f"unexpected {type(error).__name__}"), None
    return AttemptResult(Event.CREATED, kk_order_ids=tuple(ids)), None


_EVENTS = {
    Outcome.CREATED: Event.CREATED,
    Outcome.REJECTED: Event.REJECTED,
    Outcome.NOT_SENT: Event.NOT_SENT,
    Outcome.UNKNOWN: Event.UNKNOWN,
}


# What limits attempts ------------------------------------------------------------------------------


class RateLimit(Protocol):
    """The account's rate limit, as a dispatcher uses it."""

    def acquire(self, stop: StopSignal | None = None, *, to_send: bool = False) -> None:
        """Take a permit for one request, and wait for its moment.

        :param to_send: for an order or a refund, which a person may have paused.
        :raises ThrottleStopped, SendingPausedError: there is no permit.
        """
        ...

    def min_duration_s(self, requests: int) -> float:
        """Return how many seconds so many requests take at least, if nobody else sends."""
        ...

    def release(self, held_s: float) -> None:
        """Return a permit that was acquired `held_s` seconds ago and is not used."""
        ...


@dataclass
class Limits:
    """How much a run may send."""

    max_in_flight: int = 8
    send_until: float | None = None
    """Nothing new is sent after this, epoch seconds of the worker."""
    max_sent: int | None = None


@dataclass
class CircuitBreaker:
    """Opens when the next order would fail as the last ones did."""

    open_doubts: int = 0
    last_code: int | None = None
    same_refusals: int = 0
    unknowns: int = 0
    not_sent: int = 0

    def note(self, entry: Record) -> str | None:
        """Count an outcome; return why to stop, if so."""
        is_same = entry.state is State.REJECTED and entry.code == self.last_code
        self.same_refusals = self.same_refusals + 1 if is_same else int(entry.state is State.REJECTED)
        self.last_code = entry.code if entry.state is State.REJECTED else None
        self.unknowns = self.unknowns + 1 if entry.state is State.IN_DOUBT else 0
        self.not_sent = self.not_sent + 1 if entry.state is State.NOT_SENT else 0
        self.open_doubts += entry.state is State.IN_DOUBT
        return self.reason(entry.message)

    def reason(self, message: str = "") -> str | None:
        """Return why nothing more may be sent; None when the breaker is closed."""
        if self.same_refusals >= _SAME_REFUSALS:
            return f"KK refused {_SAME_REFUSALS} orders in a row with code {self.last_code}: {message}"
        if self.unknowns >= _UNKNOWNS_IN_A_ROW:
            return f"the outcome of {_UNKNOWNS_IN_A_ROW} orders in a row is unknown: {message}"
        if self.not_sent >= _NOT_SENT_IN_A_ROW:
            return f"{_NOT_SENT_IN_A_ROW} orders in a row could not be sent: {message}"
        if self.open_doubts >= _OPEN_DOUBTS:
            return f"{self.open_doubts} orders of this account are in doubt"
        return None
