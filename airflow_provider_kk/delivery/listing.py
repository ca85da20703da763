"""KK's list, read for some order numbers: what it shows of them, and whether it is to be believed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.model import (
    MAX_KEY,
    Attempt,
    Goods,
    InconclusiveError,
    ListedOrder,
    OrderList,
    Record,
    add_goods,
    plain_number,
)
from airflow_provider_kk.delivery.orders import KKOrderList, listed_order
from airflow_provider_kk.delivery.states import RECONCILE_FIRST, State

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import KKOrder

#: The clocks of the database and of KK may differ, and KK may take its time: listed around each attempt.
_MARGIN_S = 600.0
SENTINELS = 3
"""So many orders that KK is known to have are looked for in its list."""
_SENTINEL_S = 600.0
_FAR_S = 86_400.0
NOT_OUR_STORE = "KK's list does not show the orders that it has created: is the token another store's?"
#: An order in one of these may be at KK under ids that the ledger does not know, a part of a split at least.
_MAY_BE_THERE = RECONCILE_FIRST | {State.HELD, State.CREATED}


def trusted_now(ledger: AnyLedger, order_list: OrderList) -> float:
    """Return the earliest of the database's, the worker's and KK's clock, epoch seconds."""
    worker = ledger.clock.wall()
    return min(ledger.now(), worker, worker + kk_skew_s(order_list))


def kk_skew_s(order_list: OrderList) -> float:
    """Return KK's clock minus the worker's, seconds; 0 while KK has not answered yet."""
    return order_list.clock_skew_s or 0.0


def is_part(goods: Goods, whole: Goods) -> bool:
    """Whether these goods are all in the others."""
    return all(quantity <= whole.get(sku, 0) for sku, quantity in goods.items())


def zero_padded_rows(ledger: AnyLedger, numbers: Sequence[str]) -> dict[str, list[Record]]:
    """Return rows whose numbers have zeros before one of `numbers`, by that: as integers they are one."""
    plain = {key.zfill(width): key for key in numbers for width in range(len(key) + 1, MAX_KEY + 1)}
    found: dict[str, list[Record]] = {}
    for key, entry in ledger.look_up(list(plain)).items():
        found.setdefault(plain[key], []).append(entry)
    return found


def has_sent_one_of(ledger: AnyLedger, listed: Sequence[ListedOrder]) -> bool:
    """Whether one of KK's orders is known to have been created by a POST of ours under its number."""
    known = ledger.storage.sent_ids(sorted({one.key for one in listed if one.key is not None}))
    return any(one.key is not None and one.id in known.get(one.key, ()) for one in listed)


def of_its_generation(ledger: AnyLedger, entry: Record, listed: Sequence[ListedOrder]) -> list[ListedOrder]:
    """Return those of a number's orders at KK that are not of another generation."""
    if entry.generation == 1:
        return list(listed)
    others = [one for one in ledger.generations(entry.key) if one.generation != entry.generation]
    ids = {one for other in others for one in other.kk_order_ids}
    return [one for one in listed if one.id not in ids]


class Listing:
    """What KK's list shows of the orders looked for, and whether it is to be believed."""

    def __init__(
        self, entries: Iterable[Record], sentinel_orders: Iterable[Record], ledger: AnyLedger
    ) -> None:
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
        for one in of_its_generation(self._ledger, entry, list(self._found[entry.key].values())):
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
        return has_sent_one_of(self._ledger, listed)


def list_since(
    ledger: AnyLedger, order_list: OrderList, entries: Sequence[Record], since: float, now: float
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
    ledger: AnyLedger,
    order_list: OrderList,
    keys: Sequence[str],
) -> None:
    # Intents are told by the database's clock, and KK lists by its own, which may have been set since.
    since -= _MARGIN_S + clocks_apart_s(ledger, order_list)
    until = max(ledger.clock.wall() + abs(kk_skew_s(order_list)), _dated_until(ledger, keys))
    listing.shows_sentinel = read_until_known(order_list, [since], until, listing.add)
    if not listing.shows_sentinel:
        # Nothing known was created in that time.
        starts = known_since(sentinel_orders, ledger, order_list, since)
        listing.shows_sentinel = read_until_known(order_list, starts, until, listing.add)


def clocks_apart_s(ledger: AnyLedger, order_list: OrderList) -> float:
    """Return by how much a time of the database may differ from KK's, seconds."""
    return abs(kk_skew_s(order_list)) + abs(ledger.now() - ledger.clock.wall())


def known_since(
    known: Sequence[Record], ledger: AnyLedger, order_list: OrderList, since: float
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
        for listed in order_list.find(start, until):
            known = take(listed) or known
            was_known = known if was_known is None else was_known
        if was_known:
            return True
    return False


def all_at_kk(
    ledger: AnyLedger, order_list: OrderList, entries: Sequence[Record]
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
    ledger: AnyLedger, order_list: OrderList, entries: Sequence[Record]
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


def _sentinel_orders(ledger: AnyLedger, now: float) -> list[Record]:
    """Return orders that KK's list has to show by now."""
    return ledger.storage.newest_sent(before=now - ledger.timing.settle_window_s, limit=SENTINELS)


def _all_begun_at(entries: Sequence[Record], ledger: AnyLedger) -> float:
    attempts = ledger.attempts([entry.key for entry in entries])
    return min(_begun_at(entry, attempts) for entry in entries)


def _dated_until(ledger: AnyLedger, keys: Sequence[str]) -> float:
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


def _may_be_another(sighting: ListedOrder, entry: Record, ledger: AnyLedger) -> bool:
    """Whether an order that KK lists by an integer is, or may be, of another number than this one."""
    if ledger.storage.is_of_another_key(sighting.id, entry.key):
        return True
    plain = plain_number(entry.key)
    alike = [*zero_padded_rows(ledger, [plain]).get(plain, ()), *ledger.look_up([plain]).values()]
    return any(one.key != entry.key and one.state in _MAY_BE_THERE for one in alike)


# Splits of an order ------------------------------------------------------------------------------

#: The splits of one order are made within a moment.
_AROUND_S = 120.0


@dataclass(frozen=True)
class Splits:
    """The orders at KK of one order number."""

    state: State | None
    """What the ledger says of the number; None: it does not know it."""
    kk_order_ids: tuple[str, ...] = ()
    orders: Sequence[KKOrder] = ()
    """Those of them that KK lists."""
    are_all: bool = False
    """Whether these are all that the number has become."""


def splits_of(number: str, ledger: AnyLedger, client: KKClient) -> Splits:
    """What an order number has become, by the ledger, and by KK's list where the ledger may not know all.

    The answer to a create may name one split of several. All are there when their goods add up to what was
    sent, or when KK's list shows no more of them after the settle window. Only reads.

    :raises KKError, InconclusiveError: when KK cannot be read.
    """
    entry = ledger.look_up([number]).get(number)
    if entry is None or entry.state is not State.CREATED:
        return Splits(entry.state if entry else None)
    orders = client.get_orders(entry.kk_order_ids)
    if _add_up(orders, entry) or entry.attempt == 0:
        return Splits(entry.state, entry.kk_order_ids, orders, are_all=True)
    ids = _with_listed(entry, ledger, client)
    if set(ids) != set(entry.kk_order_ids):
        orders = client.get_orders(ids)
    now = ledger.now()
    # A settle time that is further ahead was written by a clock that was ahead, as was `created_at`.
    is_proof = now > (
        _first_intent(entry, ledger) + ledger.settle_delay_s
        if ledger.waits_too_long(entry, client.clock_skew_s or 0.0)
        else entry.settle_after
    )
    return Splits(entry.state, ids, orders, are_all=is_proof or _add_up(orders, entry))


def _add_up(orders: Sequence[KKOrder], entry: Record) -> bool:
    return add_goods([listed_order(order).goods or {} for order in orders]) == entry.content.goods


def _with_listed(entry: Record, ledger: AnyLedger, client: KKClient) -> tuple[str, ...]:
    around_s = _AROUND_S + ledger.timing.timeout_s + abs(client.clock_skew_s or 0.0)
    around_s += abs(ledger.now() - ledger.clock.wall())
    begun_at = _first_intent(entry, ledger)
    found = dict.fromkeys(entry.kk_order_ids)
    for part in KKOrderList(client).find(begun_at - around_s, entry.created_at + around_s):
        own = [one for one in part if one.is_of(entry.key)]
        found.update(dict.fromkeys(one.id for one in of_its_generation(ledger, entry, own)))
    return tuple(found)


def _first_intent(entry: Record, ledger: AnyLedger) -> float:
    """Return the earliest intent of this generation, which the earliest of the clocks has dated."""
    intents = [one.intent_at for one in ledger.attempts([entry.key]) if one.generation == entry.generation]
    return min([entry.created_at, *intents])
