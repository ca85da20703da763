"""What KK's words mean: the station of an order, and what it can still reach."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_kk.api.fulfilment import (
    FulfilmentStatus,
    PackageStatus,
    has_reached,
    package_status,
    status_of,
)
from airflow_provider_kk.api.fulfilment import why_never as why
from airflow_provider_kk.api.models import KKOrder

PAY_DATE = "2024-01-02T03:04:05Z"


def v2(
    status: str, financial: str = "NULL", fulfillment: str = "NULL", refund: str = "NULL", **more: Any
) -> KKOrder:
    words = {"financialStatus": financial, "fulfillmentStatus": fulfillment, "refundStatus": refund}
    return KKOrder.read({"id": 1, "status": status, **words, **more})


def v1(status: str, **more: Any) -> KKOrder:
    return KKOrder.read({"id": 1, "status": status, **more})


@pytest.mark.parametrize(
    ("order", "status"),
    [
        (v1("waiting_payment"), "waiting_payment"),
        (v1("waiting_to_ship"), "paid"),
        (v1("waiting_toship"), "paid"),
        (v1("partial_shipped"), "partially_shipped"),
        (v1("shipped"), "shipped"),
        (v1("delivered"), "delivered"),
        (v1("cancel"), "cancelled"),
        (v1("refunded"), "refunded"),
        (v1("refunding"), "created"),
        (v1("refunding", payAt=PAY_DATE), "paid"),
        (v1("refund_fail", payAt=PAY_DATE), "paid"),
        (v2("waiting_payment", "waiting"), "waiting_payment"),
        (v2("waiting_payment", "waiting", "waiting_to_ship"), "waiting_payment"),
        (v2("processing", "paid", "waiting_to_ship"), "paid"),
        (v2("processing", "paid", "partially_shipped"), "partially_shipped"),
        (v2("processing", "paid", "fully_shipped"), "shipped"),
        (v2("completed", "paid", "completed"), "delivered"),
        (v2("processing", "paid", "waiting_to_ship", "partial_refund"), "paid"),
        (v2("cancel", "paid", "NULL", "refund"), "refunded"),
        (v2("cancel", "paid", "NULL", "refunded"), "refunded"),
        (v2("cancel", "waiting"), "cancelled"),
        (v2("abnormal_order", "paid"), "paid"),
        (v2("something new", "of 2031", "NULL", "NULL"), "created"),
        (v2("something new", "paid"), "paid"),
        (v2("processing", "paid", fulfillments=[{"id": 1, "status": "preparing"}]), "paid"),
        (v2("processing", "paid", fulfillments=[{"id": 1, "status": "shipped"}]), "partially_shipped"),
        (KKOrder.read({"id": 1}), "created"),
    ],
)
def test_the_fulfilment_status_is_the_furthest_that_kk_reports(order: KKOrder, status: str) -> None:
    assert status_of(order) == status


def test_package_statuses_map_to_fulfilment_statuses() -> None:
    words = ("preparing", "shipped", "completed", "lost", None)
    assert [package_status(word) for word in words] == [*PackageStatus, None, None]


@pytest.mark.parametrize(
    "goal", [FulfilmentStatus.PAID, FulfilmentStatus.SHIPPED, FulfilmentStatus.DELIVERED]
)
@pytest.mark.parametrize("status", list(FulfilmentStatus))
def test_a_goal_is_reached_at_it_and_beyond_but_not_by_giving_up(
    goal: FulfilmentStatus, status: FulfilmentStatus
) -> None:
    words = {"paid": "waiting_to_ship", "partially_shipped": "partial_shipped", "cancelled": "cancel"}
    order = v1(words.get(status, status.value))
    stations = [one.value for one in FulfilmentStatus]
    beyond = stations.index(goal) <= stations.index(status)
    assert has_reached(order, goal) == (beyond and status not in ("cancelled", "refunded"))
    assert (why(order, goal) is not None) == (status in ("cancelled", "refunded"))


def test_an_abnormal_order_reaches_nothing_more_except_its_refund() -> None:
    order = v2("abnormal_order", "paid", "waiting_to_ship")
    assert has_reached(order, FulfilmentStatus.PAID)
    assert "abnormal" in str(why(order, FulfilmentStatus.SHIPPED))
    assert why(order, FulfilmentStatus.REFUNDED) is None


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (v2("processing", "paid", "waiting_to_ship"), None),
        (v2("processing", "paid", "waiting_to_ship", "refunding"), None),
        (v2("processing", "paid", "fully_shipped", "refunding"), None),
        (v2("processing", "paid", "fully_shipped"), "shipped"),
        (v2("cancel", "waiting"), "never paid"),
        (v2("cancel", "paid"), None),
        (v1("cancel", payAt=PAY_DATE), None),
        (v1("refunding"), None),
        (v1("refund_fail", payAt=PAY_DATE), "rejected"),
        (v1("delivered"), "shipped"),
    ],
)
def test_a_refund_is_waited_for_as_long_as_it_can_come(order: KKOrder, reason: str | None) -> None:
    assert not has_reached(order, FulfilmentStatus.REFUNDED)
    found = why(order, FulfilmentStatus.REFUNDED)
    assert found is None if reason is None else reason in str(found)
