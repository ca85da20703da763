"""Products with their SKUs, prices and statuses, in each API version, and what may come instead of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import requests_mock as rm
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kk.api.client import KKClient
from airflow_provider_kk.api.errors import KKAnswerError
from airflow_provider_kk.api.models import KKProduct, KKSku
from airflow_provider_kk.sandbox.server import SandboxServer
from tests.api.helpers import GONE, KK, as_text, changed, client_for, leaves, ok

PRODUCTS = f"{KK}/openapi/v1/product/products"
SKU: dict[str, Any] = {
    "sku": "FWXW00290_WHT_M",
    "skuName": "Floral Wrap Dress White M",
    "skuStatus": 1,
    "price": 14.9,
    "cost": 7.45,
    "stock": 120,
    "packageWeight": 300,
    "packageLength": 30,
    "packageWidth": 25.5,
    "packageHeight": 3,
    "material": "Cotton",
    "option1": '{"name": "Color", "value": "White"}',
    "option2": '{"name": "Size", "value": "M"}',
    "option3": None,
    "mainImg": "https://img.example.com/a.jpg",
}
PRODUCT: dict[str, Any] = {
    "spu": "FWXW00290",
    "kkProductId": 7000,
    "productName": "Floral Wrap Dress",
    "spuStatus": 1,
    "price": 14.9,
    "stock": 120,
    "updateTime": "2024-01-02T03:04:05Z",
    "skuDetails": [SKU, {**SKU, "sku": "FWXW00290_WHT_L", "skuStatus": 3}],
}


@pytest.mark.parametrize("shape", [dict, as_text])
def test_the_documented_product_is_read_whole_in_each_version(
    client: KKClient, requests_mock: rm.Mocker, shape: Any
) -> None:
    requests_mock.get(PRODUCTS, json=ok({"list": [shape(PRODUCT)], "total": 1}))

    (product,) = client.iter_products(["FWXW00290_WHT_M"])

    dress = KKSku(
        sku="FWXW00290_WHT_M",
        sku_name="Floral Wrap Dress White M",
        sku_status="1",
        price=Decimal("14.9"),
        cost=Decimal("7.45"),
        stock=120,
        package_weight=Decimal(300),
        package_length=Decimal(30),
        package_width=Decimal("25.5"),
        package_height=Decimal(3),
        material="Cotton",
        option1='{"name": "Color", "value": "White"}',
        option2='{"name": "Size", "value": "M"}',
        image_url="https://img.example.com/a.jpg",
    )
    assert product == KKProduct(
        spu="FWXW00290",
        kk_product_id="7000",
        product_name="Floral Wrap Dress",
        spu_status="1",
        price=Decimal("14.9"),
        stock=120,
        updated_at=datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
        skus=[dress, dress.model_copy(update={"sku": "FWXW00290_WHT_L", "sku_status": "3"})],
    )


@pytest.mark.parametrize("value", [GONE, None, "", "N/A", {"a": []}, [[]], True, -1.5, 10**40])
def test_whatever_stands_in_one_field_costs_no_other_field(value: Any) -> None:
    def fields(row: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        product = KKProduct.read(row)
        for at, one in enumerate([product, *product.skus]):
            for name in type(one).model_fields:
                if name not in ("odd_fields", "skus"):
                    yield at, name, getattr(one, name)

    whole = set(fields(PRODUCT))
    for path in leaves(PRODUCT):
        if path == ("skuDetails",) or len(path) == 2:
            continue  # a whole SKU, or all of them
        lost = whole - set(fields(changed(PRODUCT, path, value)))
        assert len(lost) <= 1, (path, value, lost)


# Prices: what a guard on an order's value adds up ----------------------------------------------------


def priced(raw_price: str) -> KKSku:
    """The SKU that the client reads from an answer with this JSON as its price."""
    answer = json.dumps(ok({"list": [{"spu": "P", "skuDetails": [{"sku": "A", "price": 123.25}]}]}))
    with rm.Mocker() as mocker, client_for(KK) as client:
        mocker.get(PRODUCTS, text=answer.replace("123.25", raw_price))
        ((sku,),) = (product.skus for product in client.iter_products(["A"]))
    return sku


@pytest.mark.parametrize(
    ("raw_price", "price"),
    [
        ("12.5", "12.5"),
        ('"12.50"', "12.50"),
        ('" 12.50 "', "12.50"),
        ("12", "12"),
        ("0.1", "0.1"),
        ("0.10000000000000000001", "0.10000000000000000001"),
        ("1.25e1", "12.5"),
        ("0", "0"),
        ('"0.00"', "0.00"),
    ],
)
def test_a_price_is_read_to_the_digit(raw_price: str, price: str) -> None:
    found = priced(raw_price)
    assert (str(found.price), found.odd_fields) == (price, [])


@pytest.mark.parametrize("raw_price", ["null", '""'])
def test_a_sku_without_a_price_has_none(raw_price: str) -> None:
    found = priced(raw_price)
    assert (found.sku, found.price, found.odd_fields) == ("A", None, [])


@pytest.mark.parametrize(
    "raw_price",
    [
        *(
            "-0.01",
            '"-5"',
            "NaN",
            "Infinity",
            "-Infinity",
            "1e400",
            "1e-400",
            "true",
            "false",
            "[]",
            "[12.5]",
        ),
        *('{"amount": 12.5}', '"N/A"', '"NaN"', '"sNaN"', '"Infinity"', '"1e400"', '" "', '"true"'),
        *('"$12.50"', '"12.50 USD"', '"12,50"', '"1,299.00"', '"1_2"', '"\\u0661\\u0662"', "9" * 400),
    ],
)
def test_a_price_that_cannot_be_parsed_is_none_and_noted(raw_price: str) -> None:
    found = priced(raw_price)
    assert (found.sku, found.price, found.odd_fields) == ("A", None, ["price"])


@given(st.decimals(0, 10**9, places=2), st.booleans())
def test_every_amount_of_cents_arrives_exactly(price: Decimal, as_string: bool) -> None:
    found = priced(f'"{price}"' if as_string else str(price))
    assert str(found.price) == str(price)
    assert found.odd_fields == []


@given(st.lists(st.decimals(0, 10**6, places=2), min_size=1, max_size=30))
def test_prices_add_up_without_a_float_error(prices: list[Decimal]) -> None:
    skus = [{"sku": str(at), "price": float(price)} for at, price in enumerate(prices)]
    answer = json.dumps(ok([{"spu": "P", "skuDetails": skus}]))
    with rm.Mocker() as mocker, client_for(KK) as client:
        mocker.get(PRODUCTS, text=answer)
        (product,) = client.iter_products(spus=["P"])
    assert sum(sku.price for sku in product.skus if sku.price is not None) == sum(prices)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(json_values)
def test_a_price_is_an_exact_amount_from_0_or_recognisably_none(value: Any) -> None:
    sku = KKSku.read({"sku": "A", "price": value})
    assert sku.sku == "A"
    if sku.price is None:
        assert sku.odd_fields == ([] if value in (None, "") else ["price"])
        return
    assert type(sku.price) is Decimal
    assert sku.price.is_finite()
    assert sku.price >= 0
    assert not isinstance(value, bool | list | dict | None)
    assert sku.price == Decimal(str(value).strip())


# Statuses and queries --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "read"),
    [(0, "0"), (6, "6"), ("1", "1"), (1.0, "1"), (99, "99"), ("on_sale", "on_sale"), (None, None)],
)
def test_statuses_are_an_open_set(status: Any, read: str | None) -> None:
    product = KKProduct.read({"spuStatus": status, "skuDetails": [{"skuStatus": status}]})
    assert (product.spu_status, product.skus[0].sku_status, product.odd_fields) == (read, read, [])


def test_products_are_queried_30_codes_at_a_time(client: KKClient, requests_mock: rm.Mocker) -> None:
    def answer(request: Any, _context: Any) -> Any:
        return ok({"list": [{"spu": code} for code in request.qs["spus"][0].split(",")]})

    sent = requests_mock.get(PRODUCTS, json=answer)
    codes = [f"p{number}" for number in range(61)]
    assert [product.spu for product in client.iter_products(spus=[*codes, *codes])] == codes
    assert [len(one.qs["spus"][0].split(",")) for one in sent.request_history] == [30, 30, 1]


def test_products_of_a_period_or_a_category_are_read_page_by_page(
    client: KKClient, requests_mock: rm.Mocker
) -> None:
    pages = [ok({"list": [{"spu": "A"}, {"spu": "B"}]}), ok({"list": [{"spu": "C"}]}), ok({"list": []})]
    sent = requests_mock.get(PRODUCTS, [{"json": page} for page in pages])
    since, until = datetime(2022, 4, 1, tzinfo=UTC), datetime(2022, 4, 2, tzinfo=UTC)

    found = client.iter_products(updated_from=since, updated_to=until, category_id="22")

    assert [product.spu for product in found] == ["A", "B", "C"]
    assert sent.last_request.qs == {
        "datestarttime": ["2022-04-01t00:00:00z"],
        "dateendtime": ["2022-04-02t00:00:00z"],
        "categoryid": ["22"],
        "pagenumber": ["3"],
    }


@pytest.mark.parametrize("data", [None, "", 7, {}, {"list": "none"}])
def test_an_answer_without_a_list_is_never_no_products(
    client: KKClient, requests_mock: rm.Mocker, data: Any
) -> None:
    requests_mock.get(PRODUCTS, json=ok(data))
    with pytest.raises(KKAnswerError):
        list(client.iter_products(["A"]))


def test_the_sandbox_lists_products_that_are_read_whole(sandbox: SandboxServer) -> None:
    dress, jacket, shirt = "FWXW00290_WHT_M", "USJK00033_BLK_M", "FWTS00104_WHT_M"
    sandbox.control.set_sku_details(jacket, price="N/A", skuStatus=2)
    sandbox.control.set_sku_details(shirt, price=None)
    with KKClient(sandbox.url, sandbox.token) as client:
        products = list(client.iter_products([dress, jacket, shirt, "NO_SUCH"]))

    skus = {sku.sku: (sku.sku_status, sku.price, sku.odd_fields) for one in products for sku in one.skus}
    assert skus == {
        dress: ("1", Decimal("14.9"), []),
        jacket: ("2", None, ["price"]),
        shirt: ("1", None, []),
    }
    assert [path for one in products for path in one.odd_fields] == ["skus[0].price"]
