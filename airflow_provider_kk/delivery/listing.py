"""Read KK's list of orders completely, and decide whether it proves the absence of some order numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.model import (
    MAX_KEY,
    Goods,
    InconclusiveError,
    ListedOrder,
    Record,
    add_goods,
    goods_of,
    plain_number,
)
from airflow_provider_kk.delivery.states import TO_RECONCILE, State

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import KKOrder

_PAGE_SIZE = 250
#: Periods with more rows are read in smaller slices, since rows shift while pages are read.
_MAX_ROWS_AT_ONCE = 1_000
_MAX_PAGES = 2 * _MAX_ROWS_AT_ONCE // 10
_SHORTEST_SLICE_S = 2
#: Values of `status`, v1 and v2.
CANCELLED = ("cancel", "refunded")
#: Seconds that are listed around an attempt, since clocks may differ and KK may be slow.
_MARGIN_S = 600.0
SENTINELS = 3
"""The number of sentinel orders to find in KK's list."""
_SENTINEL_S = 600.0
_FAR_S = 86_400.0
NOT_OUR_STORE = (
    "KK's list lacks the last orders that KK confirmed. Check that the access token belongs to this store"
)
#: An order in one of these may be at KK, in whole or in part, under ids that the ledger does not know.
_MAY_BE_THERE = TO_RECONCILE | {State.HELD, State.CREATED}


class KKOrderList:
    """Lists KK's orders by creation time, completely or not at all.

    Source: KK's page "Query orders". A short page does not prove the end of the list, since a server may cap
    the page size. Rows may shift between pages. There is no filter by the caller's number.
    """

    def __init__(self, client: KKClient) -> None:
        self._client = client

    @property
    def clock_skew_s(self) -> float | None:
        """KK's clock minus this machine's, in seconds, at the last answer."""
        return self._client.clock_skew_s

    def find(self, since: float, until: float) -> Iterator[list[ListedOrder]]:
        """Yield the orders created from `since` to `until` (epoch seconds) in complete slices.

        :raises InconclusiveError: even the shortest slice may be incomplete.
        :raises KKError: KK cannot be read.
        """
        # KK's parameters have whole seconds, and it is not documented whether a period includes its bounds,
        # so neighbouring slices overlap by one second.
        slices = [(int(since) - 1, int(until) + 2)]
        while slices:
            start, end = slices.pop()
            rows = self._read_slice(start, end)
            if rows is not None:
                yield [listed_order(row) for row in rows]
            elif end - start > _SHORTEST_SLICE_S:
                middle = (start + end) // 2
                slices += [(middle, end), (start, middle + 1)]
            else:
                raise InconclusiveError(
                    "KK's list of orders could not be read completely, since its pages contradict each other"
                )

    def _read_slice(self, start: int, end: int) -> list[KKOrder] | None:
        """Return every order of a slice, or None if its pages do not prove to be all."""
        seen: dict[str, KKOrder] = {}
        total = None
        since, until = datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)
        for page_number in range(1, _MAX_PAGES):
            page = self._client.list_orders(
                created_from=since, created_to=until, page_number=page_number, page_size=_PAGE_SIZE
            )
            if page_number > 1 and page.total != total:
                return None  # rows were added or removed meanwhile
            total = page.total
            if total is not None and total > _MAX_ROWS_AT_ONCE and end - start > _SHORTEST_SLICE_S:
                return None
            if not page.orders:
                # An empty page ends a list, but only the rows of a single page cannot have shifted.
                is_whole = page_number <= 2 and total in (None, len(seen))
                return list(seen.values()) if is_whole else None
            if page_number > 1 and total is None:
                return None
            seen.update({order.id: order for order in page.orders})
            if "" in seen:
                raise InconclusiveError("KK's list has orders whose id is missing or cannot be parsed")
            if len(seen) == total:
                return list(seen.values())
        return None


def listed_order(order: KKOrder) -> ListedOrder:
    """Return a listed order without its personal data."""
    address = order.shipping_address
    return ListedOrder(
        id=order.id,
        key=order.custom_order_number,
        key_is_integer=order.number_is_integer,
        goods=goods_of(order.items) or None,
        country=address.country if address else None,
        zip=address.zip if address else None,
        created_at=order.created_at.timestamp() if order.created_at else None,
        is_cancelled=order.status in CANCELLED,
    )


def trusted_now(ledger: AnyLedger, order_list: KKOrderList) -> float:
    """Return the earliest of the database's, the worker's and KK's clock, epoch seconds."""
    worker = ledger.clock.wall()
    return min(ledger.now(), worker, worker + kk_skew_s(order_list))


def kk_skew_s(order_list: KKOrderList) -> float:
    """Return KK's clock minus the worker's, seconds; 0 while KK has not answered yet."""
    return order_list.clock_skew_s or 0.0


def is_part(goods: Goods, whole: Goods) -> bool:
    """Return whether these goods are all in the others."""
    return all(quantity <= whole.get(sku, 0) for sku, quantity in goods.items())


def zero_padded_rows(ledger: AnyLedger, numbers: Sequence[str]) -> dict[str, list[Record]]:
    """Return the rows whose numbers are one of `numbers` with leading zeros, by that number."""
    plain = {key.zfill(width): key for key in numbers for width in range(len(key) + 1, MAX_KEY + 1)}
    found: dict[str, list[Record]] = {}
    for key, entry in ledger.look_up(list(plain)).items():
        found.setdefault(plain[key], []).append(entry)
    return found


def has_sent_one_of(ledger: AnyLedger, listed: Sequence[ListedOrder]) -> bool:
    """Return whether a POST of this ledger created one of these orders under its number."""
    known = ledger.storage.sent_ids(sorted({one.key for one in listed if one.key is not None}))
    return any(one.key is not None and one.id in known.get(one.key, ()) for one in listed)


def of_its_generation(ledger: AnyLedger, entry: Record, listed: Sequence[ListedOrder]) -> list[ListedOrder]:
    """Return the listed orders of a number without those of other generations."""
    if entry.generation == 1:
        return list(listed)
    others = [one for one in ledger.generations(entry.key) if one.generation != entry.generation]
    ids = {one for other in others for one in other.kk_order_ids}
    return [one for one in listed if one.id not in ids]


class Listing:
    """KK's orders of some numbers, and whether its list has a sentinel order.

    :param now: see `trusted_now`.
    """

    def __init__(
        self, entries: Iterable[Record], ledger: AnyLedger, order_list: KKOrderList, now: float
    ) -> None:
        self._ledger, self._order_list = ledger, order_list
        self.sentinel_orders = _sentinel_orders(ledger, now)
        self._sentinel_keys = {one: entry.key for entry in self.sentinel_orders for one in entry.kk_order_ids}
        self._keys: dict[str, list[str]] = {}
        self._found: dict[str, dict[str, ListedOrder]] = {}
        for entry in entries:
            self._found[entry.key] = {}
            for name in {entry.key, plain_number(entry.key)}:
                self._keys.setdefault(name, []).append(entry.key)
        self._unnumbered: dict[str, ListedOrder] = {}
        self.shows_sentinel = False
        """Whether the list had a sentinel order while it was read."""

    def read(self, since: float) -> None:
        """Read KK's list from a time of the database up to now, and further back to a sentinel order.

        :raises InconclusiveError, KKError: KK's list cannot be read completely.
        """
        ledger, order_list = self._ledger, self._order_list
        # Intents have the database's time, and KK lists by its own clock, which may have been set since.
        since -= _MARGIN_S + clocks_apart_s(ledger, order_list)
        until = max(ledger.clock.wall() + abs(kk_skew_s(order_list)), _dated_until(ledger, list(self._found)))
        self.shows_sentinel = read_until_known(order_list, [since], until, self._add)
        if not self.shows_sentinel:
            # The ledger has no sentinel order of that time.
            starts = known_since(self.sentinel_orders, ledger, order_list, since)
            self.shows_sentinel = read_until_known(order_list, starts, until, self._add)

    def _add(self, listed: Sequence[ListedOrder]) -> bool:
        """Add a part of the list; return whether it has a sentinel order."""
        for one in listed:
            if one.key is None:
                self._unnumbered[one.id] = one
                continue
            for key in self._keys.get(plain_number(one.key) if one.key_is_integer else one.key, ()):
                if one.is_of(key):
                    self._found[key][one.id] = one
        # Under its number, since a list with KK's own numbers proves no absence of ours.
        if any(one.is_of(self._sentinel_keys[one.id]) for one in listed if one.id in self._sentinel_keys):
            return True
        return has_sent_one_of(self._ledger, listed)

    def found(self, entry: Record) -> tuple[list[ListedOrder], list[ListedOrder]]:
        """Return KK's orders of this generation, and those that may belong to another number."""
        own: list[ListedOrder] = []
        others: list[ListedOrder] = []
        for one in of_its_generation(self._ledger, entry, list(self._found[entry.key].values())):
            is_another = one.key_is_integer and _may_be_another(one, entry, self._ledger)
            (others if is_another else own).append(one)
        return own, others

    def has_unnumbered(self, goods: Goods, until: float) -> bool:
        """Return whether an order without a readable number, created by then, may be of these goods."""
        return any(
            is_part(one.goods or {}, goods) and (one.created_at or 0.0) <= until
            for one in self._unnumbered.values()
        )


def clocks_apart_s(ledger: AnyLedger, order_list: KKOrderList) -> float:
    """Return the seconds by which the database's clock may differ from KK's."""
    return abs(kk_skew_s(order_list)) + abs(ledger.now() - ledger.clock.wall())


def known_since(
    known: Sequence[Record], ledger: AnyLedger, order_list: KKOrderList, since: float
) -> Iterator[float]:
    """Yield times on KK's clock, epoch seconds, after which it created one of these orders.

    The last time is a day before all others, for clocks that were corrected since.

    :param since: the start of the period of interest; no yielded time is later.
    """
    sinces = []
    for entry in known:
        # A result may have been recorded long after the POST.
        intents = [one.intent_at for one in ledger.attempts([entry.key])]
        created = min([entry.created_at, *intents]) - _SENTINEL_S - clocks_apart_s(ledger, order_list)
        sinces.append(min(since, created))
        yield sinces[-1]
    if sinces:
        yield min(sinces) - _FAR_S


def read_until_known(
    order_list: KKOrderList,
    starts: Iterable[float],
    until: float,
    take: Callable[[list[ListedOrder]], bool],
) -> bool:
    """Read KK's list from each of these times in turn, until one reading has sentinel orders throughout.

    If the first part of a reading has none, KK may have rebuilt its index meanwhile, and the reading proves
    nothing.

    :param take: takes a part of the list, and returns whether it has a sentinel order.
    :return: whether a reading is a proof.
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
    ledger: AnyLedger, order_list: KKOrderList, entries: Sequence[Record]
) -> dict[str, list[ListedOrder]]:
    """Return, by number, all of KK's orders of these generations, by one reading of its list.

    Orders that KK lists by an integer and that may belong to another number are left out.

    :param entries: rows whose settle windows were over when they were read, hence before any listing.
    :raises InconclusiveError, KKError: KK's list cannot be read completely, or has no sentinel order.
    """
    now = trusted_now(ledger, order_list)
    listing = Listing(entries, ledger, order_list, now)
    listing.read(_begun_at(entries, ledger))
    if not listing.shows_sentinel and _sentinel_orders(ledger, now):
        raise InconclusiveError(NOT_OUR_STORE)
    return {entry.key: listing.found(entry)[0] for entry in entries}


def seen_at_kk(
    ledger: AnyLedger, order_list: KKOrderList, entries: Sequence[Record]
) -> tuple[dict[str, list[ListedOrder]], str]:
    """Return, by number, KK's listed orders of these generations, and a doubt whether these are all.

    The doubt is empty if they are all. An incomplete list also counts for the orders in it.

    :param entries: see `all_at_kk`.
    :raises KKError: KK cannot be read.
    """
    listing = Listing(entries, ledger, order_list, trusted_now(ledger, order_list))
    doubt = ""
    try:
        listing.read(_begun_at(entries, ledger))
    except InconclusiveError as error:
        doubt = str(error)
    else:
        if not listing.shows_sentinel:
            doubt = (
                NOT_OUR_STORE
                if listing.sentinel_orders
                else "the ledger has no order that KK's list must have"
            )
    return {entry.key: listing.found(entry)[0] for entry in entries}, doubt


def _sentinel_orders(ledger: AnyLedger, now: float) -> list[Record]:
    """Return the orders that KK's list must have by now."""
    return ledger.storage.newest_sent(before=now - ledger.timing.settle_window_s, limit=SENTINELS)


def _begun_at(entries: Sequence[Record], ledger: AnyLedger) -> float:
    """Return a time on the database's clock before which nothing of these generations was sent."""
    generations = {(entry.key, entry.generation) for entry in entries}
    intents = [
        one.intent_at
        for one in ledger.attempts([entry.key for entry in entries])
        if (one.key, one.generation) in generations
    ]
    # Without attempts, this ledger sent nothing. A restored backup lacks only later attempts.
    return min([*intents, *(entry.created_at or entry.updated_at for entry in entries)])


def _dated_until(ledger: AnyLedger, keys: Sequence[str]) -> float:
    """Return the latest creation time that KK may have given to orders sent under these numbers.

    It is later than now if KK's clock was ahead and was corrected since.
    """
    return max((one.settle_after for one in ledger.attempts(keys)), default=0.0)


def _may_be_another(listed: ListedOrder, entry: Record, ledger: AnyLedger) -> bool:
    """Return whether an order that KK lists by an integer may belong to another number."""
    if ledger.storage.is_of_another_key(listed.id, entry.key):
        return True
    plain = plain_number(entry.key)
    alike = [*zero_padded_rows(ledger, [plain]).get(plain, ()), *ledger.look_up([plain]).values()]
    return any(one.key != entry.key and one.state in _MAY_BE_THERE for one in alike)


# Splits of an order ------------------------------------------------------------------------------

#: KK creates the splits of one order within so many seconds.
_AROUND_S = 120.0


@dataclass(frozen=True)
class Splits:
    """KK's orders of one order number."""

    state: State | None
    """The number's state in the ledger; None if the ledger does not have it."""
    kk_order_ids: tuple[str, ...] = ()
    orders: Sequence[KKOrder] = ()
    """Those of them that KK lists."""
    are_all: bool = False
    """Whether these are all of KK's orders of this number."""


def splits_of(number: str, ledger: AnyLedger, client: KKClient) -> Splits:
    """Return KK's orders of a number, by the ledger, and by KK's list if the ledger may lack some.

    The response to a POST may have one split of several. These are all if their goods add up to the sent
    goods, or if KK's list has no more after the settle window.

    :raises KKError, InconclusiveError: KK cannot be read.
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
    # A clock that was ahead wrote both the settle time and `created_at`.
    is_proof = now > (
        _begun_at([entry], ledger) + ledger.settle_delay_s
        if ledger.waits_too_long(entry, client.clock_skew_s or 0.0)
        else entry.settle_after
    )
    return Splits(entry.state, ids, orders, are_all=is_proof or _add_up(orders, entry))


def _add_up(orders: Sequence[KKOrder], entry: Record) -> bool:
    return add_goods([listed_order(order).goods or {} for order in orders]) == entry.content.goods


def _with_listed(entry: Record, ledger: AnyLedger, client: KKClient) -> tuple[str, ...]:
    around_s = _AROUND_S + ledger.timing.timeout_s + abs(client.clock_skew_s or 0.0)
    around_s += abs(ledger.now() - ledger.clock.wall())
    begun_at = _begun_at([entry], ledger)
    found = dict.fromkeys(entry.kk_order_ids)
    for part in KKOrderList(client).find(begun_at - around_s, entry.created_at + around_s):
        own = [one for one in part if one.is_of(entry.key)]
        found.update(dict.fromkeys(one.id for one in of_its_generation(ledger, entry, own)))
    return tuple(found)
