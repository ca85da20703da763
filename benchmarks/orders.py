"""The orders that are sent: one line each, all alike but for their number."""

from __future__ import annotations

from typing import Any

from airflow_provider_kk.api.models import Order
from tests.operators.shop import SKUS, address


def order(number: str) -> Order:
    return Order.parse(data(number))


def data(number: str) -> dict[str, Any]:
    return {
        "custom_order_number": number,
        "address": address(1),
        "items": [{"sku": SKUS[0], "quantity": 1}],
    }


def body(number: str) -> dict[str, Any]:
    """The same as KK's API takes it."""
    return {
        "CustomOrderNumber": number,
        "SalePlatform": "bench",
        "orderAddresses": address(1),
        "orderItemsList": [{"sku": SKUS[0], "quantity": 1}],
    }


PATH = "/openapi/v1/order/order"
