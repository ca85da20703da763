"""KK's events without a request: payment, decisions on refunds, packing, parcels, delivery.

Nothing runs in the background. Before each answer, all due events are processed, with the times at which
they were due. So a test that advances the clock gets the same result as one that waits.
"""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_kk.sandbox.goods import product_of
from airflow_provider_kk.sandbox.json_values import NOT_FOUND, TOO_LATE, Rejected
from airflow_provider_kk.sandbox.settings import Settings
from airflow_provider_kk.sandbox.store import FIRST_REFUND_NO, Row, SandboxStore, pieces_by_sku

#: The states before shipping, in which a refund is possible.
REFUNDABLE = ("waiting_payment", "paid", "packed", "abnormal", "refunding", "partial_refund")
#: state: the setting for the seconds that an order stays in it
WAITS = {
    "paid": "pack_after_s",
    "partial_refund": "pack_after_s",
    "packed": "ship_after_s",
    "partially_shipped": "second_parcel_after_s",
    "shipped": "deliver_after_s",
}
#: state: the status of its first parcel and of the others; None: not listed yet.
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
    until = now - settings.pay_after_s
    if store.value(f"SELECT 1 FROM kk_order WHERE {due} LIMIT 1", (until,)) is None:  # noqa: S608 - constant names
        return
    with store.transaction() as db:
        cents = store.value(f"SELECT sum(subtotal + freight) FROM kk_order WHERE {due}", (until,))  # noqa: S608 - constant names
        db.execute(
            "UPDATE kk_order SET state = 'paid', paid_at = created_at + ?, updated_at = created_at + ?"  # noqa: S608 - constant names
            f" WHERE {due}",
            (settings.pay_after_s, settings.pay_after_s, until),
        )
        store.add_fact("reserved", -cents)
        store.add_fact("balance", -cents)


def ask_refund(
    store: SandboxStore,
    order_id: int,
    remark: str | None,
    reason: str,
    lines: list[dict[str, Any]] | None,
    now: float,
) -> int:
    """Add a refund and return its number. The same call twice makes two refunds.

    Raises Rejected if there is no such order or line, or if it is too late.
    """
    with store.transaction() as db:
        order = _order(store, order_id)
        if order["state"] not in REFUNDABLE:
            raise Rejected(TOO_LATE, "the order can no longer be refunded")
        known = pieces_by_sku(json.loads(order["items"]))
        if any(line["sku"] not in known for line in lines or ()):
            raise Rejected(NOT_FOUND, "orderItems: no such line in the order")
        number = max(FIRST_REFUND_NO - 1, store.value("SELECT max(no) FROM refund") or 0) + 1
        db.execute(
            "INSERT INTO refund VALUES (?, ?, ?, ?, ?, 'pending_review', ?)",
            (number, order_id, remark, reason, json.dumps(lines), now),
        )
        db.execute("UPDATE kk_order SET state = 'refunding', updated_at = ? WHERE id = ?", (now, order_id))
        return int(number)


def refunds_of(store: SandboxStore, order_id: int, until: float) -> list[dict[str, Any]]:
    """Return an order's refunds until then, as KK lists them. Raises Rejected if there is no such order."""
    _order(store, order_id)
    asked = "order_id = ? AND asked_at <= ?"
    rows = store.rows(f"SELECT * FROM refund WHERE {asked} ORDER BY no", (order_id, until))  # noqa: S608 - constant names
    return [
        {"refundNo": str(row["no"]), "refundStatus": row["state"], "id": order_id, "remark": row["remark"]}
        for row in rows
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
    order = _order(store, refund["order_id"])
    items = json.loads(order["items"])
    left = {sku: pieces - _refunded(items, sku) for sku, pieces in pieces_by_sku(items).items()}
    lines = json.loads(refund["lines"]) or [
        {"sku": sku, "quantity": pieces} for sku, pieces in left.items() if pieces
    ]
    asked = pieces_by_sku(lines)
    if not asked or any(pieces > left[sku] for sku, pieces in asked.items()):
        _close(store, refund, order, "refund_failed", at)
        return
    for sku, pieces in asked.items():
        _take_back(items, sku, pieces)
    whole = asked == {sku: pieces for sku, pieces in left.items() if pieces}
    cents = sum(product_of(sku).price * pieces for sku, pieces in asked.items())
    cents += order["freight"] if whole else 0
    _give_back(store, order, items, cents, whole, at)
    _close(store, refund, _order(store, order["id"]), "refund_successfully", at)


def _give_back(
    store: SandboxStore, order: Row, items: list[dict[str, Any]], cents: int, whole: bool, at: float
) -> None:
    paid = order["paid_at"] is not None
    store.add_fact("balance" if paid else "reserved", cents if paid else -cents)
    with store.transaction() as db:
        db.execute(
            "UPDATE kk_order SET items = ?, cancelled_at = ?, refunded = refunded + ?, refunded_at = ?,"
            " subtotal = subtotal - ? WHERE id = ?",
            (
                json.dumps(items),
                at if whole else None,
                cents if paid else 0,
                at if paid else None,
                # Goods that are refunded before the payment are not paid.
                0 if paid or whole else cents,
                order["id"],
            ),
        )


def _close(store: SandboxStore, refund: Row, order: Row, verdict: str, at: float) -> None:
    with store.transaction() as db:
        db.execute("UPDATE refund SET state = ? WHERE no = ?", (verdict, refund["no"]))
        pending = "SELECT 1 FROM refund WHERE order_id = ? AND state = 'pending_review' LIMIT 1"
        state = "refunding" if store.value(pending, (order["id"],)) else _state_of(order)
        db.execute("UPDATE kk_order SET state = ?, updated_at = ? WHERE id = ?", (state, at, order["id"]))


def _state_of(order: Row) -> str:
    if order["cancelled_at"] is not None:
        return "cancel" if order["paid_at"] is None else "refunded"
    if order["paid_at"] is None:
        return "waiting_payment"
    return "partial_refund" if order["refunded"] else "paid"


def _order(store: SandboxStore, order_id: int) -> Row:
    found = store.rows("SELECT * FROM kk_order WHERE id = ?", (order_id,))
    if not found:
        raise Rejected(NOT_FOUND, "the order does not exist")
    return found[0]


def _refunded(items: list[dict[str, Any]], sku: str) -> int:
    return sum(item["refunded"] for item in items if item["sku"] == sku)


def _take_back(items: list[dict[str, Any]], sku: str, pieces: int) -> None:
    for item in items:
        if item["sku"] == sku:
            taken = min(pieces, item["quantity"] - item["refunded"])
            item["refunded"] += taken
            pieces -= taken


def travel_what_is_due(store: SandboxStore, settings: Settings, now: float) -> None:
    """Move every order that is due: packed, shipped in one parcel or two, delivered.

    An order of several lines ships in two parcels, the first of which has its first line. `Settings` has the
    time of each step after the order's last change; with a negative time the step never happens.
    """
    for state, setting in WAITS.items():
        after_s = getattr(settings, setting)
        due = "SELECT * FROM kk_order WHERE state = ? AND updated_at <= ?"
        rows = store.rows(due, (state, now - after_s)) if after_s >= 0 else []
        with store.transaction():
            for row in rows:
                _move(store, row, _next(row), row["updated_at"] + after_s)


def move(store: SandboxStore, order_id: int, state: str, now: float) -> None:
    """Move an order to one of `MOVES` at once.

    Raises Rejected if there is no such order, ValueError if there is no such state.
    """
    if state not in MOVES:
        raise ValueError(f"move an order to one of {', '.join(MOVES)}")
    _move(store, _order(store, order_id), state, now)


def parcels_json(row: Row) -> list[dict[str, Any]] | None:
    """Return an order's `fulfillments` in KK's list; None until it is packed."""
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
        if row["paid_at"] is None and (paid_at is not None or state == "cancel"):
            cents = row["subtotal"] + row["freight"]
            store.add_fact("reserved", -cents)
            if paid_at is not None:
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
