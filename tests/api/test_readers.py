"""Reading what KK lists: whatever comes, nothing raises and nothing more than the odd field is lost."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kk.api.models import KKOrder, OrderPage, Package

V2_ORDER = {
    "id": "1000000371651",
    "customOrderId": "A-1",
    "remark": "note",
    "status": "processing",
    "financialStatus": "paid",
    "fulfillmentStatus": "NULL",
    "refundStatus": "something new",
    "purchaseDate": "2024-01-02T03:04:05Z",
    "payDate": "2024-01-02T05:04:05+02:00",
    "createDate": "2024-01-02 03:04:05",
    "updateDate": 1704164645000,
    "shippingAddress": {"country": "FR", "recipient": "Somebody", "zip": 75001},
    "warehouseId": 7,
    "currencyCode": "USD",
    "finalAmount": "12.30",
    "subTotalAmount": 10,
    "freightAmount": Decimal("2.30"),
    "orderItems": [{"skuCode": "A", "productNum": "2", "amount": 5, "total": "10.00", "countryCode": "CN"}],
    "fulfillments": [
        {
            "packId": 3,
            "status": "shipped",
            "trackingCode": "T1",
            "trackingInfos": [
                {"carrier": "DHL", "trackingCode": "T2"},
                {"carrier": "UPS", "trackingCode": "T1"},
            ],
            "items": None,
        }
    ],
}
MOMENT = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_a_v2_order_is_read_whole() -> None:
    order = KKOrder.read(V2_ORDER)
    assert order.odd_fields == []
    assert (order.id, order.custom_order_number, order.number_is_integer) == ("1000000371651", "A-1", False)
    assert (order.status, order.fulfillment_status, order.refund_status) == (
        "processing",
        None,
        "something new",
    )
    assert order.purchased_at == order.paid_at == order.created_at == order.updated_at == MOMENT
    assert order.final_amount == Decimal("12.30")
    assert order.shipping_address is not None
    assert order.shipping_address.zip == "75001"
    assert [(item.sku, item.quantity, item.total) for item in order.items] == [("A", 2, Decimal("10.00"))]
    assert [info.tracking_code for info in order.fulfillments[0].tracking_infos] == ["T2", "T1"]
    assert order.fulfillments[0].items == []


def test_v1_names_are_read_too() -> None:
    order = KKOrder.read(
        {
            "id": 1000000371651,
            "CustomOrderNumber": 111,
            "payAt": "2024-01-02T03:04:05",
            "skusAmount": "3",
            "orderItems": [{"skuCode": "A", "productNum": 1, "purchasePrices": "1.5", "subtotal": "3"}],
            "fulfillments": None,
        }
    )
    assert (order.id, order.custom_order_number, order.number_is_integer) == ("1000000371651", "111", True)
    assert order.paid_at == MOMENT
    assert order.subtotal_amount == 3
    assert order.items[0].amount == Decimal("1.5")


def test_either_name_of_the_order_number_counts_when_the_other_is_empty() -> None:
    assert KKOrder.read({"customOrderId": "", "CustomOrderNumber": "7"}).custom_order_number == "7"
    assert KKOrder.read({"customOrderId": "7", "CustomOrderNumber": None}).custom_order_number == "7"


@pytest.mark.parametrize(
    "odd", [2022, "2022", "soon", 0, "0000-00-00 00:00:00", True, [1], {"a": 1}, -5, 10**30]
)
def test_an_odd_date_is_none_and_noted(odd: Any) -> None:
    order = KKOrder.read({"id": 1, "payDate": odd})
    assert order.paid_at is None
    assert order.id == "1"
    assert order.odd_fields == ["paid_at"]


@pytest.mark.parametrize(
    "odd", ["much", True, [], {"a": 1}, "NaN", "Infinity", float("nan"), "1e999", float("inf"), "1_5", "٣"]
)
def test_odd_money_is_none_and_noted(odd: Any) -> None:
    order = KKOrder.read({"finalAmount": odd, "orderItems": [{"total": odd, "productNum": 1}]})
    assert order.final_amount is None
    assert order.items[0].quantity == 1
    assert order.odd_fields == ["final_amount", "items[0].total"]


def test_money_is_exact() -> None:
    assert KKOrder.read({"finalAmount": 0.1}).final_amount == Decimal("0.1")


@pytest.mark.parametrize("odd", ["1.5", -1, "x", True, [1]])
def test_an_odd_quantity_is_none_and_noted(odd: Any) -> None:
    order = KKOrder.read({"orderItems": [{"productNum": 3}, {"productNum": odd}]})
    assert [item.quantity for item in order.items] == [3, None]
    assert order.odd_fields == ["items[1].quantity"]


@pytest.mark.parametrize("odd", [None, 5, "text", [], True])
def test_a_row_that_is_no_object_is_an_order_without_anything(odd: Any) -> None:
    order = KKOrder.read(odd)
    assert (order.id, order.custom_order_number, order.odd_fields) == ("", None, ["(whole)"])


def test_one_odd_row_does_not_cost_the_page() -> None:
    page = OrderPage.read(
        {"list": [{"id": 1}, "junk", {"id": 2}], "total": "3", "pageNumber": 1, "pageSize": "250"}
    )
    assert [order.id for order in page.orders] == ["1", "", "2"]
    assert (page.total, page.page_number, page.page_size) == (3, 1, 250)
    assert page.odd_fields == ["orders[1].(whole)"]


def test_a_missing_total_and_a_null_list_are_fine() -> None:
    page = OrderPage.read({"list": None})
    assert (page.orders, page.total, page.odd_fields) == ([], None, [])


def test_a_listed_order_does_not_show_its_customer() -> None:
    assert "Somebody" not in repr(KKOrder.read(V2_ORDER))


def test_text_that_no_database_takes_is_fixed() -> None:
    package = Package.read({"carrier": "a\0b\ud800"})
    assert package.carrier == "a\ufffdb\ufffd"


json_junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals(allow_nan=True)
    | st.text(st.characters())
    | st.sampled_from(["NULL", "2022", "0000-00-00", "2024-13-45T99:99:99", "1e400", "9" * 50, "NaN", ""]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
_NAMES = [*V2_ORDER, "CustomOrderNumber", "payAt", "skuCode", "productNum", "total", "trackingInfos", "items"]


@given(st.dictionaries(st.sampled_from(_NAMES), json_junk) | json_junk)
def test_reading_never_raises_and_what_was_read_can_be_dumped(data: Any) -> None:
    order = KKOrder.read(data)
    order.model_dump_json()
    for moment in (order.paid_at, order.created_at, order.updated_at):
        assert moment is None or moment.tzinfo is not None
    page = OrderPage.read({"list": [data, data], "total": data})
    assert len(page.orders) == 2


@given(st.sampled_from(sorted(V2_ORDER)), json_junk)
def test_one_odd_field_loses_that_field_only(name: str, value: Any) -> None:
    before, after = KKOrder.read(V2_ORDER), KKOrder.read(V2_ORDER | {name: value})
    differing = [field for field in KKOrder.model_fields if getattr(before, field) != getattr(after, field)]
    about_the_number = {"custom_order_number", "number_is_integer"}
    assert len(set(differing) - {"odd_fields"} - about_the_number) <= 1
