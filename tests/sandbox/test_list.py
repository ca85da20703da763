"""How KK lists orders: windows, pages, lag, and all that differs between servers."""

from __future__ import annotations

import time

import pytest
import requests

from airflow_provider_kk.sandbox.json_values import iso
from airflow_provider_kk.sandbox.server import SandboxServer
from tests.sandbox.caller import DRESS, V1, V2, Caller, order

NOON = 1_800_000_000.0


@pytest.fixture
def frozen():
    """A KK whose clock stands at NOON until it is moved."""
    with SandboxServer(rate_limit=False, clock=lambda: NOON) as sandbox:
        yield sandbox


def place(kk, count):
    """Orders N0, N1, ... each a minute older than the one before."""
    for index in range(count):
        kk.control.place({DRESS: 1}, number=f"N{index}", age_s=60 * index)


def numbers(rows):
    return [row.get("CustomOrderNumber", row.get("customOrderId")) for row in rows]


def test_pages_hold_ten_unless_asked_and_never_more_than_the_cap(kk, caller):
    place(kk, 12)

    page = caller.get(V1)
    assert (len(page["list"]), page["pageNumber"], page["pageSize"], page["total"]) == (10, 1, 10, 12)
    assert numbers(caller.get(V1, pageNumber=2)["list"]) == ["N10", "N11"]
    assert caller.get(V1, pageNumber=3)["list"] == []

    kk.control.set(page_cap=5)
    assert len(caller.get(V1, pageSize=250)["list"]) == 5


def test_both_bounds_of_a_period_count(frozen):
    caller = Caller(frozen.url, frozen.token)
    place(frozen, 5)

    window = {"createStartTime": iso(NOON - 180), "createEndTime": iso(NOON - 60)}
    assert numbers(caller.listed(**window)) == ["N1", "N2", "N3"]
    assert numbers(caller.listed(updateStartTime=iso(NOON - 60))) == ["N0", "N1"]
    assert numbers(caller.listed(updateEndTime=iso(NOON - 240))) == ["N4"]


def test_ids_and_status_narrow_the_list(kk, caller):
    place(kk, 3)
    ids = [row["id"] for row in kk.control.orders()]

    assert sorted(row["id"] for row in caller.listed(ids=f"{ids[0]},{ids[2]}")) == [int(ids[0]), int(ids[2])]
    assert len(caller.listed(status="waiting_payment,shipped")) == 3
    assert caller.listed(status="shipped") == []


@pytest.mark.parametrize(
    "query", [{"createStartTime": "yesterday"}, {"pageNumber": 0}, {"pageSize": "ten"}, {"pageNumber": -1}]
)
def test_an_unreadable_query_is_rejected(kk, caller, query):
    answer = requests.get(kk.url + V1, params=query, headers=caller.headers, timeout=300)
    assert answer.json()["code"] != 10000


def test_a_young_order_is_not_listed_before_the_lag_is_over(kk, caller):
    kk.control.set(list_lag_s=120)
    created = caller.create(order("A-1"))
    assert caller.listed() == []
    assert caller.listed(ids=created) == []

    kk.control.advance(121)
    assert numbers(caller.listed()) == ["A-1"]


def test_the_total_can_be_text_or_missing(kk, caller):
    place(kk, 2)
    kk.control.set(total="text")
    assert caller.get(V2)["total"] == "2"

    kk.control.set(total="missing")
    assert "total" not in caller.get(V2)


def test_a_number_that_looks_like_an_integer_can_come_back_as_one(kk, caller):
    for number in ("1001", "01001", "A-1", None):
        caller.create(order(number))
    kk.control.set(integer_numbers=True)

    assert set(numbers(caller.listed())) == {1001, "01001", "A-1", None}


def test_the_name_of_the_number_can_be_another_one(kk, caller):
    place(kk, 1)
    kk.control.set(number_field="CustomOrderNumber")

    assert caller.listed(V2)[0]["CustomOrderNumber"] == "N0"


def test_dates_can_be_bare_years(frozen):
    place(frozen, 1)
    frozen.control.set(dates="year")

    assert Caller(frozen.url, frozen.token).listed()[0]["createDate"] == 2027


def test_rows_shift_between_pages_when_the_list_is_sorted_by_update(kk, caller):
    kk.control.set(sort="updated")
    oldest = caller.create(order("A-0"))
    kk.control.advance(60)
    for index in range(1, 4):
        caller.create(order(f"A-{index}"))
    first_page = numbers(caller.get(V1, pageSize=2)["list"])

    caller.create({"remark": "too late"}, f"/openapi/v1/order/orders/{oldest}/refund")
    second_page = numbers(caller.get(V1, pageSize=2, pageNumber=2)["list"])

    assert "A-0" not in first_page + second_page


def test_v2_has_four_statuses_and_v1_one(kk, caller):
    caller.create(order("A-1"))
    kk.control.advance(601)

    (v1,), (v2,) = caller.listed(V1), caller.listed(V2)
    assert (v1["status"], v1["skusAmount"], v1["payAt"]) == ("waiting_to_ship", 14.9, v2["payDate"])
    assert [v2[name] for name in ("status", "financialStatus", "fulfillmentStatus", "refundStatus")] == [
        "processing",
        "paid",
        "waiting_to_ship",
        "NULL",
    ]
    assert v2["finalAmount"] == v2["subTotalAmount"] + v2["freightAmount"]
    assert v2["fulfillments"] is None


def test_a_page_of_many_orders_costs_little_more_than_one_of_few(kk, caller):
    from airflow_provider_kk.sandbox.order_calls import NewOrder
    from airflow_provider_kk.sandbox.store import SandboxStore

    store: SandboxStore = kk._kk.store

    def create(numbers: range) -> None:
        with store.transaction():
            for index in numbers:
                given = NewOrder(f"N{index}", {"country": "FR"}, ((DRESS, 1),), None, None, None)
                store.create(given, NOON - 1e8 + index)

    def quickest() -> float:
        """CPU seconds of this process, the sandbox's included, for a page."""
        took = []
        for _ in range(5):
            began = time.process_time()
            caller.get(V1, pageNumber=2, pageSize=250)
            took.append(time.process_time() - began)
        return min(took)

    create(range(500))
    few = quickest()
    create(range(500, 10_000))
    assert quickest() < 5 * few
