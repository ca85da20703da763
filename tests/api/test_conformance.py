"""Every documented shape of KK's answers through each API version's client, and what may come instead of it.

All of it is built from KK's tables and examples: nobody here can record the real API.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
import requests_mock as rm

from airflow_provider_kk.api.api_versions import API_VERSIONS
from airflow_provider_kk.api.client import KKClient
from airflow_provider_kk.api.errors import (
    InvalidOrderError,
    KKAnswerError,
    KKRejectedError,
    KKUnknownOutcomeError,
)
from airflow_provider_kk.api.models import KKOrder
from tests.api.helpers import GONE, KK, ORDER, as_text, changed, leaves, ok

ADDRESS = {
    "country": "FR",
    "city": "Paris",
    "phone": "07 82",
    "recipient": "Odile",
    "street1": "7 rue",
    "street2": "",
    "province": "Loire",
    "zip": "75001",
    "vat": None,
    "ioss": None,
}
V1_ORDER: dict[str, Any] = {
    "id": 1000000371651,
    "CustomOrderNumber": "111",
    "remark": "",
    "status": "partial_shipped",
    "purchaseDate": "2022-04-01T08:00:00Z",
    "payAt": "2022-04-01T08:10:00Z",
    "completedAt": None,
    "createDate": "2022-04-01T08:00:00Z",
    "modifyDate": "2022-04-03T10:00:00Z",
    "shippingAddress": ADDRESS,
    "warehouseId": 1,
    "currencyCode": "USD",
    "finalAmount": 18.89,
    "skusAmount": 14.9,
    "freightAmount": 3.99,
    "couponAmount": 0,
    "promotionAmount": 0,
    "refundableAmount": 18.89,
    "refundedAmount": 0,
    "orderItems": [
        {
            "id": 1,
            "itemId": 700001,
            "skuCode": "FWXW00290_WHT_M",
            "productName": "Floral Wrap Dress",
            "productNum": 1,
            "purchasePrices": 14.9,
            "subtotal": 14.9,
            "option1": '{"name": "Color", "value": "White"}',
            "option2": '{"name": "Size", "value": "M"}',
            "option3": "",
            "imageUrl": "https://img.example.com/a.jpg",
            "stockStatus": "normal",
            "countryCode": "CN",
        }
    ],
    "fulfillments": [
        {
            "id": 5,
            "packId": "P5",
            "status": "shipped",
            "carrier": "YunExpress",
            "carrierType": "Standard",
            "trackingCode": "YT1",
            "logisticsSearchUrl": "https://t.example.com/YT1",
            "deliveryTime": "6~10 Business Days",
            "items": [{"skuCode": "FWXW00290_WHT_M", "quantity": 1}],
            "trackingInfos": [{"carrier": "YunExpress", "trackingCode": "YT1"}],
        }
    ],
}
RENAMED = {
    "order": {"CustomOrderNumber": "customOrderId", "payAt": "payDate", "completedAt": "completedDate",
              "modifyDate": "updateDate", "skusAmount": "subTotalAmount"},
    "line": {"purchasePrices": "amount", "subtotal": "total"},
}  # fmt: skip


def renamed(row: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in row.items()}


V2_ORDER: dict[str, Any] = {
    **renamed(V1_ORDER, RENAMED["order"]),
    "status": "processing",
    "financialStatus": "paid",
    "fulfillmentStatus": "partially_shipped",
    "refundStatus": "NULL",
    "orderItems": [
        {
            **renamed(V1_ORDER["orderItems"][0], RENAMED["line"]),
            "fulfillmentStatus": "NULL",
            "refundStatus": "NULL",
        }
    ],
}
V1_ORDERS_ORDER = {**V1_ORDER, "customOrderId": "111"}
del V1_ORDERS_ORDER["CustomOrderNumber"]
CREATED_AND_UPDATED = ("2022-04-01 08:00:00+00:00", "2022-04-03 10:00:00+00:00")
EXAMPLES = {"v1": V1_ORDER, "v1-orders": V1_ORDERS_ORDER, "v2": V2_ORDER}


def listed(client: KKClient, api_version: str, requests_mock: rm.Mocker, data: Any) -> Any:
    requests_mock.get(KK + API_VERSIONS[api_version].orders_path, json=ok(data))
    return client.list_orders()


def figures(order: KKOrder) -> tuple[Any, ...]:
    """What every version tells of the example."""
    (line,), (package,) = order.items, order.fulfillments
    return (
        (order.id, order.custom_order_number, order.warehouse_id, order.currency_code, order.remark),
        (order.final_amount, order.subtotal_amount, order.freight_amount, order.coupon_amount),
        (order.refundable_amount, order.refunded_amount, order.promotion_amount),
        [str(moment) for moment in (order.purchased_at, order.paid_at, order.created_at, order.updated_at)],
        (order.completed_at, order.cancelled_at, order.refunded_at),
        (line.id, line.item_id, line.sku, line.quantity, line.amount, line.total, line.country_code),
        (line.stock_status, line.option3, line.fulfillment_status, line.refund_status),
        (package.id, package.pack_id, package.status, package.carrier, package.tracking_code),
        (package.tracking_url, package.delivery_time, [(one.sku, one.quantity) for one in package.items]),
        [(one.carrier, one.tracking_code) for one in package.tracking_infos],
    )


def test_the_documented_order_is_read_whole_and_the_same_in_each_version(
    client: KKClient, each_api_version: str, requests_mock: rm.Mocker
) -> None:
    data = {"list": [EXAMPLES[each_api_version]], "total": 1, "pageNumber": 1, "pageSize": 10}
    page = listed(client, each_api_version, requests_mock, data)

    (order,) = page.orders
    assert (page.total, page.page_number, page.page_size, page.odd_fields) == (1, 1, 10, [])
    assert figures(order) == (
        ("1000000371651", "111", "1", "USD", None),
        (Decimal("18.89"), Decimal("14.9"), Decimal("3.99"), 0),
        (Decimal("18.89"), 0, 0),
        ["2022-04-01 08:00:00+00:00", "2022-04-01 08:10:00+00:00", *CREATED_AND_UPDATED],
        (None, None, None),
        ("1", "700001", "FWXW00290_WHT_M", 1, Decimal("14.9"), Decimal("14.9"), "CN"),
        ("normal", None, None, None),
        ("5", "P5", "shipped", "YunExpress", "YT1"),
        ("https://t.example.com/YT1", "6~10 Business Days", [("FWXW00290_WHT_M", 1)]),
        [("YunExpress", "YT1")],
    )


def test_numbers_may_come_as_text(client: KKClient, each_api_version: str, requests_mock: rm.Mocker) -> None:
    plain = listed(
        client, each_api_version, requests_mock, {"list": [EXAMPLES[each_api_version]], "total": 1}
    )
    text = listed(
        client, each_api_version, requests_mock, as_text({"list": [EXAMPLES[each_api_version]], "total": 1})
    )
    assert figures(text.orders[0]) == figures(plain.orders[0])
    assert text.total == 1
    assert text.odd_fields == []


@pytest.mark.parametrize("value", [GONE, None, "", "of 2031", {"a": []}, [[]], True, -1.5, 10**40])
def test_whatever_stands_in_one_field_costs_no_other_field(each_api_version: str, value: Any) -> None:
    example = EXAMPLES[each_api_version]
    whole = flat(KKOrder.read(example))
    for path in leaves(example):
        order = KKOrder.read(changed(example, path, value))
        lost = {name for name, one in flat(order).items() if whole.get(name) != one and name not in BESIDE}
        inside = {str(step) for step in path if isinstance(step, str)}
        assert len({name.split("[")[0].split(".")[0] for name in lost}) <= 1, (path, value, lost)
        assert len(lost) <= 1 or inside & {"orderItems", "fulfillments", "shippingAddress"}, (
            path,
            value,
            lost,
        )


#: Not a field of KK's own.
BESIDE = {"odd_fields", "number_is_integer"}


def flat(order: KKOrder) -> dict[str, Any]:
    return {name: getattr(order, name) for name in KKOrder.model_fields}


def test_an_unknown_status_is_passed_on(each_api_version: str) -> None:
    words = ("status", "financialStatus", "fulfillmentStatus", "refundStatus")
    order = KKOrder.read(EXAMPLES[each_api_version] | dict.fromkeys(words, "brand_new"))
    assert {order.status, order.financial_status, order.fulfillment_status, order.refund_status} == {
        "brand_new"
    }
    assert order.odd_fields == []


@pytest.mark.parametrize("packed", [None, [], GONE])
def test_an_order_that_is_not_packed_has_no_packages(each_api_version: str, packed: Any) -> None:
    order = KKOrder.read(changed(EXAMPLES[each_api_version], ("fulfillments",), packed))
    assert (order.fulfillments, order.odd_fields) == ([], [])


@pytest.mark.parametrize(
    ("data", "ids", "total"),
    [
        ({"list": [], "total": 0, "pageNumber": 1, "pageSize": 10}, [], 0),
        ({"list": None, "total": "0"}, [], 0),
        ({"list": [{"id": 7}]}, ["7"], None),
        ({"list": [{"id": "7"}, {"id": 8}], "total": None}, ["7", "8"], None),
        ([{"id": 7}], ["7"], None),
    ],
)
def test_a_page_may_say_how_many_there_are_or_not(
    client: KKClient,
    each_api_version: str,
    requests_mock: rm.Mocker,
    data: Any,
    ids: list[str],
    total: int | None,
) -> None:
    page = listed(client, each_api_version, requests_mock, data)
    assert ([order.id for order in page.orders], page.total) == (ids, total)


@pytest.mark.parametrize("data", [None, "", 7, {}, {"total": 3}, {"list": "none"}, {"list": {"id": 7}}])
def test_what_is_no_list_never_looks_like_an_empty_one(
    client: KKClient, each_api_version: str, requests_mock: rm.Mocker, data: Any
) -> None:
    with pytest.raises(KKAnswerError):
        listed(client, each_api_version, requests_mock, data)


@pytest.mark.parametrize("message", ["success", "Success!", "ok", "kk.api.200", "", "???"])
@pytest.mark.parametrize("code", [10000, "10000"])
def test_the_code_alone_makes_a_success(
    client: KKClient, each_api_version: str, requests_mock: rm.Mocker, message: str, code: Any
) -> None:
    requests_mock.post(KK + API_VERSIONS[each_api_version].orders_path, json=ok(1000000371651, message, code))
    assert client.create_order(ORDER) == ["1000000371651"]


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        (1000000371651, ["1000000371651"]),
        ("1000000371651", ["1000000371651"]),
        ("KK-1, KK-2", ["KK-1", "KK-2"]),
        ([1, "2"], ["1", "2"]),
        ({"kkOrderIds": 1000000371651, "status": 0}, ["1000000371651"]),
        ({"kkOrderIds": [1, 2], "status": 0}, ["1", "2"]),
        ({"kkOrderIds": "1,2"}, ["1", "2"]),
        ({"id": 1000000371651, "status": 0}, ["1000000371651"]),
        ([{"id": 1}, {"id": 2}], ["1", "2"]),
    ],
)
def test_every_form_of_a_created_order_gives_its_ids_as_text(
    client: KKClient, each_api_version: str, requests_mock: rm.Mocker, data: Any, ids: list[str]
) -> None:
    requests_mock.post(KK + API_VERSIONS[each_api_version].orders_path, json=ok(data))
    assert client.create_order(ORDER) == ids


@pytest.mark.parametrize(
    ("channel_type", "sent_in"),
    [
        ("Express", {"v1": None, "v1-orders": "Express", "v2": "Express"}),
        ("Standard", {"v1": None, "v1-orders": "Standard", "v2": "Standard"}),
        ("Expedited", {"v1": None, "v1-orders": InvalidOrderError, "v2": "Expedited"}),
        (None, {"v1": None, "v1-orders": None, "v2": "Standard"}),
    ],
)
def test_a_shipping_speed_is_sent_where_the_version_has_one(
    client: KKClient,
    each_api_version: str,
    requests_mock: rm.Mocker,
    channel_type: str | None,
    sent_in: dict[str, Any],
) -> None:
    sent = requests_mock.post(KK + API_VERSIONS[each_api_version].orders_path, json=ok(1000000371651))
    if sent_in[each_api_version] is InvalidOrderError:
        with pytest.raises(InvalidOrderError, match="channel_type: must be Standard or Express"):
            client.create_order(ORDER | {"channel_type": channel_type})
        assert not sent.called
        return
    client.create_order(ORDER | {"channel_type": channel_type})
    body = json.loads(sent.last_request.text)
    assert body.get("channelType") == sent_in[each_api_version]
    assert ("channelType" in body) == (sent_in[each_api_version] is not None)


@pytest.mark.parametrize("data", [None, "", 0, True, {}, [], "a b", {"status": 0}, [None], "1,,2"])
def test_a_success_without_a_readable_id_is_an_unknown_outcome(
    client: KKClient, each_api_version: str, requests_mock: rm.Mocker, data: Any
) -> None:
    requests_mock.post(KK + API_VERSIONS[each_api_version].orders_path, json=ok(data))
    with pytest.raises(KKUnknownOutcomeError):
        client.create_order(ORDER)


@pytest.mark.parametrize("status", [200, 400, 422])
@pytest.mark.parametrize(
    "message", ["sku X does not exist", "sold out", "insufficient balance", "phone is required"]
)
def test_a_rejection_comes_with_or_without_an_http_error(
    client: KKClient, each_api_version: str, requests_mock: rm.Mocker, status: int, message: str
) -> None:
    answer = ok(None, message, 400123)
    requests_mock.post(KK + API_VERSIONS[each_api_version].orders_path, json=answer, status_code=status)
    with pytest.raises(KKRejectedError) as caught:
        client.create_order(ORDER)
    assert (caught.value.code, caught.value.kk_message) == (400123, message)


@pytest.mark.parametrize("data", ["R-1", {"refundNo": "R-1"}, ["R-1"]])
def test_a_refund_of_lines_is_requested_in_kks_names(
    client: KKClient, each_api_version: str, requests_mock: rm.Mocker, data: Any
) -> None:
    sent = requests_mock.post(KK + API_VERSIONS[each_api_version].refund_path.format(id="7"), json=ok(data))
    line = {"itemId": 1, "skuCode": "A", "quantity": 1, "countryCode": "CN"}
    assert client.refund_order("7", "note", lines=[line]) == "R-1"
    assert json.loads(sent.last_request.text) == {
        "remark": "note", "refundReason": "Other", "orderItems": [line]
    }  # fmt: skip


def test_refunds_are_read_in_each_version(
    client: KKClient, each_api_version: str, requests_mock: rm.Mocker
) -> None:
    words = ["pending_review", "refund_successfully", "refund_failed", "brand_new"]
    rows = [{"refundNo": no, "refundStatus": word, "id": 7, "remark": None} for no, word in enumerate(words)]
    requests_mock.get(
        KK + API_VERSIONS[each_api_version].refunds_path.format(id="7"), json=ok({"list": rows})
    )
    found = client.get_refunds("7")
    assert [(one.refund_no, one.refund_status, one.kk_order_id) for one in found] == [
        (str(no), word, "7") for no, word in enumerate(words)
    ]
