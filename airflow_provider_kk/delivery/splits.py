"""Which orders at KK an order number has become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_kk.delivery.job import add_goods
from airflow_provider_kk.delivery.orders import KKOrderList, listed_order
from airflow_provider_kk.delivery.states import State

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import KKOrder
    from airflow_provider_kk.delivery.ledger import Ledger
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


def splits_of(number: str, ledger: Ledger, client: KKClient) -> Splits:
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
        if ledger.waits_too_long(entry)
        else entry.settle_after
    )
    return Splits(entry.state, ids, orders, are_all=is_proof or _add_up(orders, entry))


def _add_up(orders: Sequence[KKOrder], entry: Record) -> bool:
    return add_goods([listed_order(order).goods or {} for order in orders]) == dict(entry.goods)


def _with_listed(entry: Record, ledger: Ledger, client: KKClient) -> tuple[str, ...]:
    around_s = _AROUND_S + ledger.timing.timeout_s + abs(client.clock_skew_s or 0.0)
    around_s += abs(ledger.now() - ledger.clock.wall())
    begun_at = _begun_at(entry, ledger)
    found = dict.fromkeys(entry.kk_order_ids)
    for part in KKOrderList(client).find(begun_at - around_s, entry.created_at + around_s):
        own = [one for one in part if one.is_of(entry.key)]
        found.update(dict.fromkeys(one.id for one in ledger.of_its_generation(entry, own)))
    return tuple(found)


def _begun_at(entry: Record, ledger: Ledger) -> float:
    """Return the earliest intent of this generation, which the earliest of the clocks has dated."""
    intents = [one.intent_at for one in ledger.attempts([entry.key]) if one.generation == entry.generation]
    return min([entry.created_at, *intents])
