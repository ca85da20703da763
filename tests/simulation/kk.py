"""A KK in the hub's time: creates what reaches it, however late, and lists it as badly as KK may."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

from airflow_provider_kk.api.errors import (
    KKAnswerError,
    KKAuthError,
    KKNotSentError,
    KKRateLimitedError,
    KKRejectedError,
    KKUnknownOutcomeError,
)
from airflow_provider_kk.delivery.model import BeforeSend, ListedOrder
from tests.simulation.hub import Hub

TIMEOUT_S = 30.0
WINDOW_S = 600.0
#: A process stops here so much more often than elsewhere: it is where most is at stake.
_AROUND_A_POST = 4
#: What is asked for is one page of 250; how many rows of it are given is the world's.
PAGE = 250


@dataclass(frozen=True)
class Order:
    """What the warehouse wants."""

    key: str
    goods: Mapping[str, int]
    country: str
    fingerprint: str


class Time(float):
    """As much of a datetime as is read of one."""

    __slots__ = ()
    timestamp = float.__float__


@dataclass(slots=True)
class Row:
    """An order at KK, as its list gives it."""

    id: str
    custom_order_number: str | None
    number_is_integer: bool
    items: list[Any]
    shipping_address: Any
    created_at: Time
    listed_at: float
    updated_at: float
    key: str | None
    status: str = ""
    sighting: ListedOrder | None = None
    """How delivery has read it, if it has: all that it reads of a row stays as it is."""


@dataclass
class Manners:
    """How this KK behaves."""

    faults: float = 0.0
    """The chance that a POST does not go as it should."""
    lag_s: float = 0.0
    page_cap: int = PAGE
    total: str = "number"
    sort_by_update: bool = False
    integers: bool = False
    split: bool = False
    names_all_ids: bool = True
    list_errors: float = 0.0
    hides: str = ""
    """While its index is rebuilt, the list shows nothing (`all`) or fewer rows than it says (`half`)."""
    hides_from: float = 0.0
    hides_until: float = 0.0
    hides_requests: int = 0
    """It hides what it hides from so many requests at least, so that it comes back while it is read."""
    forgets_numbers: float = 0.0
    """The chance that an order is listed without its number."""
    skew_s: float = 0.0
    freeze_before_first_byte_s: float = 0.0
    """How long a worker may stand still between its last check and its first byte."""

    is_beyond: bool = False
    """KK commits later, and workers stand still for longer, than anybody can allow for."""

    @property
    def longest_commit_s(self) -> float:
        """What KK may take, so that it has listed the order when the settle window ends."""
        if self.is_beyond:
            return 3 * WINDOW_S
        return WINDOW_S - self.lag_s - self.freeze_before_first_byte_s - 5.0


_CREATED, _UPDATED = attrgetter("created_at"), attrgetter("updated_at")

#: What a POST meets, and how often in a hundred.
FATES = (
    ("lost_answer", 24),
    ("lost_request", 20),
    ("late_commit", 14),
    ("slow", 8),
    ("refused", 10),
    ("half_split", 4),
    ("not_sent", 8),
    ("rate_limited", 6),
    ("auth", 6),
)
_DRAWN = [name for name, share in FATES for _ in range(share)]


@dataclass
class Post:
    """A POST whose first byte has left."""

    key: str
    at: float
    fate: str
    may_be_there: bool


@dataclass
class KK:
    """The supplier."""

    hub: Hub
    manners: Manners
    on_post: Callable[[str, Post], None]
    rows: list[Row] = field(default_factory=list)
    creates: dict[str, int] = field(default_factory=dict)
    """How many POSTs of a number have made an order, or a part of one."""
    posts: int = 0
    requests: int = 0

    def __post_init__(self) -> None:
        self._last_id = 1_000

    @property
    def clock_skew_s(self) -> float:
        return self.manners.skew_s - self.hub.workers_skew_s

    # Creating --------------------------------------------------------------------------------------

    def post(self, order: Order, before_send: BeforeSend) -> list[str]:
        """What a client's call does: connect, check, hand over, wait for the answer."""
        hub = self.hub
        hub.pause("call", weight=_AROUND_A_POST)
        begun = hub.now
        hub.pause("connect")
        fate = self._fate()
        if fate == "not_sent":
            raise KKNotSentError("no connection")
        rest_s = begun + TIMEOUT_S - hub.now
        if rest_s <= 0:
            raise KKNotSentError("no time left before the deadline")
        try:
            before_send(rest_s)
        except Exception as error:
            raise KKNotSentError(str(error)) from error
        process = hub.current().process
        thaw_by = hub.now + self.manners.freeze_before_first_byte_s
        process.thaw_by.append(thaw_by)
        hub.pause("first byte", weight=_AROUND_A_POST)
        process.thaw_by.remove(thaw_by)
        self.posts += 1
        post = Post(order.key, hub.now, fate, fate not in ("rate_limited", "auth"))
        self.on_post(order.key, post)
        hub.note("POST", order.key, fate)
        try:
            return self._answer(order, post, max(0.0, begun + TIMEOUT_S - hub.now))
        finally:
            hub.pause("answer", weight=_AROUND_A_POST)

    def _fate(self) -> str:
        random = self.hub.random.random
        if random() >= self.manners.faults:
            return "fine"
        return _DRAWN[int(random() * len(_DRAWN))]

    def _answer(self, order: Order, post: Post, rest_s: float) -> list[str]:
        hub, random = self.hub, self.hub.random.random
        ids: list[str] = []
        soon_s = random()

        def create(parts: int | None = None) -> None:
            ids.extend(self._create(order, parts))

        match post.fate:
            case "fine" | "slow":
                delay_s = soon_s if post.fate == "fine" else random() * rest_s
                hub.at(hub.now + delay_s, create)
                hub.sleep(delay_s + 0.01)
                return ids if self.manners.names_all_ids else ids[:1]
            case "lost_answer" | "late_commit" | "lost_request":
                if post.fate != "lost_request":
                    late_s = (
                        random() * self.manners.longest_commit_s if post.fate == "late_commit" else soon_s
                    )
                    hub.at(hub.now + late_s, create)
                hub.sleep(random() * rest_s)
                raise KKUnknownOutcomeError("no whole answer")
            case "half_split" if self.manners.split and len(order.goods) > 1:
                hub.at(hub.now + soon_s, lambda: create(1))
        hub.sleep(soon_s + 0.01)
        match post.fate:
            case "rate_limited":
                raise KKRateLimitedError("429", http_status=429)
            case "auth":
                raise KKAuthError("401", http_status=401)
        raise KKRejectedError("refused", code=20_001 + int(random() * 3), kk_message="refused")

    def _create(self, order: Order, parts: int | None) -> list[str]:
        self.creates[order.key] = self.creates.get(order.key, 0) + 1
        goods = list(order.goods.items())
        pieces = [[one] for one in goods] if self.manners.split else [goods]
        made = [self.add(order.key, piece, order.country) for piece in pieces[:parts]]
        self.hub.note("KK has", order.key, *made)
        return made

    def add(self, key: str | None, goods: list[tuple[str, int]], country: str) -> str:
        """Have an order."""
        self._last_id += 1
        now = self.hub.now + self.manners.skew_s
        is_integer = self.manners.integers and key is not None and key.isdigit()
        self.rows.append(
            Row(
                id=str(self._last_id),
                custom_order_number=self._listed_number(key, is_integer),
                number_is_integer=is_integer,
                items=[SimpleNamespace(sku=sku, quantity=number) for sku, number in goods],
                shipping_address=SimpleNamespace(country=country, zip=None),
                created_at=Time(now),
                listed_at=self.hub.now + self.manners.lag_s * (1.0 if self._last_id % 3 else 0.3),
                updated_at=now,
                key=key,
            )
        )
        return self.rows[-1].id

    def _listed_number(self, key: str | None, is_integer: bool) -> str | None:
        chance = self.manners.forgets_numbers
        if key is None or (chance and self.hub.random.random() < chance):
            return None
        return str(int(key)) if is_integer else key

    def of(self, key: str) -> list[Row]:
        """All its orders of a number."""
        return [row for row in self.rows if row.key == key]

    # Listing ---------------------------------------------------------------------------------------

    def list_orders(
        self, *, created_from: Any, created_to: Any, page_number: int, page_size: int
    ) -> SimpleNamespace:
        """One page, while others go on."""
        hub, manners = self.hub, self.manners
        self.requests += 1
        hub.pause("list")
        random = hub.random.random
        if manners.list_errors and random() < manners.list_errors:
            raise KKAnswerError("KK's answer is missing or incomplete")
        since, until = created_from.timestamp(), created_to.timestamp()
        now = hub.now
        rows = [row for row in self.rows if since <= row.created_at <= until and row.listed_at <= now]
        total: int | None = len(rows)
        if manners.hides and self._is_hidden():
            rows = [] if manners.hides == "all" else rows[::2]
            total = 0 if manners.hides == "all" else total
        if manners.sort_by_update:
            rows.sort(key=_UPDATED, reverse=True)
        else:
            rows.sort(key=_CREATED, reverse=True)
        size = min(page_size, manners.page_cap)
        page = rows[(page_number - 1) * size : page_number * size]
        return SimpleNamespace(orders=page, total=None if manners.total == "missing" else total)

    def _is_hidden(self) -> bool:
        manners = self.manners
        if manners.hides_from <= self.hub.now < manners.hides_until:
            return True
        if manners.hides_from <= self.hub.now and manners.hides_requests:
            manners.hides_requests -= 1
            return True
        return False

    def stir(self) -> None:
        """KK changes a row by itself: it comes to the front of a list sorted by update."""
        if self.rows:
            row = self.rows[int(self.hub.random.random() * len(self.rows))]
            row.updated_at = self.hub.now
