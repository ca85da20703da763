"""One attempt: claim, intent, POST, record. Also a run's limits and its circuit breaker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from airflow_provider_kk.api.errors import KKError
from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.model import AttemptResult, Claim, Job, Origin, Record
from airflow_provider_kk.delivery.states import Event, State

_SAME_REJECTIONS = 10
_UNKNOWNS_IN_A_ROW = 5
_NOT_SENT_IN_A_ROW = 10
_MOST_DOUBTS = 20


class LeaseTooShortError(Exception):
    """The worker was delayed, and its lease no longer covers a POST."""


class Lease:
    """The time for which this worker owns its claim, by two clocks that fail differently.

    The monotonic clock stops while the machine is suspended. The wall clock can be set.
    """

    def __init__(self, ledger: AnyLedger) -> None:
        self._clock = ledger.clock
        self._lease_s = ledger.timing.lease_s
        self._monotonic, self._wall = self._clock.monotonic(), self._clock.wall()

    def check(self, call_s: float) -> None:
        """Require that a call of `call_s` seconds ends within the lease.

        :raises LeaseTooShortError: the rest of the lease is shorter.
        """
        elapsed = max(self._clock.monotonic() - self._monotonic, self._clock.wall() - self._wall)
        if elapsed + call_s > self._lease_s or self._clock.wall() < self._wall - self._lease_s:
            raise LeaseTooShortError(
                f"{elapsed:.0f} s of the lease of {self._lease_s:.0f} s had passed before the first byte"
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

    Acquire the permit before, so that the wait for it takes nothing from the lease.

    :param expected: the ledger's row, read before any listing that allowed this; None if there was none.
    :param kk_skew_s: returns KK's clock minus the worker's, in seconds, by KK's last response.
    :return: the row afterwards and the error of the call; None if another worker claimed the job.
    """
    lease = Lease(ledger)  # before the intent, so that it ends before the ledger's own
    claim = ledger.claim(job, expected, origin=origin, sync_id=sync_id, kk_skew_s=kk_skew_s())
    if claim is None:
        return None
    answer, error = _post(claim, lease)
    # A clock may have been corrected since the intent.
    return ledger.record(replace(claim, kk_skew_s=kk_skew_s()), answer), error


def _post(claim: Claim, lease: Lease) -> tuple[AttemptResult, KKError | None]:
    job = claim.job
    try:
        ids = job.send(lease.check)
    except KKError as error:
        text = job.redact(error.kk_message or str(error))
        return AttemptResult(Event(error.outcome.value), code=error.code, message=text), error
    except Exception as error:
        # A bug proves nothing about the POST. Its text may hold personal data, so only its class is kept.
        return AttemptResult(Event.UNKNOWN, message=f"unexpected {type(error).__name__}"), None
    return AttemptResult(Event.CREATED, kk_order_ids=tuple(ids)), None


# What limits attempts ------------------------------------------------------------------------------


@dataclass
class Limits:
    """The limits of a run: orders in flight, time, and orders to send."""

    max_in_flight: int = 8
    send_until: float | None = None
    """The time after which nothing new is sent, epoch seconds of the worker."""
    max_sent: int | None = None


@dataclass
class CircuitBreaker:
    """The circuit breaker of a run: it opens when failures repeat, and then nothing more is sent."""

    doubts: int = 0
    last_code: int | None = None
    same_rejections: int = 0
    unknowns: int = 0
    not_sent: int = 0

    def note(self, entry: Record) -> str | None:
        """Count an outcome; return the reason if the breaker is open."""
        is_same = entry.state is State.REJECTED and entry.code == self.last_code
        self.same_rejections = self.same_rejections + 1 if is_same else int(entry.state is State.REJECTED)
        self.last_code = entry.code if entry.state is State.REJECTED else None
        self.unknowns = self.unknowns + 1 if entry.state is State.IN_DOUBT else 0
        self.not_sent = self.not_sent + 1 if entry.state is State.NOT_SENT else 0
        self.doubts += entry.state is State.IN_DOUBT
        return self.reason(entry.message)

    def reason(self, message: str = "") -> str | None:
        """Return the reason why nothing more may be sent; None while the breaker is closed."""
        if self.same_rejections >= _SAME_REJECTIONS:
            return (
                f"KK rejected {_SAME_REJECTIONS} orders in a row with code {self.last_code}: {message}. "
                "Fix the cause. Then, to end the back-off of the rejected orders, run "
                f'`kk ledger retry --code {self.last_code} --why "..."`'
            )
        if self.unknowns >= _UNKNOWNS_IN_A_ROW:
            return f"KK's answers to {_UNKNOWNS_IN_A_ROW} orders in a row are lost or unusable: {message}"
        if self.not_sent >= _NOT_SENT_IN_A_ROW:
            return f"{_NOT_SENT_IN_A_ROW} orders in a row could not be sent: {message}"
        if self.doubts >= _MOST_DOUBTS:
            return f"{self.doubts} orders of this account are in doubt"
        return None
