"""Before anything is sent: adopt what KK has and the ledger does not know.

A restored backup, a failover that lost rows, another tool or another environment thus cost no second order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from airflow_provider_kk.delivery.job import InconclusiveError, ListedOrder, OrderList
from airflow_provider_kk.delivery.ledger import Ledger
from airflow_provider_kk.delivery.log import Log, count_orders, some_of
from airflow_provider_kk.delivery.model import Record

#: KK's list runs behind and KK may commit late: so much of the last period is read again.
_OVERLAP_S = 300.0
_LOG_EVERY_S = 10.0
_NAMED = 20
_SENTINELS = 3
_SENTINEL_S = 600.0
_FAR_S = 86_400.0
NOT_OUR_STORE = "KK's list does not show the orders that it has created: is the token another store's?"


def recover(ledger: Ledger, order_list: OrderList, log: Log, *, max_age_s: float = 0.0) -> int:
    """Read KK's orders since the ledger's last stamp and adopt what is new; return how many that are.

    :param max_age_s: do nothing when somebody has done it within so many seconds.
    :raises InconclusiveError, KKError: when KK's list cannot be read completely; then nothing may be sent.
    """
    started = ledger.clock.wall()
    recovered_until = ledger.recovered_until()
    if 0 <= started + (order_list.clock_skew_s or 0.0) - recovered_until < max_age_s:
        return 0
    # A stamp that lies ahead was made by a clock that was wrong.
    since = min(recovered_until, started) - ledger.timing.settle_window_s - _OVERLAP_S
    until = started + (order_list.clock_skew_s or 0.0)
    reading = _Recovery(ledger, log)
    is_proven = read_until_known(order_list, [since], until, (), reading.take)
    # Only the first answer tells how far KK's clock, by which it lists, is ahead of this one.
    kk_started = started + (order_list.clock_skew_s or 0.0)
    if kk_started > until:
        for listed in order_list.find(until, kk_started, ()):
            reading.take(listed)
    if not (is_proven or reading.is_proven_by_more(order_list, since, kk_started)):
        raise InconclusiveError(NOT_OUR_STORE)
    ledger.set_recovered_until(min(kk_started, started, ledger.now()))
    if adopted := reading.adopted:
        log.warning(
            "KK has %s that the ledger did not know; adopted, not sent again: %s",
            count_orders(adopted),
            some_of(reading.adopted_first, adopted),
        )
    return adopted


def clocks_apart_s(ledger: Ledger, order_list: OrderList) -> float:
    """Return by how much a time of the database may differ from KK's, seconds."""
    return abs(order_list.clock_skew_s or 0.0) + abs(ledger.now() - ledger.clock.wall())


def known_since(
    known: Sequence[Record], ledger: Ledger, order_list: OrderList, since: float
) -> Iterator[float]:
    """Yield times, on KK's clock, after which KK should have created one of these orders, epoch seconds.

    The last lies a day before all, for clocks that have been set right since.

    :param since: from when on the list is of interest: none of the times is later.
    """
    sinces = []
    for entry in known:
        # An answer may have been recorded long after it came.
        intents = [one.intent_at for one in ledger.attempts([entry.key])]
        created = min([entry.created_at, *intents]) - _SENTINEL_S - clocks_apart_s(ledger, order_list)
        sinces.append(min(since, created))
        yield sinces[-1]
    if sinces:
        yield min(sinces) - _FAR_S


def read_until_known(
    order_list: OrderList,
    starts: Iterable[float],
    until: float,
    keys: Sequence[str],
    take: Callable[[list[ListedOrder]], bool],
) -> bool:
    """Read KK's list from each of these times in turn, until it is to be believed; return whether it is.

    A list that shows what is known only now may not have shown all before (its index is being rebuilt), so
    only what is read from then on is believed.

    :param take: takes a part of the list, and tells whether it shows an order that is known to be there.
    """
    known = False
    for start in starts:
        was_known = None
        for listed in order_list.find(start, until, keys):
            known = take(listed) or known
            was_known = known if was_known is None else was_known
        if was_known:
            return True
    return False


class _Recovery:
    """KK's list as it is read."""

    def __init__(self, ledger: Ledger, log: Log) -> None:
        self._ledger, self._log = ledger, log
        self._last_log = ledger.clock.monotonic()
        self._read = 0
        self.adopted = 0
        self.adopted_first: list[str] = []
        # What this list has to show, if it is the right store's and not an index that is being rebuilt.
        before = min(ledger.now(), ledger.clock.wall()) - ledger.timing.settle_window_s - _OVERLAP_S
        self._known = ledger.newest_sent(before=before, limit=_SENTINELS)
        self._ids = {one for entry in self._known for one in entry.kk_order_ids}

    def take(self, listed: Sequence[ListedOrder]) -> bool:
        """Adopt what is new, and tell whether what is known is shown, if anything is."""
        adopted = self._ledger.recover(listed)
        self.adopted += len(adopted)
        self.adopted_first += adopted[: _NAMED - len(self.adopted_first)]
        self._read += len(listed)
        if self._ledger.clock.monotonic() - self._last_log > _LOG_EVERY_S:
            self._last_log = self._ledger.clock.monotonic()
            self._log.info(
                "Comparing KK's list with the ledger: %d orders read, %d were not known",
                self._read,
                self.adopted,
            )
        return (
            not self._known
            or any(one.id in self._ids for one in listed)
            or self._ledger.has_sent_one_of(listed)
        )

    def is_proven_by_more(self, order_list: OrderList, since: float, until: float) -> bool:
        """Read all once more, from before orders that KK is known to have."""
        starts = known_since(self._known, self._ledger, order_list, since)
        keys = [entry.key for entry in self._known]
        return read_until_known(order_list, starts, until, keys, self.take)
