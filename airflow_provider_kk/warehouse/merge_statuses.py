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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
from airflow_provider_kk.api.models import KKOrder, Package, TrackingInfo

KEY_WIDTH = 64
"""The widest text in a key, an order number or one of KK's words; a wider one is odd."""
TEXT_WIDTH = 1_000
"""The widest other text; a wider one is odd."""
MONEY_DIGITS, MONEY_SCALE = 20, 6
"""Digits of an amount of money, before and after the point together, and after it."""

T = TypeVar("T")

_MAX_QUANTITY = 10**16
_NEVER = datetime.min.replace(tzinfo=UTC)

# The kinds of a row's fields. What does not fit its kind is odd, and None.
ShortText = str | None
LongText = str | None
Money = Decimal | None
Quantity = int | None
Time = datetime | None


@dataclass(frozen=True)
class OrderRow:
    """An order at KK. `kk_...` words are KK's own as the newest observation has them; times are aware."""

    kk_order_id: str
    custom_order_number: ShortText
    status: FulfilmentStatus
    kk_status: ShortText
    kk_financial_status: ShortText
    kk_fulfillment_status: ShortText
    kk_refund_status: ShortText
    created_at: Time
    paid_at: Time
    completed_at: Time
    cancelled_at: Time
    refunded_at: Time
    updated_at: Time
    warehouse_id: ShortText
    currency_code: ShortText
    final_amount: Money
    subtotal_amount: Money
    freight_amount: Money
    coupon_amount: Money
    promotion_amount: Money
    refundable_amount: Money
    refunded_amount: Money
    odd_fields: LongText
    """Paths of what could not be read or does not fit, such as `items[0].quantity`, with commas between."""


@dataclass(frozen=True)
class LineRow:
    """A line of an order. `line_no` numbers them from 1 by KK's id."""

    kk_order_id: str
    line_no: int
    line_id: ShortText
    item_id: ShortText
    sku: ShortText
    product_name: LongText
    quantity: Quantity
    amount: Money
    total: Money
    option1: LongText
    option2: LongText
    option3: LongText
    stock_status: ShortText
    fulfillment_status: ShortText
    refund_status: ShortText
    country_code: ShortText
    updated_at: Time


@dataclass(frozen=True)
class PackageRow:
    """A parcel. `package_id` is KK's id, else its packId, else the tracking code."""

    kk_order_id: str
    package_id: str
    pack_id: ShortText
    status: PackageStatus | None
    kk_status: ShortText
    carrier: LongText
    carrier_type: LongText
    tracking_code: ShortText
    tracking_url: LongText
    delivery_time: LongText
    tracking_codes: LongText
    """JSON: all of KK's `[carrier, tracking code]`, the latest first."""
    goods: LongText
    """JSON: SKU to quantity."""
    updated_at: Time


@dataclass(frozen=True)
class StatusRows:
    """All rows of one order; packages by their id."""

    order: OrderRow
    lines: tuple[LineRow, ...]
    packages: tuple[PackageRow, ...]


def rows_of(order: KKOrder) -> StatusRows | None:
    """Return the rows of one observation; None when it has no id that can be read, under which to keep it."""
    odd = _Odd(order.odd_fields)
    kk_order_id = odd.keep("ShortText", "id", order.id or None)
    if kk_order_id is None:
        return None
    of_all = {"kk_order_id": kk_order_id, "updated_at": order.updated_at}
    lines = [
        odd.row(
            LineRow,
            line,
            f"items[{index}].",
            **of_all,
            line_no=0,
            line_id=odd.keep("ShortText", f"items[{index}].id", line.id),
        )
        for index, line in enumerate(order.items)
    ]
    # KK may list them in another order next time.
    lines.sort(key=lambda row: (row.line_id or "", _texts(row)))
    packages = [
        row
        for index, package in enumerate(order.fulfillments)
        if (row := _package(package, f"fulfillments[{index}]", odd, of_all))
    ]
    found = odd.row(OrderRow, order, "", **of_all, status=status_of(order), odd_fields=None)
    return StatusRows(
        replace(found, odd_fields=str(odd) or None),
        tuple(replace(line, line_no=number) for number, line in enumerate(lines, start=1)),
        tuple(_joined_packages(packages)),
    )


def merge(first: StatusRows, second: StatusRows) -> StatusRows:
    """Return the join of two of an order: commutative, associative, and idempotent."""
    if first == second:
        return first
    return StatusRows(
        replace(
            max(first.order, second.order, key=_age_of_order),
            status=max(first.order.status, second.order.status, key=lambda one: one.rank),
        ),
        max(first.lines, second.lines, key=_age_of_lines),
        tuple(_joined_packages([*first.packages, *second.packages])),
    )


# Which is newer: the later one, else the one with more details --------------------------------------


def _age_of_order(row: OrderRow) -> tuple[Any, ...]:
    words = (row.kk_status, row.kk_financial_status, row.kk_fulfillment_status, row.kk_refund_status)
    rank = status_in(*words, is_paid=row.paid_at is not None).rank
    is_whole = row.odd_fields is None
    return row.updated_at or _NEVER, rank, _facts_of(row), is_whole, _texts(row), row.odd_fields or ""


def _age_of_lines(rows: tuple[LineRow, ...]) -> tuple[Any, ...]:
    updated_at = (rows[0].updated_at if rows else None) or _NEVER
    return bool(rows), updated_at, sum(map(_facts_of, rows)), [_texts(row) for row in rows]


def _age_of_package(row: PackageRow) -> tuple[Any, ...]:
    known = package_status(row.kk_status)
    rank = -1 if known is None else known.rank
    return row.updated_at or _NEVER, rank, _facts_of(row), _texts(row)


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


def _joined_packages(rows: Sequence[PackageRow]) -> list[PackageRow]:
    joined: dict[str, PackageRow] = {}
    for row in rows:
        known = joined.get(row.package_id, row)
        statuses = [one for one in (known.status, row.status) if one is not None]
        status = max(statuses, key=lambda one: one.rank, default=None)
        joined[row.package_id] = replace(max(known, row, key=_age_of_package), status=status)
    return [joined[key] for key in sorted(joined)]


# One observation -----------------------------------------------------------------------------------


def _is_amount(value: Decimal) -> bool:
    exponent = int(value.as_tuple().exponent)
    return exponent >= -MONEY_SCALE and value.adjusted() < MONEY_DIGITS - MONEY_SCALE


_FITS: dict[str, Callable[[Any], bool]] = {
    "ShortText": lambda value: len(value) <= KEY_WIDTH,
    "LongText": lambda value: len(value) <= TEXT_WIDTH,
    "Money": _is_amount,
    "Quantity": lambda value: value < _MAX_QUANTITY,
    "Time": lambda value: True,
}


class _Odd:
    """Collects what cannot be kept, and takes it out."""

    def __init__(self, paths: Sequence[str]) -> None:
        self.paths = list(paths)

    def keep(self, kind: str, path: str, value: Any) -> Any:
        """Return a value that fits its kind; None for another one."""
        value = value.normalize() if isinstance(value, Decimal) else value
        if value is None or _FITS[kind](value):
            return value
        self.paths.append(path)
        return None

    def row(self, row: type[T], source: object, path: str, **given: Any) -> T:
        """Return a row of one of KK's objects; `given` are the fields that are not simply copied."""
        for field in fields(row):  # type: ignore[arg-type]
            if field.name not in given:
                name = field.name.removeprefix("kk_")
                given[field.name] = self.keep(str(field.type), f"{path}{name}", getattr(source, name))
        return row(**given)

    def __str__(self) -> str:
        return ",".join(self.paths)[:TEXT_WIDTH]


def _package(package: Package, path: str, odd: _Odd, of_all: Mapping[str, Any]) -> PackageRow | None:
    latest = package.tracking_infos[0] if package.tracking_infos else TrackingInfo()
    tracking_code = odd.keep(
        "ShortText", f"{path}.tracking_code", package.tracking_code or latest.tracking_code
    )
    pack_id = odd.keep("ShortText", f"{path}.pack_id", package.pack_id)
    package_id = odd.keep("ShortText", f"{path}.id", package.id)
    if "id" not in package.odd_fields:
        package_id = package_id or pack_id or tracking_code
    if package_id is None:
        # Under another name it would be another package next time.
        odd.paths.append(f"{path} (whole)")
        return None
    codes = [[info.carrier, info.tracking_code] for info in package.tracking_infos]
    return odd.row(
        PackageRow,
        package,
        f"{path}.",
        **of_all,
        package_id=package_id,
        pack_id=pack_id,
        tracking_code=tracking_code,
        status=package_status(package.status),
        carrier=odd.keep("LongText", f"{path}.carrier", package.carrier or latest.carrier),
        tracking_codes=odd.keep("LongText", f"{path}.tracking_infos", json.dumps(codes) if codes else None),
        goods=odd.keep("LongText", f"{path}.items", _goods(package)),
    )


def _goods(package: Package) -> str | None:
    goods: dict[str, int] = {}
    for item in package.items:
        if item.sku is not None and item.quantity is not None:
            goods[item.sku] = goods.get(item.sku, 0) + item.quantity
    return json.dumps(goods, sort_keys=True) if goods else None
