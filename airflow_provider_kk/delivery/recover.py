"""Before anything is sent: adopt what KK has and the ledger does not know.

A restored backup, a failover that lost rows, another tool or another environment thus cost no second order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.listing import (
    NOT_OUR_STORE,
    SENTINELS,
    has_sent_one_of,
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
    OrderList,
    Record,
    add_goods,
    plain_number,
    union,
    zip_digest,
)
from airflow_provider_kk.delivery.run_queue import QueuedOrder
from airflow_provider_kk.delivery.states import Event, State
from airflow_provider_kk.delivery.storage import KeyTakenError, Transaction

#: KK's list runs behind and KK may commit late: so much of the last period is read again.
_OVERLAP_S = 300.0
_LOG_EVERY_S = 10.0
_NAMED = 20
#: What the row of an order says whose number KK gave as an integer: zeros before it may be lost.
FOUND_AS_INTEGER = "found at KK as an integer"


def recover(ledger: AnyLedger, order_list: OrderList, log: Log, *, max_age_s: float = 0.0) -> int:
    """Read KK's orders since the ledger's last stamp and adopt what is new; return how many that are.

    :param max_age_s: do nothing when somebody has done it within so many seconds.
    :raises InconclusiveError, KKError: when KK's list cannot be read completely; then nothing may be sent.
    """
    started = ledger.clock.wall()
    recovered_until = ledger.storage.recovered_until()
    if 0 <= started + kk_skew_s(order_list) - recovered_until < max_age_s:
        return 0
    # A stamp that lies ahead was made by a clock that was wrong.
    since = min(recovered_until, started) - ledger.timing.settle_window_s - _OVERLAP_S
    until = started + kk_skew_s(order_list)
    reading = _Recovery(ledger, log)
    is_proven = read_until_known(order_list, [since], until, reading.take)
    # Only the first answer tells how far KK's clock, by which it lists, is ahead of this one.
    kk_started = started + kk_skew_s(order_list)
    if kk_started > until:
        for listed in order_list.find(until, kk_started):
            reading.take(listed)
    if not (is_proven or reading.is_proven_by_more(order_list, since, kk_started)):
        raise InconclusiveError(NOT_OUR_STORE)
    ledger.storage.set_recovered_until(min(kk_started, started, ledger.now()))
    if adopted := reading.adopted:
        log.warning(
            "KK has %s that the ledger did not know; adopted, not sent again: %s",
            count_orders(adopted),
            some_of(reading.adopted_first, adopted),
        )
    return adopted


def adopt_unknown(ledger: AnyLedger, listed: Sequence[ListedOrder]) -> list[str]:
    """Adopt what KK has and the ledger does not know; return the numbers of these orders.

    Leaves alone what is in doubt, rejected or held: settling and humans know more about those.
    """
    by_key: dict[str, list[ListedOrder]] = {}
    for sighting in listed:
        if sighting.key and len(sighting.key) <= MAX_KEY:
            by_key.setdefault(sighting.key, []).append(sighting)
    known = ledger.look_up(list(by_key))
    padded = zero_padded_rows(ledger, [key for key, group in by_key.items() if group[0].key_is_integer])
    adopted = []
    for key, group in by_key.items():
        entry = known.get(key)
        if key in padded:
            # Where only one row can be it, and it is not known to be anywhere, it is.
            if entry is None and len(padded[key]) == 1:
                (only,) = padded[key]
                news = [
                    one for one in of_its_generation(ledger, only, group) if one.id not in only.kk_order_ids
                ]
                if news and _is_recoverable(only) and _recover_one(ledger, only, only.key, news):
                    adopted.append(only.key)
            continue
        news = group if entry is None else of_its_generation(ledger, entry, group)
        if entry is not None:
            news = [one for one in news if one.id not in entry.kk_order_ids]
        if news and (entry is None or _is_recoverable(entry)) and _recover_one(ledger, entry, key, news):
            adopted.append(key)
    return adopted


def _recover_one(ledger: AnyLedger, entry: Record | None, key: str, news: Sequence[ListedOrder]) -> bool:
    if entry is None:
        return ledger.add(key, lambda tx: _found_values(tx, None, key, news))
    return (
        ledger.compare_and_set(entry, Event.FOUND, lambda tx: _found_values(tx, entry, key, news)) is not None
    )


def _found_values(
    tx: Transaction, entry: Record | None, key: str, news: Sequence[ListedOrder]
) -> dict[str, Any]:
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
    """Return the order that healing has found under this job's number without leading zeros."""
    plain = plain_number(item.key or "")
    if plain == item.key:
        return None
    entry = ledger.look_up([plain]).get(plain)
    return entry if entry is not None and entry.message == FOUND_AS_INTEGER else None


def rename(ledger: AnyLedger, expected: Record, key: str) -> Record | None:
    """Give an order that KK lists by an integer the number that it really has; None when it has moved."""
    try:
        values = {"key": key, "version": ledger.new_version()}
        return ledger.storage.transact(lambda tx: tx.change(expected, values))
    except KeyTakenError:
        return None


class _Recovery:
    """KK's list as it is read."""

    def __init__(self, ledger: AnyLedger, log: Log) -> None:
        self._ledger, self._log = ledger, log
        self._last_log = ledger.clock.monotonic()
        self._read = 0
        self.adopted = 0
        self.adopted_first: list[str] = []
        # What this list has to show, if it is the right store's and not an index that is being rebuilt.
        before = min(ledger.now(), ledger.clock.wall()) - ledger.timing.settle_window_s - _OVERLAP_S
        self._known = ledger.storage.newest_sent(before=before, limit=SENTINELS)
        self._ids = {one for entry in self._known for one in entry.kk_order_ids}

    def take(self, listed: Sequence[ListedOrder]) -> bool:
        """Adopt what is new, and tell whether what is known is shown, if anything is."""
        adopted = adopt_unknown(self._ledger, listed)
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
            or has_sent_one_of(self._ledger, listed)
        )

    def is_proven_by_more(self, order_list: OrderList, since: float, until: float) -> bool:
        """Read all once more, from before orders that KK is known to have."""
        starts = known_since(self._known, self._ledger, order_list, since)
        return read_until_known(order_list, starts, until, self.take)


# Splits of an order ------------------------------------------------------------------------------


@dataclass
class Completion:
    """What became of orders of which KK has more ids than the ledger knew."""

    completed: list[Record] = field(default_factory=list)
    held: list[Record] = field(default_factory=list)


def add_splits(ledger: AnyLedger, listed: Sequence[ListedOrder]) -> Completion:
    """Add the splits of created orders that the answer to the POST did not name.

    :param listed: all that is known at KK under each key, the ids that the ledger has included. Where
        one of those is missing, or the order was resolved manually, nothing is done.
    """
    by_key: dict[str, list[ListedOrder]] = {}
    for sighting in listed:
        if sighting.key:
            by_key.setdefault(sighting.key, []).append(sighting)
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
        # A surplus that was cancelled at KK is over; a split that was cancelled fits and is one.
        own = [one for one in own if one.id in known or not one.is_cancelled]
        is_within = _fits(own, entry)
    news = sorted({one.id for one in own} - known)
    if not news:
        return
    ids = union(entry.kk_order_ids, news)
    if is_within:
        moved = ledger.compare_and_set(entry, Event.FOUND, lambda _tx: {"kk_order_ids": ids})
        completion.completed += [moved] if moved else []
    else:
        message = "conflict: KK has this number with more or other goods than were sent"
        moved = ledger.hold(entry, Event.CONFLICT, message, news)
        completion.held += [moved] if moved else []


def _fits(listed: Sequence[ListedOrder], entry: Record) -> bool:
    """Whether these hold no more of anything than was ordered."""
    found = add_goods([one.goods or {} for one in listed])
    return all(quantity <= entry.content.goods.get(sku, 0) for sku, quantity in found.items())
