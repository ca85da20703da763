"""What KK tells about its goods."""

from __future__ import annotations

import pytest
import requests

from airflow_provider_kk.sandbox.control import SandboxControlError
from tests.sandbox.caller import DRESS, JACKET, order, split_order

CHANNEL = "/openapi/v2/order/orders/channel"
STOCKS = "/openapi/v1/product/stocks"
PRODUCTS = "/openapi/v1/product/products"
SINCE = {"dateStartTime": "2020-01-01T00:00:00Z", "dateEndTime": "2030-01-01T00:00:00Z"}


def test_channels_have_costs_and_days_of_shipping(caller):
    goods = {"products": [{"sku": DRESS, "quantity": 2}], "shipToCountry": "FR"}
    channels = {row["channelType"]: row for row in caller.create(goods, CHANNEL)}

    assert set(channels) == {"Standard", "Express", "Expedited"}
    assert channels["Standard"]["estimatedFreight"] == 4.84
    assert channels["Standard"]["deliveryTime"] == "6~10 Business Days"


def test_an_order_that_is_split_pays_freight_for_each_parcel(caller):
    goods = {
        "products": [{"sku": DRESS, "quantity": 1}, {"sku": JACKET, "quantity": 1}],
        "shipToCountry": "FR",
    }
    (standard, *_) = caller.create(goods, CHANNEL + "/automationSplit")

    assert (standard["channelType"], standard["estimatedFreight"]) == ("Standard", 7.98)
    assert caller.refusal({"products": goods["products"]}, CHANNEL)


def test_stock_is_listed_by_sku_or_page_by_page(kk, caller):
    kk.control.set_stock(DRESS, 3)
    (row,) = caller.get(STOCKS, skus=DRESS)["list"]
    assert row == {
        "sku": DRESS,
        "warehouseStockList": [{"countryCode": "CN", "qty": 3, "warehouseCode": "CNGZ01"}],
    }

    skus = {
        row["sku"] for page in range(1, 12) for row in caller.get(STOCKS, **SINCE, pageNumber=page)["list"]
    }
    assert skus == {item["sku"] for item in kk.control.catalogue()}
    assert caller.get(STOCKS, skus=DRESS, warehouseCode="USCA01")["list"] == []


def test_products_are_listed_by_style_sku_or_category(caller):
    (style,) = caller.get(PRODUCTS, spus="FWXW00290")["list"]
    assert len(style["skuDetails"]) == 25
    assert len(caller.get(PRODUCTS, skus=DRESS)["list"][0]["skuDetails"]) == 1
    sweaters = {row["spu"] for row in caller.get(PRODUCTS, categoryId=22)["list"]}
    assert sweaters == {"FWHD00052", "FWCD00233", "USHD00021", "USJK00033"}


def test_products_have_prices_and_statuses_as_documented(kk, caller):
    kk.control.set_stock(DRESS, 0)
    (style,) = caller.get(PRODUCTS, spus="FWXW00290")["list"]
    details = {row["sku"]: row for row in style["skuDetails"]}

    assert (style["price"], style["spuStatus"]) == (14.9, 1)
    assert (details[DRESS]["price"], details[DRESS]["skuStatus"]) == (14.9, 6)
    assert (details["FWXW00290_WHT_XXL"]["price"], details["FWXW00290_WHT_XXL"]["skuStatus"]) == (15.9, 1)


@pytest.mark.parametrize("price", ["N/A", "9.95", None, 0, -1, {"amount": 5}])
def test_product_queries_list_the_requested_parts_of_a_sku(kk, caller, price):
    kk.control.set_sku_details(DRESS, price=price, skuStatus=3)
    (row,) = caller.get(PRODUCTS, skus=DRESS)["list"][0]["skuDetails"]
    assert (row["price"], row["skuStatus"], row["sku"]) == (price, 3, DRESS)

    kk.control.set_sku_details(DRESS)
    (row,) = caller.get(PRODUCTS, skus=DRESS)["list"][0]["skuDetails"]
    assert (row["price"], row["skuStatus"]) == (14.9, 1)


def test_details_of_an_unknown_sku_are_an_error(kk):
    with pytest.raises(SandboxControlError, match="MINE-1"):
        kk.control.set_sku_details("MINE-1", price=5)


@pytest.mark.parametrize("path", [STOCKS, PRODUCTS])
def test_a_query_for_everything_or_too_much_is_rejected(kk, caller, path):
    for query in ({}, {"skus": ",".join(["x"] * 31)}, SINCE | {"pageNumber": "0"}):
        answer = requests.get(kk.url + path, params=query, headers=caller.headers, timeout=300)
        assert answer.json()["code"] != 10000


def test_categories_are_a_tree_and_warehouses_a_list(caller):
    tree = caller.get("/openapi/v1/product/category")
    assert [child["name"] for child in tree[0]["children"]] == ["Dresses", "Skirts"]

    warehouses = caller.get("/openapi/v1/product/countryAndWarehouse")["list"]
    assert [row["countryCode"] for row in warehouses] == ["CN", "US"]


def test_orders_reduce_the_stock_when_configured(kk, caller):
    def left() -> int:
        return int(caller.get(STOCKS, skus=DRESS)["list"][0]["warehouseStockList"][0]["qty"])

    kk.control.set_stock(DRESS, 5)
    caller.create(split_order("A-1"))
    assert left() == 5

    kk.control.set(orders_take_stock=True)
    caller.create(split_order("A-2"))
    caller.create(split_order("A-3"))

    assert left() == 1
    assert "sold out" in caller.refusal(split_order("A-4"))


def test_a_shops_own_skus_are_sold_when_any_are(kk, caller):
    goods = {"products": [{"sku": "MINE-1", "quantity": 2}], "shipToCountry": "FR"}
    assert "does not exist" in caller.refusal(goods, CHANNEL)
    assert caller.get(STOCKS, skus="MINE-1")["list"] == []

    kk.control.set(any_sku=True)

    assert caller.create(goods, CHANNEL)
    (stock,) = caller.get(STOCKS, skus=f"MINE-1,{DRESS}")["list"][1:]
    assert (stock["sku"], stock["warehouseStockList"][0]["qty"]) == ("MINE-1", 1_000_000)
    caller.create(order("A-1", orderItemsList=[{"sku": "MINE-1", "quantity": 2}]))
    (listed,) = caller.listed()
    assert [(line["skuCode"], line["productNum"]) for line in listed["orderItems"]] == [("MINE-1", 2)]


def test_stock_of_an_unknown_sku_is_an_error_and_not_forgotten(kk, caller):
    with pytest.raises(SandboxControlError, match="MINE-1"):
        kk.control.set_stock("MINE-1", 5)

    kk.control.set(any_sku=True)
    kk.control.set_stock("MINE-1", 0)
    assert "sold out" in caller.refusal(order("A-1", orderItemsList=[{"sku": "MINE-1", "quantity": 1}]))
