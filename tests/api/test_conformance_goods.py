"""What KK tells of stock, freight and warehouses, in each API version, and what may come instead of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import requests_mock as rm

from airflow_provider_kk.api.client import KKClient
from airflow_provider_kk.api.errors import InvalidOrderError, KKAnswerError, KKRejectedError
from airflow_provider_kk.api.models import Channel, Stock, WarehouseStock
from tests.api.helpers import GONE, KK, as_text, changed, leaves, ok

OFFER = {
    "channelCode": "KKSTD",
    "channelNameEn": "KK Standard",
    "channelType": "Standard",
    "estimatedFreight": 3.99,
    "estimatedFreightCurrency": "USD",
    "deliveryTime": "6~10 Business Days",
}
STOCK = {
    "sku": "A",
    "warehouseStockList": [
        {"countryCode": "CN", "qty": 5, "warehouseCode": "C1"},
        {"countryCode": "US", "qty": 0, "warehouseCode": "U1"},
    ],
}
STOCKS = f"{KK}/openapi/v1/product/stocks"


@pytest.mark.parametrize("shape", [dict, as_text])
@pytest.mark.parametrize(("split", "path"), [(False, ""), (True, "/automationSplit")])
def test_freight_offers_are_requested_and_read(
    client: KKClient, requests_mock: rm.Mocker, split: bool, path: str, shape: Any
) -> None:
    sent = requests_mock.post(
        f"{KK}/openapi/v2/order/orders/channel{path}", json=ok([shape(OFFER), {"channelType": "X"}])
    )
    first, second = client.get_channels([{"sku": "A", "quantity": 2}], "FR", split=split)
    assert json.loads(sent.last_request.text) == {
        "products": [{"sku": "A", "quantity": 2}],
        "shipToCountry": "FR",
    }
    assert first == Channel(
        channel_code="KKSTD",
        channel_name="KK Standard",
        channel_type="Standard",
        estimated_freight=Decimal("3.99"),
        currency_code="USD",
        delivery_time="6~10 Business Days",
    )
    assert second == Channel(channel_type="X")


@pytest.mark.parametrize("data", [[], {"list": []}, {"list": None}])
def test_no_freight_offer_is_an_error(client: KKClient, requests_mock: rm.Mocker, data: Any) -> None:
    requests_mock.post(f"{KK}/openapi/v2/order/orders/channel", json=ok(data))
    assert client.get_channels([{"sku": "A", "quantity": 1}], "FR") == []


def told(found: Channel | Stock) -> dict[str, Any]:
    """Each field by its path."""
    if isinstance(found, Channel):
        return {name: getattr(found, name) for name in Channel.model_fields if name != "odd_fields"}
    fields = [name for name in WarehouseStock.model_fields if name != "odd_fields"]
    rows = enumerate(found.warehouses)
    return {"sku": found.sku} | {f"{at}.{name}": getattr(one, name) for at, one in rows for name in fields}


@pytest.mark.parametrize("value", [GONE, None, "", "soon", {"a": []}, [[]], True, 10**40])
@pytest.mark.parametrize(("model", "example"), [(Channel, OFFER), (Stock, STOCK)])
def test_whatever_stands_in_one_field_costs_no_other_field(
    model: type[Channel] | type[Stock], example: dict[str, Any], value: Any
) -> None:
    whole = told(model.read(example))
    for path in leaves(example):
        if isinstance(example[path[0]], list) and len(path) < 3:
            continue  # a whole warehouse, or all of them
        found = told(model.read(changed(example, path, value)))
        lost = {name for name, one in whole.items() if found[name] != one}
        assert len(lost) <= 1, (path, value, lost)


@pytest.mark.parametrize(
    ("qty", "quantity"),
    [(5, 5), ("5", 5), (5.0, 5), ("5.0", 5), (0, 0), (-3, 0), (None, None), ("many", None), (1.5, None)],
)
def test_stock_is_a_count_and_none_below_zero(
    client: KKClient, requests_mock: rm.Mocker, qty: Any, quantity: int | None
) -> None:
    row = {"sku": "A", "warehouseStockList": [{"countryCode": "CN", "qty": qty, "warehouseCode": "C1"}]}
    requests_mock.get(STOCKS, json=ok({"list": [row], "total": 1}))
    (stock,) = client.iter_stock(["A"])
    assert [one.quantity for one in stock.warehouses] == [quantity]
    assert stock.odd_fields == ([] if quantity is not None or qty is None else ["warehouses[0].quantity"])


def test_stock_of_many_skus_is_queried_30_at_a_time(client: KKClient, requests_mock: rm.Mocker) -> None:
    def answer(request: Any, _context: Any) -> Any:
        return ok({"list": [{**STOCK, "sku": sku} for sku in request.qs["skus"][0].upper().split(",")]})

    sent = requests_mock.get(STOCKS, json=answer)
    skus = [f"S{number}" for number in range(61)]
    assert [stock.sku for stock in client.iter_stock([*skus, *skus])] == skus
    assert [len(one.qs["skus"][0].split(",")) for one in sent.request_history] == [30, 30, 1]


def test_stock_that_changed_in_a_period_is_read_page_by_page(
    client: KKClient, requests_mock: rm.Mocker
) -> None:
    pages = [ok({"list": [STOCK, {**STOCK, "sku": "B"}], "total": 3}), ok({"list": [{**STOCK, "sku": "C"}]})]
    sent = requests_mock.get(STOCKS, [{"json": page} for page in [*pages, ok({"list": []})]])
    since, until = datetime(2022, 4, 1, tzinfo=UTC), datetime(2022, 4, 2, tzinfo=UTC)

    found = list(client.iter_stock(updated_from=since, updated_to=until, warehouse_code="C1"))

    assert [stock.sku for stock in found] == ["A", "B", "C"]
    assert [(one.quantity, one.warehouse_code, one.country_code) for one in found[0].warehouses] == [
        (5, "C1", "CN"), (0, "U1", "US")
    ]  # fmt: skip
    assert sent.request_history[0].qs == {
        "datestarttime": ["2022-04-01t00:00:00z"],
        "dateendtime": ["2022-04-02t00:00:00z"],
        "warehousecode": ["c1"],
        "pagenumber": ["1"],
    }


@pytest.mark.parametrize("data", [None, "", 7, {}, {"total": 3}, {"list": "none"}])
def test_an_answer_without_a_list_is_never_no_stock_or_no_offer(
    client: KKClient, requests_mock: rm.Mocker, data: Any
) -> None:
    requests_mock.get(STOCKS, json=ok(data))
    requests_mock.post(f"{KK}/openapi/v2/order/orders/channel", json=ok(data))
    with pytest.raises(KKAnswerError):
        list(client.iter_stock(["A"]))
    with pytest.raises(KKAnswerError):
        client.get_channels([{"sku": "A", "quantity": 1}], "FR")


@pytest.mark.parametrize("status", [200, 400, 422])
def test_stock_and_offers_can_be_rejected(client: KKClient, requests_mock: rm.Mocker, status: int) -> None:
    refusal = ok(None, "sku X does not exist", 400123)
    requests_mock.get(STOCKS, json=refusal, status_code=status)
    requests_mock.post(f"{KK}/openapi/v2/order/orders/channel", json=refusal, status_code=status)
    with pytest.raises(KKRejectedError):
        list(client.iter_stock(["X"]))
    with pytest.raises(KKRejectedError):
        client.get_channels([{"sku": "X", "quantity": 1}], "FR")


def test_goods_and_country_are_checked_before_offers_are_requested(client: KKClient) -> None:
    with pytest.raises(InvalidOrderError) as caught:
        client.get_channels([{"sku": "A", "quantity": 0}, {"quantity": 1}], "Congo")
    assert [fault.path for fault in caught.value.faults] == ["items[0].quantity", "items[1].sku", "country"]


def test_warehouses_and_what_has_no_documented_form(client: KKClient, requests_mock: rm.Mocker) -> None:
    place = {
        "warehouseId": 1,
        "warehouseCode": "C1",
        "warehouseNameExt": "G",
        "countryCode": "CN",
        "status": 1,
    }
    requests_mock.get(f"{KK}/openapi/v1/product/countryAndWarehouse", json=ok({"list": [place]}))
    requests_mock.get(f"{KK}/openapi/v1/payment/balance", json=ok({"any": ["thing"]}))
    requests_mock.get(f"{KK}/openapi/v1/product/category", json=ok([{"id": 1, "children": []}]))

    assert [(one.warehouse_id, one.status) for one in client.get_warehouses()] == [("1", "1")]
    assert client.get_balance() == {"any": ["thing"]}
    assert client.get_categories() == [{"id": 1, "children": []}]
