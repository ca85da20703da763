"""Merge observations of an order, made at any time and in any order, into the same rows. No SQL, no Airflow.

One look at an order is an observation. The rows are the join of all observations made so far, so neither
their order nor their repetition matters:

- `status` is the highest of any observation; it never goes back.
- The other columns of the order come from its newest observation as a whole.
- Its lines come, all of them, from the newest observation that has any.
- Each package comes from the newest observation that has it. A package once seen stays.

The newest is the one with the latest `updated_at`. KK reports it in whole seconds, so two may share it,
and an odd one is missing. Then the one further on its way is newer, else the one with more details, else
either, but always the same.

So the rows converge: any observations that include the newest one give the rows of the newest one alone, if
it has all details of the older ones. KK's responses do, in the normal life of an order. A package or
lines that it leaves out stay as in the newest observation that has them. An observation whose own
`updated_at` cannot be read is older than any that can be dated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar

from airflow_provider_kk.api.fulfilment import (
    FulfilmentStatus,
    PackageStatus,
    package_status,
    status_in,
    status_of,
)
from airflow_provider_kk.api.models import KKOrder, KKOrderItem, Package, TrackingInfo

KEY_WIDTH = 64
"""The widest text in a key, an order number or one of KK's words; a wider one is odd."""
TEXT_WIDTH = 1_000
"""The widest other text; a wider one is odd."""
MONEY_DIGITS, MONEY_SCALE = 20, 6
"""Digits of an amount of money, before and after the point together, and after it."""

T = TypeVar("T")

_MAX_QUANTITY = 10**16
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class OrderRow:
    """An order at KK. `kk_...` words are KK's own as the newest observation has them; times are aware."""

    kk_order_id: str
    custom_order_number: str | None
    status: FulfilmentStatus
    kk_status: str | None
    kk_financial_status: str | None
    kk_fulfillment_status: str | None
    kk_refund_status: str | None
    created_at: datetime | None
    paid_at: datetime | None
    completed_at: datetime | None
    cancelled_at: datetime | None
    refunded_at: datetime | None
    updated_at: datetime | None
    warehouse_id: str | None
    currency_code: str | None
    final_amount: Decimal | None
    subtotal_amount: Decimal | None
    freight_amount: Decimal | None
    coupon_amount: Decimal | None
    promotion_amount: Decimal | None
    refundable_amount: Decimal | None
    refunded_amount: Decimal | None
    odd_fields: str | None
    """Paths of what could not be read or does not fit, such as `items[0].quantity`, with commas between."""


@dataclass(frozen=True)
class LineRow:
    """A line of an order. `line_no` numbers them from 1 by KK's id."""

    kk_order_id: str
    line_no: int
    line_id: str | None
    item_id: str | None
    sku: str | None
    product_name: str | None
    quantity: int | None
    amount: Decimal | None
    total: Decimal | None
    option1: str | None
    option2: str | None
    option3: str | None
    stock_status: str | None
    fulfillment_status: str | None
    refund_status: str | None
    country_code: str | None
    updated_at: datetime | None


@dataclass(frozen=True)
class PackageRow:
    """A parcel. `package_id` is KK's id, else its packId, else the tracking code."""

    kk_order_id: str
    package_id: str
    pack_id: str | None
    status: PackageStatus | None
    kk_status: str | None
    carrier: str | None
    carrier_type: str | None
    tracking_code: str | None
    tracking_url: str | None
    delivery_time: str | None
    tracking_codes: str | None
    """JSON: all of KK's `[carrier, tracking code]`, the latest first."""
    goods: str | None
    """JSON: SKU to quantity."""
    updated_at: datetime | None


@dataclass(frozen=True)
class StatusRows:
    """All rows of one order; packages by their id."""

    order: OrderRow
    lines: tuple[LineRow, ...]
    packages: tuple[PackageRow, ...]


def rows_of(order: KKOrder) -> StatusRows | None:
    """Return the rows of one observation; None when it has no id that can be read, under which to keep it."""
    odd = _Odd(order.odd_fields)
    kk_order_id = odd.key("id", order.id or None)
    if kk_order_id is None:
        return None
    updated_at = order.updated_at
    lines = _lines(order.items, kk_order_id, updated_at, odd)
    packages = [
        row
        for index, package in enumerate(order.fulfillments)
        if (row := _package(package, f"fulfillments[{index}]", kk_order_id, updated_at, odd))
    ]
    return StatusRows(_order(order, kk_order_id, odd), lines, tuple(_joined_packages([], packages)))


def merge(first: StatusRows, second: StatusRows) -> StatusRows:
    """Return the join of two of an order: commutative, associative, and idempotent."""
    if first == second:
        return first
    order = _newer(first.order, second.order, _order_at, _order_detail)
    return StatusRows(
        replace(order, status=max(first.order.status, second.order.status, key=lambda one: one.rank)),
        _newer(first.lines, second.lines, _lines_at, _lines_detail),
        tuple(_joined_packages(first.packages, second.packages)),
    )


def goods_of(lines: Sequence[LineRow]) -> dict[str, int] | None:
    """Return quantities by SKU in upper case; None when a line lacks either."""
    goods: dict[str, int] = {}
    for line in lines:
        if line.sku is None or line.quantity is None:
            return None
        goods[line.sku.upper()] = goods.get(line.sku.upper(), 0) + line.quantity
    return goods or None


# Which is newer ------------------------------------------------------------------------------------


def _newer(first: T, second: T, at: Callable[[T], Any], detail: Callable[[T], Any]) -> T:
    """Return the later one; of two at the same time, the one with more details."""
    is_tie = at(first) == at(second)
    return max(first, second, key=detail if is_tie else at)


def _order_at(row: OrderRow) -> datetime:
    return row.updated_at or _NEVER


def _order_detail(row: OrderRow) -> tuple[Any, ...]:
    words = (row.kk_status, row.kk_financial_status, row.kk_fulfillment_status, row.kk_refund_status)
    rank = status_in(*words, is_paid=row.paid_at is not None).rank
    return rank, _facts_of(row), row.odd_fields is None, _texts(row), row.odd_fields or ""


def _lines_at(rows: tuple[LineRow, ...]) -> tuple[bool, datetime]:
    return bool(rows), (rows[0].updated_at if rows else None) or _NEVER


def _lines_detail(rows: tuple[LineRow, ...]) -> tuple[Any, ...]:
    return sum(map(_facts_of, rows)), [_texts(row) for row in rows]


def _package_at(row: PackageRow) -> datetime:
    return row.updated_at or _NEVER


def _package_detail(row: PackageRow) -> tuple[Any, ...]:
    known = package_status(row.kk_status)
    return -1 if known is None else known.rank, _facts_of(row), _texts(row)


def _facts_of(row: object) -> int:
    return sum(value is not None for value in _observed(row))


def _texts(row: object) -> list[str]:
    return [_text(value) for value in _observed(row)]


def _observed(row: object) -> list[object]:
    return [value for name, value in vars(row).items() if name not in ("status", "odd_fields")]


def _text(value: object) -> str:
    """Return the same text for the same value, however a database hands it back."""
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    return "" if value is None else str(value)


def _joined_packages(first: Sequence[PackageRow], second: Sequence[PackageRow]) -> list[PackageRow]:
    joined: dict[str, PackageRow] = {}
    for row in [*first, *second]:
        known = joined.get(row.package_id)
        joined[row.package_id] = row if known is None else _joined_package(known, row)
    return [joined[key] for key in sorted(joined)]


def _joined_package(first: PackageRow, second: PackageRow) -> PackageRow:
    statuses = [one for one in (first.status, second.status) if one is not None]
    status = max(statuses, key=lambda one: one.rank, default=None)
    return replace(_newer(first, second, _package_at, _package_detail), status=status)


# One observation -----------------------------------------------------------------------------------


class _Odd:
    """Collects what cannot be kept, and takes it out."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = list(paths)

    def key(self, path: str, value: str | None) -> str | None:
        return self._fitting(path, value, value is None or len(value) <= KEY_WIDTH)

    def text(self, path: str, value: str | None) -> str | None:
        return self._fitting(path, value, value is None or len(value) <= TEXT_WIDTH)

    def money(self, path: str, value: Decimal | None) -> Decimal | None:
        if value is None:
            return None
        value = value.normalize()
        exponent = int(value.as_tuple().exponent)
        fits = exponent >= -MONEY_SCALE and value.adjusted() < MONEY_DIGITS - MONEY_SCALE
        return self._fitting(path, value, fits)

    def quantity(self, path: str, value: int | None) -> int | None:
        return self._fitting(path, value, value is None or value < _MAX_QUANTITY)

    def _fitting(self, path: str, value: T, fits: bool) -> T | None:
        if not fits:
            self.paths.append(path)
        return value if fits else None

    def __str__(self) -> str:
        return ",".join(self.paths)[:TEXT_WIDTH]


def _order(order: KKOrder, kk_order_id: str, odd: _Odd) -> OrderRow:
    row = OrderRow(
        kk_order_id=kk_order_id,
        custom_order_number=odd.key("custom_order_number", order.custom_order_number),
        status=status_of(order),
        kk_status=odd.key("status", order.status),
        kk_financial_status=odd.key("financial_status", order.financial_status),
        kk_fulfillment_status=odd.key("fulfillment_status", order.fulfillment_status),
        kk_refund_status=odd.key("refund_status", order.refund_status),
        created_at=order.created_at,
        paid_at=order.paid_at,
        completed_at=order.completed_at,
        cancelled_at=order.cancelled_at,
        refunded_at=order.refunded_at,
        updated_at=order.updated_at,
        warehouse_id=odd.key("warehouse_id", order.warehouse_id),
        currency_code=odd.key("currency_code", order.currency_code),
        final_amount=odd.money("final_amount", order.final_amount),
        subtotal_amount=odd.money("subtotal_amount", order.subtotal_amount),
        freight_amount=odd.money("freight_amount", order.freight_amount),
        coupon_amount=odd.money("coupon_amount", order.coupon_amount),
        promotion_amount=odd.money("promotion_amount", order.promotion_amount),
        refundable_amount=odd.money("refundable_amount", order.refundable_amount),
        refunded_amount=odd.money("refunded_amount", order.refunded_amount),
        odd_fields=None,
    )
    return replace(row, odd_fields=str(odd) or None)


def _lines(
    items: Sequence[KKOrderItem], kk_order_id: str, updated_at: datetime | None, odd: _Odd
) -> tuple[LineRow, ...]:
    rows = [_line(item, f"items[{index}]", kk_order_id, updated_at, odd) for index, item in enumerate(items)]
    # KK may list them in another order next time.
    rows.sort(key=lambda row: (row.line_id or "", _texts(row)))
    return tuple(replace(row, line_no=number) for number, row in enumerate(rows, start=1))


def _line(item: KKOrderItem, path: str, kk_order_id: str, updated_at: datetime | None, odd: _Odd) -> LineRow:
    return LineRow(
        kk_order_id=kk_order_id,
        line_no=0,
        line_id=odd.key(f"{path}.id", item.id),
        item_id=odd.key(f"{path}.item_id", item.item_id),
        sku=odd.key(f"{path}.sku", item.sku),
        product_name=odd.text(f"{path}.product_name", item.product_name),
        quantity=odd.quantity(f"{path}.quantity", item.quantity),
        amount=odd.money(f"{path}.amount", item.amount),
        total=odd.money(f"{path}.total", item.total),
        option1=odd.text(f"{path}.option1", item.option1),
        option2=odd.text(f"{path}.option2", item.option2),
        option3=odd.text(f"{path}.option3", item.option3),
        stock_status=odd.key(f"{path}.stock_status", item.stock_status),
        fulfillment_status=odd.key(f"{path}.fulfillment_status", item.fulfillment_status),
        refund_status=odd.key(f"{path}.refund_status", item.refund_status),
        country_code=odd.key(f"{path}.country_code", item.country_code),
        updated_at=updated_at,
    )


def _package(
    package: Package, path: str, kk_order_id: str, updated_at: datetime | None, odd: _Odd
) -> PackageRow | None:
    latest = package.tracking_infos[0] if package.tracking_infos else TrackingInfo()
    tracking_code = odd.key(f"{path}.tracking_code", package.tracking_code or latest.tracking_code)
    pack_id = odd.key(f"{path}.pack_id", package.pack_id)
    package_id = odd.key(f"{path}.id", package.id)
    if "id" not in package.odd_fields:
        package_id = package_id or pack_id or tracking_code
    if package_id is None:
        # Under another name it would be another package next time.
        odd.paths.append(f"{path} (whole)")
        return None
    return PackageRow(
        kk_order_id=kk_order_id,
        package_id=package_id,
        pack_id=pack_id,
        status=package_status(package.status),
        kk_status=odd.key(f"{path}.status", package.status),
        carrier=odd.text(f"{path}.carrier", package.carrier or latest.carrier),
        carrier_type=odd.text(f"{path}.carrier_type", package.carrier_type),
        tracking_code=tracking_code,
        tracking_url=odd.text(f"{path}.tracking_url", package.tracking_url),
        delivery_time=odd.text(f"{path}.delivery_time", package.delivery_time),
        tracking_codes=odd.text(f"{path}.tracking_infos", _tracking_codes(package)),
        goods=odd.text(f"{path}.items", _goods(package)),
        updated_at=updated_at,
    )


def _tracking_codes(package: Package) -> str | None:
    codes = [[info.carrier, info.tracking_code] for info in package.tracking_infos]
    return json.dumps(codes) if codes else None


def _goods(package: Package) -> str | None:
    goods: dict[str, int] = {}
    for item in package.items:
        if item.sku is not None and item.quantity is not None:
            goods[item.sku] = goods.get(item.sku, 0) + item.quantity
    return json.dumps(goods, sort_keys=True) if goods else None
