"""An order's way from payment to the door, by the clock and by hand, and how lists run behind it."""

from __future__ import annotations

import pytest

from airflow_provider_kk.sandbox.control import SandboxControlError
from airflow_provider_kk.sandbox.json_values import iso
from tests.sandbox.caller import DRESS, V1, V2, order

DAY = 86_400
TWO_LINES = [{"sku": DRESS, "quantity": 2}, {"sku": "FWTS00104_WHT_M", "quantity": 1}]
REFUND = "/openapi/v2/order/orders/{}/refund"


def words(caller):
    """The statuses of the one order: v1's, then v2's three."""
    (v1,), (v2,) = caller.listed(V1), caller.listed(V2)
    return v1["status"], v2["status"], v2["financialStatus"], v2["fulfillmentStatus"]


def packages(caller):
    return [(one["status"], one["trackingCode"]) for one in caller.listed(V2)[0]["fulfillments"] or []]


def test_an_order_of_two_lines_is_packed_shipped_in_two_parcels_and_delivered(kk, caller):
    order_id = caller.create(order("A-1", orderItemsList=TWO_LINES))
    first, second = f"YT{order_id}1", f"YT{order_id}2"
    created_at = kk.control.orders()[0]["created_at"]
    seen = []
    for seconds in (601, DAY, DAY, DAY, 7 * DAY):
        kk.control.advance(seconds)
        seen.append((*words(caller), packages(caller)))

    assert seen == [
        ("waiting_to_ship", "processing", "paid", "waiting_to_ship", []),
        ("waiting_to_ship", "processing", "paid", "waiting_to_ship", [("preparing", None)]),
        ("partial_shipped", "processing", "paid", "partially_shipped", [("shipped", first)]),
        ("shipped", "processing", "paid", "fully_shipped", [("shipped", first), ("shipped", second)]),
        ("delivered", "completed", "paid", "completed", [("completed", first), ("completed", second)]),
    ]
    (row,) = caller.listed(V2)
    assert row["completedDate"] == row["updateDate"] == iso(created_at + 600 + 10 * DAY)
    parcel = row["fulfillments"][0]
    assert [one["skuCode"] for one in parcel["items"]] == [DRESS]
    assert [one["carrier"] for one in parcel["trackingInfos"]] == ["La Poste", "YunExpress"]


def test_a_jump_over_the_whole_way_leaves_the_dates_at_which_it_happened(kk, caller):
    caller.create(order("A-1"))
    created_at = kk.control.orders()[0]["created_at"]
    kk.control.advance(30 * DAY)

    (row,) = caller.listed(V2)
    assert (row["payDate"], row["completedDate"]) == (iso(created_at + 600), iso(created_at + 600 + 9 * DAY))
    assert len(row["fulfillments"]) == 1


def test_the_timetable_can_be_set_and_stopped(kk, caller):
    kk.control.set(pay_after_s=5, pack_after_s=5, ship_after_s=5, deliver_after_s=-1)
    caller.create(order("A-1"))
    kk.control.advance(100 * DAY)

    assert words(caller)[0] == "shipped"


@pytest.mark.parametrize("state", ["paid", "packed", "partially_shipped", "shipped", "delivered"])
def test_an_order_can_be_moved_to_any_fulfilment_status_and_is_paid_for(kk, caller, state):
    kk.control.set_balance(100)
    order_id = caller.create(order("A-1"))
    kk.control.move(str(order_id), state)

    assert kk.control.orders()[0]["state"] == state
    assert caller.get("/openapi/v1/payment/balance")["balance"] == pytest.approx(100 - 18.89)


def test_a_cancelled_or_abnormal_order_goes_nowhere(kk, caller):
    ids = [str(caller.create(order(number))) for number in ("A-1", "A-2")]
    for kk_id, state in zip(ids, ("cancel", "abnormal"), strict=True):
        kk.control.move(kk_id, state)
    kk.control.advance(100 * DAY)

    assert [row["status"] for row in caller.listed(V2)] == ["abnormal_order", "cancel"]
    with pytest.raises(SandboxControlError):
        kk.control.move(ids[0], "lost")
    with pytest.raises(SandboxControlError):
        kk.control.move("7", "paid")


def test_a_refund_is_too_late_once_something_is_shipped(kk, caller):
    order_id = caller.create(order("A-1"))
    kk.control.move(str(order_id), "packed")
    assert caller.create({"remark": "in time"}, REFUND.format(order_id))

    other = caller.create(order("A-2"))
    kk.control.move(str(other), "shipped")
    assert caller.refusal({"remark": "too late"}, REFUND.format(other))


def test_a_change_shows_in_lists_only_when_their_index_has_it(kk, caller):
    kk.control.set(update_lag_s=120)
    order_id = caller.create(order("A-1"))
    kk.control.move(str(order_id), "paid")
    paid_at = kk.control.now()
    kk.control.advance(60)
    kk.control.move(str(order_id), "shipped")

    assert words(caller)[0] == "waiting_payment"
    kk.control.advance(61)
    assert words(caller)[0] == "waiting_to_ship"
    assert caller.listed(updateStartTime=iso(paid_at + 30)) == []
    kk.control.advance(60)
    assert words(caller)[0] == "shipped"
    assert caller.get(V1, updateStartTime=iso(paid_at + 30))["total"] == 1


def test_rows_can_be_listed_twice(kk, caller):
    for number in ("A-1", "A-2", "A-3"):
        caller.create(order(number))
    kk.control.set(repeat_every=2)

    page = caller.get(V2, pageSize=250)
    assert [row["customOrderId"] for row in page["list"]] == ["A-3", "A-2", "A-2", "A-1"]
    assert page["total"] == 3
