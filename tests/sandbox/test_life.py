"""What happens to an order after it was taken: payment and refunds, by the clock."""

from __future__ import annotations

import pytest

from tests.sandbox.caller import DRESS, JACKET, V1, V2, order

CREATE_PRICE = 18.89


def refund_path(order_id, version="v2"):
    return f"/openapi/{version}/order/orders/{order_id}/refund"


def refunds(caller, order_id, version="v2"):
    return caller.get(f"/openapi/{version}/order/orders/refund/{order_id}")["list"]


def balance(caller):
    return caller.get("/openapi/v1/payment/balance")["balance"]


def line(sku=DRESS, quantity=1):
    return {"itemId": 1, "skuCode": sku, "quantity": quantity, "countryCode": "CN"}


def test_kk_pays_ten_minutes_after_creation_and_the_row_is_updated(kk, caller):
    kk.control.set_balance(100)
    caller.create(order("A-1"))
    (young,) = kk.control.orders()
    kk.control.advance(590)
    assert caller.listed()[0]["status"] == "waiting_payment"

    kk.control.advance(11)
    assert caller.listed()[0]["status"] == "waiting_to_ship"
    assert kk.control.orders()[0]["updated_at"] == pytest.approx(young["created_at"] + 600)
    assert balance(caller) == pytest.approx(100 - CREATE_PRICE)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_refund_is_pending_first_and_decided_within_the_hour(kk, caller, version):
    order_id = caller.create(order("A-1"))
    kk.control.advance(601)
    before = balance(caller)

    number = caller.create({"remark": "changed my mind"}, refund_path(order_id, version))
    assert refunds(caller, order_id, version) == [
        {"refundNo": number, "refundStatus": "pending_review", "id": order_id, "remark": "changed my mind"}
    ]
    assert caller.listed(V2)[0]["refundStatus"] == "refunding"

    kk.control.advance(3601)
    assert refunds(caller, order_id)[0]["refundStatus"] == "refund_successfully"
    (row,) = caller.listed(V2)
    assert (row["status"], row["refundStatus"], row["refundedAmount"]) == ("cancel", "refund", CREATE_PRICE)
    assert balance(caller) == pytest.approx(before + CREATE_PRICE)


def test_the_same_partial_refund_twice_gives_money_back_twice(kk, caller):
    lines = [{"sku": DRESS, "quantity": 2}, {"sku": "FWTS00104_WHT_M", "quantity": 1}]
    order_id = caller.create(order("A-1", orderItemsList=lines))
    kk.control.advance(601)
    body = {"remark": "one too many", "refundReason": "Other", "orderItems": [line()]}
    numbers = [caller.create(body, refund_path(order_id)) for _ in range(3)]
    kk.control.advance(3601)

    assert len(set(numbers)) == 3
    statuses = [row["refundStatus"] for row in refunds(caller, order_id)]
    assert statuses == ["refund_successfully", "refund_successfully", "refund_failed"]
    assert caller.listed(V2)[0]["refundStatus"] == "partial_refund"
    assert caller.listed(V1)[0]["refundedAmount"] == pytest.approx(2 * 14.9)


def test_a_refund_before_payment_cancels_and_nothing_is_paid(kk, caller):
    before = balance(caller)
    order_id = caller.create(order("A-1"))
    caller.create({"remark": "stop"}, refund_path(order_id))
    kk.control.advance(5000)

    assert caller.listed(V1)[0]["status"] == "cancel"
    assert balance(caller) == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"remark": "x", "orderItems": []},
        {"remark": "x", "orderItems": [line(JACKET)]},
        {"remark": "x", "orderItems": [line(quantity=0)]},
        {"remark": "x", "orderItems": [{"skuCode": DRESS, "quantity": 1}]},
    ],
)
def test_an_unreadable_refund_is_rejected(kk, caller, body):
    order_id = caller.create(order("A-1"))

    assert caller.refusal(body, refund_path(order_id))
    assert refunds(caller, order_id) == []


def test_nothing_is_refunded_that_is_unknown_or_already_refunded(kk, caller):
    order_id = caller.create(order("A-1"))
    caller.create({"remark": "x"}, refund_path(order_id))
    kk.control.advance(5000)

    assert caller.refusal({"remark": "x"}, refund_path(order_id))
    assert caller.refusal({"remark": "x"}, refund_path(7))


def test_a_lost_response_to_a_refund_leaves_a_refund(kk, caller):
    order_id = caller.create(order("A-1"))
    kk.control.arm("status_after_commit", path="/refund", times=1)

    assert caller.post({"remark": "x"}, refund_path(order_id)).status_code == 500
    assert len(refunds(caller, order_id)) == 1
