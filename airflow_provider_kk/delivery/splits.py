"""Which orders at KK an order number has become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_kk.delivery.listing import of_its_generation
from airflow_provider_kk.delivery.model import ListedOrder, add_goods, union
from airflow_provider_kk.delivery.orders import KKOrderList, listed_order
from airflow_provider_kk.delivery.states import Event, State

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import KKOrder
    from airflow_provider_kk.delivery.ledger import AnyLedger
    from airflow_provider_kk.delivery.model import Record

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


@dataclass
class Completion:
    """What became of orders of which KK has more ids than the ledger knew."""

    completed: list[Record] = field(default_factory=list)
    held: list[Record] = field(default_factory=list)


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
        _begun_at(entry, ledger) + ledger.settle_delay_s
        if ledger.waits_too_long(entry, client.clock_skew_s or 0.0)
        else entry.settle_after
    )
    return Splits(entry.state, ids, orders, are_all=is_proof or _add_up(orders, entry))


def _add_up(orders: Sequence[KKOrder], entry: Record) -> bool:
    return add_goods([listed_order(order).goods or {} for order in orders]) == entry.content.goods


def _with_listed(entry: Record, ledger: AnyLedger, client: KKClient) -> tuple[str, ...]:
    around_s = _AROUND_S + ledger.timing.timeout_s + abs(client.clock_skew_s or 0.0)
    around_s += abs(ledger.now() - ledger.clock.wall())
    begun_at = _begun_at(entry, ledger)
    found = dict.fromkeys(entry.kk_order_ids)
    for part in KKOrderList(client).find(begun_at - around_s, entry.created_at + around_s):
        own = [one for one in part if one.is_of(entry.key)]
        found.update(dict.fromkeys(one.id for one in of_its_generation(ledger, entry, own)))
    return tuple(found)


def _begun_at(entry: Record, ledger: AnyLedger) -> float:
    """Return the earliest intent of this generation, which the earliest of the clocks has dated."""
    intents = [one.intent_at for one in ledger.attempts([entry.key]) if one.generation == entry.generation]
    return min([entry.created_at, *intents])


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
