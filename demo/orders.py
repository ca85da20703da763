"""The shop's orders, the same at every call: most like any other, and one or two of all that can go wrong.

Names, streets and phones are made up; phones are of the ranges that countries keep for fiction.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.sandbox.goods import SOLD_OUT_SKUS, products

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.control import SandboxControl

ORDERS = 46
FIRST_NUMBER = 20_411


@dataclass(frozen=True)
class Story:
    """What happens to an order, and the states that it must end in; None: no state at all."""

    text: str
    warehouse: str | None = "created"
    ledger: str | None = "created"
    fault: str | None = None
    fault_options: dict[str, Any] = field(default_factory=dict)

    @property
    def is_ordinary(self) -> bool:
        """Whether it need not be shown on its own."""
        return self is PLAIN

    @property
    def is_created(self) -> bool:
        """Whether KK must have it in the end: once."""
        return self.ledger == "created"


@dataclass(frozen=True)
class ShopOrder:
    """One row of `shop_order` and its lines (SKU, quantity)."""

    order_no: str
    ordered_at: str
    recipient: str
    phone: str | None
    street1: str
    street2: str | None
    city: str
    province: str
    zip: str
    country: str
    lines: tuple[tuple[str, int], ...]
    story: Story

    @property
    def number(self) -> str:
        """The order number as the provider reads it."""
        return self.order_no.strip()

    @property
    def address(self) -> dict[str, str | None]:
        """The address as KK must have it."""
        fields = ("recipient", "phone", "street1", "street2", "city", "province", "zip", "country")
        return {name: getattr(self, name) for name in fields}

    @property
    def goods(self) -> dict[str, int]:
        """Pieces of each SKU."""
        goods: dict[str, int] = {}
        for sku, quantity in self.lines:
            goods[sku] = goods.get(sku, 0) + quantity
        return goods


def make_orders() -> list[ShopOrder]:
    """All orders, the oldest first."""
    draw = random.Random(2026)
    found: list[ShopOrder] = []
    for position, ordered_at in zip(range(ORDERS), _times(draw), strict=False):
        change = CHANGES.get(position, _as_it_is)
        order = _plain(draw, f"SO-{FIRST_NUMBER + position}", ordered_at)
        found.append(change(order))
    twin = found[TWIN_OF]
    found.insert(TWIN_OF + 1, replace(twin, order_no=twin.order_no + " ", street1="12 Station Approach"))
    return found


def arm(kk: SandboxControl, orders: Iterable[ShopOrder]) -> None:
    """Let the sandbox lose the answers and requests that the orders' stories tell of, once each."""
    for order in orders:
        if order.story.fault:
            kk.arm(order.story.fault, times=1, number=order.number, **order.story.fault_options)


PLAIN = Story("an order like any other")
SPLIT = Story("goods of two of KK's warehouses")
CONFLICT = Story("two rows with one order number, two addresses", "invalid", "invalid")
TWIN_OF = 37


_Change = Callable[[ShopOrder], ShopOrder]


def _as_it_is(order: ShopOrder) -> ShopOrder:
    return order


def _struck(text: str, fault: str, **options: Any) -> _Change:
    story = Story(text, fault=fault, fault_options=options)
    return lambda order: replace(order, story=story)


def _split(order: ShopOrder) -> ShopOrder:
    return replace(order, story=SPLIT, lines=(("FWHD00052_BLK_M", 1), ("USJK00033_NVY_L", 1)))


def _refused(text: str, sku: str) -> _Change:
    story = Story(text, "rejected", "rejected")
    return lambda order: replace(order, story=story, lines=(*order.lines, (sku, 1)))


def _invalid(text: str, **changes: Any) -> _Change:
    story = Story(text, "invalid", "invalid")
    return lambda order: replace(order, story=story, **changes)


def _too_long(order: ShopOrder) -> ShopOrder:
    # KK would cut such a number short, and the ledger keys by numbers that KK keeps.
    story = Story("an order number of 47 characters", "invalid", None)
    return replace(order, story=story, order_no=f"{order.order_no}-REPLACEMENT-FOR-A-PARCEL-LOST-IN-APRIL")


#: position: what is changed about the order there. Lost answers lie apart, for many in a row stop a sync.
CHANGES: dict[int, _Change] = {
    3: _split,
    6: _struck("created, then the connection drops", "drop_after_commit"),
    9: _invalid("country AN, which is no ISO 3166 code any more", country="AN"),
    11: _struck("the request is lost, nothing created", "drop_before_commit"),
    14: _refused("a SKU that KK does not have", "FWXW00999_WHT_M"),
    17: _struck("created, then HTTP 502", "status_after_commit", status=502),
    20: _split,
    22: _invalid("no phone", phone=None),
    25: _struck("HTTP 503, nothing created", "status_before_commit", status=503),
    28: _invalid("a line with quantity 0", lines=(("FWTS00104_WHT_M", 0), ("FWLG00076_BLK_S", 1))),
    30: _struck("created, but no answer until the timeout", "stall_after_commit", seconds=20.0),
    33: _refused("a SKU that is sold out", min(SOLD_OUT_SKUS)),
    TWIN_OF: lambda order: replace(order, story=CONFLICT),
    39: _struck("created 1 s after the connection dropped", "late_commit", seconds=1.0),
    42: _too_long,
}


def _times(draw: random.Random) -> Iterator[str]:
    at = datetime.fromisoformat("2026-04-06 07:12:09")
    while True:
        at += timedelta(seconds=draw.randint(120, 9_000))
        yield at.isoformat(sep=" ")


def _plain(draw: random.Random, order_no: str, ordered_at: str) -> ShopOrder:
    country = draw.choice(list(PLACES))
    first, last, streets, cities, phone = PLACES[country]
    city, province, zip_code = draw.choice(cities)
    return ShopOrder(
        order_no=order_no,
        ordered_at=ordered_at,
        recipient=f"{draw.choice(first)} {draw.choice(last)}",
        phone=phone.format(draw.randint(0, 99)),
        street1=draw.choice(streets).format(draw.randint(1, 140)),
        street2=draw.choice((None, None, None, "2nd floor", "c/o reception")),
        city=city,
        province=province,
        zip=zip_code,
        country=country,
        lines=_lines(draw),
        story=PLAIN,
    )


def _lines(draw: random.Random) -> tuple[tuple[str, int], ...]:
    at_hand = sorted(p.sku for p in products().values() if p.country == "CN" and p.stock)
    skus = draw.sample(at_hand, draw.choice((1, 1, 2, 2, 3, 4)))
    return tuple((sku, draw.choice((1, 1, 1, 2, 2, 3))) for sku in skus)


_Place = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[tuple[str, str, str], ...], str]

#: country: first names, last names, streets, (city, province, zip), phone
PLACES: dict[str, _Place] = {
    "FR": (
        ("Camille", "Inès", "Hugo", "Zoé"),
        ("Lefèvre", "Moreau", "Garnier", "Chevalier"),
        ("{} rue des Lilas", "{} avenue Jean Jaurès", "{} boulevard Voltaire"),
        (
            ("Paris", "Île-de-France", "75011"),
            ("Lyon", "Auvergne-Rhône-Alpes", "69003"),
            ("Nantes", "Pays de la Loire", "44000"),
        ),
        "+33 1 99 00 41 {:02}",
    ),
    "DE": (
        ("Lena", "Jonas", "Mia", "Jörg"),
        ("Schäfer", "Krüger", "Brandt", "Voß"),
        ("Lindenstraße {}", "Goethestraße {}", "Am Markt {}"),
        (("Berlin", "Berlin", "10969"), ("Köln", "Nordrhein-Westfalen", "50667")),
        "+49 30 23125 0{:02}",
    ),
    "US": (
        ("Emily", "Marcus", "Ava", "Tyler"),
        ("Johnson", "Ramirez", "O'Neill", "Washington"),
        ("{} Maple Street", "{} W 4th Avenue", "{} Sunset Drive"),
        (
            ("Portland", "Oregon", "97205"),
            ("Austin", "Texas", "78701"),
            ("Madison", "Wisconsin", "53703"),
        ),
        "+1 503 555 01{:02}",
    ),
    "GB": (
        ("Olivia", "Callum", "Priya", "Rhys"),
        ("Hughes", "Patel", "Macdonald", "Ashworth"),
        ("{} High Street", "{} Church Lane", "Flat 3, {} Albert Road"),
        (("Leeds", "West Yorkshire", "LS1 4AP"), ("Cardiff", "South Glamorgan", "CF10 1EP")),
        "+44 7700 9001{:02}",
    ),
    "IT": (
        ("Giulia", "Matteo", "Chiara"),
        ("Esposito", "D'Angelo", "Colombo"),
        ("Via Garibaldi {}", "Corso Italia {}"),
        (("Torino", "Piemonte", "10121"), ("Bologna", "Emilia-Romagna", "40121")),
        "+39 06 9900 41{:02}",
    ),
    "SE": (
        ("Astrid", "Björn", "Elin"),
        ("Lindqvist", "Åkesson", "Sjöberg"),
        ("Storgatan {}", "Kungsgatan {}"),
        (("Uppsala", "Uppsala län", "753 20"), ("Malmö", "Skåne län", "211 34")),
        "+46 70 174 06 {:02}",
    ),
    "AU": (
        ("Ruby", "Lachlan", "Isla"),
        ("Campbell", "Nguyen", "Fraser"),
        ("{} Wattle Street", "{} Bay Road"),
        (("Hobart", "Tasmania", "7000"), ("Fremantle", "Western Australia", "6160")),
        "+61 491 570 1{:02}",
    ),
}
