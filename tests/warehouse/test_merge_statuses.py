"""What was seen of an order converges to the same rows, whatever the order, the gaps and the repeats."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import reduce
from typing import Any

import pytest

from airflow_provider_kk.api.fulfilment import FulfilmentStatus
from airflow_provider_kk.api.models import KKOrder
from airflow_provider_kk.warehouse.merge_statuses import StatusRows, merge, rows_of

HISTORIES = 10_000
START = datetime(2026, 1, 1, tzinfo=UTC)
#: What each version calls the stations: v1's status; v2's status, financialStatus, fulfillmentStatus.
WORDS = {
    "waiting_payment": ("waiting_payment", ("waiting_payment", "waiting", "NULL")),
    "paid": ("waiting_to_ship", ("processing", "paid", "waiting_to_ship")),
    "odd": ("in_the_clouds", ("in_the_clouds", "paid", "NULL")),
    "abnormal": ("waiting_toship", ("abnormal_order", "paid", "waiting_to_ship")),
    "refunding": ("refunding", ("processing", "paid", "waiting_to_ship")),
    "partial": ("partial_shipped", ("processing", "paid", "partially_shipped")),
    "shipped": ("shipped", ("processing", "paid", "fully_shipped")),
    "delivered": ("delivered", ("completed", "paid", "completed")),
    "cancel": ("cancel", ("cancel", "waiting", "NULL")),
    "refunded": ("refunded", ("cancel", "paid", "NULL")),
}
LIVES = [
    ["waiting_payment", "paid", "partial", "shipped", "delivered"],
    ["waiting_payment", "paid", "abnormal", "paid", "shipped", "delivered"],
    ["waiting_payment", "paid", "refunding", "paid", "partial", "partial", "shipped"],
    ["waiting_payment", "cancel"],
    ["waiting_payment", "paid", "refunding", "refunded"],
    ["waiting_payment", "paid", "odd", "shipped"],
]


def history(rng: random.Random) -> list[dict[str, Any]]:
    """What KK shows of one order, from its creation on; later answers tell all that earlier ones did."""
    version = rng.choice(["v1", "v2"])
    at, paid_at, packages = START, None, []
    seen = []
    for station in rng.choice(LIVES)[: rng.randint(1, 7)]:
        at += timedelta(seconds=rng.choice([1, 60, 600, 86_400]))
        if station not in ("waiting_payment", "cancel"):
            paid_at = paid_at or at
        if station in ("partial", "shipped") and len(packages) < 3:
            packages = [*packages, package(len(packages), rng)]
        if station == "delivered":
            packages = [{**one, "status": "completed"} for one in packages]
        seen.append(answer(version, station, at, paid_at, packages, rng))
        if rng.random() < 0.3:
            # Nothing of it changes but an amount and the date.
            at += timedelta(seconds=rng.choice([1, 3600]))
            seen.append(answer(version, station, at, paid_at, packages, rng))
    return seen


def package(index: int, rng: random.Random) -> dict[str, Any]:
    codes = [{"carrier": "YunExpress", "trackingCode": f"YT{index}{n}"} for n in range(rng.randint(1, 2))]
    return {
        rng.choice(["id", "packId"]): 500 + index,
        "status": rng.choice(["preparing", "shipped"]),
        "carrier": "YunExpress",
        "trackingCode": codes[0]["trackingCode"],
        "trackingInfos": codes,
        "items": [{"skuCode": "A", "quantity": 1}],
    }


def answer(
    version: str,
    station: str,
    at: datetime,
    paid_at: datetime | None,
    packages: list[dict[str, Any]],
    rng: random.Random,
) -> dict[str, Any]:
    v1, (status, financial, fulfillment) = WORDS[station]
    refund = {"refunding": "refunding", "refunded": "refund"}.get(station, "NULL")
    lines = [
        {"id": 11, "skuCode": "A", "productNum": 1, "total": "14.90"},
        {"id": 12, "skuCode": "B", "productNum": rng.choice(["2", 2, "two"]), "total": 3},
    ]
    rng.shuffle(lines)
    order = {
        "id": 1000000371651,
        "createDate": START.isoformat(),
        "currencyCode": "USD",
        "finalAmount": rng.choice([18.89, "18.89", Decimal("18.890"), "a lot"]),
        "refundedAmount": rng.choice([0, "1.5"]),
        "orderItems": lines,
        "fulfillments": packages or None,
    }
    if version == "v1":
        payment = {"payAt": paid_at and paid_at.isoformat()}
        return {**order, **payment, "CustomOrderNumber": "A-1", "status": v1, "modifyDate": at.isoformat()}
    words = {"financialStatus": financial, "fulfillmentStatus": fulfillment, "refundStatus": refund}
    dates = {"payDate": paid_at and paid_at.isoformat(), "updateDate": at.isoformat()}
    return {**order, **dates, **words, "customOrderId": "A-1", "status": status}


def seen(*answers: dict[str, Any]) -> StatusRows:
    """The rows after these answers, one after the other."""
    return reduce(merge, [rows for one in answers if (rows := rows_of(KKOrder.read(one)))])


def shuffled(rng: random.Random, answers: list[Any]) -> list[Any]:
    """Some of them, the last in any case, each once or more often, in any order."""
    some = [one for one in answers[:-1] if rng.random() < 0.6]
    repeated = [one for one in [*some, answers[-1]] for _ in range(rng.choice([1, 1, 2, 3]))]
    rng.shuffle(repeated)
    return repeated


def test_any_part_of_a_history_with_its_last_answer_ends_in_the_same_rows():
    rng = random.Random(20260101)
    for _ in range(HISTORIES):
        observed = [rows_of(KKOrder.read(one)) for one in history(rng)]
        rows = reduce(merge, shuffled(rng, observed))

        assert rows == observed[-1]
        assert rows == reduce(merge, shuffled(rng, observed))


def test_even_contradicting_responses_are_joined_in_any_order():
    """Packages vanish, dates are missing or shared, words contradict each other: all seen, in any order."""
    rng = random.Random(7)
    for _ in range(1_000):
        answers = history(rng) + history(rng)
        for one in answers:
            one[rng.choice(["updateDate", "modifyDate", "fulfillments", "orderItems", "status"])] = (
                rng.choice([None, 2022, START.isoformat(), "shipped", []])
            )
        observed = [rows_of(KKOrder.read(one)) for one in answers]
        orders = [rng.sample(observed, len(observed)) for _ in range(3)]
        first, *others = [reduce(merge, [*one, *one[:2]]) for one in orders]
        assert all(other == first for other in others)

        assert first.order.status.rank == max(one.order.status.rank for one in observed)
        ids = {package.package_id for one in observed for package in one.packages}
        assert {package.package_id for package in first.packages} == ids


def v2(
    at: int, status: str = "processing", fulfillment: str = "waiting_to_ship", **more: Any
) -> dict[str, Any]:
    updated = (START + timedelta(seconds=at)).isoformat()
    words = {"status": status, "financialStatus": "paid", "fulfillmentStatus": fulfillment}
    return {"id": 7, "updateDate": updated, **words, **more}


def test_delivered_stays_delivered():
    delivered = v2(10, "completed", "completed")

    late = seen(delivered, v2(5, fulfillment="fully_shipped"))
    assert (late.order.status, late.order.kk_fulfillment_status) == ("delivered", "completed")
    # Even if KK itself goes back: its own word is kept beside ours.
    back = seen(delivered, v2(20, fulfillment="fully_shipped"))
    assert (back.order.status, back.order.kk_fulfillment_status) == ("delivered", "fully_shipped")
    assert seen(delivered, v2(30, "cancel", "NULL", refundStatus="refund")).order.status == "refunded"


def test_a_second_parcel_never_erases_the_first():
    first = {"id": 1, "status": "shipped", "trackingCode": "T1"}
    second = {"id": 2, "status": "preparing"}

    rows = seen(v2(5, fulfillments=[first]), v2(9, fulfillments=[second]))

    assert [(one.package_id, one.status, one.tracking_code) for one in rows.packages] == [
        ("1", "shipped", "T1"),
        ("2", "preparing", None),
    ]
    assert rows.order.status == FulfilmentStatus.PARTIALLY_SHIPPED


def test_a_package_is_known_by_its_id_and_lost_alone_when_that_is_odd():
    known = [{"packId": "P1"}, {"trackingCode": "T2"}, {"trackingInfos": [{"trackingCode": "T3"}]}]
    rows = seen(v2(5, fulfillments=[*known, {"id": {}, "packId": "P4"}, {"carrier": "nobody"}]))

    assert [one.package_id for one in rows.packages] == ["P1", "T2", "T3"]
    assert str(rows.order.odd_fields).split(",") == [
        "fulfillments[3].id",
        "fulfillments[3] (whole)",
        "fulfillments[4] (whole)",
    ]


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("finalAmount", "much", "final_amount"),
        ("finalAmount", "1e15", "final_amount"),
        ("finalAmount", "0.1234567", "final_amount"),
        ("customOrderId", "x" * 65, "custom_order_number"),
        ("warehouseId", ["CN"], "warehouse_id"),
        ("orderItems", [{"skuCode": "A", "productNum": "two"}], "items[0].quantity"),
        ("orderItems", [{"skuCode": "A", "productNum": 10**16}], "items[0].quantity"),
        ("orderItems", [{"skuCode": "A", "productName": "x" * 1001}], "items[0].product_name"),
        ("fulfillments", [{"id": 1, "deliveryTime": [6, 10]}], "fulfillments[0].delivery_time"),
    ],
)
def test_an_odd_field_is_lost_alone_and_named(field: str, value: Any, path: str):
    rows = seen(v2(5, payDate="2026-01-01", **{field: value}))

    assert rows.order.odd_fields == path
    assert (rows.order.status, rows.order.paid_at) == ("paid", START)
    assert (len(rows.lines), len(rows.packages)) == (field == "orderItems", field == "fulfillments")


def test_money_is_exact_and_equal_however_it_is_written():
    amounts = [
        seen(v2(5, finalAmount=one)).order.final_amount for one in (0.1, "0.10", Decimal("0.1000"), "1e-1")
    ]
    assert amounts == [Decimal("0.1")] * 4
    assert seen(v2(5, finalAmount=0.1), v2(5, finalAmount="0.10")) == seen(v2(5, finalAmount=0.1))


def test_an_order_without_a_readable_id_has_no_rows():
    assert rows_of(KKOrder.read({"id": "x" * 65, "status": "shipped"})) is None
    assert rows_of(KKOrder.read({"status": "shipped"})) is None


def test_no_personal_data_is_in_any_row():
    address = {"recipient": "Zebulon", "street1": "Licornes", "phone": "79988", "city": "Paris"}
    assert not {"Zebulon", "Licornes", "79988", "Paris"} & set(
        repr(seen(v2(5, shippingAddress=address, remark="for Zebulon"))).replace("'", " ").split()
    )
