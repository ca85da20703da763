"""The Flask application: KK's paths, the control API, and a page for browsers.

Each call of the control API needs the header `X-Sandbox: 1`, which a foreign page in a browser cannot send.
`control.py` is its client.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import partial
from html import escape
from typing import Any

from flask import Blueprint, Flask, Response, request

from airflow_provider_kk.sandbox.goods import products
from airflow_provider_kk.sandbox.http_handler import as_json, html
from airflow_provider_kk.sandbox.json_values import Rejected, iso
from airflow_provider_kk.sandbox.kk import KK
from airflow_provider_kk.sandbox.life import move
from airflow_provider_kk.sandbox.order_calls import CALLS, FORMS, read_order
from airflow_provider_kk.sandbox.settings import Settings
from airflow_provider_kk.sandbox.store import Row, pieces_by_sku

#: The address of orders that are placed by hand.
PLACED_ADDRESS = {"country": "FR", "phone": "0102030405", "recipient": "By Hand", "province": "Here"}
STYLE = (
    "body{font:15px system-ui,sans-serif;margin:2rem;color:#222}table{border-collapse:collapse}"
    "td,th{padding:.3rem .9rem .3rem 0;text-align:left;border-bottom:1px solid #ddd}"
)
#: The counts that the page shows.
SHOWN = ("orders", "numbers", "creates", "commits", "refused", "rate_limited",
         "unauthorized", "struck", "late")  # fmt: skip


def create_app(kk: KK) -> Flask:
    """Return the whole sandbox as a WSGI application."""
    app = Flask(__name__, static_folder=None)
    app.before_request(_only_loopback)
    rules: dict[str, list[str]] = {}
    for method, rule in CALLS:
        rules.setdefault(rule, []).append(method)
    for rule, methods in rules.items():
        view = partial(kk.answer, rule)
        app.add_url_rule(rule, rule, view, methods=methods, provide_automatic_options=False)
    app.register_blueprint(_control_api(kk))
    app.add_url_rule("/", "page", lambda: Response(_page(kk), mimetype="text/html"))
    return app


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine, without a DNS query."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def counts(kk: KK) -> dict[str, Any]:
    """Return the counts by which tests check the provider's promises.

    `creates`: create calls that arrived, with any result. `commits`: those that made orders. `orders` and
    `numbers`: orders and order numbers at KK now. `waiting_late`: calls that are committed later. `requests`,
    `GET`, `POST` and the outcomes of `kk.Entry`: since the start or the last reset. `faults`: how often each
    kind of fault was injected.
    """
    counts = ("requests", "GET", "POST", "creates", "commits")
    outcomes = ("created", "ok", "refused", "unauthorized", "rate_limited", "struck", "late")
    return {
        **dict.fromkeys(counts + outcomes, 0),
        **kk.log.counts,
        "orders": kk.store.value("SELECT count(*) FROM kk_order"),
        "numbers": kk.store.value("SELECT count(DISTINCT number) FROM kk_order"),
        "refunds": kk.store.value("SELECT count(*) FROM refund"),
        "waiting_late": kk.store.value("SELECT count(*) FROM late_call"),
        "faults": dict(kk.armory.hits),
    }


def orders(kk: KK, number: str | None = None, last: int | None = None) -> list[dict[str, Any]]:
    """Return KK's orders, listed or not, in the order of creation; with `last`, the newest first."""
    where, values = ("WHERE number = ?", [number]) if number is not None else ("", [])
    order = "ORDER BY id" if last is None else f"ORDER BY id DESC LIMIT {int(last)}"
    return [_shown(row) for row in kk.store.rows(f"SELECT * FROM kk_order {where} {order}", values)]  # noqa: S608 - constant names


def _shown(row: Row) -> dict[str, Any]:
    names = "number call state warehouse remark sale_platform channel_type created_at updated_at"
    return {
        "id": str(row["id"]),
        "goods": pieces_by_sku(json.loads(row["items"])),
        "address": json.loads(row["address"]),
        **{name: row[name] for name in names.split()},
    }


def _only_loopback() -> Response | None:
    host = request.host if request.host.endswith("]") else request.host.rsplit(":", 1)[0]
    if is_loopback(host):
        return None
    # A request by a proxy, or by a DNS name that an attacker points to this machine.
    return html(403, "The sandbox answers on loopback only. Use http://127.0.0.1")


def _control_api(kk: KK) -> Blueprint:
    api = Blueprint("control", __name__, url_prefix="/__sandbox__")

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

    for method, calls in (("GET", _READ), ("POST", _CHANGE)):
        for name, call in calls.items():
            api.add_url_rule(f"/{name}", f"{method} {name}", partial(_run, call, kk), methods=[method])
    return api


def _run(call: Callable[[KK], Any], kk: KK) -> Response:
    return as_json(call(kk))


def _body() -> dict[str, Any]:
    body = request.get_json(silent=True)
    if not isinstance(body, dict):
        raise ValueError("the body is not a JSON object")
    return body


def _catalogue(kk: KK) -> list[dict[str, Any]]:
    return [asdict(item) | {"stock": kk.store.stock(item.sku)} for item in products().values()]


def _place(kk: KK) -> list[str]:
    """Create an order without limits and faults, as by hand on KK's site or by another tool."""
    asked = _body()
    body = {
        "orderAddresses": {**PLACED_ADDRESS, **asked.get("address", {})},
        "orderItemsList": [{"sku": sku, "quantity": pieces} for sku, pieces in asked["goods"].items()],
        "customOrderId": asked.get("number"),
        "remark": asked.get("remark"),
        "channelType": "Standard",
    }
    order = read_order(FORMS["/openapi/v2/order/orders"], body, Settings())
    made = kk.store.create(order, kk.now() - float(asked.get("age_s", 0)))
    return [str(order_id) for order_id in made]


_READ: dict[str, Callable[[KK], Any]] = {
    "orders": lambda kk: orders(kk, request.args.get("number")),
    "requests": lambda kk: kk.log.entries(),
    "counts": counts,
    "duplicates": lambda kk: kk.store.duplicates(),
    "now": lambda kk: kk.now(),
    "catalogue": _catalogue,
}
_CHANGE: dict[str, Callable[[KK], Any]] = {
    "arm": lambda kk: kk.armory.arm(**_body()),
    "disarm": lambda kk: kk.armory.disarm(_body().get("id")),
    "settings": lambda kk: kk.change_settings(**_body()),
    "advance": lambda kk: kk.advance(float(_body()["seconds"])),
    "balance": lambda kk: kk.store.set_fact("balance", round(float(_body()["dollars"]) * 100)),
    "place": _place,
    "move": lambda kk: move(kk.store, int(_body()["id"]), str(_body()["state"]), kk.now()),
    "reset": lambda kk: kk.reset(),
    "stock": lambda kk: kk.store.set_stock(str(_body()["sku"]), int(_body()["qty"])),
    "sku-details": lambda kk: kk.store.set_sku_details(str(_body()["sku"]), dict(_body()["fields"])),
}


def _page(kk: KK) -> str:
    """Return counts and the last orders as HTML, without personal data."""
    kk.catch_up()
    figures = counts(kk)
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
    head = _row("th", SHOWN) + _row("td", [str(figures[name]) for name in SHOWN])
    body = _row("th", titles) + "".join(_row("td", row) for row in rows)
    return (
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>KK sandbox</title><style>{STYLE}</style>"
        f"<h1>KK sandbox</h1><p>{iso(kk.now())}</p><table>{head}</table>"
        f"<h2>Last orders</h2><table>{body}</table></html>"
    )


def _row(tag: str, cells: Iterable[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"
