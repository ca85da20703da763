"""The Flask application: KK's paths, the control API, and a page for people.

Each call of the control API needs the header `X-Sandbox: 1`, which a foreign page in a browser cannot send.
`control.py` is its client.
"""

from __future__ import annotations

import ipaddress
import json
from dataclasses import asdict
from html import escape
from typing import Any

from flask import Blueprint, Flask, Response, request

from airflow_provider_kk.sandbox import life
from airflow_provider_kk.sandbox.calls import CALLS, FORMS, read_order
from airflow_provider_kk.sandbox.faults import FAULTS
from airflow_provider_kk.sandbox.goods import products
from airflow_provider_kk.sandbox.kk import KK, endpoint
from airflow_provider_kk.sandbox.protocol import Rejected, iso
from airflow_provider_kk.sandbox.store import Row, pieces_by_sku
from airflow_provider_kk.sandbox.wire import as_json, html


def create_app(kk: KK) -> Flask:
    """The whole sandbox as a WSGI application."""
    app = Flask(__name__, static_folder=None)
    app.before_request(_only_loopback)
    rules: dict[str, list[str]] = {}
    for method, rule in CALLS:
        rules.setdefault(rule, []).append(method)
    for rule, methods in rules.items():
        app.add_url_rule(rule, rule, endpoint(kk, rule), methods=methods, provide_automatic_options=False)
    app.register_blueprint(control_api(kk))
    app.add_url_rule("/", "page", lambda: Response(page(kk), mimetype="text/html"))
    return app


def _only_loopback() -> Response | None:
    host = request.host if request.host.endswith("]") else request.host.rsplit(":", 1)[0]
    if is_loopback(host):
        return None
    # A name that a browser was made to resolve to this machine, or a proxy.
    return html(403, "The sandbox answers on loopback only")


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine without asking a name server."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


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
        return as_json({"error": "the header X-Sandbox: 1 is required"}, 403)

    @api.errorhandler(ValueError)
    @api.errorhandler(TypeError)
    def wrong(error: Exception) -> Response:
        return as_json({"error": str(error)}, 400)

    @api.errorhandler(Rejected)
    def rejected(error: Rejected) -> Response:
        return as_json({"error": error.message}, 400)

    _reading(api, kk)
    _steering(api, kk)
    _steering_goods(api, kk)
    return api


def _reading(api: Blueprint, kk: KK) -> None:
    @api.get("/orders")
    def all_orders() -> Response:
        return as_json(orders(kk, request.args.get("number")))

    @api.get("/requests")
    def requests() -> Response:
        return as_json(kk.log.entries())

    @api.get("/counts")
    def all_counts() -> Response:
        return as_json(counts(kk))

    @api.get("/duplicates")
    def duplicates() -> Response:
        return as_json(kk.store.duplicates())

    @api.get("/settings")
    def settings() -> Response:
        return as_json(kk.settings.as_dict())

    @api.get("/now")
    def now() -> Response:
        return as_json(kk.clock.now())

    @api.get("/catalogue")
    def catalogue() -> Response:
        found = [asdict(item) | {"stock": kk.store.stock(item.sku)} for item in products().values()]
        return as_json(found)

    @api.get("/faults")
    def faults() -> Response:
        known = {name: asdict(kind) for name, kind in FAULTS.items()}
        return as_json({"known": known, "armed": [asdict(arm) for arm in kk.armory.armed()]})


def _steering(api: Blueprint, kk: KK) -> None:
    @api.post("/arm")
    def arm() -> Response:
        return as_json(kk.armory.arm(**_body()))

    @api.post("/disarm")
    def disarm() -> Response:
        kk.armory.disarm(_body().get("id"))
        return as_json(None)

    @api.post("/settings")
    def change() -> Response:
        kk.change_settings(**_body())
        return as_json(kk.settings.as_dict())

    @api.post("/advance")
    def advance() -> Response:
        kk.advance(float(_body()["seconds"]))
        kk.catch_up()
        return as_json(kk.clock.now())

    @api.post("/balance")
    def balance() -> Response:
        kk.store.set_fact("balance", round(float(_body()["dollars"]) * 100))
        return as_json(None)

    @api.post("/place")
    def place() -> Response:
        return as_json(_place(kk, _body()))

    @api.post("/move")
    def move() -> Response:
        life.move(kk.store, int(_body()["id"]), str(_body()["state"]), kk.clock.now())
        return as_json(None)

    @api.post("/reset")
    def reset() -> Response:
        kk.reset()
        return as_json(None)


def _steering_goods(api: Blueprint, kk: KK) -> None:
    @api.post("/stock")
    def stock() -> Response:
        kk.store.set_stock(str(_body()["sku"]), int(_body()["qty"]))
        return as_json(None)

    @api.post("/sku-details")
    def sku_details() -> Response:
        kk.store.set_sku_details(str(_body()["sku"]), dict(_body()["fields"]))
        return as_json(None)


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


def counts(kk: KK) -> dict[str, Any]:
    """Figures that promises are checked by.

    `creates`: create calls that arrived, whatever became of them. `commits`: those that made orders.
    `orders` and `numbers`: what is at KK now. `waiting_late`: calls that will be committed later. `requests`,
    `GET`, `POST` and the outcomes of `log.Entry`: since the start or the last reset. `faults`: how often each
    kind struck.
    """
    names = ("requests", "GET", "POST", "creates", "commits", "created", "ok", "refused", "unauthorized")
    noted = dict.fromkeys((*names, "rate_limited", "struck", "late"), 0) | dict(kk.log.counts)
    return {
        **noted,
        "orders": kk.store.value("SELECT count(*) FROM kk_order"),
        "numbers": kk.store.value("SELECT count(DISTINCT number) FROM kk_order"),
        "refunds": kk.store.value("SELECT count(*) FROM refund"),
        "waiting_late": kk.store.value("SELECT count(*) FROM late_call"),
        "faults": dict(kk.armory.hits),
    }


def orders(kk: KK, number: str | None = None, last: int | None = None) -> list[dict[str, Any]]:
    """What is at KK, listed or not, in the order of creation; with `last`, the newest first."""
    where, values = ("WHERE number = ?", [number]) if number is not None else ("", [])
    order = "ORDER BY id" if last is None else f"ORDER BY id DESC LIMIT {int(last)}"
    return [_shown(row) for row in kk.store.rows(f"SELECT * FROM kk_order {where} {order}", values)]  # noqa: S608 - constant names


def _shown(row: Row) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "number": row["number"],
        "call": row["call"],
        "state": row["state"],
        "warehouse": row["warehouse"],
        "goods": pieces_by_sku(json.loads(row["items"])),
        "address": json.loads(row["address"]),
        "remark": row["remark"],
        "sale_platform": row["sale_platform"],
        "channel_type": row["channel_type"],
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2rem;color:#222}table{border-collapse:collapse}"
    "td,th{padding:.3rem .9rem .3rem 0;text-align:left;border-bottom:1px solid #ddd}"
)
SHOWN = (
    "orders",
    "numbers",
    "creates",
    "commits",
    "refused",
    "rate_limited",
    "unauthorized",
    "struck",
    "late",
)


def page(kk: KK) -> str:
    """The page as HTML."""
    kk.catch_up()
    figures = counts(kk)
    head = _row("th", SHOWN) + _row("td", [str(figures[name]) for name in SHOWN])
    rows = [
        (
            order["id"],
            order["number"] or "",
            order["state"],
            order["warehouse"],
            ", ".join(f"{pieces} x {sku}" for sku, pieces in order["goods"].items()),
            iso(order["created_at"]),
        )
        for order in orders(kk, last=20)
    ]
    titles = ("kkOrderId", "order number", "state", "warehouse", "goods", "created")
    body = _row("th", titles) + "".join(_row("td", row) for row in rows)
    return (
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>KK sandbox</title><style>{STYLE}</style>"
        f"<h1>KK sandbox</h1><p>{iso(kk.clock.now())}</p><table>{head}</table>"
        f"<h2>Last orders</h2><table>{body}</table></html>"
    )


def _row(tag: str, cells: tuple[str, ...] | list[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
