"""Before anything is sent: adopt what KK has and the ledger does not know.

A restored backup, a failover that lost rows, another tool or another environment thus cost no second order.
"""

from __future__ import annotations

from airflow_provider_kk.delivery.job import Finder
from airflow_provider_kk.delivery.ledger import Ledger
from airflow_provider_kk.delivery.log import Log

#: KK's list runs behind and KK may commit late: so much of the last period is read again.
_OVERLAP_S = 300.0


def heal(ledger: Ledger, finder: Finder, log: Log, *, max_age_s: float = 0.0) -> int:
    """Read KK's orders since the ledger's last stamp and adopt what is new; return how many that are.

    :param max_age_s: do nothing when somebody has done it within so many seconds.
    :raises InconclusiveError, KKError: when KK's list cannot be read completely; then nothing may be sent.
    """
    healed_until = ledger.healed_until()
    now = ledger.clock.wall() + (finder.clock_skew_s or 0.0)
    if 0 <= now - healed_until < max_age_s:
        return 0
    since = healed_until - ledger.terms.settle_window_s - _OVERLAP_S
    adopted = read = 0
    last_log = ledger.clock.monotonic()
    for sightings in finder.find(since, now, ()):
        adopted += ledger.heal(sightings)
        read += len(sightings)
        if ledger.clock.monotonic() - last_log > 10:
            last_log = ledger.clock.monotonic()
            log.info("Comparing KK's list with the ledger: %d orders read, %d were not known", read, adopted)
    ledger.set_healed_until(now)
    if adopted:
        log.warning(
            "KK has %d orders that the ledger did not know; they are adopted, not sent again", adopted
        )
    return adopted
