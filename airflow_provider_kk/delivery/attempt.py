"""One job: claim, intent, POST, record."""

from __future__ import annotations

from airflow_provider_kk.api.errors import KKError, Outcome
from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.model import AttemptResult, Claim, Job, Origin, Record
from airflow_provider_kk.delivery.states import Event


class LeaseTooShortError(Exception):
    """The worker was held up for so long that its lease no longer covers a POST."""


class Lease:
    """How long this worker may rely on its claim, by two clocks that fail differently.

    The monotonic clock stands still while the machine is suspended, the wall clock can be set.
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
    kk_skew_s: float,
) -> tuple[Record, KKError | None] | None:
    """Send one job once and record what became of it.

    The place in KK's bucket is taken before, so that waiting for it does not eat up the lease.

    :param expected: the ledger's row, read before any listing that allowed this; None when there was none.
    :param kk_skew_s: KK's clock minus the worker's.
    :return: the row afterwards and the error of the call; None when somebody else has taken the job.
    """
    lease = Lease(ledger)  # before the intent, so that it ends before the ledger's own
    claim = ledger.claim(job, expected, origin=origin, sync_id=sync_id, kk_skew_s=kk_skew_s)
    if claim is None:
        return None
    answer, error = _post(claim, lease)
    return ledger.record(claim, answer), error


def _post(claim: Claim, lease: Lease) -> tuple[AttemptResult, KKError | None]:
    job = claim.job
    try:
        ids = job.send(lease.check)
    except KKError as error:
        text = job.redact(error.kk_message or str(error))
        return AttemptResult(_EVENTS[error.outcome], code=error.code, message=text), error
    except Exception as error:
        # A bug of ours, or of a library: nothing is proven. Its text may hold anything, so only its name.
        return AttemptResult(Event.UNKNOWN, message=f"unexpected {type(error).__name__}"), None
    return AttemptResult(Event.CREATED, kk_order_ids=tuple(ids)), None


_EVENTS = {
    Outcome.CREATED: Event.CREATED,
    Outcome.REJECTED: Event.REJECTED,
    Outcome.NOT_SENT: Event.NOT_SENT,
    Outcome.UNKNOWN: Event.UNKNOWN,
}
