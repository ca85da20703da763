"""The Flask application: KK's paths, the control API, and a page for browsers.

Each call of the control API needs the header `X-Sandbox: 1`, which a foreign page in a browser cannot send.
`control.py` is its client.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from flask import Flask, Response, render_template_string, request

from airflow_provider_kk.sandbox.goods import products
from airflow_provider_kk.sandbox.json_values import Rejected, iso
from airflow_provider_kk.sandbox.kk import KK, as_json, html
from airflow_provider_kk.sandbox.life import move
from airflow_provider_kk.sandbox.order_calls import CALLS, FORMS, read_order
from airflow_provider_kk.sandbox.settings import Settings
from airflow_provider_kk.sandbox.store import pieces_by_sku

#: The address of orders that are placed by hand.
PLACED_ADDRESS = {"country": "FR", "phone": "0102030405", "recipient": "By Hand", "province": "Here"}
#: The counts that the page shows.
SHOWN = ("orders", "numbers", "creates", "commits", "refused", "rate_limited",
         "unauthorized", "struck", "late")  # fmt: skip
PAGE = """\
<!DOCTYPE html><html lang=en><meta charset=utf-8><title>KK sandbox</title>
<style>
body {font: 15px system-ui, sans-serif; margin: 2rem; color: #222} table {border-collapse: collapse}
td, th {padding: .3rem .9rem .3rem 0; text-align: left; border-bottom: 1px solid #ddd}
</style>
<h1>KK sandbox</h1><p>{{ iso(now) }}</p>
<table>
<tr>{% for name in shown %}<th>{{ name }}{% endfor %}
<tr>{% for name in shown %}<td>{{ counts[name] }}{% endfor %}
</table>
<h2>Last orders</h2>
<table>
<tr><th>kkOrderId<th>order number<th>state<th>warehouse<th>goods<th>created
{% for order in orders %}
<tr><td>{{ order.id }}<td>{{ order.number or "" }}<td>{{ order.state }}<td>{{ order.warehouse }}
<td>
{% for sku, pieces in order.goods.items() %}{{ pieces }} x {{ sku }}{{ ", " if not loop.last }}{% endfor %}
<td>{{ iso(order.created_at) }}
{% endfor %}
</table>
</html>
"""


def create_app(kk: KK) -> Flask:
    """Return the whole sandbox as a WSGI application."""
    app = Flask(__name__, static_folder=None)
    app.before_request(_only_loopback)
    views: dict[tuple[str, str], Callable[[], Response | str]] = {
        **{(method, rule): partial(kk.answer, rule) for method, rule in CALLS},
        **{("GET", f"/__sandbox__/{name}"): partial(_control, kk, call) for name, call in _READ.items()},
        **{("POST", f"/__sandbox__/{name}"): partial(_control, kk, call) for name, call in _CHANGE.items()},
        ("GET", "/"): partial(_page, kk),
    }
    for (method, rule), view in views.items():
        app.add_url_rule(rule, f"{method} {rule}", view, methods=[method], provide_automatic_options=False)
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
    totals = ("requests", "GET", "POST", "creates", "commits")
    outcomes = ("created", "ok", "refused", "unauthorized", "rate_limited", "struck", "late")
    return {
        **dict.fromkeys(totals + outcomes, 0),
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
    names = "number call state warehouse remark sale_platform channel_type created_at updated_at"
    return [
        {
            "id": str(row["id"]),
            "goods": pieces_by_sku(json.loads(row["items"])),
            "address": json.loads(row["address"]),
            **{name: row[name] for name in names.split()},
        }
        for row in kk.store.rows(f"SELECT * FROM kk_order {where} {order}", values)  # noqa: S608 - constant names
    ]


def _only_loopback() -> Response | None:
    host = request.host if request.host.endswith("]") else request.host.rsplit(":", 1)[0]
    if is_loopback(host):
        return None
    # A request by a proxy, or by a DNS name that an attacker points to this machine.
    return html(403, "The sandbox answers on loopback only. Use http://127.0.0.1")


def _control(kk: KK, call: Callable[..., Any]) -> Response:
    """Answer a call of the control API, whose query or body has the arguments."""
    if request.headers.get("X-Sandbox") != "1":
        return as_json({"error": "the header X-Sandbox: 1 is required"}, 403)
    kk.catch_up()
    given = request.args.to_dict() if request.method == "GET" else request.get_json(silent=True)
    if not isinstance(given, dict):
        return as_json({"error": "the body is not a JSON object"}, 400)
    try:
        return as_json(call(kk, **given))
    except (ValueError, TypeError, Rejected) as error:
        return as_json({"error": str(error)}, 400)


def _catalogue(kk: KK) -> list[dict[str, Any]]:
    return [asdict(item) | {"stock": kk.store.stock(item.sku)} for item in products().values()]


def _place(
    kk: KK,
    goods: dict[str, int],
    number: str | None = None,
    age_s: float = 0,
    remark: str | None = None,
    address: dict[str, str] | None = None,
) -> list[str]:
    """Create an order without limits and faults, as by hand on KK's site or by another tool."""
    body = {
        "orderAddresses": PLACED_ADDRESS | (address or {}),
        "orderItemsList": [{"sku": sku, "quantity": pieces} for sku, pieces in goods.items()],
        "customOrderId": number,
        "remark": remark,
        "channelType": "Standard",
    }
    order = read_order(FORMS["/openapi/v2/order/orders"], body, Settings())
    return [str(order_id) for order_id in kk.store.create(order, kk.now() - age_s)]


_READ: dict[str, Callable[..., Any]] = {
    "orders": orders,
    "requests": lambda kk: kk.log.entries(),
    "counts": counts,
    "duplicates": lambda kk: kk.store.duplicates(),
    "now": KK.now,
    "catalogue": _catalogue,
}
_CHANGE: dict[str, Callable[..., Any]] = {
    "arm": lambda kk, **how: kk.armory.arm(**how),
    "disarm": lambda kk, id=None: kk.armory.disarm(id),
    "settings": KK.change_settings,
    "advance": KK.advance,
    "balance": lambda kk, dollars: kk.store.set_fact("balance", round(dollars * 100)),
    "place": _place,
    "move": lambda kk, id, state: move(kk.store, int(id), state, kk.now()),
    "reset": KK.reset,
    "stock": lambda kk, sku, qty: kk.store.set_stock(sku, qty),
    "sku-details": lambda kk, sku, fields: kk.store.set_sku_details(sku, fields),
}


def _page(kk: KK) -> str:
    """Return counts and the last orders as HTML, without personal data."""
    now = kk.catch_up()
    last = orders(kk, last=20)
    return render_template_string(PAGE, now=now, iso=iso, shown=SHOWN, counts=counts(kk), orders=last)
