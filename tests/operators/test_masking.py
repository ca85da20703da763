"""What Airflow stores of a rendered order: goods and number, nothing of the customer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_kk.api.models import Order
from airflow_provider_kk.operators.masking import Masked
from airflow_provider_kk.operators.orders import CreateOrderOperator
from tests.operators import shop
from tests.operators.shop import PRIVATE

ORDER = shop.order(3, remark="for Zebulon", sale_platform="Shopify")
IN_KK_NAMES = {
    "customOrderId": shop.number(3),
    "orderAddresses": shop.address(3),
    "orderItemsList": ORDER["items"],
}


@pytest.mark.parametrize(
    "given",
    [ORDER, json.dumps(ORDER), Order.parse(ORDER), IN_KK_NAMES, json.dumps(IN_KK_NAMES)],
    ids=["mapping", "JSON text", "Order", "in KK's names", "JSON text in KK's names"],
)
def test_goods_and_number_are_seen_and_nothing_else(given: Any):
    seen = str(Masked(given))

    assert not any(word in seen for word in (*PRIVATE, "Paris", "75001"))
    shown = json.loads(seen)
    assert shop.number(3) in shown.values()
    assert ORDER["items"] in shown.values()
    assert {"***"} == set((shown.get("address") or shown["orderAddresses"]).values())


@pytest.mark.parametrize(
    "given",
    ["Zebulon Quist", str(ORDER), '"Zebulon"', 75001, 1.5, ["Zebulon"], {"lines": {"name": "Zebulon"}}],
)
def test_what_is_no_order_is_hidden_whole(given: Any):
    seen = str(Masked(given))

    assert "***" in seen
    assert not any(word in seen for word in ("Zebulon", "75001", "1.5"))


def test_a_task_that_is_rendered_twice_still_has_its_order():
    task = CreateOrderOperator(task_id="create", order="{{ whole | tojson }}")

    for _ in range(2):
        task.render_template_fields({"whole": ORDER})

    assert isinstance(task.order, Masked)
    assert json.loads(task.order.value) == ORDER
