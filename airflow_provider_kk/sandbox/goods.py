"""The catalogue, and KK's calls for goods: channels, stock, products, categories, warehouses.

Every sandbox has the same SKUs, prices and warehouses. Each style is in one warehouse country, so an order
of a CN and a US style is split in two. `FWXW00290_WHT_M`, the SKU of KK's examples, is in stock in CN.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import groupby
from typing import TYPE_CHECKING, Any
from zlib import crc32

from airflow_provider_kk.sandbox.json_values import (
    INVALID,
    Rejected,
    money,
    read_lines,
    whole_in,
)

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.order_calls import Ask
    from airflow_provider_kk.sandbox.store import SandboxStore

COLOURS = {"WHT": "White", "BLK": "Black", "RED": "Red", "NVY": "Navy", "KHK": "Khaki"}
SIZES = ("S", "M", "L", "XL", "XXL")

#: spu: (name, price in cents, warehouse country, category id)
STYLES = {
    "FWXW00290": ("Floral Wrap Dress", 1490, "CN", 11),
    "FWXW00311": ("Pleated Midi Skirt", 1285, "CN", 12),
    "FWTS00104": ("Cotton Crew T-Shirt", 640, "CN", 21),
    "FWTS00127": ("Striped Long Sleeve", 875, "CN", 21),
    "FWHD00052": ("Fleece Hoodie", 1820, "CN", 22),
    "FWJN00418": ("High Waist Jeans", 2150, "CN", 31),
    "FWCD00233": ("Knit Cardigan", 1999, "CN", 22),
    "FWLG00076": ("Yoga Leggings", 1130, "CN", 31),
    "USTS00015": ("Basic Tank Top", 720, "US", 21),
    "USHD00021": ("Zip Hoodie", 2260, "US", 22),
    "USJK00033": ("Denim Jacket", 3145, "US", 22),
    "USDR00008": ("Summer Shirt Dress", 1775, "US", 11),
}

#: Listed without stock.
SOLD_OUT_SKUS = frozenset(
    {"FWXW00290_RED_XXL", "FWTS00104_KHK_S", "FWHD00052_NVY_XL", "USJK00033_WHT_S", "USTS00015_RED_M"}
)

#: id: (parent id, name)
CATEGORIES = {
    1: (0, "Women"),
    11: (1, "Dresses"),
    12: (1, "Skirts"),
    2: (0, "Tops"),
    21: (2, "T-Shirts"),
    22: (2, "Sweaters and Jackets"),
    3: (0, "Bottoms"),
    31: (3, "Jeans and Leggings"),
}

#: country: (warehouse id, warehouse code, name)
WAREHOUSES = {"CN": (1, "CNGZ01", "Guangzhou"), "US": (2, "USCA01", "California")}

#: channelType: (code, name, first cents, cents for each further piece, business days)
CHANNELS = {
    "Standard": ("KKSTD", "KK Standard", 399, 85, "6~10 Business Days"),
    "Express": ("KKEXP", "KK Express", 899, 140, "4~7 Business Days"),
    "Expedited": ("KKEPD", "KK Expedited", 1699, 260, "2~4 Business Days"),
}


@dataclass(frozen=True)
class Product:
    """One SKU; by default one that the catalogue lacks. Prices are cents of USD."""

    item_id: int
    sku: str
    spu: str
    name: str = "Of the shop's own"
    colour: str = "White"
    size: str = "M"
    price: int = 1000
    country: str = "CN"
    category_id: int = 11
    #: In a new sandbox.
    stock: int = 1_000_000

    def options_json(self) -> dict[str, Any]:
        """Return KK's fields for the colour and the size."""
        return {
            "option1": json.dumps({"name": "Color", "value": self.colour}),
            "option2": json.dumps({"name": "Size", "value": self.size}),
            "option3": None,
        }

    @property
    def image_url(self) -> str:
        """Return the address of its picture."""
        return f"https://img.example.com/{self.spu}.jpg"


@cache
def products() -> dict[str, Product]:
    """Return every SKU, in a fixed order."""
    found: dict[str, Product] = {}
    for spu, (name, price, country, category) in STYLES.items():
        for code, colour in COLOURS.items():
            for step, size in enumerate(SIZES):
                sku, cents = f"{spu}_{code}_{size}", price + 50 * max(0, step - 2)
                product = Product(
                    700_001 + len(found), sku, spu, name, colour, size, cents, country, category
                )
                found[sku] = replace(product, stock=0) if sku in SOLD_OUT_SKUS else product
    return found


def product_of(sku: str) -> Product:
    """Return the product of an SKU; one that the catalogue lacks, for `any_sku`, is a product in CN."""
    return products().get(sku) or Product(1_000_000 + crc32(sku.encode()), sku, spu=sku)


def freight(pieces: int, channel_type: str | None) -> int:
    """Return the shipping costs of one parcel in cents."""
    _, _, first, further, _ = CHANNELS[channel_type or "Standard"]
    return first + further * (pieces - 1)


PAGE_SIZE = 30
LARGEST_QUERY = 30
#: Values of `skuStatus` and `spuStatus`.
ON_SHELF, OUT_OF_STOCK = 1, 6


def channels(ask: Ask) -> list[dict[str, Any]]:
    """`POST .../channel`: shipping costs of all goods in one parcel."""
    pieces = sum(quantity for _, quantity in _goods(ask))
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


def split(ask: Ask) -> list[dict[str, Any]]:
    """`POST .../channel/automationSplit`: freight of an order that is split by warehouse."""
    parcels: Counter[str] = Counter()
    for sku, quantity in _goods(ask):
        parcels[product_of(sku).country] += quantity
    return [
        {
            "channelType": channel_type,
            "estimatedFreight": money(sum(freight(pieces, channel_type) for pieces in parcels.values())),
            "estimatedFreightCurrency": "USD",
        }
        for channel_type in CHANNELS
    ]


def stocks(ask: Ask) -> dict[str, Any]:
    """`GET .../product/stocks`."""
    found, page = _asked(ask, allow_category=False)
    code = ask.query.get("warehouseCode")
    listed = [product for product in found if code in (None, "", WAREHOUSES[product.country][1])]
    return _page(listed, page, partial(_stock_row, ask.store))


def product_list(ask: Ask) -> dict[str, Any]:
    """`GET .../product/products`: styles with their SKUs."""
    found, page = _asked(ask, allow_category=True)
    styles = [list(group) for _, group in groupby(found, key=lambda product: product.spu)]
    return _page(styles, page, partial(_style, ask.store))


def categories(ask: Ask, parent: int = 0) -> list[dict[str, Any]]:
    """`GET .../product/category`: the tree below a category."""
    return [
        {"id": category_id, "parentId": parent, "name": name, "children": categories(ask, category_id)}
        for category_id, (above, name) in CATEGORIES.items()
        if above == parent
    ]


def warehouses(ask: Ask) -> dict[str, Any]:
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


def _goods(ask: Ask) -> list[tuple[str, int]]:
    if not isinstance(ask.body, Mapping) or not ask.body.get("shipToCountry"):
        raise Rejected(INVALID, "shipToCountry is required")
    lines = read_lines(ask.body.get("products"), "products")
    for sku, _ in lines:
        ask.store.require(sku)
    return lines


def _asked(ask: Ask, *, allow_category: bool) -> tuple[list[Product], int]:
    query = ask.query
    for name in ("skus", "spus"):
        if query.get(name):
            return _named(ask.store, name, query[name].split(",")), 1
    dated = query.get("dateStartTime") and query.get("dateEndTime")
    category = query.get("categoryId") if allow_category else None
    if not (dated or category):
        raise Rejected(INVALID, "skus, or dateStartTime with dateEndTime and pageNumber, are required")
    page = whole_in(query, "pageNumber", 1)
    found = [item for item in products().values() if not category or str(item.category_id) == category]
    return found, page


def _named(store: SandboxStore, name: str, asked: list[str]) -> list[Product]:
    if len(asked) > LARGEST_QUERY:
        raise Rejected(INVALID, f"{name}: at most {LARGEST_QUERY}")
    key = name.removesuffix("s")
    found = [item for item in products().values() if getattr(item, key) in asked]
    if key == "sku":
        own = [sku for sku in dict.fromkeys(asked) if sku not in products() and store.sells(sku)]
        found += map(product_of, own)
    return found


def _page(rows: list[Any], page: int, as_row: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
    shown = [as_row(row) for row in rows[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]]
    return {"list": shown, "total": len(rows), "pageNumber": page, "pageSize": PAGE_SIZE}


def _stock_row(store: SandboxStore, item: Product) -> dict[str, Any]:
    stock = {
        "countryCode": item.country,
        "qty": store.stock(item.sku),
        "warehouseCode": WAREHOUSES[item.country][1],
    }
    return {"sku": item.sku, "warehouseStockList": [stock]}


def _style(store: SandboxStore, items: list[Product]) -> dict[str, Any]:
    stock = sum(store.stock(item.sku) for item in items)
    details = [_sku(store, item) for item in items]
    prices = [detail["price"] for detail in details if isinstance(detail["price"], int | float)]
    return {
        "spu": items[0].spu,
        "kkProductId": items[0].item_id // 100,
        "productName": items[0].name,
        "spuStatus": ON_SHELF if stock else OUT_OF_STOCK,
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
        "skuStatus": ON_SHELF if stock else OUT_OF_STOCK,
        "price": money(item.price),
        "cost": money(item.price // 2),
        "stock": stock,
        "packageWeight": 300,
        "packageLength": 30,
        "packageWidth": 25,
        "packageHeight": 3,
        "material": "Cotton",
        **item.options_json(),
        "mainImg": item.image_url,
    }
    return detail | store.sku_details(item.sku)
