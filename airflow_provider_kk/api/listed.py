"""What KK lists: orders with their lines and packages, refunds, freight offers, stock. Read leniently.

Field names are ours, KK's names stand beside them; v1's differ from v2's in places. Every set of statuses is
open: an unknown word is passed on. Times are aware datetimes, money is Decimal.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from airflow_provider_kk.api.reading import (
    Listed,
    Reads,
    as_count,
    as_number,
    as_rows,
    as_status,
    as_text,
    as_time,
    is_integer,
)


class KKAddress(Listed):
    """The address of an order at KK, as text as it comes."""

    country: Annotated[str | None, Reads(as_text, "country", "countryCode")] = None
    city: Annotated[str | None, Reads(as_text, "city"), Field(repr=False)] = None
    phone: Annotated[str | None, Reads(as_text, "phone"), Field(repr=False)] = None
    recipient: Annotated[str | None, Reads(as_text, "recipient"), Field(repr=False)] = None
    street1: Annotated[str | None, Reads(as_text, "street1"), Field(repr=False)] = None
    street2: Annotated[str | None, Reads(as_text, "street2"), Field(repr=False)] = None
    province: Annotated[str | None, Reads(as_text, "province"), Field(repr=False)] = None
    zip: Annotated[str | None, Reads(as_text, "zip"), Field(repr=False)] = None
    vat: Annotated[str | None, Reads(as_text, "vat"), Field(repr=False)] = None
    ioss: Annotated[str | None, Reads(as_text, "ioss"), Field(repr=False)] = None


class KKOrderItem(Listed):
    """A line of an order, or of a package, at KK. `total` and `amount` in the order's currency."""

    id: Annotated[str | None, Reads(as_text, "id")] = None
    item_id: Annotated[str | None, Reads(as_text, "itemId")] = None
    sku: Annotated[str | None, Reads(as_text, "skuCode", "sku")] = None
    product_name: Annotated[str | None, Reads(as_text, "productName")] = None
    quantity: Annotated[int | None, Reads(as_count, "productNum", "quantity")] = None
    amount: Annotated[Decimal | None, Reads(as_number, "amount", "purchasePrices")] = None
    total: Annotated[Decimal | None, Reads(as_number, "total", "subtotal")] = None
    option1: Annotated[str | None, Reads(as_text, "option1")] = None
    option2: Annotated[str | None, Reads(as_text, "option2")] = None
    option3: Annotated[str | None, Reads(as_text, "option3")] = None
    image_url: Annotated[str | None, Reads(as_text, "imageUrl")] = None
    stock_status: Annotated[str | None, Reads(as_status, "stockStatus")] = None
    fulfillment_status: Annotated[str | None, Reads(as_status, "fulfillmentStatus")] = None
    refund_status: Annotated[str | None, Reads(as_status, "refundStatus")] = None
    country_code: Annotated[str | None, Reads(as_text, "countryCode")] = None


class TrackingInfo(Listed):
    """One carrier's number for a package."""

    carrier: Annotated[str | None, Reads(as_text, "carrier")] = None
    tracking_code: Annotated[str | None, Reads(as_text, "trackingCode")] = None


class Package(Listed):
    """A parcel of an order. `tracking_infos` has the latest first; `delivery_time` is KK's text."""

    id: Annotated[str | None, Reads(as_text, "id")] = None
    pack_id: Annotated[str | None, Reads(as_text, "packId")] = None
    status: Annotated[str | None, Reads(as_status, "status")] = None
    carrier: Annotated[str | None, Reads(as_text, "carrier")] = None
    carrier_type: Annotated[str | None, Reads(as_text, "carrierType")] = None
    tracking_code: Annotated[str | None, Reads(as_text, "trackingCode")] = None
    tracking_url: Annotated[str | None, Reads(as_text, "logisticsSearchUrl")] = None
    delivery_time: Annotated[str | None, Reads(as_text, "deliveryTime")] = None
    items: Annotated[list[KKOrderItem], Reads(as_rows(KKOrderItem), "items", "orderItems")] = Field(
        default_factory=list
    )
    tracking_infos: Annotated[list[TrackingInfo], Reads(as_rows(TrackingInfo), "trackingInfos")] = Field(
        default_factory=list
    )


class KKOrder(Listed):
    """One order at KK (page "Query orders", v1 and v2). `id` is empty only when KK's could not be read."""

    id: Annotated[str, Reads(as_text, "id")] = ""
    custom_order_number: Annotated[str | None, Reads(as_text, "customOrderId", "CustomOrderNumber")] = None
    number_is_integer: Annotated[bool, Reads(is_integer, "customOrderId", "CustomOrderNumber")] = False
    remark: Annotated[str | None, Reads(as_text, "remark"), Field(repr=False)] = None
    status: Annotated[str | None, Reads(as_status, "status")] = None
    financial_status: Annotated[str | None, Reads(as_status, "financialStatus")] = None
    fulfillment_status: Annotated[str | None, Reads(as_status, "fulfillmentStatus")] = None
    refund_status: Annotated[str | None, Reads(as_status, "refundStatus")] = None
    purchased_at: Annotated[datetime | None, Reads(as_time, "purchaseDate")] = None
    paid_at: Annotated[datetime | None, Reads(as_time, "payDate", "payAt")] = None
    completed_at: Annotated[datetime | None, Reads(as_time, "completedDate", "completedAt")] = None
    cancelled_at: Annotated[datetime | None, Reads(as_time, "cancelDate")] = None
    refunded_at: Annotated[datetime | None, Reads(as_time, "refundDate")] = None
    created_at: Annotated[datetime | None, Reads(as_time, "createDate")] = None
    updated_at: Annotated[datetime | None, Reads(as_time, "updateDate", "modifyDate")] = None
    shipping_address: Annotated[
        KKAddress | None, Reads(KKAddress.read, "shippingAddress"), Field(repr=False)
    ] = None
    warehouse_id: Annotated[str | None, Reads(as_text, "warehouseId")] = None
    currency_code: Annotated[str | None, Reads(as_text, "currencyCode")] = None
    final_amount: Annotated[Decimal | None, Reads(as_number, "finalAmount")] = None
    subtotal_amount: Annotated[Decimal | None, Reads(as_number, "subTotalAmount", "skusAmount")] = None
    freight_amount: Annotated[Decimal | None, Reads(as_number, "freightAmount")] = None
    coupon_amount: Annotated[Decimal | None, Reads(as_number, "couponAmount")] = None
    promotion_amount: Annotated[Decimal | None, Reads(as_number, "promotionAmount")] = None
    refundable_amount: Annotated[Decimal | None, Reads(as_number, "refundableAmount")] = None
    refunded_amount: Annotated[Decimal | None, Reads(as_number, "refundedAmount")] = None
    items: Annotated[list[KKOrderItem], Reads(as_rows(KKOrderItem), "orderItems")] = Field(
        default_factory=list
    )
    fulfillments: Annotated[list[Package], Reads(as_rows(Package), "fulfillments")] = Field(
        default_factory=list
    )


class OrderPage(Listed):
    """One page of listed orders. `total` is KK's count over all pages, where it gives one."""

    orders: Annotated[list[KKOrder], Reads(as_rows(KKOrder), "list")] = Field(default_factory=list)
    total: Annotated[int | None, Reads(as_count, "total")] = None
    page_number: Annotated[int | None, Reads(as_count, "pageNumber")] = None
    page_size: Annotated[int | None, Reads(as_count, "pageSize")] = None


class Refund(Listed):
    """One refund of an order; `refund_status`: pending_review, refund_successfully, refund_failed."""

    refund_no: Annotated[str | None, Reads(as_text, "refundNo")] = None
    refund_status: Annotated[str | None, Reads(as_status, "refundStatus")] = None
    kk_order_id: Annotated[str | None, Reads(as_text, "id")] = None
    remark: Annotated[str | None, Reads(as_text, "remark"), Field(repr=False)] = None


class Channel(Listed):
    """One way to ship, with its estimated freight. `delivery_time` is text such as "6~10 Business Days"."""

    channel_code: Annotated[str | None, Reads(as_text, "channelCode")] = None
    channel_name: Annotated[str | None, Reads(as_text, "channelNameEn")] = None
    channel_type: Annotated[str | None, Reads(as_text, "channelType")] = None
    estimated_freight: Annotated[Decimal | None, Reads(as_number, "estimatedFreight")] = None
    currency_code: Annotated[str | None, Reads(as_text, "estimatedFreightCurrency")] = None
    delivery_time: Annotated[str | None, Reads(as_text, "deliveryTime")] = None


def _as_stock(value: object) -> int:
    """A count; below zero, where more is promised than there is, it is none."""
    number = as_number(value)
    return as_count(max(number, Decimal(0)))


class WarehouseStock(Listed):
    """How many of a SKU one warehouse has, never below zero."""

    country_code: Annotated[str | None, Reads(as_text, "countryCode")] = None
    quantity: Annotated[int | None, Reads(_as_stock, "qty")] = None
    warehouse_code: Annotated[str | None, Reads(as_text, "warehouseCode")] = None


class Stock(Listed):
    """The stock of one SKU over all warehouses."""

    sku: Annotated[str | None, Reads(as_text, "sku")] = None
    warehouses: Annotated[list[WarehouseStock], Reads(as_rows(WarehouseStock), "warehouseStockList")] = Field(
        default_factory=list
    )


class Warehouse(Listed):
    """One of KK's warehouses."""

    warehouse_id: Annotated[str | None, Reads(as_text, "warehouseId")] = None
    warehouse_code: Annotated[str | None, Reads(as_text, "warehouseCode")] = None
    name: Annotated[str | None, Reads(as_text, "warehouseNameExt")] = None
    country_code: Annotated[str | None, Reads(as_text, "countryCode")] = None
    country_name: Annotated[str | None, Reads(as_text, "countryCn")] = None
    status: Annotated[str | None, Reads(as_status, "status")] = None
