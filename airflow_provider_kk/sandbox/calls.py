"""KK's calls on orders and money: each gets what was asked and gives the `data` of the answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kk.sandbox import goods_calls, life
from airflow_provider_kk.sandbox.listing import list_orders, money
from airflow_provider_kk.sandbox.neworder import FORMS, read_order
from airflow_provider_kk.sandbox.protocol import INVALID, NOT_FOUND, Rejected
from airflow_provider_kk.sandbox.settings import Settings
from airflow_provider_kk.sandbox.store import SandboxStore


@dataclass
class Ask:
    """One call.

    Attributes:
        now: epoch seconds at which it is acted upon.
        parts: commit only these orders of a split, as the end of a slice.
        made: ids of the orders that it made, also when it is refused in the end.
    """

    store: SandboxStore
    settings: Settings
    path: str
    query: Mapping[str, str]
    body: Any
    now: float
    args: Mapping[str, str] = field(default_factory=dict)
    parts: int | None = None
    made: list[int] = field(default_factory=list)

    @property
    def version(self) -> str:
        """`v1` or `v2`."""
        return "v2" if "/v2/" in self.path else "v1"


def create_order(ask: Ask) -> Any:
    """`POST .../order/order` and `.../order/orders`."""
    order = read_order(FORMS[ask.path], ask.body, ask.settings)
    ids = ask.store.create(order, ask.now, parts=ask.parts, takes_stock=ask.settings.orders_take_stock)
    ask.made += ids
    return shaped(ids, ask.settings.answer) if ids else None


def shaped(ids: list[int], shape: str) -> Any:
    """The `data` of a create answer in one of the forms that are documented or likely."""
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


def orders(ask: Ask) -> Any:
    """`GET .../order/order` and `.../order/orders`."""
    configured = ask.settings.number_field_v2 if ask.version == "v2" else ask.settings.number_field_v1
    return list_orders(
        ask.store,
        ask.settings,
        ask.query,
        version=ask.version,
        number_field=configured or FORMS[ask.path].number,
        now=ask.now,
    )


def ask_refund(ask: Ask) -> Any:
    """`POST .../order/orders/{id}/refund`."""
    if not isinstance(ask.body, Mapping) or not isinstance(ask.body.get("remark"), str):
        raise Rejected(INVALID, "remark is required")
    lines = ask.body.get("orderItems")
    return str(
        life.ask_refund(
            ask.store,
            _order_id(ask),
            ask.body["remark"],
            str(ask.body.get("refundReason") or "Other"),
            None if lines is None else _refund_lines(lines),
            ask.now,
        )
    )


def refunds(ask: Ask) -> Any:
    """`GET .../order/orders/refund/{id}`."""
    return {"list": life.refunds_of(ask.store, _order_id(ask), ask.now - ask.settings.list_lag_s)}


def balance(ask: Ask) -> Any:
    """`GET /openapi/v1/payment/balance`; what KK answers is not documented."""
    return {"balance": money(ask.store.available()), "currencyCode": "USD"}


#: (method, path): call. `<id>` is a kkOrderId.
CALLS: dict[tuple[str, str], Callable[[Ask], Any]] = {
    **{("POST", path): create_order for path in FORMS},
    **{("GET", path): orders for path in FORMS},
    ("POST", "/openapi/v1/order/orders/<id>/refund"): ask_refund,
    ("POST", "/openapi/v2/order/orders/<id>/refund"): ask_refund,
    ("GET", "/openapi/v1/order/orders/refund/<id>"): refunds,
    ("GET", "/openapi/v2/order/orders/refund/<id>"): refunds,
    ("POST", "/openapi/v2/order/orders/channel"): lambda ask: goods_calls.channels(ask.store, ask.body),
    ("POST", "/openapi/v2/order/orders/channel/automationSplit"): lambda ask: goods_calls.split(
        ask.store, ask.body
    ),
    ("GET", "/openapi/v1/payment/balance"): balance,
    ("GET", "/openapi/v1/product/stocks"): lambda ask: goods_calls.stocks(ask.store, ask.query),
    ("GET", "/openapi/v1/product/products"): lambda ask: goods_calls.product_list(ask.store, ask.query),
    ("GET", "/openapi/v1/product/category"): lambda ask: goods_calls.categories(),
    ("GET", "/openapi/v1/product/countryAndWarehouse"): lambda ask: goods_calls.warehouses(),
}


def _order_id(ask: Ask) -> int:
    if not ask.args["id"].isdecimal():
        raise Rejected(NOT_FOUND, "the order does not exist")
    return int(ask.args["id"])


def _refund_lines(lines: Any) -> list[dict[str, Any]]:
    if not isinstance(lines, list) or not lines:
        raise Rejected(INVALID, "orderItems is empty")
    for index, line in enumerate(lines):
        missing = {"itemId", "skuCode", "quantity", "countryCode"} - set(
            line if isinstance(line, dict) else ()
        )
        if missing:
            raise Rejected(INVALID, f"orderItems[{index}]: required: {', '.join(sorted(missing))}")
        if not isinstance(line["quantity"], int) or line["quantity"] < 1:
            raise Rejected(INVALID, f"orderItems[{index}].quantity must be greater than 0")
    return [{"sku": str(line["skuCode"]), "quantity": line["quantity"]} for line in lines]
