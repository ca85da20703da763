"""KK's calls for orders and money: each reads a request and returns the `data` of the answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kk.sandbox import goods, life
from airflow_provider_kk.sandbox.goods import CHANNELS, WAREHOUSES, product_of
from airflow_provider_kk.sandbox.json_values import (
    INVALID,
    NOT_FOUND,
    Rejected,
    iso,
    money,
    parse_iso,
    read_lines,
    text_in,
    whole_in,
)
from airflow_provider_kk.sandbox.life import parcels_json
from airflow_provider_kk.sandbox.settings import Settings
from airflow_provider_kk.sandbox.store import Line, Row, SandboxStore, pieces_by_sku


@dataclass
class Ask:
    """One call.

    Attributes:
        now: epoch seconds at which the call runs.
        parts: commit only these orders of a split, as the end of a slice.
        made: ids of the orders that it made.
    """

    store: SandboxStore
    settings: Settings
    path: str
    args: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    now: float
    parts: int | None = None
    made: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Form:
    """The field names of one revision of the call."""

    version: str
    number: str
    platform: str
    channels: tuple[str, ...] = ()
    """The values of `channelType`; empty if the revision has no such field."""


FORMS = {
    "/openapi/v1/order/order": Form("v1", "CustomOrderNumber", "SalePlatform"),
    "/openapi/v1/order/orders": Form("v1", "customOrderId", "salePlatform", ("Standard", "Express")),
    "/openapi/v2/order/orders": Form("v2", "customOrderId", "salePlatform", tuple(CHANNELS)),
}

#: Longer order numbers are cut silently.
NUMBER_WIDTH = 40
#: field: (width, required)
ADDRESS = {
    "country": (32, True),
    "phone": (64, True),
    "recipient": (32, True),
    "province": (32, True),
    "street1": (64, False),
    "street2": (64, False),
    "city": (64, False),
    "zip": (32, False),
    "ioss": (32, False),
    "vat": (32, False),
}


@dataclass(frozen=True)
class NewOrder:
    """A create call whose fields are valid; its goods are not checked yet."""

    number: str | None
    address: dict[str, str | None]
    lines: Sequence[Line]
    remark: str | None
    sale_platform: str | None
    channel_type: str | None


def read_order(form: Form, body: Any, settings: Settings) -> NewOrder:
    """Parse the body of a create call. Field names of other revisions are unknown and ignored.

    Raises Rejected if a required field is missing or a value is not as documented.
    """
    if not isinstance(body, Mapping):
        raise Rejected(INVALID, "the request body is not a JSON object")
    return NewOrder(
        number=_number(body.get(form.number)),
        address=_address(body, settings.address_key),
        lines=read_lines(body.get("orderItemsList"), "orderItemsList"),
        remark=text_in(body, "remark", 512),
        sale_platform=text_in(body, form.platform, 64),
        channel_type=_channel(form, body),
    )


def create_order(ask: Ask) -> Any:
    """`POST .../order/order` and `.../order/orders`."""
    order = read_order(FORMS[ask.path], ask.body, ask.settings)
    ids = ask.store.create(order, ask.now, parts=ask.parts, takes_stock=ask.settings.orders_take_stock)
    ask.made += ids
    return _shaped(ids, ask.settings.answer) if ids else None


def _shaped(ids: list[int], shape: str) -> Any:
    """Return the `data` of a create answer in one of the forms that are documented or likely."""
    joined = ids[0] if len(ids) == 1 else ",".join(map(str, ids))
    match shape:
        case "first":
            return ids[0]
        case "text" | "comma":
            return str(joined)
        case "list":
            return ids
        case "kkOrderIds" | "id":
            return {shape: joined, "status": 0}
        case _:
            return joined


def number_in(body: Any) -> str | None:
    """Return the caller's number under any of its names, for the log and for faults of one number."""
    if not isinstance(body, Mapping):
        return None
    values = (body.get(name) for name in ("CustomOrderNumber", "customOrderId"))
    return next((str(value) for value in values if value is not None), None)


def _channel(form: Form, body: Mapping[str, Any]) -> str | None:
    if not form.channels:
        return None
    channel = text_in(body, "channelType", 32, required=form.version == "v2")
    if channel is not None and channel not in form.channels:
        raise Rejected(INVALID, f"channelType must be one of {', '.join(form.channels)}")
    return channel


def _address(body: Mapping[str, Any], key: str) -> dict[str, str | None]:
    keys = ("orderAddresses", "orderAddress") if key == "either" else (key,)
    name = next((name for name in keys if isinstance(body.get(name), Mapping)), None)
    if name is None:
        raise Rejected(INVALID, f"{keys[0]} is required")
    given = body[name]
    address = {
        field: text_in(given, field, width, required=required, path=name)
        for field, (width, required) in ADDRESS.items()
    }
    if not re.fullmatch(r"[A-Z]{2}", address["country"] or ""):
        raise Rejected(INVALID, f"{name}.country must be a country shortcode")
    return address


def _number(value: Any) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Rejected(INVALID, "the order number must be a text")
    return str(value)[:NUMBER_WIDTH]


#: state: (v1 status, v2 status, financialStatus, fulfillmentStatus, refundStatus)
STATUSES = {
    "waiting_payment": ("waiting_payment", "waiting_payment", "waiting", "NULL", "NULL"),
    "paid": ("waiting_to_ship", "processing", "paid", "waiting_to_ship", "NULL"),
    "packed": ("waiting_to_ship", "processing", "paid", "waiting_to_ship", "NULL"),
    "partially_shipped": ("partial_shipped", "processing", "paid", "partially_shipped", "NULL"),
    "shipped": ("shipped", "processing", "paid", "fully_shipped", "NULL"),
    "delivered": ("delivered", "completed", "paid", "completed", "NULL"),
    # v1's documentation has no status for it.
    "abnormal": ("abnormal_order", "abnormal_order", "NULL", "NULL", "NULL"),
    "refunding": ("refunding", "processing", "paid", "waiting_to_ship", "refunding"),
    "partial_refund": ("waiting_to_ship", "processing", "paid", "waiting_to_ship", "partial_refund"),
    "refunded": ("refunded", "cancel", "paid", "NULL", "refund"),
    "cancel": ("cancel", "cancel", "waiting", "NULL", "NULL"),
}

WINDOWS = {
    "createStartTime": "created_at >= ?",
    "createEndTime": "created_at <= ?",
    "updateStartTime": "updated_at >= ?",
    "updateEndTime": "updated_at <= ?",
}


def orders(ask: Ask) -> dict[str, Any]:
    """`GET .../order/order` and `.../order/orders`: one page of orders."""
    store, settings, form = ask.store, ask.settings, FORMS[ask.path]
    is_v2 = form.version == "v2"
    number_field = settings.number_field or form.number
    source = "kk_order"
    where, values = _conditions(ask.query, is_v2, ask.now - settings.list_lag_s)
    if settings.update_lag_s:
        source, values = _listed_as_of(ask.now - settings.update_lag_s, values)
    page = whole_in(ask.query, "pageNumber", 1)
    size = min(whole_in(ask.query, "pageSize", 10), settings.page_cap)
    column = "updated_at" if settings.sort == "updated" else "created_at"
    rows = store.rows(
        f"SELECT * FROM {source} WHERE {where} ORDER BY {column} DESC, id DESC LIMIT ? OFFSET ?",  # noqa: S608 - constant names
        (*values, size, (page - 1) * size),
    )
    every = settings.repeat_every
    repeated = [row for n, row in enumerate(rows, 1) for _ in range(2 if every and n % every == 0 else 1)]
    data: dict[str, Any] = {
        "list": [_order_json(row, settings, is_v2, number_field) for row in repeated],
        "pageNumber": page,
        "pageSize": size,
    }
    if settings.total != "missing":
        total = store.value(f"SELECT count(*) FROM {source} WHERE {where}", values)  # noqa: S608 - constant names
        data["total"] = str(total) if settings.total == "text" else total
    return data


def _order_json(row: Row, settings: Settings, is_v2: bool, number_field: str) -> dict[str, Any]:
    v1_status, status, financial, fulfillment, refund = STATUSES[row["state"]]
    if refund == "NULL" and row["refunded"]:
        refund = "partial_refund"
    if financial == "NULL" and row["paid_at"] is not None:
        financial = "paid"

    def date(column: str) -> str | int | None:
        text = None if row[column] is None else iso(row[column])
        return int(text[:4]) if text and settings.dates == "year" else text

    final = row["subtotal"] + row["freight"]
    number = row["number"]
    if settings.integer_numbers and number and number.isdecimal() and str(int(number)) == number:
        number = int(number)
    order = {
        "id": row["id"],
        number_field: number,
        "remark": row["remark"],
        "status": status if is_v2 else v1_status,
        "purchaseDate": date("created_at"),
        "payDate" if is_v2 else "payAt": date("paid_at"),
        "cancelDate": date("cancelled_at"),
        "refundDate": date("refunded_at"),
        "createDate": date("created_at"),
        "updateDate" if is_v2 else "modifyDate": date("updated_at"),
        "completedDate" if is_v2 else "completedAt": date("completed_at"),
        "shippingAddress": json.loads(row["address"]),
        "salePlatform": row["sale_platform"],
        "warehouseId": WAREHOUSES[row["warehouse"]][0],
        "currencyCode": "USD",
        "finalAmount": money(final),
        "subTotalAmount" if is_v2 else "skusAmount": money(row["subtotal"]),
        "freightAmount": money(row["freight"]),
        "couponAmount": money(0),
        "promotionAmount": money(0),
        "refundableAmount": money(final - row["refunded"] if row["paid_at"] is not None else 0),
        "refundedAmount": money(row["refunded"]),
        "orderItems": [
            _line_json(row, index, sku, quantity, is_v2)
            for index, (sku, quantity) in enumerate(json.loads(row["items"]), 1)
        ],
        "fulfillments": parcels_json(row),
    }
    if is_v2:
        order |= {"financialStatus": financial, "fulfillmentStatus": fulfillment, "refundStatus": refund}
        order["channelType"] = row["channel_type"]
    return order


def _listed_as_of(then: float, values: list[Any]) -> tuple[str, list[Any]]:
    """Return the orders as of the time `then`, for a list that is late."""
    past = "SELECT *, min(until) FROM kk_past WHERE until > ? GROUP BY id"
    columns = "SELECT *, 0.0, 0.0 FROM kk_order WHERE id NOT IN (SELECT id FROM kk_past WHERE until > ?)"
    return f"({columns} UNION ALL {past})", [then, then, *values]


def _conditions(query: Mapping[str, str], is_v2: bool, listed_until: float) -> tuple[str, list[Any]]:
    conditions: list[str] = ["created_at <= ?"]
    values: list[Any] = [listed_until]
    for name, condition in WINDOWS.items():
        if query.get(name):
            conditions.append(condition)
            try:
                values.append(parse_iso(query[name]))
            except ValueError:
                raise Rejected(INVALID, f"{name} must look like 2016-01-18T23:41:00Z") from None
    if query.get("ids"):
        ids = [int(text) for text in query["ids"].split(",") if text.strip().isdecimal()]
        conditions.append(f"id IN ({','.join('?' * len(ids))})")
        values += ids
    if query.get("status") and not is_v2:
        asked = {text.strip() for text in query["status"].split(",")}
        states = [state for state, names in STATUSES.items() if names[0] in asked]
        conditions.append(f"state IN ({','.join('?' * len(states))})")
        values += states
    return " AND ".join(conditions), values


def _line_json(row: Row, index: int, sku: str, quantity: int, is_v2: bool) -> dict[str, Any]:
    product = product_of(sku)
    status = STATUSES[row["state"]]
    return {
        "id": row["id"] * 100 + index,
        "itemId": product.item_id,
        "skuCode": sku,
        "productName": product.name,
        "productNum": quantity,
        "amount" if is_v2 else "purchasePrices": money(product.price),
        "total" if is_v2 else "subtotal": money(product.price * quantity),
        **product.options_json(),
        "imageUrl": product.image_url,
        "stockStatus": "normal" if product.stock else "sold_out",
        "fulfillmentStatus": status[3],
        "refundStatus": status[4],
        "countryCode": row["warehouse"],
    }


def ask_refund(ask: Ask) -> Any:
    """`POST .../order/orders/{id}/refund`."""
    if not isinstance(ask.body, Mapping) or not isinstance(ask.body.get("remark"), str):
        raise Rejected(INVALID, "remark is required")
    items = ask.body.get("orderItems")
    lines = () if items is None else read_lines(items, "orderItems", "skuCode", ("itemId", "countryCode"))
    return life.ask_refund(ask.store, _order_id(ask), ask.body["remark"], pieces_by_sku(lines), ask.now)


def refunds(ask: Ask) -> Any:
    """`GET .../order/orders/refund/{id}`."""
    return {"list": life.refunds_of(ask.store, _order_id(ask), ask.now - ask.settings.list_lag_s)}


def balance(ask: Ask) -> Any:
    """`GET /openapi/v1/payment/balance`; KK's answer is not documented."""
    return {"balance": money(ask.store.available()), "currencyCode": "USD"}


#: (method, path): call. `<id>` is a kkOrderId.
CALLS: dict[tuple[str, str], Callable[[Ask], Any]] = {
    **{("POST", path): create_order for path in FORMS},
    **{("GET", path): orders for path in FORMS},
    ("POST", "/openapi/v1/order/orders/<id>/refund"): ask_refund,
    ("POST", "/openapi/v2/order/orders/<id>/refund"): ask_refund,
    ("GET", "/openapi/v1/order/orders/refund/<id>"): refunds,
    ("GET", "/openapi/v2/order/orders/refund/<id>"): refunds,
    ("POST", "/openapi/v2/order/orders/channel"): goods.channels,
    ("POST", "/openapi/v2/order/orders/channel/automationSplit"): goods.split,
    ("GET", "/openapi/v1/payment/balance"): balance,
    ("GET", "/openapi/v1/product/stocks"): goods.stocks,
    ("GET", "/openapi/v1/product/products"): goods.product_list,
    ("GET", "/openapi/v1/product/category"): goods.categories,
    ("GET", "/openapi/v1/product/countryAndWarehouse"): goods.warehouses,
}


def _order_id(ask: Ask) -> int:
    if not ask.args["id"].isdecimal():
        raise Rejected(NOT_FOUND, "the order does not exist")
    return int(ask.args["id"])
