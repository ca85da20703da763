"""Read KK's lists leniently: an odd field is left out, and its order and page are kept.

A model's fields are a table: `Annotated[type, ReadFrom(reader, "kkName", "olderName")]`. A value that its
reader cannot parse leaves the field at its default, and its path is kept in `odd_fields`. Field names are
ours, KK's names stand beside them; v1's differ from v2's in places. Every set of statuses is open: an unknown
one is passed on. Times are aware datetimes, money is Decimal.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field


class ResponseModel(BaseModel):
    """The root of everything that KK lists."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    odd_fields: list[str] = Field(default_factory=list, repr=False)
    """Paths (`items[0].quantity`) of what could not be parsed; `(whole)` for what is no JSON object."""

    @classmethod
    def read(cls, data: object) -> Self:
        """Read what can be parsed of `data`, a piece of parsed JSON. Never raises."""
        source: Mapping[Any, Any] = data if isinstance(data, Mapping) else {}
        odd = [] if source is data else ["(whole)"]
        values: dict[str, Any] = {}
        for field, reads in _plan(cls):
            raw = next((source[name] for name in reads.names if source.get(name) not in (None, "")), None)
            if raw is None:
                continue
            try:
                values[field] = reads.reader(raw)
            except (ValueError, ArithmeticError):
                odd.append(field)
                continue
            odd += _odd_below(field, values[field])
        # All defaults are given, since pydantic takes longer to find them than for all the rest.
        whole = {name: make() for name, make in _defaults(cls)} | values | {"odd_fields": odd}
        return cast("Self", cls.model_construct({*values, "odd_fields"}, **whole))


class ReadFrom:
    """Where a field comes from: its reader, and KK's names for it, of which the first with a value counts.

    A reader gets a value that is neither null nor empty text. It raises ValueError when it cannot parse it.
    """

    def __init__(self, reader: Callable[[Any], Any], *names: str) -> None:
        self.reader = reader
        self.names = names


def as_text(value: object) -> str | None:
    """Read text, or the digits of a number: KK lists ids and order numbers as either."""
    if isinstance(value, str):
        # A database takes neither NUL nor half of a surrogate pair.
        return re.sub(r"[\x00\ud800-\udfff]", "\ufffd", value.strip()) or None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("no text")
    number = as_number(value)
    return str(int(number)) if number == number.to_integral_value() else format(number, "f")


def as_status(value: object) -> str | None:
    """Read a status of an open set. KK writes "no status" as the text NULL."""
    status = as_text(value)
    return None if status == "NULL" else status


def as_number(value: object) -> Decimal:
    """Read money or a count, a JSON number or its text, within a sensible range."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ValueError("no number")
    if isinstance(value, str) and ("_" in value or not value.strip().isascii()):
        raise ValueError("no number")  # Decimal("1_5") is 15
    number = value if isinstance(value, Decimal) else Decimal(str(value).strip())
    if (
        not number.is_finite()
        or (number and not -30 < number.adjusted() < 30)
        or len(number.as_tuple().digits) > 60
    ):
        raise ValueError("no sensible number")
    return number


def as_count(value: object) -> int:
    """Read a whole number from 0."""
    number = as_number(value)
    if number < 0 or number != number.to_integral_value():
        raise ValueError("no count")
    return int(number)


def _as_stock(value: object) -> int:
    """Read a count. A negative one, of goods that are oversold, is 0."""
    number = as_number(value)
    return as_count(max(number, Decimal(0)))


def _as_price(value: object) -> Decimal:
    """Read an amount of money from 0."""
    number = as_number(value)
    if number < 0:
        raise ValueError("no price")
    return number


def is_integer(value: object) -> bool:
    """Return whether KK listed this as a JSON integer rather than as text."""
    return not isinstance(value, bool) and isinstance(value, int | float | Decimal)


def as_time(value: object) -> datetime:
    """Read an aware time: ISO text (UTC without a zone), `yyyy-mm-dd HH:MM:SS`, or epoch milliseconds.

    A bare year, as in an old example of KK, is no time.
    """
    text = as_text(value) or ""
    if re.fullmatch(r"[0-9]+", text, re.ASCII):
        return _epoch_time(int(text[:20]))
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def as_rows(model: type[ResponseModel]) -> Callable[[object], list[Any]]:
    """Return a reader of lists of `model`. A single object counts as a list of one."""

    def read(value: object) -> list[Any]:
        rows = [value] if isinstance(value, Mapping) else value
        if not isinstance(rows, list):
            raise ValueError("no list")
        return [model.read(row) for row in rows]

    return read


def _epoch_time(number: int) -> datetime:
    for seconds in (number / 1000, float(number)):
        # 2001 to 2128: in this range, milliseconds and seconds cannot be confused.
        if 1e9 <= seconds < 5e9:
            return datetime.fromtimestamp(seconds, UTC)
    raise ValueError("no time")


def _odd_below(field: str, value: object) -> list[str]:
    if isinstance(value, ResponseModel):
        return [f"{field}.{path}" for path in value.odd_fields]
    if isinstance(value, list):
        return [
            f"{field}[{i}].{path}"
            for i, row in enumerate(value)
            if isinstance(row, ResponseModel)
            for path in row.odd_fields
        ]
    return []


@functools.cache
def _defaults(model: type[ResponseModel]) -> list[tuple[str, Callable[[], Any]]]:
    return [
        (name, functools.partial(copy.copy, field.get_default(call_default_factory=True)))
        for name, field in model.model_fields.items()
    ]


@functools.cache
def _plan(model: type[ResponseModel]) -> list[tuple[str, ReadFrom]]:
    return [
        (name, reads)
        for name, field in model.model_fields.items()
        for reads in field.metadata
        if isinstance(reads, ReadFrom)
    ]


class KKAddress(ResponseModel):
    """The address of an order at KK, unchecked."""

    country: Annotated[str | None, ReadFrom(as_text, "country", "countryCode")] = None
    city: Annotated[str | None, ReadFrom(as_text, "city"), Field(repr=False)] = None
    phone: Annotated[str | None, ReadFrom(as_text, "phone"), Field(repr=False)] = None
    recipient: Annotated[str | None, ReadFrom(as_text, "recipient"), Field(repr=False)] = None
    street1: Annotated[str | None, ReadFrom(as_text, "street1"), Field(repr=False)] = None
    street2: Annotated[str | None, ReadFrom(as_text, "street2"), Field(repr=False)] = None
    province: Annotated[str | None, ReadFrom(as_text, "province"), Field(repr=False)] = None
    zip: Annotated[str | None, ReadFrom(as_text, "zip"), Field(repr=False)] = None
    vat: Annotated[str | None, ReadFrom(as_text, "vat"), Field(repr=False)] = None
    ioss: Annotated[str | None, ReadFrom(as_text, "ioss"), Field(repr=False)] = None


class KKOrderItem(ResponseModel):
    """A line of an order, or of a package, at KK. `total` and `amount` in the order's currency."""

    id: Annotated[str | None, ReadFrom(as_text, "id")] = None
    item_id: Annotated[str | None, ReadFrom(as_text, "itemId")] = None
    sku: Annotated[str | None, ReadFrom(as_text, "skuCode", "sku")] = None
    product_name: Annotated[str | None, ReadFrom(as_text, "productName")] = None
    quantity: Annotated[int | None, ReadFrom(as_count, "productNum", "quantity")] = None
    amount: Annotated[Decimal | None, ReadFrom(as_number, "amount", "purchasePrices")] = None
    total: Annotated[Decimal | None, ReadFrom(as_number, "total", "subtotal")] = None
    option1: Annotated[str | None, ReadFrom(as_text, "option1")] = None
    option2: Annotated[str | None, ReadFrom(as_text, "option2")] = None
    option3: Annotated[str | None, ReadFrom(as_text, "option3")] = None
    image_url: Annotated[str | None, ReadFrom(as_text, "imageUrl")] = None
    stock_status: Annotated[str | None, ReadFrom(as_status, "stockStatus")] = None
    fulfillment_status: Annotated[str | None, ReadFrom(as_status, "fulfillmentStatus")] = None
    refund_status: Annotated[str | None, ReadFrom(as_status, "refundStatus")] = None
    country_code: Annotated[str | None, ReadFrom(as_text, "countryCode")] = None


class TrackingInfo(ResponseModel):
    """One carrier's number for a package."""

    carrier: Annotated[str | None, ReadFrom(as_text, "carrier")] = None
    tracking_code: Annotated[str | None, ReadFrom(as_text, "trackingCode")] = None


class Package(ResponseModel):
    """A parcel of an order. `tracking_infos` has the latest first; `delivery_time` is KK's text."""

    id: Annotated[str | None, ReadFrom(as_text, "id")] = None
    pack_id: Annotated[str | None, ReadFrom(as_text, "packId")] = None
    status: Annotated[str | None, ReadFrom(as_status, "status")] = None
    carrier: Annotated[str | None, ReadFrom(as_text, "carrier")] = None
    carrier_type: Annotated[str | None, ReadFrom(as_text, "carrierType")] = None
    tracking_code: Annotated[str | None, ReadFrom(as_text, "trackingCode")] = None
    tracking_url: Annotated[str | None, ReadFrom(as_text, "logisticsSearchUrl")] = None
    delivery_time: Annotated[str | None, ReadFrom(as_text, "deliveryTime")] = None
    items: Annotated[list[KKOrderItem], ReadFrom(as_rows(KKOrderItem), "items", "orderItems")] = []
    tracking_infos: Annotated[list[TrackingInfo], ReadFrom(as_rows(TrackingInfo), "trackingInfos")] = []


class KKOrder(ResponseModel):
    """One order at KK (page "Query orders", v1 and v2). `id` is empty only when KK's could not be read."""

    id: Annotated[str, ReadFrom(as_text, "id")] = ""
    custom_order_number: Annotated[str | None, ReadFrom(as_text, "customOrderId", "CustomOrderNumber")] = None
    number_is_integer: Annotated[bool, ReadFrom(is_integer, "customOrderId", "CustomOrderNumber")] = False
    remark: Annotated[str | None, ReadFrom(as_text, "remark"), Field(repr=False)] = None
    status: Annotated[str | None, ReadFrom(as_status, "status")] = None
    financial_status: Annotated[str | None, ReadFrom(as_status, "financialStatus")] = None
    fulfillment_status: Annotated[str | None, ReadFrom(as_status, "fulfillmentStatus")] = None
    refund_status: Annotated[str | None, ReadFrom(as_status, "refundStatus")] = None
    purchased_at: Annotated[datetime | None, ReadFrom(as_time, "purchaseDate")] = None
    paid_at: Annotated[datetime | None, ReadFrom(as_time, "payDate", "payAt")] = None
    completed_at: Annotated[datetime | None, ReadFrom(as_time, "completedDate", "completedAt")] = None
    cancelled_at: Annotated[datetime | None, ReadFrom(as_time, "cancelDate")] = None
    refunded_at: Annotated[datetime | None, ReadFrom(as_time, "refundDate")] = None
    created_at: Annotated[datetime | None, ReadFrom(as_time, "createDate")] = None
    updated_at: Annotated[datetime | None, ReadFrom(as_time, "updateDate", "modifyDate")] = None
    shipping_address: Annotated[
        KKAddress | None, ReadFrom(KKAddress.read, "shippingAddress"), Field(repr=False)
    ] = None
    warehouse_id: Annotated[str | None, ReadFrom(as_text, "warehouseId")] = None
    currency_code: Annotated[str | None, ReadFrom(as_text, "currencyCode")] = None
    final_amount: Annotated[Decimal | None, ReadFrom(as_number, "finalAmount")] = None
    subtotal_amount: Annotated[Decimal | None, ReadFrom(as_number, "subTotalAmount", "skusAmount")] = None
    freight_amount: Annotated[Decimal | None, ReadFrom(as_number, "freightAmount")] = None
    coupon_amount: Annotated[Decimal | None, ReadFrom(as_number, "couponAmount")] = None
    promotion_amount: Annotated[Decimal | None, ReadFrom(as_number, "promotionAmount")] = None
    refundable_amount: Annotated[Decimal | None, ReadFrom(as_number, "refundableAmount")] = None
    refunded_amount: Annotated[Decimal | None, ReadFrom(as_number, "refundedAmount")] = None
    items: Annotated[list[KKOrderItem], ReadFrom(as_rows(KKOrderItem), "orderItems")] = []
    fulfillments: Annotated[list[Package], ReadFrom(as_rows(Package), "fulfillments")] = []


class OrderPage(ResponseModel):
    """One page of listed orders. `total` is KK's count over all pages, if it gives one."""

    orders: Annotated[list[KKOrder], ReadFrom(as_rows(KKOrder), "list")] = []
    total: Annotated[int | None, ReadFrom(as_count, "total")] = None
    page_number: Annotated[int | None, ReadFrom(as_count, "pageNumber")] = None
    page_size: Annotated[int | None, ReadFrom(as_count, "pageSize")] = None


class Refund(ResponseModel):
    """One refund of an order; `refund_status`: pending_review, refund_successfully, refund_failed."""

    refund_no: Annotated[str | None, ReadFrom(as_text, "refundNo")] = None
    refund_status: Annotated[str | None, ReadFrom(as_status, "refundStatus")] = None
    kk_order_id: Annotated[str | None, ReadFrom(as_text, "id")] = None
    remark: Annotated[str | None, ReadFrom(as_text, "remark"), Field(repr=False)] = None


class Channel(ResponseModel):
    """One way to ship, with its estimated freight. `delivery_time` is text such as "6~10 Business Days"."""

    channel_code: Annotated[str | None, ReadFrom(as_text, "channelCode")] = None
    channel_name: Annotated[str | None, ReadFrom(as_text, "channelNameEn")] = None
    channel_type: Annotated[str | None, ReadFrom(as_text, "channelType")] = None
    estimated_freight: Annotated[Decimal | None, ReadFrom(as_number, "estimatedFreight")] = None
    currency_code: Annotated[str | None, ReadFrom(as_text, "estimatedFreightCurrency")] = None
    delivery_time: Annotated[str | None, ReadFrom(as_text, "deliveryTime")] = None


class KKSku(ResponseModel):
    """One SKU of a product (page "Products").

    `price` is what the shop pays for one piece, in US dollars, without freight. If KK gives no price, or one
    that cannot be parsed, it is None, never 0. `odd_fields` names a price that cannot be parsed.

    `sku_status` is `0` off the shelf, `1` on the shelf, `2` deleted, `3` discontinued, `4` or `5` clearance,
    `6` out of stock. KK never sells `2` and `3` again. Weights are in grams, lengths in cm.
    """

    sku: Annotated[str | None, ReadFrom(as_text, "sku")] = None
    sku_name: Annotated[str | None, ReadFrom(as_text, "skuName")] = None
    sku_status: Annotated[str | None, ReadFrom(as_status, "skuStatus")] = None
    price: Annotated[Decimal | None, ReadFrom(_as_price, "price")] = None
    cost: Annotated[Decimal | None, ReadFrom(_as_price, "cost")] = None
    stock: Annotated[int | None, ReadFrom(_as_stock, "stock")] = None
    package_weight: Annotated[Decimal | None, ReadFrom(as_number, "packageWeight")] = None
    package_length: Annotated[Decimal | None, ReadFrom(as_number, "packageLength")] = None
    package_width: Annotated[Decimal | None, ReadFrom(as_number, "packageWidth")] = None
    package_height: Annotated[Decimal | None, ReadFrom(as_number, "packageHeight")] = None
    material: Annotated[str | None, ReadFrom(as_text, "material")] = None
    option1: Annotated[str | None, ReadFrom(as_text, "option1")] = None
    option2: Annotated[str | None, ReadFrom(as_text, "option2")] = None
    option3: Annotated[str | None, ReadFrom(as_text, "option3")] = None
    image_url: Annotated[str | None, ReadFrom(as_text, "mainImg")] = None


class KKProduct(ResponseModel):
    """One product with its SKUs (page "Products").

    `price` is the lowest of its SKUs' prices, read like theirs. `spu_status` has the values of `sku_status`.
    """

    spu: Annotated[str | None, ReadFrom(as_text, "spu")] = None
    kk_product_id: Annotated[str | None, ReadFrom(as_text, "kkProductId")] = None
    product_name: Annotated[str | None, ReadFrom(as_text, "productName")] = None
    spu_status: Annotated[str | None, ReadFrom(as_status, "spuStatus")] = None
    price: Annotated[Decimal | None, ReadFrom(_as_price, "price")] = None
    stock: Annotated[int | None, ReadFrom(_as_stock, "stock")] = None
    updated_at: Annotated[datetime | None, ReadFrom(as_time, "updateTime")] = None
    skus: Annotated[list[KKSku], ReadFrom(as_rows(KKSku), "skuDetails")] = []


class WarehouseStock(ResponseModel):
    """How many of a SKU one warehouse has, never below zero."""

    country_code: Annotated[str | None, ReadFrom(as_text, "countryCode")] = None
    quantity: Annotated[int | None, ReadFrom(_as_stock, "qty")] = None
    warehouse_code: Annotated[str | None, ReadFrom(as_text, "warehouseCode")] = None


class Stock(ResponseModel):
    """The stock of one SKU over all warehouses."""

    sku: Annotated[str | None, ReadFrom(as_text, "sku")] = None
    warehouses: Annotated[list[WarehouseStock], ReadFrom(as_rows(WarehouseStock), "warehouseStockList")] = []


class Warehouse(ResponseModel):
    """One of KK's warehouses."""

    warehouse_id: Annotated[str | None, ReadFrom(as_text, "warehouseId")] = None
    warehouse_code: Annotated[str | None, ReadFrom(as_text, "warehouseCode")] = None
    name: Annotated[str | None, ReadFrom(as_text, "warehouseNameExt")] = None
    country_code: Annotated[str | None, ReadFrom(as_text, "countryCode")] = None
    country_name: Annotated[str | None, ReadFrom(as_text, "countryCn")] = None
    status: Annotated[str | None, ReadFrom(as_status, "status")] = None
