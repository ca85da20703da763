"""The calls: what is asked of KK, and what is made of the answers."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import requests
import requests_mock as rm

from airflow_provider_kk.api.client import KKClient
from airflow_provider_kk.api.errors import (
    InvalidOrderError,
    KKAnswerError,
    KKNotSentError,
    KKRateLimitedError,
    KKRejectedError,
    KKUnknownOutcomeError,
)
from airflow_provider_kk.api.models import Order
from tests.api.helpers import CREATED, ORDER, TOKEN, client_for

KK = "https://developer.kakaclo.com"
V1 = f"{KK}/openapi/v1/order/order"
V2 = f"{KK}/openapi/v2/order/orders"


class CountingThrottle:
    """Lets everything pass and notes what it was told."""

    def __init__(self) -> None:
        self.acquired = 0
        self.backed_off: list[float | None] = []

    def acquire(self, stop: object = None, *, to_send: bool = False) -> None:
        self.acquired += 1

    def back_off(self, retry_after_s: float | None) -> None:
        self.backed_off.append(retry_after_s)


def ok(data: Any) -> dict[str, Any]:
    return {"code": 10000, "message": "success", "data": data}


def page_of(*ids: int, total: int | None = None) -> dict[str, Any]:
    return ok({"list": [{"id": kk_id} for kk_id in ids] or None, "total": total})


@pytest.fixture
def kk() -> KKClient:
    return client_for(KK)


def test_an_order_is_posted_in_the_form_of_v1(kk: KKClient, requests_mock: rm.Mocker) -> None:
    sent = requests_mock.post(V1, json=CREATED)
    assert kk.create_order(ORDER) == ["1000000371651"]
    assert sent.last_request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert sent.last_request.headers["Content-Type"] == "application/json"
    assert list(sent.last_request.json()) == [
        "orderAddresses",
        "remark",
        "orderItemsList",
        "CustomOrderNumber",
        "SalePlatform",
    ]


def test_an_order_is_posted_in_the_form_of_v2(requests_mock: rm.Mocker) -> None:
    sent = requests_mock.post(V2, json=ok([1, 2]))
    client = client_for(KK, api_version="v2", address_key="orderAddress", sale_platform="Shopify")
    assert client.create_order(ORDER | {"sale_platform": None}) == ["1", "2"]
    assert sent.last_request.json()["salePlatform"] == "Shopify"
    assert "orderAddress" in sent.last_request.json()


def test_accents_travel_as_utf_8(kk: KKClient, requests_mock: rm.Mocker) -> None:
    sent = requests_mock.post(V1, json=CREATED)
    kk.create_order(ORDER | {"remark": "pressé 急"})
    assert "pressé 急".encode() in sent.last_request.body


def test_an_invalid_order_is_not_sent(kk: KKClient, requests_mock: rm.Mocker) -> None:
    with pytest.raises(InvalidOrderError):
        kk.create_order({"items": []})
    assert requests_mock.call_count == 0


def test_a_rejection_does_not_repeat_the_customer(kk: KKClient, requests_mock: rm.Mocker) -> None:
    message = f"no delivery to Lffsollia Odfsdlena, 7 RUE Rabelais, +0782246793 ({TOKEN})"
    requests_mock.post(V1, json={"code": 20001, "message": message})
    with pytest.raises(KKRejectedError) as caught:
        kk.create_order(ORDER)
    assert caught.value.kk_message == "no delivery to ***, ***, *** (***)"


def test_without_our_adapter_only_a_connect_timeout_proves_that_nothing_was_sent(
    kk: KKClient, requests_mock: rm.Mocker
) -> None:
    requests_mock.post(V1, exc=requests.exceptions.ConnectTimeout)
    with pytest.raises(KKNotSentError):
        kk.create_order(ORDER)
    for unproven in (
        requests.exceptions.ConnectionError,
        requests.exceptions.SSLError,
        requests.exceptions.ReadTimeout,
    ):
        requests_mock.post(V1, exc=unproven)
        with pytest.raises(KKUnknownOutcomeError):
            kk.create_order(ORDER)


def test_a_rate_limit_response_is_retried_a_bounded_number_of_times(requests_mock: rm.Mocker) -> None:
    throttle = CountingThrottle()
    full = {"status_code": 429, "headers": {"Retry-After": "2"}}
    requests_mock.post(V1, [full, full, full, {"json": CREATED}])
    assert client_for(KK, throttle=throttle).create_order(ORDER) == ["1000000371651"]
    assert (throttle.acquired, throttle.backed_off) == (4, [2.0, 2.0, 2.0])
    requests_mock.get(V1, [full])
    with pytest.raises(KKRateLimitedError):
        client_for(KK, throttle=throttle).list_orders()
    assert throttle.acquired == 8


def test_a_request_with_a_permit_takes_none_and_raises_a_429_at_once(requests_mock: rm.Mocker) -> None:
    throttle = CountingThrottle()
    requests_mock.post(V1, status_code=429)
    with pytest.raises(KKRateLimitedError):
        client_for(KK, throttle=throttle).post_order(Order.parse(ORDER), throttled=False)
    assert (throttle.acquired, throttle.backed_off, requests_mock.call_count) == (0, [None], 1)


def test_a_listing_is_in_utc_and_never_narrows_the_period(kk: KKClient, requests_mock: rm.Mocker) -> None:
    asked = requests_mock.get(V1, json=page_of())
    paris = timezone(timedelta(hours=1))
    kk.list_orders(
        created_from=datetime(2016, 1, 19, 0, 41, 0, 999999, tzinfo=paris),
        created_to=datetime(2016, 1, 18, 23, 59, 59, 1, tzinfo=UTC),
        updated_to=datetime(2016, 1, 20, tzinfo=UTC),
        ids=["1", "2"],
        status=["paid", "shipped"],
        page_size=1000,
    )
    assert asked.last_request.qs == {
        "createstarttime": ["2016-01-18t23:41:00z"],
        "createendtime": ["2016-01-19t00:00:00z"],
        "updateendtime": ["2016-01-20t00:00:00z"],
        "ids": ["1,2"],
        "status": ["paid,shipped"],
        "pagenumber": ["1"],
        "pagesize": ["250"],
    }


def test_a_time_without_a_zone_is_an_error(kk: KKClient) -> None:
    with pytest.raises(ValueError, match="time zone"):
        kk.list_orders(created_from=datetime(2024, 1, 1))  # noqa: DTZ001


def test_every_page_is_asked_for_the_same_ids_and_statuses(kk: KKClient, requests_mock: rm.Mocker) -> None:
    requests_mock.get(V1, [{"json": page_of(1)}, {"json": page_of()}])
    assert len(list(kk.iter_orders(ids=iter(["1", "2"]), status=iter(["paid", "shipped"])))) == 1
    asked = [(one.qs["ids"], one.qs["status"]) for one in requests_mock.request_history]
    assert asked == [(["1,2"], ["paid,shipped"])] * 2


def test_a_mistyped_filter_lists_no_orders(kk: KKClient, requests_mock: rm.Mocker) -> None:
    with pytest.raises(TypeError, match="filtered by create_from"):
        kk.list_orders(create_from=datetime.now(UTC))  # type: ignore[call-arg]
    assert not requests_mock.called


def test_v2_does_not_filter_by_status() -> None:
    with pytest.raises(ValueError, match="v2"):
        client_for(KK, api_version="v2").list_orders(status="cancel")


@pytest.mark.parametrize("data", [None, {}, {"list": {}}, {"list": "x"}, "x", 5, {"rows": []}])
def test_a_listing_that_holds_no_list_is_not_taken_for_an_empty_one(
    data: Any, kk: KKClient, requests_mock: rm.Mocker
) -> None:
    requests_mock.get(V1, json=ok(data))
    with pytest.raises(KKAnswerError):
        kk.list_orders()


def test_a_null_list_is_empty(kk: KKClient, requests_mock: rm.Mocker) -> None:
    requests_mock.get(V1, json=ok({"list": None, "total": "0"}))
    page = kk.list_orders()
    assert (page.orders, page.total) == ([], 0)


def test_reading_ends_on_an_empty_page_only_and_shows_each_order_once(
    kk: KKClient, requests_mock: rm.Mocker
) -> None:
    requests_mock.get(
        V1, [{"json": page} for page in (page_of(1, 2), page_of(2, 3), page_of(3), page_of(4), page_of())]
    )
    assert [order.id for order in kk.iter_orders()] == ["1", "2", "3", "4"]
    assert [request.qs["pagenumber"] for request in requests_mock.request_history] == [
        [str(n)] for n in range(1, 6)
    ]


def test_a_list_that_never_ends_is_an_error_not_an_endless_loop(
    kk: KKClient, requests_mock: rm.Mocker
) -> None:
    requests_mock.get(V1, json=page_of(1, 2))
    with pytest.raises(KKAnswerError, match="does not end"):
        list(kk.iter_orders())


def test_rows_without_an_id_are_all_shown(kk: KKClient, requests_mock: rm.Mocker) -> None:
    rows = ok({"list": [{"CustomOrderNumber": "a"}, {"CustomOrderNumber": "b"}]})
    requests_mock.get(V1, [{"json": rows}, {"json": page_of()}])
    assert [order.custom_order_number for order in kk.iter_orders()] == ["a", "b"]


def test_orders_are_fetched_by_id_in_the_given_order(kk: KKClient, requests_mock: rm.Mocker) -> None:
    def answer(request: Any, _context: Any) -> dict[str, Any]:
        return page_of(*[int(kk_id) for kk_id in reversed(request.qs["ids"][0].split(",")) if kk_id != "13"])

    requests_mock.get(V1, json=answer)
    wanted = [str(number) for number in range(1, 121)]
    assert [order.id for order in kk.get_orders(wanted)] == [kk_id for kk_id in wanted if kk_id != "13"]
    assert requests_mock.call_count <= 5
    order = kk.get_order("7")
    assert order is not None
    assert order.id == "7"
    assert kk.get_order("13") is None


def test_a_server_that_caps_pages_still_gives_all_ids(kk: KKClient, requests_mock: rm.Mocker) -> None:
    def answer(request: Any, _context: Any) -> dict[str, Any]:
        ids = [int(kk_id) for kk_id in request.qs["ids"][0].split(",")]
        first = (int(request.qs["pagenumber"][0]) - 1) * 3
        return page_of(*ids[first : first + 3])

    requests_mock.get(V1, json=answer)
    assert len(kk.get_orders(str(number) for number in range(1, 11))) == 10


def test_a_server_that_ignores_ids_does_not_make_us_read_its_whole_store(
    kk: KKClient, requests_mock: rm.Mocker
) -> None:
    requests_mock.get(V1, json=page_of(1, 2, 3))
    assert kk.get_order("99") is None
    assert requests_mock.call_count == 1


@pytest.mark.parametrize("kk_id", ["", "a/b", "1,2", "x" * 33, "ok", " 1"])
def test_what_is_no_id_never_gets_into_a_path(kk_id: str, kk: KKClient) -> None:
    with pytest.raises(ValueError, match="kkOrderId"):
        kk.get_refunds(kk_id)


@pytest.mark.parametrize(("api_version", "version"), [("v1", "v1"), ("v2", "v2")])
def test_a_refund_is_requested(api_version: str, version: str, requests_mock: rm.Mocker) -> None:
    url = f"{KK}/openapi/{version}/order/orders/42/refund"
    sent = requests_mock.post(url, json=ok("R-1"))
    client = client_for(KK, api_version=api_version)
    assert client.refund_order("42", "too late") == "R-1"
    assert sent.last_request.json() == {"remark": "too late"}
    lines = [{"itemId": 1, "skuCode": "A", "quantity": 1, "countryCode": "CN"}]
    client.refund_order("42", "too late", lines=lines)
    assert sent.last_request.json() == {"remark": "too late", "refundReason": "Other", "orderItems": lines}


def test_a_refund_without_a_number_is_unknown(kk: KKClient, requests_mock: rm.Mocker) -> None:
    requests_mock.post(f"{KK}/openapi/v1/order/orders/42/refund", json=ok(None))
    with pytest.raises(KKUnknownOutcomeError):
        kk.refund_order("42", "too late")


def test_refunds_are_listed(kk: KKClient, requests_mock: rm.Mocker) -> None:
    rows = {"list": [{"refundNo": "R-1", "refundStatus": "pending_review", "id": 42, "remark": "x"}]}
    requests_mock.get(f"{KK}/openapi/v1/order/orders/refund/42", json=ok(rows))
    (refund,) = kk.get_refunds("42")
    assert (refund.refund_no, refund.refund_status, refund.kk_order_id) == ("R-1", "pending_review", "42")


def test_channels_are_requested_and_read(kk: KKClient, requests_mock: rm.Mocker) -> None:
    url = f"{KK}/openapi/v2/order/orders/channel"
    row = {
        "channelCode": "C",
        "channelType": "Standard",
        "estimatedFreight": "5.10",
        "deliveryTime": "6~10 Business Days",
    }
    sent = requests_mock.post(url, json=ok([row]))
    requests_mock.post(f"{url}/automationSplit", json=ok([]))
    (channel,) = kk.get_channels([{"sku": "A", "quantity": "2"}], "FR")
    assert sent.last_request.json() == {"products": [{"sku": "A", "quantity": 2}], "shipToCountry": "FR"}
    assert str(channel.estimated_freight) == "5.10"
    assert kk.get_channels([{"sku": "A", "quantity": 2}], "FR", split=True) == []


def test_a_failed_freight_query_is_a_failed_read(kk: KKClient, requests_mock: rm.Mocker) -> None:
    requests_mock.post(f"{KK}/openapi/v2/order/orders/channel", status_code=500)
    with pytest.raises(KKAnswerError):
        kk.get_channels([{"sku": "A", "quantity": 2}], "FR")


def test_stock_is_queried_30_skus_at_once(kk: KKClient, requests_mock: rm.Mocker) -> None:
    def answer(request: Any, _context: Any) -> dict[str, Any]:
        stock = [{"countryCode": "CN", "qty": "4", "warehouseCode": "W"}]
        return ok(
            {"list": [{"sku": sku, "warehouseStockList": stock} for sku in request.qs["skus"][0].split(",")]}
        )

    requests_mock.get(f"{KK}/openapi/v1/product/stocks", json=answer)
    found = list(kk.iter_stock([f"s{number}" for number in range(70)]))
    assert len(found) == 70
    assert found[0].warehouses[0].quantity == 4
    assert requests_mock.call_count == 3


def test_stock_of_a_period_is_read_page_by_page(kk: KKClient, requests_mock: rm.Mocker) -> None:
    pages = [ok({"list": [{"sku": "A"}]}), ok({"list": [{"sku": "B"}]}), ok({"list": []})]
    asked = requests_mock.get(f"{KK}/openapi/v1/product/stocks", [{"json": page} for page in pages])
    window = kk.iter_stock(
        updated_from=datetime(2024, 1, 1, tzinfo=UTC),
        updated_to=datetime(2024, 1, 2, tzinfo=UTC),
        warehouse_code="W",
    )
    assert [stock.sku for stock in window] == ["A", "B"]
    assert asked.last_request.qs == {
        "datestarttime": ["2024-01-01t00:00:00z"],
        "dateendtime": ["2024-01-02t00:00:00z"],
        "warehousecode": ["w"],
        "pagenumber": ["3"],
    }


def test_what_is_not_documented_is_handed_on_as_it_is(kk: KKClient, requests_mock: rm.Mocker) -> None:
    requests_mock.get(f"{KK}/openapi/v1/payment/balance", json=ok({"usd": "5"}))
    requests_mock.get(f"{KK}/openapi/v1/product/category", json=ok([{"x": []}]))
    requests_mock.get(
        f"{KK}/openapi/v1/product/countryAndWarehouse", json=ok({"list": [{"warehouseId": 1, "status": 0}]})
    )
    assert kk.get_balance() == {"usd": "5"}
    assert kk.get_categories() == [{"x": []}]
    assert kk.get_warehouses()[0].warehouse_id == "1"


def test_kks_clock_is_compared_with_ours(kk: KKClient, requests_mock: rm.Mocker) -> None:
    assert kk.clock_skew_s is None
    ahead = datetime.now(UTC) + timedelta(hours=1)
    requests_mock.get(V1, json=page_of(), headers={"Date": ahead.strftime("%a, %d %b %Y %H:%M:%S GMT")})
    kk.list_orders()
    assert kk.clock_skew_s == pytest.approx(3600, abs=5)
    requests_mock.get(V1, json=page_of(), headers={"Date": "yesterday"})
    kk.list_orders()
    assert kk.clock_skew_s == pytest.approx(3600, abs=5)
    assert kk.requests == 2


@pytest.mark.parametrize("token", ["", "a b", "abc\n", "tökén", "a\x00b", "Bearer x"])
def test_a_token_that_no_header_can_hold_is_an_error_without_showing_it(token: str) -> None:
    with pytest.raises(ValueError, match="access token") as caught:
        KKClient(KK, token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://developer.kakaclo.com",
        "http://127.0.0.1.example.com",
        "developer.kakaclo.com",
        "https://",
        "https://user:secret@kk.test",
        "https://kk.test/?a=b",
        "https://kk.test:port",
        "ftp://kk.test",
        "https://kk .test",
        "",
    ],
)
def test_a_base_url_that_is_neither_https_nor_this_machine_is_an_error(url: str) -> None:
    with pytest.raises(ValueError, match="base URL") as caught:
        KKClient(url, TOKEN)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", [KK, f"{KK}/", "http://localhost:8080", "http://127.0.0.2", "http://[::1]:80/", f"{KK}/a"]
)
def test_https_and_this_machine_are_fine(url: str) -> None:
    KKClient(url, TOKEN).close()


@pytest.mark.parametrize("setting", [{"api_version": "v3"}, {"address_key": "address"}])
def test_unknown_settings_are_an_error(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be one of"):
        KKClient(KK, TOKEN, **setting)


def test_a_json_answer_of_exact_numbers_stays_exact(kk: KKClient, requests_mock: rm.Mocker) -> None:
    requests_mock.get(V1, text='{"code":10000,"data":{"list":[{"id":1,"finalAmount":0.1}]}}')
    assert str(kk.list_orders().orders[0].final_amount) == "0.1"


def test_a_client_closes_after_itself(requests_mock: rm.Mocker) -> None:
    requests_mock.post(V1, text=json.dumps(CREATED))
    with client_for(KK) as client:
        client.create_order(ORDER)
