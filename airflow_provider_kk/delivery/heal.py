"""Before anything is sent: adopt what KK has and the ledger does not know.

A restored backup, a failover that lost rows, another tool or another environment thus cost no second order.
"""

from __future__ import annotations

from airflow_provider_kk.delivery.job import Finder
from airflow_provider_kk.delivery.ledger import Ledger
from airflow_provider_kk.delivery.log import Log

#: KK's list runs behind and KK may commit late: so much of the last period is read again.
_OVERLAP_S = 300.0
_LOG_EVERY_S = 10.0


def heal(ledger: Ledger, finder: Finder, log: Log, *, max_age_s: float = 0.0) -> int:
    """Read KK's orders since the ledger's last stamp and adopt what is new; return how many that are.

    :param max_age_s: do nothing when somebody has done it within so many seconds.
    :raises InconclusiveError, KKError: when KK's list cannot be read completely; then nothing may be sent.
    """
    healed_until = ledger.healed_until()
    started = ledger.clock.wall()
    if 0 <= started + (finder.clock_skew_s or 0.0) - healed_until < max_age_s:
        return 0
    since = healed_until - ledger.terms.settle_window_s - _OVERLAP_S
    until = started + (finder.clock_skew_s or 0.0)
    adopted = _adopt(ledger, finder, since, until, log)
    # Only the first answer tells how far KK's clock, by which it lists, is ahead of this one.
    kk_started = started + (finder.clock_skew_s or 0.0)
    if kk_started > until:
        adopted += _adopt(ledger, finder, until, kk_started, log)
    ledger.set_healed_until(kk_started)
    if adopted:
        log.warning(
            "KK has %d orders that the ledger did not know; they are adopted, not sent again", adopted
        )
    return adopted


def _adopt(ledger: Ledger, finder: Finder, since: float, until: float, log: Log) -> int:
    adopted = read = 0
    last_log = ledger.clock.monotonic()
    for sightings in finder.find(since, until, ()):
        adopted += ledger.heal(sightings)
        read += len(sightings)
        if ledger.clock.monotonic() - last_log > _LOG_EVERY_S:
            last_log = ledger.clock.monotonic()
            log.info("Comparing KK's list with the ledger: %d orders read, %d were not known", read, adopted)
    return adopted
