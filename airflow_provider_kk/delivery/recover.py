"""Recover: adopt the orders that KK lists and the ledger does not have, before anything is sent.

This prevents a second order after a restored backup or a failover, and beside another tool or environment.
Orders that a crashed worker left in doubt are in the ledger: `reconcile` handles them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.listing import (
    NOT_OUR_STORE,
    SENTINELS,
    KKOrderList,
    has_sent_one_of,
    is_part,
    kk_skew_s,
    known_since,
    of_its_generation,
    read_until_known,
    zero_padded_rows,
)
from airflow_provider_kk.delivery.log import Log, count_orders, some_of
from airflow_provider_kk.delivery.model import (
    MAX_KEY,
    Content,
    InconclusiveError,
    ListedOrder,
    Record,
    RecordChanges,
    add_goods,
    plain_number,
    union,
    zip_digest,
)
from airflow_provider_kk.delivery.run_queue import QueuedOrder
from airflow_provider_kk.delivery.states import Event, State
from airflow_provider_kk.delivery.storage import KeyTakenError, Transaction

#: Seconds of the last period that are read again, since KK's list is late and KK may commit late.
_OVERLAP_S = 300.0
_LOG_EVERY_S = 10.0
_NAMED = 20
#: The message of an order whose number KK gave as an integer, so that leading zeros may be lost.
FOUND_AS_INTEGER = "found at KK as an integer"


def recover(ledger: AnyLedger, order_list: KKOrderList, log: Log, *, max_age_s: float = 0.0) -> int:
    """Read KK's orders since the ledger's last stamp and adopt the new ones; return their number.

    :param max_age_s: do nothing if a worker recovered within so many seconds.
    :raises InconclusiveError, KKError: KK's list cannot be read completely; then nothing may be sent.
    """
    started = ledger.clock.wall()
    recovered_until = ledger.storage.recovered_until()
    # With SQLite the database's clock is the worker's, so an intent needs KK's clock, which the list has.
    knows_two_clocks = ledger.storage.has_own_clock or order_list.clock_skew_s is not None
    if knows_two_clocks and 0 <= started + kk_skew_s(order_list) - recovered_until < max_age_s:
        return 0
    # A clock that was ahead may have written a later stamp.
    since = min(recovered_until, started) - ledger.timing.settle_window_s - _OVERLAP_S
    until = started + kk_skew_s(order_list)
    reading = _Recovery(ledger, log)
    is_proven = read_until_known(order_list, [since], until, reading.take)
    # KK lists by its own clock, which is known after its first response.
    kk_started = started + kk_skew_s(order_list)
    if kk_started > until:
        for listed in order_list.find(until, kk_started):
            reading.take(listed)
    if not (is_proven or reading.is_proven_by_more(order_list, since, kk_started)):
        raise InconclusiveError(NOT_OUR_STORE)
    ledger.storage.set_recovered_until(min(kk_started, started, ledger.now()))
    if adopted := reading.adopted:
        log.warning(
            "KK has %s that the ledger did not have, adopted and not sent again: %s",
            count_orders(adopted),
            some_of(reading.adopted_first, adopted),
        )
    return adopted


def adopt_unknown(ledger: AnyLedger, listed: Sequence[ListedOrder]) -> list[str]:
    """Adopt KK's orders that the ledger does not have; return the numbers of these orders.

    Skips orders that are in doubt, rejected or held: reconciling or a person decides on those.
    """
    by_key = _by_key(one for one in listed if len(one.key or "") <= MAX_KEY)
    known = ledger.look_up(list(by_key))
    padded = zero_padded_rows(ledger, [key for key, group in by_key.items() if group[0].key_is_integer])
    adopted = []
    for key, group in by_key.items():
        entry = known.get(key)
        if key in padded:
            # KK's integer may lack leading zeros, so adopt it only if it fits a single row.
            if entry is not None or len(padded[key]) > 1:
                continue
            (entry,) = padded[key]
        number = entry.key if entry else key
        if _adopt(ledger, entry, number, group):
            adopted.append(number)
    return adopted


def _by_key(listed: Iterable[ListedOrder]) -> dict[str, list[ListedOrder]]:
    by_key: dict[str, list[ListedOrder]] = {}
    for one in listed:
        if one.key:
            by_key.setdefault(one.key, []).append(one)
    return by_key


def _adopt(ledger: AnyLedger, entry: Record | None, key: str, group: Sequence[ListedOrder]) -> bool:
    if entry is None:
        return ledger.add(key, lambda tx: _found_values(tx, None, key, group))
    news = [one for one in of_its_generation(ledger, entry, group) if one.id not in entry.kk_order_ids]
    if not news or not _is_recoverable(entry):
        return False
    moved = ledger.compare_and_set(entry, Event.FOUND, lambda tx: _found_values(tx, entry, key, news))
    return moved is not None


def _found_values(
    tx: Transaction, entry: Record | None, key: str, news: Sequence[ListedOrder]
) -> RecordChanges:
    before = entry if entry is not None and entry.state is State.CREATED else None
    return {
        "state": State.CREATED,
        "kk_order_ids": union(before.kk_order_ids if before else (), [one.id for one in news]),
        "content": Content(
            goods=add_goods([before.content.goods if before else {}, *(one.goods or {} for one in news)]),
            country=(news[0].country or "")[:2].upper(),
            zip_digest=zip_digest(key, news[0].zip),
        ),
        "message": FOUND_AS_INTEGER if news[0].key_is_integer else "found at KK",
        "adopted": True,
        "created_at": news[0].created_at or tx.now,
    }


def _is_recoverable(entry: Record) -> bool:
    if entry.state is State.CREATED:
        return entry.adopted and not entry.content.fingerprint  # its splits may be listed one by one
    return entry.state in (State.INVALID, State.NOT_SENT)


def found_as_integer(ledger: AnyLedger, item: QueuedOrder) -> Record | None:
    """Return the order that was adopted under this order's number without leading zeros."""
    plain = plain_number(item.key)
    if plain == item.key:
        return None
    entry = ledger.look_up([plain]).get(plain)
    return entry if entry is not None and entry.message == FOUND_AS_INTEGER else None


def rename(ledger: AnyLedger, expected: Record, key: str) -> Record | None:
    """Give an order that KK lists by an integer its own number; None if the row changed."""
    try:
        return ledger.storage.transact(
            lambda tx: tx.change(expected, {"key": key, "version": ledger.new_version()})
        )
    except KeyTakenError:
        return None


class _Recovery:
    """Adopts orders while KK's list is read."""

    def __init__(self, ledger: AnyLedger, log: Log) -> None:
        self._ledger, self._log = ledger, log
        self._last_log = ledger.clock.monotonic()
        self._read = 0
        self.adopted = 0
        self.adopted_first: list[str] = []
        # The right store's list has these, unless KK rebuilds its index.
        before = min(ledger.now(), ledger.clock.wall()) - ledger.timing.settle_window_s - _OVERLAP_S
        self._known = ledger.storage.newest_sent(before=before, limit=SENTINELS)
        self._ids = {one for entry in self._known for one in entry.kk_order_ids}

    def take(self, listed: Sequence[ListedOrder]) -> bool:
        """Adopt new orders; return whether the list has a sentinel order, or none exists."""
        adopted = adopt_unknown(self._ledger, listed)
        self.adopted += len(adopted)
        self.adopted_first += adopted[: _NAMED - len(self.adopted_first)]
        self._read += len(listed)
        if self._ledger.clock.monotonic() - self._last_log > _LOG_EVERY_S:
            self._last_log = self._ledger.clock.monotonic()
            text = "Comparing KK's list with the ledger: %d orders read, %d were not in the ledger"
            self._log.info(text, self._read, self.adopted)
        shows_known = not self._known or any(one.id in self._ids for one in listed)
        return shows_known or has_sent_one_of(self._ledger, listed)

    def is_proven_by_more(self, order_list: KKOrderList, since: float, until: float) -> bool:
        """Read the list once more, from before the sentinel orders."""
        starts = known_since(self._known, self._ledger, order_list, since)
        return read_until_known(order_list, starts, until, self.take)


# Splits of an order --------------------------------------------------------------------------------


@dataclass
class Completion:
    """The orders for which KK has more ids than the ledger had."""

    completed: list[Record] = field(default_factory=list)
    held: list[Record] = field(default_factory=list)


def add_splits(ledger: AnyLedger, listed: Sequence[ListedOrder]) -> Completion:
    """Add the splits of created orders that the response to the POST lacked.

    :param listed: all of KK's orders under each key. If an id of the ledger is missing, or the order was
        resolved manually, its row stays as it is.
    """
    by_key = _by_key(listed)
    completion = Completion()
    for key, entry in ledger.look_up(list(by_key)).items():
        if entry.state is State.CREATED and entry.attempt > 0 and not (entry.resolved_by and entry.adopted):
            _add_splits_of(ledger, entry, by_key[key], completion)
    return completion


def _add_splits_of(
    ledger: AnyLedger, entry: Record, group: Sequence[ListedOrder], completion: Completion
) -> None:
    own = list({one.id: one for one in of_its_generation(ledger, entry, group)}.values())
    known = set(entry.kk_order_ids)
    if known - {one.id for one in own} or any(one.goods is None for one in own):
        return
    if not (is_within := _fits(own, entry)):
        # A cancelled surplus is ignored. A cancelled split that fits is added.
        own = [one for one in own if one.id in known or not one.is_cancelled]
        is_within = _fits(own, entry)
    news = sorted({one.id for one in own} - known)
    if not news:
        return
    if is_within:
        ids = union(entry.kk_order_ids, news)
        moved = ledger.compare_and_set(entry, Event.FOUND, lambda _tx: {"kk_order_ids": ids})
        completion.completed += [moved] if moved else []
    else:
        message = "conflict: KK has this number with more or other goods than were sent"
        moved = ledger.hold(entry, Event.CONFLICT, message, news)
        completion.held += [moved] if moved else []


def _fits(listed: Sequence[ListedOrder], entry: Record) -> bool:
    return is_part(add_goods([one.goods or {} for one in listed]), entry.content.goods)
