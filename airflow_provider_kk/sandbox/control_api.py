"""The control API: how tests and people steer a running sandbox. `control.py` is its client.

Each call needs the header `X-Sandbox: 1`, which a foreign page in a browser cannot send.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from flask import Blueprint, Response, request

from airflow_provider_kk.sandbox import catalogue, effects, travel
from airflow_provider_kk.sandbox.faults import FAULTS
from airflow_provider_kk.sandbox.kk import KK
from airflow_provider_kk.sandbox.neworder import FORMS, read_order
from airflow_provider_kk.sandbox.protocol import Rejected
from airflow_provider_kk.sandbox.state import counts, orders

PREFIX = "/__sandbox__"

#: Somebody at home in the sandbox, for orders placed by hand.
PLACED_ADDRESS = {"country": "FR", "phone": "0102030405", "recipient": "By Hand", "province": "Here"}


def control_api(kk: KK) -> Blueprint:
    """The paths under `/__sandbox__`."""
    api = Blueprint("control", __name__, url_prefix=PREFIX)

    @api.before_request
    def not_from_a_browser() -> Response | None:
        kk.catch_up()
        if request.headers.get("X-Sandbox") == "1":
            return None
        return effects.as_json({"error": "the header X-Sandbox: 1 is required"}, 403)

    @api.errorhandler(ValueError)
    @api.errorhandler(TypeError)
    def wrong(error: Exception) -> Response:
        return effects.as_json({"error": str(error)}, 400)

    @api.errorhandler(Rejected)
    def rejected(error: Rejected) -> Response:
        return effects.as_json({"error": error.message}, 400)

    _reading(api, kk)
    _steering(api, kk)
    _steering_goods(api, kk)
    return api


def _reading(api: Blueprint, kk: KK) -> None:
    @api.get("/orders")
    def all_orders() -> Response:
        return effects.as_json(orders(kk, request.args.get("number")))

    @api.get("/requests")
    def requests() -> Response:
        return effects.as_json(kk.log.entries())

    @api.get("/counts")
    def all_counts() -> Response:
        return effects.as_json(counts(kk))

    @api.get("/duplicates")
    def duplicates() -> Response:
        return effects.as_json(kk.store.duplicates())

    @api.get("/settings")
    def settings() -> Response:
        return effects.as_json(kk.settings.as_dict())

    @api.get("/now")
    def now() -> Response:
        return effects.as_json(kk.clock.now())

    @api.get("/catalogue")
    def products() -> Response:
        found = [asdict(item) | {"stock": kk.store.stock(item.sku)} for item in catalogue.products().values()]
        return effects.as_json(found)

    @api.get("/faults")
    def faults() -> Response:
        known = {name: asdict(kind) for name, kind in FAULTS.items()}
        return effects.as_json({"known": known, "armed": [asdict(arm) for arm in kk.armory.armed()]})


def _steering(api: Blueprint, kk: KK) -> None:
    @api.post("/arm")
    def arm() -> Response:
        return effects.as_json(kk.armory.arm(**_body()))

    @api.post("/disarm")
    def disarm() -> Response:
        kk.armory.disarm(_body().get("id"))
        return effects.as_json(None)

    @api.post("/settings")
    def change() -> Response:
        kk.change_settings(**_body())
        return effects.as_json(kk.settings.as_dict())

    @api.post("/advance")
    def advance() -> Response:
        kk.advance(float(_body()["seconds"]))
        kk.catch_up()
        return effects.as_json(kk.clock.now())

    @api.post("/balance")
    def balance() -> Response:
        kk.store.set_fact("balance", round(float(_body()["dollars"]) * 100))
        return effects.as_json(None)

    @api.post("/place")
    def place() -> Response:
        return effects.as_json(_place(kk, _body()))

    @api.post("/move")
    def move() -> Response:
        travel.move(kk.store, int(_body()["id"]), str(_body()["state"]), kk.clock.now())
        return effects.as_json(None)

    @api.post("/reset")
    def reset() -> Response:
        kk.reset()
        return effects.as_json(None)


def _steering_goods(api: Blueprint, kk: KK) -> None:
    @api.post("/stock")
    def stock() -> Response:
        kk.store.set_stock(str(_body()["sku"]), int(_body()["qty"]))
        return effects.as_json(None)

    @api.post("/sku-details")
    def sku_details() -> Response:
        kk.store.set_sku_details(str(_body()["sku"]), dict(_body()["fields"]))
        return effects.as_json(None)


def _place(kk: KK, asked: dict[str, Any]) -> list[str]:
    """Make an order past all limits and faults, as somebody at KK's site or another tool would."""
    body = {
        "orderAddresses": {**PLACED_ADDRESS, **asked.get("address", {})},
        "orderItemsList": [{"sku": sku, "quantity": pieces} for sku, pieces in asked["goods"].items()],
        "customOrderId": asked.get("number"),
        "remark": asked.get("remark"),
        "orderAddress": None,
        "channelType": "Standard",
    }
    relaxed = type(kk.settings)()
    order = read_order(FORMS["/openapi/v2/order/orders"], body, relaxed)
    made = kk.store.create(order, kk.clock.now() - float(asked.get("age_s", 0)))
    return [str(order_id) for order_id in made]


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")
    return body
