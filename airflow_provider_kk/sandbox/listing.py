"""KK's list of orders: windows, paging, lag, and rows in the words of each version."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow_provider_kk.sandbox.catalogue import WAREHOUSES, product_of
from airflow_provider_kk.sandbox.clock import iso, parse_iso
from airflow_provider_kk.sandbox.protocol import INVALID, Rejected
from airflow_provider_kk.sandbox.settings import Settings
from airflow_provider_kk.sandbox.store import Row, SandboxStore
from airflow_provider_kk.sandbox.travel import parcels_json

#: state: (v1 status, v2 status, financialStatus, fulfillmentStatus, refundStatus)
STATUSES = {
    "waiting_payment": ("waiting_payment", "waiting_payment", "waiting", "NULL", "NULL"),
    "paid": ("waiting_to_ship", "processing", "paid", "waiting_to_ship", "NULL"),
    "packed": ("waiting_to_ship", "processing", "paid", "waiting_to_ship", "NULL"),
    "partially_shipped": ("partial_shipped", "processing", "paid", "partially_shipped", "NULL"),
    "shipped": ("shipped", "processing", "paid", "fully_shipped", "NULL"),
    "delivered": ("delivered", "completed", "paid", "completed", "NULL"),
    # v1's documentation has no word for it.
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


def list_orders(
    store: SandboxStore,
    settings: Settings,
    query: Mapping[str, str],
    *,
    version: str,
    number_field: str,
    now: float,
) -> dict[str, Any]:
    """One page, as `data` of the answer.

    Raises:
        Refused: a parameter cannot be read.
    """
    where, values = _conditions(query, version, now - settings.list_lag_s)
    source, values = (
        _listed_as_of(now - settings.update_lag_s, values) if settings.update_lag_s else ("kk_order", values)
    )
    page, size = _whole(query, "pageNumber", 1), min(_whole(query, "pageSize", 10), settings.page_cap)
    column = "updated_at" if settings.sort == "updated" else "created_at"
    rows = store.rows(
        f"SELECT * FROM {source} WHERE {where} ORDER BY {column} DESC, id DESC LIMIT ? OFFSET ?",  # noqa: S608 - constant names
        (*values, size, (page - 1) * size),
    )
    data: dict[str, Any] = {
        "list": [
            order_json(row, settings, version, number_field) for row in _repeated(rows, settings.repeat_every)
        ],
        "pageNumber": page,
        "pageSize": size,
    }
    if settings.total != "missing":
        total = store.value(f"SELECT count(*) FROM {source} WHERE {where}", values)  # noqa: S608 - constant names
        data["total"] = str(total) if settings.total == "text" else total
    return data


def order_json(row: Row, settings: Settings, version: str, number_field: str) -> dict[str, Any]:
    """One order in the field names of v1 or v2."""
    is_v2 = version == "v2"
    v1_status, status, financial, fulfillment, refund = STATUSES[row["state"]]
    if refund == "NULL" and row["refunded"]:
        refund = "partial_refund"
    if financial == "NULL" and row["paid_at"] is not None:
        financial = "paid"
    number = row["number"]
    if settings.integer_numbers and number and number.isdecimal() and str(int(number)) == number:
        number = int(number)
    dates = {name: _date(row[column], settings.dates) for name, column in _dates(is_v2).items()}
    order = {
        "id": row["id"],
        number_field: number,
        "remark": row["remark"],
        "status": status if is_v2 else v1_status,
        **dates,
        "shippingAddress": json.loads(row["address"]),
        "salePlatform": row["sale_platform"],
        "warehouseId": WAREHOUSES[row["warehouse"]][0],
        "currencyCode": "USD",
        "finalAmount": money(row["subtotal"] + row["freight"]),
        "subTotalAmount" if is_v2 else "skusAmount": money(row["subtotal"]),
        "freightAmount": money(row["freight"]),
        "couponAmount": money(0),
        "promotionAmount": money(0),
        "refundableAmount": money(_refundable(row)),
        "refundedAmount": money(row["refunded"]),
        "orderItems": [_line_json(row, item, is_v2) for item in json.loads(row["items"])],
        "fulfillments": parcels_json(row),
    }
    if is_v2:
        order |= {"financialStatus": financial, "fulfillmentStatus": fulfillment, "refundStatus": refund}
        order["channelType"] = row["channel_type"]
    return order


def money(cents: int) -> float:
    """Dollars as KK's JSON has them."""
    return cents / 100


def _listed_as_of(then: float, values: list[Any]) -> tuple[str, list[Any]]:
    """All orders as a list knows them that is behind since `then`."""
    past = "SELECT *, min(until) FROM kk_past WHERE until > ? GROUP BY id"
    columns = "SELECT *, 0.0, 0.0 FROM kk_order WHERE id NOT IN (SELECT id FROM kk_past WHERE until > ?)"
    return f"({columns} UNION ALL {past})", [then, then, *values]


def _repeated(rows: list[Row], every: int) -> list[Row]:
    return [row for n, row in enumerate(rows, 1) for _ in range(2 if every and n % every == 0 else 1)]


def _conditions(query: Mapping[str, str], version: str, listed_until: float) -> tuple[str, list[Any]]:
    conditions: list[str] = ["created_at <= ?"]
    values: list[Any] = [listed_until]
    for name, condition in WINDOWS.items():
        if query.get(name):
            conditions.append(condition)
            values.append(_time(query[name], name))
    if query.get("ids"):
        ids = [int(text) for text in query["ids"].split(",") if text.strip().isdecimal()]
        conditions.append(f"id IN ({','.join('?' * len(ids))})")
        values += ids
    if query.get("status") and version == "v1":
        asked = {text.strip() for text in query["status"].split(",")}
        states = [state for state, names in STATUSES.items() if names[0] in asked]
        conditions.append(f"state IN ({','.join('?' * len(states))})")
        values += states
    return " AND ".join(conditions), values


def _time(text: str, name: str) -> float:
    try:
        return parse_iso(text)
    except ValueError:
        raise Rejected(INVALID, f"{name} must look like 2016-01-18T23:41:00Z") from None


def _whole(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) < 10**9:
        raise Rejected(INVALID, f"{name} must be a whole number of at least 1")
    return int(text)


def _dates(is_v2: bool) -> dict[str, str]:
    return {
        "purchaseDate": "created_at",
        "payDate" if is_v2 else "payAt": "paid_at",
        "cancelDate": "cancelled_at",
        "refundDate": "refunded_at",
        "createDate": "created_at",
        "updateDate" if is_v2 else "modifyDate": "updated_at",
        "completedDate" if is_v2 else "completedAt": "completed_at",
    }


def _date(epoch: float | None, form: str) -> str | int | None:
    if epoch is None:
        return None
    return int(iso(epoch)[:4]) if form == "year" else iso(epoch)


def _refundable(row: Row) -> int:
    return row["subtotal"] + row["freight"] - row["refunded"] if row["paid_at"] is not None else 0


def _line_json(row: Row, item: Mapping[str, Any], is_v2: bool) -> dict[str, Any]:
    product = product_of(item["sku"])
    status = STATUSES[row["state"]]
    return {
        "id": item["id"],
        "itemId": item["item_id"],
        "skuCode": item["sku"],
        "productName": product.name,
        "productNum": item["quantity"],
        "amount" if is_v2 else "purchasePrices": money(product.price),
        "total" if is_v2 else "subtotal": money(product.price * item["quantity"]),
        "option1": json.dumps({"name": "Color", "value": product.colour}),
        "option2": json.dumps({"name": "Size", "value": product.size}),
        "option3": None,
        "imageUrl": f"https://img.example.com/{product.spu}.jpg",
        "stockStatus": "normal" if product.stock else "sold_out",
        "fulfillmentStatus": status[3],
        "refundStatus": status[4],
        "countryCode": row["warehouse"],
    }
