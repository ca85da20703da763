"""A page for people: figures and the last orders, without anybody's name or street."""

from __future__ import annotations

from html import escape

from airflow_provider_kk.sandbox.clock import iso
from airflow_provider_kk.sandbox.kk import KK
from airflow_provider_kk.sandbox.state import counts, orders

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
