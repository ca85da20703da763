"""The models of KK's orders: Order, OrderAddress, OrderItem are sent, the others are read from KK.

Widths and required fields of an order are those of KK's pages "Create order" (v1, v2); a width counts
characters. KK's lists are read leniently. Field names are ours, and KK's names stand beside them: v1's
differ from v2's in places. Every set of statuses is open: an unknown one is passed on. Times are aware
datetimes, money is Decimal.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Self

from pydantic import Field, ValidationInfo, model_validator

from airflow_provider_kk.api.countries import lost_zero_of_zip
from airflow_provider_kk.api.errors import Fault
from airflow_provider_kk.api.readers import (
    ReadFrom,
    ResponseModel,
    as_count,
    as_number,
    as_price,
    as_rows,
    as_status,
    as_stock,
    as_text,
    as_time,
    is_integer,
)
from airflow_provider_kk.api.validators import (
    PROVINCE_REQUIRED,
    ChannelType,
    Country,
    Note,
    OrderNumber,
    Quantity,
    RequestModel,
    as_address,
    as_lines,
    text,
)


class OrderItem(RequestModel):
    """One line: KK's SKU (64 characters) and a whole quantity from 1 to 16 digits."""

    near_names = {"skucode": "sku", "qty": "quantity", "count": "quantity", "productnum": "quantity"}

    sku: Annotated[str, text(64, required=True, number_ok=True)]
    quantity: Quantity


class OrderAddress(RequestModel):
    """Where the goods go: country (ISO 3166 alpha-2), phone, recipient and province are required."""

    near_names = {
        "state": "province",
        "region": "province",
        "name": "recipient",
        "fullname": "recipient",
        "street": "street1",
        "address1": "street1",
        "address2": "street2",
        "postalcode": "zip",
        "postcode": "zip",
        "zipcode": "zip",
        "countrycode": "country",
        "telephone": "phone",
        "vatnumber": "vat",
    }

    country: Country
    city: Annotated[str | None, text(64), Field(repr=False)] = None
    phone: Annotated[str, text(64, required=True, number_ok=True), Field(repr=False)]
    recipient: Annotated[str, text(32, required=True), Field(repr=False)]
    street1: Annotated[str | None, text(64), Field(repr=False)] = None
    street2: Annotated[str | None, text(64), Field(repr=False)] = None
    province: Annotated[str, text(32, required=PROVINCE_REQUIRED), Field(repr=False)]
    zip: Annotated[str | None, text(32, number_ok=True), Field(repr=False)] = None
    ioss: Annotated[str | None, text(32, number_ok=True), Field(repr=False)] = None
    vat: Annotated[str | None, text(32, number_ok=True), Field(repr=False)] = None

    @model_validator(mode="after")
    def _notice_lost_zero(self, info: ValidationInfo) -> Self:
        warning = lost_zero_of_zip(self.zip or "", self.country)
        if warning and info.context:
            info.context["notices"].append(Fault("zip", warning))
        return self


class Order(RequestModel):
    """An order as the caller means it, before an API version gives it KK's names.

    `custom_order_number` is the caller's own number: printable ASCII, 40 at most. `sale_platform` beats the
    connection's. `channel_type` is KK's shipping speed: `v1` has none, `v1-orders` takes it, `v2` requires it
    (Standard when absent).
    """

    other_names = {
        "orderaddress": "address",
        "orderaddresses": "address",
        "orderitemslist": "items",
        "orderitems": "items",
        "customorderid": "custom_order_number",
    }
    near_names = {
        "shippingaddress": "address",
        "lines": "items",
        "orderlines": "items",
        "note": "remark",
        "ordernumber": "custom_order_number",
        "orderid": "custom_order_number",
        "platform": "sale_platform",
        "channel": "channel_type",
    }
    parts = {"items[0]": OrderItem, "address": OrderAddress}

    address: Annotated[OrderAddress, as_address]
    items: Annotated[list[OrderItem], as_lines]
    remark: Note = None
    custom_order_number: OrderNumber = None
    sale_platform: Annotated[str | None, text()] = None
    channel_type: ChannelType = None

    def private_values(self) -> tuple[str, ...]:
        """Return the personal texts of this order, for taking them out of messages."""
        # A country or a province identifies nobody.
        address = self.address.model_dump(exclude={"country", "province"})
        return tuple(value for value in (*address.values(), self.remark) if value)


class Shipment(RequestModel):
    """Goods, and the country that they go to (ISO 3166 alpha-2)."""

    parts = {"items[0]": OrderItem}

    items: Annotated[list[OrderItem], as_lines]
    country: Country


class RefundLines(RequestModel):
    """The lines of a refund: each a SKU and how many of it."""

    parts = {"lines[0]": OrderItem}

    lines: Annotated[list[OrderItem], as_lines]


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
    price: Annotated[Decimal | None, ReadFrom(as_price, "price")] = None
    cost: Annotated[Decimal | None, ReadFrom(as_price, "cost")] = None
    stock: Annotated[int | None, ReadFrom(as_stock, "stock")] = None
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
    price: Annotated[Decimal | None, ReadFrom(as_price, "price")] = None
    stock: Annotated[int | None, ReadFrom(as_stock, "stock")] = None
    updated_at: Annotated[datetime | None, ReadFrom(as_time, "updateTime")] = None
    skus: Annotated[list[KKSku], ReadFrom(as_rows(KKSku), "skuDetails")] = []


class WarehouseStock(ResponseModel):
    """How many of a SKU one warehouse has, never below zero."""

    country_code: Annotated[str | None, ReadFrom(as_text, "countryCode")] = None
    quantity: Annotated[int | None, ReadFrom(as_stock, "qty")] = None
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
