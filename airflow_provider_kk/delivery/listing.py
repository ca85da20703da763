"""KK's list, read for some order numbers: what it shows of them, and whether it is to be believed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from airflow_provider_kk.delivery.job import Goods, InconclusiveError, ListedOrder, OrderList, plain_number
from airflow_provider_kk.delivery.ledger import Ledger
from airflow_provider_kk.delivery.model import Attempt, Record
from airflow_provider_kk.delivery.recover import NOT_OUR_STORE, clocks_apart_s, known_since, read_until_known
from airflow_provider_kk.delivery.states import RECONCILE_FIRST, State

#: The clocks of the database and of KK may differ, and KK may take its time: listed around each attempt.
_MARGIN_S = 600.0
_SENTINELS = 3
#: An order in one of these may be at KK under ids that the ledger does not know, a part of a split at least.
_MAY_BE_THERE = RECONCILE_FIRST | {State.HELD, State.CREATED}


def trusted_now(ledger: Ledger, order_list: OrderList) -> float:
    """Return the earliest of the database's, the worker's and KK's clock, epoch seconds."""
    worker = ledger.clock.wall()
    ledger.kk_skew_s = order_list.clock_skew_s or 0.0
    return min(ledger.now(), worker, worker + (order_list.clock_skew_s or 0.0))


def is_part(goods: Goods, whole: Goods) -> bool:
    """Whether these goods are all in the others."""
    return all(quantity <= whole.get(sku, 0) for sku, quantity in goods.items())


class Listing:
    """What KK's list shows of the orders looked for, and whether it is to be believed."""

    def __init__(self, entries: Iterable[Record], sentinel_orders: Iterable[Record], ledger: Ledger) -> None:
        self._ledger = ledger
        self._sentinel_keys = {one: entry.key for entry in sentinel_orders for one in entry.kk_order_ids}
        self._keys: dict[str, list[str]] = {}
        self._found: dict[str, dict[str, ListedOrder]] = {}
        for entry in entries:
            self._found[entry.key] = {}
            for name in {entry.key, plain_number(entry.key)}:
                self._keys.setdefault(name, []).append(entry.key)
        self._unnumbered: dict[str, ListedOrder] = {}
        self.shows_sentinel = False
        """Whether it was read when KK showed an order that a POST of ours is known to have created."""

    def add(self, listed: Sequence[ListedOrder]) -> bool:
        """Take a part of the list, and tell whether it shows an order that is known to be there."""
        for one in listed:
            if one.key is None:
                self._unnumbered[one.id] = one
                continue
            for key in self._keys.get(plain_number(one.key) if one.key_is_integer else one.key, ()):
                if one.is_of(key):
                    self._found[key][one.id] = one
        return self._shows_sent_order(listed)

    def found(self, entry: Record) -> tuple[list[ListedOrder], list[ListedOrder]]:
        """Return what KK has of this generation, and what is, or may be, of another number."""
        own: list[ListedOrder] = []
        others: list[ListedOrder] = []
        for one in self._ledger.of_its_generation(entry, list(self._found[entry.key].values())):
            is_another = one.key_is_integer and _may_be_another(one, entry, self._ledger)
            (others if is_another else own).append(one)
        return own, others

    def has_unnumbered(self, goods: Goods, until: float) -> bool:
        """Whether an order whose number cannot be read, created by then, may be the one, or a part of it."""
        return any(
            is_part(one.goods or {}, goods) and (one.created_at or 0.0) <= until
            for one in self._unnumbered.values()
        )

    def _shows_sent_order(self, listed: Sequence[ListedOrder]) -> bool:
        # Under its number, since a list with numbers of KK's own would show none of ours.
        if any(one.is_of(self._sentinel_keys[one.id]) for one in listed if one.id in self._sentinel_keys):
            return True
        return self._ledger.has_sent_one_of(listed)


def list_since(
    ledger: Ledger, order_list: OrderList, entries: Sequence[Record], since: float, now: float
) -> Listing:
    """Read all that KK has from a time of the database up to now, and more when that shows no known order.

    :param now: see `trusted_now`.
    :raises InconclusiveError, KKError: when KK's list cannot be read completely.
    """
    sentinel_orders = _sentinel_orders(ledger, now)
    listing = Listing(entries, sentinel_orders, ledger)
    _read_since(since, listing, sentinel_orders, ledger, order_list, [entry.key for entry in entries])
    return listing


def _read_since(
    since: float,
    listing: Listing,
    sentinel_orders: Sequence[Record],
    ledger: Ledger,
    order_list: OrderList,
    keys: Sequence[str],
) -> None:
    # Intents are told by the database's clock, and KK lists by its own, which may have been set since.
    since -= _MARGIN_S + clocks_apart_s(ledger, order_list)
    until = max(ledger.clock.wall() + abs(order_list.clock_skew_s or 0.0), _dated_until(ledger, keys))
    listing.shows_sentinel = read_until_known(order_list, [since], until, keys, listing.add)
    if not listing.shows_sentinel:
        # Nothing known was created in that time.
        starts = known_since(sentinel_orders, ledger, order_list, since)
        keys = [*keys, *(entry.key for entry in sentinel_orders)]
        listing.shows_sentinel = read_until_known(order_list, starts, until, keys, listing.add)


def all_at_kk(
    ledger: Ledger, order_list: OrderList, entries: Sequence[Record]
) -> dict[str, list[ListedOrder]]:
    """Return, by number, all that KK has by now of these generations, by one reading for all.

    A create's answer may have named only a part of a split. What KK lists by an integer and may be of
    another number is left out.

    :param entries: rows whose settle windows were over when they were read, hence before any listing.
    :raises InconclusiveError, KKError: when KK's list cannot be read completely, or shows none of the orders
        that it is known to have created.
    """
    now = trusted_now(ledger, order_list)
    listing = list_since(ledger, order_list, entries, _all_begun_at(entries, ledger), now)
    if not listing.shows_sentinel and _sentinel_orders(ledger, now):
        raise InconclusiveError(NOT_OUR_STORE)
    return {entry.key: listing.found(entry)[0] for entry in entries}


def seen_at_kk(
    ledger: Ledger, order_list: OrderList, entries: Sequence[Record]
) -> tuple[dict[str, list[ListedOrder]], str]:
    """Return, by number, what KK shows by now of these generations, and why that may not be all ("": it is).

    For who asks whether KK has anything: what is seen counts, however incomplete the list is.

    :param entries: see `all_at_kk`.
    :raises KKError: when KK cannot be read.
    """
    sentinel_orders = _sentinel_orders(ledger, trusted_now(ledger, order_list))
    listing = Listing(entries, sentinel_orders, ledger)
    keys = [entry.key for entry in entries]
    doubt = ""
    try:
        _read_since(_all_begun_at(entries, ledger), listing, sentinel_orders, ledger, order_list, keys)
    except InconclusiveError as error:
        doubt = str(error)
    else:
        if not listing.shows_sentinel:
            doubt = NOT_OUR_STORE if sentinel_orders else "it shows no order that is known to be there"
    return {entry.key: listing.found(entry)[0] for entry in entries}, doubt


def _sentinel_orders(ledger: Ledger, now: float) -> list[Record]:
    """Return orders that KK's list has to show by now."""
    return ledger.newest_sent(before=now - ledger.timing.settle_window_s, limit=_SENTINELS)


def _all_begun_at(entries: Sequence[Record], ledger: Ledger) -> float:
    attempts = ledger.attempts([entry.key for entry in entries])
    return min(_begun_at(entry, attempts) for entry in entries)


def _dated_until(ledger: Ledger, keys: Sequence[str]) -> float:
    """Return the latest time that KK can have given to what was sent under these numbers.

    It is later than now when KK's clock was ahead, and has been set right since.
    """
    return max((one.settle_after for one in ledger.attempts(keys)), default=0.0)


def _begun_at(entry: Record, attempts: Iterable[Attempt]) -> float:
    """Return a time, on the database's clock, before which nothing of this generation was sent."""
    intents = [
        one.intent_at for one in attempts if (one.key, one.generation) == (entry.key, entry.generation)
    ]
    # Nothing was sent by this ledger when there are no attempts; a restored backup has lost only later ones.
    return min([*intents, entry.created_at or entry.updated_at])


def _may_be_another(sighting: ListedOrder, entry: Record, ledger: Ledger) -> bool:
    """Whether an order that KK lists by an integer is, or may be, of another number than this one."""
    if ledger.is_of_another_key(sighting.id, entry.key):
        return True
    plain = plain_number(entry.key)
    alike = [*ledger.zero_padded_rows([plain]).get(plain, ()), *ledger.look_up([plain]).values()]
    return any(one.key != entry.key and one.state in _MAY_BE_THERE for one in alike)
