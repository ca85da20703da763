"""How an order travels at KK: packed, shipped in one parcel or two, delivered, by a timetable.

An order of several lines goes in two parcels, the first of which has its first line. Each step comes so long
after the order's last change as `Settings` says; a negative time stops it there.
"""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_kk.sandbox.protocol import NOT_FOUND, Rejected
from airflow_provider_kk.sandbox.settings import Settings
from airflow_provider_kk.sandbox.store import Row, SandboxStore

#: state: the setting that says how long an order stays in it
WAITS = {
    "paid": "pack_after_s",
    "partial_refund": "pack_after_s",
    "packed": "ship_after_s",
    "partially_shipped": "second_parcel_after_s",
    "shipped": "deliver_after_s",
}
#: The states in which a parcel may be seen, and how far the first and the others are then.
PARCELS = {
    "packed": ("preparing", None),
    "partially_shipped": ("shipped", None),
    "shipped": ("shipped", "shipped"),
    "delivered": ("completed", "completed"),
}
#: What an order can be moved to by hand.
MOVES = ("paid", *PARCELS, "abnormal", "cancel")


def travel_what_is_due(store: SandboxStore, settings: Settings, now: float) -> None:
    """Let every order take the steps whose time has come."""
    for state, setting in WAITS.items():
        after_s = getattr(settings, setting)
        due = "SELECT * FROM kk_order WHERE state = ? AND updated_at <= ?"
        rows = store.rows(due, (state, now - after_s)) if after_s >= 0 else []
        with store.transaction():
            for row in rows:
                _move(store, row, _next(row), row["updated_at"] + after_s)


def move(store: SandboxStore, order_id: int, state: str, now: float) -> None:
    """Put an order into one of `MOVES` at once.

    Raises:
        Refused: no such order.
        ValueError: no such state.
    """
    if state not in MOVES:
        raise ValueError(f"an order is moved to one of {', '.join(MOVES)}")
    found = store.rows("SELECT * FROM kk_order WHERE id = ?", (order_id,))
    if not found:
        raise Rejected(NOT_FOUND, "the order does not exist")
    _move(store, found[0], state, now)


def parcels_json(row: Row) -> list[dict[str, Any]] | None:
    """An order's `fulfillments` in KK's list; None until it is packed."""
    if row["travelled"] is None:
        return None
    first, others = PARCELS[row["travelled"]]
    groups = _parcels(json.loads(row["items"]))
    shown = zip(groups, [first, *([others] * (len(groups) - 1))], strict=True)
    return [
        _parcel_json(row["id"], no, items, status) for no, (items, status) in enumerate(shown, 1) if status
    ]


def _next(row: Row) -> str:
    if row["state"] == "packed":
        return "partially_shipped" if len(_parcels(json.loads(row["items"]))) > 1 else "shipped"
    return {"partially_shipped": "shipped", "shipped": "delivered"}.get(row["state"], "packed")


def _move(store: SandboxStore, row: Row, state: str, at: float) -> None:
    travelled = state if state in PARCELS else row["travelled"]
    paid_at = at if row["paid_at"] is None and state not in ("abnormal", "cancel") else row["paid_at"]
    ends = {"delivered": "completed_at", "cancel": "cancelled_at"}.get(state, "updated_at")
    with store.transaction() as db:
        db.execute(
            f"UPDATE kk_order SET state = ?, travelled = ?, paid_at = ?, {ends} = ?, updated_at = ?"  # noqa: S608 - constant names
            " WHERE id = ?",
            (state, travelled, paid_at, at, at, row["id"]),
        )
        if row["paid_at"] is None:
            _settle_price(store, row, is_paid=paid_at is not None, is_over=state == "cancel")


def _settle_price(store: SandboxStore, row: Row, *, is_paid: bool, is_over: bool) -> None:
    cents = row["subtotal"] + row["freight"]
    if is_paid or is_over:
        store.add_fact("reserved", -cents)
    if is_paid:
        store.add_fact("balance", -cents)


def _parcels(items: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [items[:1], items[1:]] if len(items) > 1 else [items]


def _parcel_json(order_id: int, no: int, items: list[dict[str, Any]], status: str) -> dict[str, Any]:
    codes = [{"carrier": "YunExpress", "trackingCode": f"YT{order_id}{no}"}] if status != "preparing" else []
    if status == "completed":
        codes.insert(0, {"carrier": "La Poste", "trackingCode": f"LP{order_id}{no}"})
    code = codes[-1]["trackingCode"] if codes else None
    return {
        "id": order_id * 10 + no,
        "packId": f"PK{order_id}-{no}",
        "status": status,
        "carrier": codes[-1]["carrier"] if codes else None,
        "carrierType": "Standard",
        "trackingCode": code,
        "logisticsSearchUrl": f"https://t.example.com/{code}" if code else None,
        "deliveryTime": "6~10 Business Days",
        "items": [
            {"itemId": item["item_id"], "skuCode": item["sku"], "productNum": item["quantity"]}
            for item in items
        ],
        "trackingInfos": codes,
    }
