"""KK's calls on goods: channels, stock, products, categories, warehouses."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any, TypeVar

from airflow_provider_kk.sandbox.catalogue import (
    CATEGORIES,
    CHANNELS,
    WAREHOUSES,
    Product,
    freight,
    product_of,
    products,
)
from airflow_provider_kk.sandbox.listing import money
from airflow_provider_kk.sandbox.neworder import read_lines
from airflow_provider_kk.sandbox.protocol import INVALID, UNKNOWN_SKU, Rejected
from airflow_provider_kk.sandbox.store import SandboxStore

T = TypeVar("T")

PAGE_SIZE = 30
LARGEST_QUERY = 30
#: Values of `skuStatus` and `spuStatus`.
ON_SHELF, OUT_OF_STOCK = 1, 6


def channels(store: SandboxStore, body: Any) -> list[dict[str, Any]]:
    """`POST .../channel`: what shipping would cost, all goods in one parcel."""
    pieces = sum(quantity for _, quantity in _goods(store, body))
    return [
        {
            "channelCode": code,
            "channelNameEn": name,
            "channelType": channel_type,
            "estimatedFreight": money(freight(pieces, channel_type)),
            "estimatedFreightCurrency": "USD",
            "deliveryTime": days,
        }
        for channel_type, (code, name, _, _, days) in CHANNELS.items()
    ]


def split(store: SandboxStore, body: Any) -> list[dict[str, Any]]:
    """`POST .../channel/automationSplit`: freight of an order that is split by warehouse."""
    parcels: dict[str, int] = {}
    for sku, quantity in _goods(store, body):
        country = product_of(sku).country
        parcels[country] = parcels.get(country, 0) + quantity
    return [
        {
            "channelType": channel_type,
            "estimatedFreight": money(sum(freight(pieces, channel_type) for pieces in parcels.values())),
            "estimatedFreightCurrency": "USD",
        }
        for channel_type in CHANNELS
    ]


def stocks(store: SandboxStore, query: Mapping[str, str]) -> dict[str, Any]:
    """`GET .../product/stocks`."""
    found, page = _asked(store, query, allow_category=False)
    code = query.get("warehouseCode")
    listed = [product for product in found if code in (None, "", WAREHOUSES[product.country][1])]
    rows = [
        {
            "sku": product.sku,
            "warehouseStockList": [
                {
                    "countryCode": product.country,
                    "qty": store.stock(product.sku),
                    "warehouseCode": WAREHOUSES[product.country][1],
                }
            ],
        }
        for product in _page(listed, page)
    ]
    return {"list": rows, "total": len(listed), "pageNumber": page, "pageSize": PAGE_SIZE}


def product_list(store: SandboxStore, query: Mapping[str, str]) -> dict[str, Any]:
    """`GET .../product/products`: styles with their SKUs."""
    found, page = _asked(store, query, allow_category=True)
    styles = [list(group) for _, group in groupby(found, key=lambda product: product.spu)]
    return {
        "list": [_style(store, style) for style in _page(styles, page)],
        "total": len(styles),
        "pageNumber": page,
        "pageSize": PAGE_SIZE,
    }


def categories() -> list[dict[str, Any]]:
    """`GET .../product/category`: the tree."""
    return _branch(0)


def warehouses() -> dict[str, Any]:
    """`GET .../product/countryAndWarehouse`."""
    names = {"CN": "China", "US": "United States"}
    rows = [
        {
            "warehouseId": warehouse_id,
            "warehouseCode": code,
            "warehouseNameExt": name,
            "countryCode": country,
            "countryCn": names[country],
            "status": 1,
        }
        for country, (warehouse_id, code, name) in WAREHOUSES.items()
    ]
    return {"list": rows}


def _goods(store: SandboxStore, body: Any) -> list[tuple[str, int]]:
    if not isinstance(body, Mapping) or not body.get("shipToCountry"):
        raise Rejected(INVALID, "shipToCountry is required")
    lines = list(read_lines(body.get("products"), "products"))
    for sku, _ in lines:
        if not store.sells(sku):
            raise Rejected(UNKNOWN_SKU, f"sku {sku} does not exist")
    return lines


def _asked(
    store: SandboxStore, query: Mapping[str, str], *, allow_category: bool
) -> tuple[list[Product], int]:
    for name in ("skus", "spus"):
        if query.get(name):
            return _named(store, name, query[name].split(",")), 1
    dated = query.get("dateStartTime") and query.get("dateEndTime")
    category = query.get("categoryId") if allow_category else None
    if not (dated or category):
        raise Rejected(INVALID, "skus, or dateStartTime with dateEndTime and pageNumber, are required")
    page = query.get("pageNumber") or "1"
    if not page.isdecimal() or int(page) < 1:
        raise Rejected(INVALID, "pageNumber must be a whole number of at least 1")
    found = [item for item in products().values() if not category or str(item.category_id) == category]
    return found, int(page)


def _named(store: SandboxStore, name: str, asked: list[str]) -> list[Product]:
    if len(asked) > LARGEST_QUERY:
        raise Rejected(INVALID, f"{name}: at most {LARGEST_QUERY}")
    key = name.removesuffix("s")
    found = [item for item in products().values() if getattr(item, key) in asked]
    if key == "sku":
        own = [sku for sku in dict.fromkeys(asked) if sku not in products() and store.sells(sku)]
        found += map(product_of, own)
    return found


def _page(rows: list[T], page: int) -> list[T]:
    return rows[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]


def _style(store: SandboxStore, style: Iterable[Product]) -> dict[str, Any]:
    items = list(style)
    stock = sum(store.stock(item.sku) for item in items)
    details = [_sku(store, item) for item in items]
    prices = [detail["price"] for detail in details if isinstance(detail["price"], int | float)]
    return {
        "spu": items[0].spu,
        "kkProductId": items[0].item_id // 100,
        "productName": items[0].name,
        "spuStatus": _status(stock),
        "price": min(prices, default=None),
        "stock": stock,
        "updateTime": "2024-01-01T00:00:00Z",
        "skuDetails": details,
    }


def _sku(store: SandboxStore, item: Product) -> dict[str, Any]:
    stock = store.stock(item.sku)
    detail = {
        "sku": item.sku,
        "skuName": f"{item.name} {item.colour} {item.size}",
        "skuStatus": _status(stock),
        "price": money(item.price),
        "cost": money(item.price // 2),
        "stock": stock,
        "packageWeight": 300,
        "packageLength": 30,
        "packageWidth": 25,
        "packageHeight": 3,
        "material": "Cotton",
        "option1": json.dumps({"name": "Color", "value": item.colour}),
        "option2": json.dumps({"name": "Size", "value": item.size}),
        "option3": None,
        "mainImg": f"https://img.example.com/{item.spu}.jpg",
    }
    return detail | store.sku_details(item.sku)


def _status(stock: int) -> int:
    return ON_SHELF if stock else OUT_OF_STOCK


def _branch(parent: int) -> list[dict[str, Any]]:
    return [
        {"id": category_id, "parentId": parent, "name": name, "children": _branch(category_id)}
        for category_id, (above, name) in CATEGORIES.items()
        if above == parent
    ]
