"""A small shop of clothes: the same SKUs, prices and warehouses in every sandbox.

Each style lies in one warehouse country, so that an order of a CN and a US style is split in two.
`FWXW00290_WHT_M`, the SKU of KK's own examples, is in stock in CN.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from zlib import crc32

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

#: Listed, but nobody can buy them.
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
    """One SKU. Prices are cents of USD; `stock` is what a fresh sandbox has of it."""

    item_id: int
    sku: str
    spu: str
    name: str
    colour: str
    size: str
    price: int
    country: str
    category_id: int
    stock: int


@cache
def products() -> dict[str, Product]:
    """Every SKU, in a fixed order."""
    found: dict[str, Product] = {}
    for style, (name, price, country, category_id) in STYLES.items():
        for colour_code, colour in COLOURS.items():
            for step, size in enumerate(SIZES):
                sku = f"{style}_{colour_code}_{size}"
                stock = 0 if sku in SOLD_OUT_SKUS else 1_000_000
                found[sku] = Product(
                    item_id=700_001 + len(found),
                    sku=sku,
                    spu=style,
                    name=name,
                    colour=colour,
                    size=size,
                    price=price + 50 * max(0, step - 2),
                    country=country,
                    category_id=category_id,
                    stock=stock,
                )
    return found


def product_of(sku: str) -> Product:
    """Return an SKU of the catalogue, or what another one is where `any_sku` sells it: a piece in CN."""
    known = products().get(sku)
    if known is not None:
        return known
    return Product(
        item_id=1_000_000 + crc32(sku.encode()),
        sku=sku,
        spu=sku,
        name="Of the shop's own",
        colour="White",
        size="M",
        price=1000,
        country="CN",
        category_id=11,
        stock=1_000_000,
    )


def freight(pieces: int, channel_type: str | None) -> int:
    """Shipping of one parcel in cents."""
    _, _, first, further, _ = CHANNELS[channel_type or "Standard"]
    return first + further * (pieces - 1)
