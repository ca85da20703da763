"""The exact bodies on the wire."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from airflow_provider_kk.api.api_versions import API_VERSIONS
from airflow_provider_kk.api.models import Order
from tests.api.helpers import ORDER

BARE = {
    "address": {"country": "FR", "phone": "1", "recipient": "A", "province": "B"},
    "items": [{"sku": "S", "quantity": "2"}],
}


def test_v1_sends_the_body_of_the_documents_example_in_its_order() -> None:
    body = API_VERSIONS["v1"].create_body(Order.parse(ORDER), "orderAddresses", None)
    assert json.dumps(body) == (
        '{"orderAddresses": {"country": "FR", "city": "Orlafasns", "phone": "07 82 24 67 93", '
        '"recipient": "Lffsollia Odfsdlena", "street1": "7 rue  Rabelais", "province": "de Lofasfasire", '
        '"zip": "vsvs00v30"}, "remark": "I don\'t want this order", '
        '"orderItemsList": [{"sku": "FWXW00290_WHT_M", "quantity": 1}], '
        '"CustomOrderNumber": "111", "SalePlatform": "KA"}'
    )


def test_v2_sends_its_own_names_and_a_shipping_speed() -> None:
    body = API_VERSIONS["v2"].create_body(
        Order.parse(ORDER | {"channel_type": "Express"}), "orderAddresses", None
    )
    assert list(body) == [
        "orderAddresses",
        "orderItemsList",
        "remark",
        "customOrderId",
        "salePlatform",
        "channelType",
    ]
    assert (body["customOrderId"], body["salePlatform"], body["channelType"]) == ("111", "KA", "Express")


def test_v1_orders_sends_the_later_names_and_a_shipping_speed_when_given() -> None:
    body = API_VERSIONS["v1-orders"].create_body(
        Order.parse(ORDER | {"channel_type": "express"}), "orderAddresses", None
    )
    assert list(body) == [
        "orderAddresses",
        "remark",
        "orderItemsList",
        "customOrderId",
        "salePlatform",
        "channelType",
    ]
    assert (body["customOrderId"], body["salePlatform"], body["channelType"]) == ("111", "KA", "Express")


@pytest.mark.parametrize(
    ("api_version", "more"), [("v1", {}), ("v1-orders", {}), ("v2", {"channelType": "Standard"})]
)
def test_absent_fields_are_left_out(api_version: str, more: dict[str, str]) -> None:
    body = API_VERSIONS[api_version].create_body(Order.parse(BARE), "orderAddresses", None)
    assert body == {
        "orderAddresses": {"country": "FR", "phone": "1", "recipient": "A", "province": "B"},
        "orderItemsList": [{"sku": "S", "quantity": 2}],
        **more,
    }


def test_the_connections_platform_is_for_orders_that_name_none() -> None:
    v1 = API_VERSIONS["v1"]
    assert v1.create_body(Order.parse(BARE), "orderAddresses", "Shopify")["SalePlatform"] == "Shopify"
    assert v1.create_body(Order.parse(ORDER), "orderAddresses", "Shopify")["SalePlatform"] == "KA"


def test_the_address_key_can_be_switched() -> None:
    body = API_VERSIONS["v1"].create_body(Order.parse(ORDER), "orderAddress", None)
    assert next(iter(body)) == "orderAddress"
    assert "orderAddresses" not in body


def test_v1_has_no_shipping_speed() -> None:
    body = API_VERSIONS["v1"].create_body(
        Order.parse(ORDER | {"channel_type": "Express"}), "orderAddresses", None
    )
    assert "Express" not in body.values()


@pytest.mark.parametrize("module", ["errors", "models", "api_versions", "throttle", "base_url", "responses"])
def test_what_others_import_at_the_top_does_not_load_requests(module: str) -> None:
    code = f"import sys, airflow_provider_kk.api.{module}; sys.exit('requests' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
