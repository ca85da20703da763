"""KK's events without a request: payment, decisions on refunds, packing, parcels, delivery.

Nothing runs in the background. Before each answer, all due events are processed, with the times at which
they were due. So a test that advances the clock gets the same result as one that waits.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from airflow_provider_kk.sandbox.goods import product_of
from airflow_provider_kk.sandbox.json_values import NOT_FOUND, TOO_LATE, Rejected
from airflow_provider_kk.sandbox.settings import Settings
from airflow_provider_kk.sandbox.store import FIRST_REFUND_NO, Line, Row, SandboxStore, pieces_by_sku

#: The states before shipping, in which a refund is possible.
REFUNDABLE = ("waiting_payment", "paid", "packed", "abnormal", "refunding", "partial_refund")
#: state: the setting for the seconds that an order stays in it, and its next state
WAITS = {
    "paid": ("pack_after_s", "packed"),
    "partial_refund": ("pack_after_s", "packed"),
    "packed": ("ship_after_s", "shipped"),
    "partially_shipped": ("second_parcel_after_s", "shipped"),
    "shipped": ("deliver_after_s", "delivered"),
}
#: state: the status of its first parcel and of the second; None: not listed yet.
PARCELS = {
    "packed": ("preparing", None),
    "partially_shipped": ("shipped", None),
    "shipped": ("shipped", "shipped"),
    "delivered": ("completed", "completed"),
}
#: The states to which an order can be moved by hand.
MOVES = ("paid", *PARCELS, "abnormal", "cancel")


def pay_what_is_due(store: SandboxStore, settings: Settings, now: float) -> None:
    """Pay orders from the balance some time after their creation, which updates their rows."""
    due = "state = 'waiting_payment' AND created_at <= ?"
    after_s = settings.pay_after_s
    with store.transaction() as db:
        cents = store.value(f"SELECT sum(subtotal + freight) FROM kk_order WHERE {due}", (now - after_s,))  # noqa: S608 - constant names
        if cents is None:
            return
        db.execute(
            "UPDATE kk_order SET state = 'paid', paid_at = created_at + ?, updated_at = created_at + ?"  # noqa: S608 - constant names
            f" WHERE {due}",
            (after_s, after_s, now - after_s),
        )
        store.add_fact("reserved", -cents)
        store.add_fact("balance", -cents)


def ask_refund(store: SandboxStore, order_id: int, remark: str, pieces: Counter[str], now: float) -> str:
    """Add a refund of these pieces, or of all that is left, and return its number.

    The same call twice makes two refunds. Raises Rejected if there is no such order or line, or if it is too
    late.
    """
    with store.transaction() as db:
        order = store.order(order_id)
        if order["state"] not in REFUNDABLE:
            raise Rejected(TOO_LATE, "the order can no longer be refunded")
        if not pieces.keys() <= pieces_by_sku(json.loads(order["items"])).keys():
            raise Rejected(NOT_FOUND, "orderItems: no such line in the order")
        number = store.value("SELECT coalesce(max(no) + 1, ?) FROM refund", (FIRST_REFUND_NO,))
        db.execute(
            "INSERT INTO refund VALUES (?, ?, ?, ?, 'pending_review', ?)",
            (number, order_id, remark, json.dumps(pieces), now),
        )
        store.change_order(order_id, now, state="refunding")
        return str(number)


def refunds_of(store: SandboxStore, order_id: int, until: float) -> list[dict[str, Any]]:
    """Return an order's refunds until then, as KK lists them. Raises Rejected if there is no such order."""
    store.order(order_id)
    asked = "SELECT * FROM refund WHERE order_id = ? AND asked_at <= ? ORDER BY no"
    return [
        {"refundNo": str(row["no"]), "refundStatus": row["state"], "id": order_id, "remark": row["remark"]}
        for row in store.rows(asked, (order_id, until))
    ]


def decide_what_is_due(store: SandboxStore, settings: Settings, now: float) -> None:
    """Decide on refunds some time after their requests, in the order of the requests."""
    due = store.rows(
        "SELECT * FROM refund WHERE state = 'pending_review' AND asked_at <= ? ORDER BY asked_at, no",
        (now - settings.refund_after_s,),
    )
    for refund in due:
        with store.transaction():
            _decide(store, refund, refund["asked_at"] + settings.refund_after_s)


def _decide(store: SandboxStore, refund: Row, at: float) -> None:
    """Give back the money of a refund's pieces, unless they are more than is left of the order."""
    order = store.order(refund["order_id"])
    refunds = store.rows("SELECT * FROM refund WHERE order_id = ?", (order["id"],))
    left = pieces_by_sku(json.loads(order["items"]))
    for row in refunds:
        if row["state"] == "refund_successfully":
            left -= Counter(json.loads(row["pieces"]))
    asked = Counter(json.loads(refund["pieces"])) or left
    verdict, changes = "refund_failed", dict[str, Any]()
    if asked and asked <= left:
        verdict, is_paid = "refund_successfully", order["paid_at"] is not None
        cents = sum(product_of(sku).price * pieces for sku, pieces in asked.items())
        if asked == left:
            cents += order["freight"]
            changes["cancelled_at"] = at
        elif not is_paid:
            # Goods that are refunded before the payment are not paid.
            changes["subtotal"] = order["subtotal"] - cents
        if is_paid:
            changes |= {"refunded": order["refunded"] + cents, "refunded_at": at}
        store.add_fact("balance" if is_paid else "reserved", cents if is_paid else -cents)
    with store.transaction() as db:
        values = verdict, json.dumps(asked), refund["no"]
        db.execute("UPDATE refund SET state = ?, pieces = ? WHERE no = ?", values)
    is_pending = any(row["state"] == "pending_review" and row["no"] != refund["no"] for row in refunds)
    state = "refunding" if is_pending else _state_of(order | changes)
    store.change_order(order["id"], at, state=state, **changes)


def _state_of(order: Row) -> str:
    if order["cancelled_at"] is not None:
        return "cancel" if order["paid_at"] is None else "refunded"
    if order["paid_at"] is None:
        return "waiting_payment"
    return "partial_refund" if order["refunded"] else "paid"


def travel_what_is_due(store: SandboxStore, settings: Settings, now: float) -> None:
    """Move every order that is due: packed, shipped in one parcel or two, delivered.

    An order of several lines ships in two parcels, the first of which has its first line. `Settings` has the
    time of each step after the order's last change; with a negative time the step never happens.
    """
    for state, (setting, following) in WAITS.items():
        after_s = getattr(settings, setting)
        due = "SELECT * FROM kk_order WHERE state = ? AND updated_at <= ?"
        rows = store.rows(due, (state, now - after_s)) if after_s >= 0 else []
        with store.transaction():
            for row in rows:
                is_split = state == "packed" and len(json.loads(row["items"])) > 1
                _move(store, row, "partially_shipped" if is_split else following, row["updated_at"] + after_s)


def move(store: SandboxStore, order_id: int, state: str, now: float) -> None:
    """Move an order to one of `MOVES` at once.

    Raises Rejected if there is no such order, ValueError if there is no such state.
    """
    if state not in MOVES:
        raise ValueError(f"move an order to one of {', '.join(MOVES)}")
    _move(store, store.order(order_id), state, now)


def _move(store: SandboxStore, row: Row, state: str, at: float) -> None:
    changes: dict[str, Any] = {"travelled": state} if state in PARCELS else {}
    if ends := {"delivered": "completed_at", "cancel": "cancelled_at"}.get(state):
        changes[ends] = at
    with store.transaction():
        if row["paid_at"] is None and state != "abnormal":
            cents = row["subtotal"] + row["freight"]
            store.add_fact("reserved", -cents)
            if state != "cancel":
                store.add_fact("balance", -cents)
                changes["paid_at"] = at
        store.change_order(row["id"], at, state=state, **changes)


def parcels_json(row: Row) -> list[dict[str, Any]] | None:
    """Return an order's `fulfillments` in KK's list; None until it is packed."""
    if row["travelled"] is None:
        return None
    lines: list[Line] = json.loads(row["items"])
    parcels = zip((lines[:1], lines[1:]), PARCELS[row["travelled"]], strict=True)
    return [
        _parcel_json(row["id"], no, goods, status)
        for no, (goods, status) in enumerate(parcels, 1)
        if goods and status
    ]


def _parcel_json(order_id: int, no: int, lines: list[Line], status: str) -> dict[str, Any]:
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
            {"itemId": product_of(sku).item_id, "skuCode": sku, "productNum": quantity}
            for sku, quantity in lines
        ],
        "trackingInfos": codes,
    }
