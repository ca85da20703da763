"""What KK has against what the warehouse asked for, order by order; pure, so that tests can sabotage it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from demo.orders import ShopOrder


@dataclass(frozen=True)
class Seen:
    """What is to be seen of one order number after all runs.

    `sent` counts the create requests that came to KK, `creates` those of them that made orders.
    """

    warehouse: str | None = None
    warehouse_ids: tuple[str, ...] = ()
    ledger: str | None = None
    ledger_ids: tuple[str, ...] = ()
    sent: int = 0
    creates: int = 0
    kk_order_ids: tuple[str, ...] = ()
    goods: Mapping[str, int] = field(default_factory=dict)
    addresses: Sequence[Mapping[str, str | None]] = ()


@dataclass(frozen=True)
class Line:
    """One order number and its verdict: empty when all is as it must be."""

    order: ShopOrder
    seen: Seen
    fault: str


@dataclass(frozen=True)
class Verdict:
    """`faults` is empty when each order is at KK exactly as often as it must be."""

    lines: Sequence[Line]
    faults: Sequence[str]

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.faults


def observe(
    orders: Iterable[ShopOrder],
    warehouse: Mapping[str, tuple[str | None, str | None]],
    ledger: Mapping[str, tuple[str, str]],
    at_kk: Iterable[Mapping[str, Any]],
    requests: Iterable[Mapping[str, Any]],
) -> dict[str, Seen]:
    """Put together what the warehouse, the ledger and KK (its control API's rows) say, by order number."""
    found: dict[str | None, list[Mapping[str, Any]]] = {}
    for row in at_kk:
        found.setdefault(row["number"], []).append(row)
    sent = [request["number"] for request in requests if request["method"] == "POST"]
    rows_of = {order.number: order.order_no for order in reversed(list(orders))}
    # Orders at KK that nobody asked for count, too.
    numbers = dict.fromkeys([*rows_of, *(str(number) for number in found)])
    seen: dict[str, Seen] = {}
    for number in numbers:
        state, ids = warehouse.get(rows_of.get(number, number), (None, None))
        ledger_state, ledger_ids = ledger.get(number, (None, "[]"))
        seen[number] = Seen(
            warehouse=state,
            warehouse_ids=tuple(sorted(ids.split(","))) if ids else (),
            ledger=ledger_state,
            ledger_ids=tuple(sorted(json.loads(ledger_ids))),
            sent=sent.count(number),
            **_at_kk(found.get(number, ())),
        )
    return seen


def judge(
    orders: Iterable[ShopOrder],
    seen: Mapping[str, Seen],
    *,
    failed_runs: Sequence[str] = (),
    sent_again: int = 0,
) -> Verdict:
    """Compare. `failed_runs` says what went wrong with runs; `sent_again` counts the second run's POSTs."""
    asked = {order.number: order for order in reversed(list(orders))}
    lines = [Line(one, seen[number], fault_of(one, seen[number])) for number, one in asked.items()]
    lines.reverse()
    faults = list(failed_runs)
    faults += [f"{line.order.number}: {line.fault}" for line in lines if line.fault]
    faults += [f"{number}: KK has it, but the warehouse does not" for number in seen if number not in asked]
    if sent_again:
        faults.append(f"the second run sent {sent_again} orders")
    return Verdict(lines, faults)


def fault_of(order: ShopOrder, seen: Seen) -> str:
    """What is wrong with one order; empty when nothing is. Shows no name, street or phone."""
    story = order.story
    checks = {
        f"DOUBLED, KK created it {seen.creates} times": seen.creates > 1,
        "LOST, KK does not have it": story.is_created and not seen.creates,
        "KK has it and should not": seen.creates > 0 and not story.is_created,
        f"the warehouse says {seen.warehouse}, not {story.warehouse}": seen.warehouse != story.warehouse,
        f"the ledger says {seen.ledger}, not {story.ledger}": seen.ledger != story.ledger,
        "warehouse, ledger and KK have different ids": len(
            {seen.warehouse_ids, seen.ledger_ids, seen.kk_order_ids}
        )
        > 1,
        "KK has other goods": seen.creates == 1 and seen.goods != order.goods,
        "KK has another address": any(_filled(one) != _filled(order.address) for one in seen.addresses),
    }
    return next((fault for fault, is_so in checks.items() if is_so), "")


def _at_kk(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    goods: dict[str, int] = {}
    for row in rows:
        for sku, quantity in row["goods"].items():
            goods[sku] = goods.get(sku, 0) + quantity
    return {
        "creates": len({row["call"] for row in rows}),
        "kk_order_ids": tuple(sorted(row["id"] for row in rows)),
        "goods": goods,
        "addresses": [row["address"] for row in rows],
    }


def _filled(address: Mapping[str, str | None]) -> dict[str, str]:
    return {name: value for name, value in address.items() if value}
