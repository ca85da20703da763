"""The values of delivery: a job and its content, KK's listed orders, and the ledger's rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_provider_kk.api.redact import redact
from airflow_provider_kk.delivery.log import utc
from airflow_provider_kk.delivery.states import Event, State

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import Order

#: SKU (upper case) to quantity; lines of one SKU are added up.
Goods = Mapping[str, int]
#: Called right before the first byte, with the most seconds that the call takes; raises to stop it.
BeforeSend = Callable[[float], None]
#: The longest order number.
MAX_KEY = 40
#: Longer texts of KK are cut.
MAX_MESSAGE = 500


@dataclass(frozen=True)
class Content:
    """The goods and the destination of an order, without personal data."""

    fingerprint: str = ""
    """A versioned digest that differs between two contents of one key; empty for an adopted order."""
    goods: Goods = field(default_factory=dict)
    country: str = ""
    zip_digest: str = ""
    """See `zip_digest`."""

    def goes_elsewhere(self, other: Content) -> bool:
        """Return whether country or postal code differ, as far as both are known."""
        if self.country and other.country and self.country != other.country:
            return True
        return bool(self.zip_digest and other.zip_digest) and self.zip_digest != other.zip_digest

    def is_same_content(self, other: Content) -> bool:
        """Return whether this can be the other, whose address is not known."""
        return self.goods == other.goods and not self.goes_elsewhere(other)

    def is_same(self, known: Content) -> bool:
        """Return whether this equals `known`, by fingerprint, or by goods, country and zip without one."""
        return self.is_same_content(known) if not known.fingerprint else self.fingerprint == known.fingerprint


@dataclass(frozen=True)
class Job:
    """One POST that must have its effect at KK exactly once: an order, or a refund."""

    key: str
    """The key of the job in the ledger and at KK, such as the order number."""
    content: Content
    send: Callable[[BeforeSend], list[str]] = field(repr=False, compare=False)
    """Sends the POST once; returns KK's ids, or raises a `KKError` with the outcome."""
    redact: Callable[[str], str] = field(repr=False, compare=False)
    """Removes the job's personal data from a text of KK."""


@dataclass(frozen=True)
class ListedOrder:
    """An order, or a refund, that KK lists."""

    id: str
    key: str | None
    key_is_integer: bool = False
    """KK gave the key as a JSON number, so leading zeros may be lost."""
    goods: Goods | None = None
    """None if they cannot be parsed."""
    country: str | None = None
    zip: str | None = None
    created_at: float | None = None
    """KK's creation time, epoch seconds."""
    is_cancelled: bool = False
    """Whether it is cancelled, or refunded as a whole, so that KK does not ship it."""

    def is_of(self, key: str) -> bool:
        """Return whether KK's number is this key, as text or without leading zeros."""
        if self.key is None:
            return False
        return self.key == key or (self.key_is_integer and plain_number(key) == plain_number(self.key))


class InconclusiveError(Exception):
    """KK's list could not be read completely, so an order that is not in it may exist."""


def add_goods(parts: Sequence[Goods]) -> dict[str, int]:
    """Add up the quantities of several orders by SKU."""
    total: dict[str, int] = {}
    for goods in parts:
        for sku, quantity in goods.items():
            total[sku] = total.get(sku, 0) + quantity
    return total


def plain_number(key: str) -> str:
    """Return a number without leading zeros, as it is after a conversion to an integer."""
    return str(int(key)) if key.isascii() and key.isdigit() else key


def zip_digest(key: str, zip_code: str | None) -> str:
    """Return a digest of a postal code, for comparison. Trying all codes still reveals it."""
    plain = "".join(ch for ch in (zip_code or "") if ch.isalnum()).upper()
    return hashlib.sha256(f"{plain_number(key)}\n{plain}".encode()).hexdigest()[:16] if plain else ""


def fingerprint_of_token(token: str) -> str:
    """Return a digest that distinguishes access tokens without revealing them."""
    return hashlib.sha256(f"kk token\n{token}".encode()).hexdigest()[:16]


def union(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    """Return the items of both in order, each once."""
    return tuple(dict.fromkeys([*first, *second]))


# An order as a job ---------------------------------------------------------------------------------


def order_job(order: Order, client: KKClient) -> Job:
    """Make the job that creates this order; it must have its number."""
    if order.custom_order_number is None:
        raise ValueError("an order needs a custom_order_number to be delivered")
    return Job(
        key=order.custom_order_number,
        content=content_of(order),
        send=lambda before_send: client.post_order(order, throttled=False, before_send=before_send),
        redact=lambda text: redact(text, order.private_values()),
    )


def content_of(order: Order) -> Content:
    """Return an order's content, as the ledger keeps it."""
    number, address = order.custom_order_number or "", order.address
    goods = goods_of(order.items)
    fingerprint = _fingerprint(goods, address.model_dump())
    return Content(fingerprint, goods, address.country, zip_digest(number, address.zip))


def goods_of(lines: Iterable[Any]) -> dict[str, int]:
    """Return quantities by SKU in upper case; nothing if a line lacks either."""
    goods: dict[str, int] = {}
    for line in lines:
        if line.sku is None or line.quantity is None:
            return {}
        goods[line.sku.upper()] = goods.get(line.sku.upper(), 0) + line.quantity
    return goods


def fingerprint_with(payload: str, goods: Goods) -> str:
    """Return the fingerprint that an order in JSON would have with these goods."""
    return _fingerprint(goods, json.loads(payload)["address"])


def _fingerprint(goods: Goods, address: Mapping[str, str | None]) -> str:
    """Return a digest without case, spaces and the order of lines. It begins with its format's version."""
    plain = {
        name: " ".join(str(value).split()).casefold() for name, value in address.items() if value is not None
    }
    text = json.dumps([sorted(goods.items()), plain], sort_keys=True)
    return "1:" + hashlib.sha256(text.encode()).hexdigest()[:40]


# The ledger's rows ---------------------------------------------------------------------------------

#: A time to write, epoch seconds: a number, or a storage's expression for the database's clock.
Epoch = Any


@dataclass(frozen=True)
class Origin:
    """The sender of an order: the try of a task."""

    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    map_index: int = -1
    try_number: int = 0


@dataclass(frozen=True)
class Timing:
    """Time limits of an attempt, in seconds."""

    timeout_s: float = 30.0
    lease_s: float = 120.0
    settle_window_s: float = 600.0


@dataclass(frozen=True)
class Pause:
    """The pause of an account: who stopped all sending, when and why."""

    at: float
    """Epoch seconds of the database."""
    by: str
    why: str

    def __str__(self) -> str:
        at = utc(self.at)
        return f"sending is paused since {at} by {self.by}: {self.why}. To send again, run `kk resume`"


class LedgerUnusableError(Exception):
    """The ledger's database cannot be used, or does not keep what it commits. The text has what to do."""


class ThrottleStopped(Exception):
    """The run was stopped while a request waited for a permit; nothing was sent."""


class SendingPausedError(Exception):
    """Sending is paused by a person; nothing was sent."""

    def __init__(self, pause: Pause) -> None:
        super().__init__(str(pause))
        self.pause = pause


class DailyCapError(Exception):
    """The account's daily limit is reached; nothing was sent."""

    def __init__(self, max_orders_per_day: int, until: float) -> None:
        super().__init__(
            f"max_orders_per_day={max_orders_per_day} orders were sent within a day. The next order can be "
            f"sent after {utc(until)}, or if you raise max_orders_per_day in the connection"
        )
        self.until = until
        """The time from which the next order may be sent, epoch seconds."""


@dataclass(frozen=True)
class Record:
    """The ledger's row of one generation of a key."""

    key: str
    generation: int
    state: State
    kk_order_ids: tuple[str, ...]
    content: Content
    attempt: int
    version: str
    lease_until: float
    settle_after: float
    retry_after: float
    rejections: int
    resends: int
    code: int | None
    message: str
    resolved_by: str
    sync_id: str
    adopted: bool
    created_at: float
    updated_at: float


class RecordChanges(TypedDict, total=False):
    """New values of a row's fields."""

    key: str
    state: State
    kk_order_ids: tuple[str, ...]
    content: Content
    attempt: int
    version: str
    lease_until: Epoch
    settle_after: Epoch
    retry_after: Epoch
    rejections: int
    resends: int
    code: int | None
    message: str
    resolved_by: str
    sync_id: str
    adopted: bool
    created_at: Epoch
    updated_at: Epoch


BLANK: RecordChanges = {
    "kk_order_ids": (),
    "content": Content(),
    "attempt": 0,
    "lease_until": 0.0,
    "settle_after": 0.0,
    "retry_after": 0.0,
    "rejections": 0,
    "resends": 0,
    "code": None,
    "message": "",
    "resolved_by": "",
    "sync_id": "",
    "adopted": False,
    "created_at": 0.0,
}


def created_values(entry: Record, ids: Iterable[str], now: Epoch) -> RecordChanges:
    """Return the changes that make a row created, with these ids in addition to its own."""
    return {
        "state": State.CREATED,
        "kk_order_ids": union(entry.kk_order_ids, ids),
        "created_at": entry.created_at or now,
        "code": None,
        "message": "",
    }


@dataclass(frozen=True)
class Attempt:
    """The ledger's row of one POST."""

    key: str
    generation: int
    attempt: int
    version: str
    content: Content
    intent_at: float
    settle_after: float
    token_fingerprint: str = ""
    outcome: str = ""
    code: int | None = None
    message: str = ""
    kk_order_ids: tuple[str, ...] = ()
    recorded_at: float = 0.0
    dag_id: str = ""
    run_id: str = ""
    task_id: str = ""
    try_number: int = 0


class AttemptChanges(TypedDict, total=False):
    """The values of an attempt's answer."""

    outcome: str
    code: int | None
    message: str
    kk_order_ids: tuple[str, ...]
    recorded_at: Epoch


@dataclass(frozen=True)
class Claim:
    """The right to POST one job once."""

    job: Job
    generation: int
    attempt: int
    version: str
    kk_skew_s: float = 0.0
    """KK's clock minus the worker's; 0 while it is not known."""
    entry: Record | None = None
    """The row after the intent. While it is unchanged, the result is recorded without a lock."""


@dataclass(frozen=True)
class AttemptResult:
    """The outcome of a POST."""

    event: Event
    """One of CREATED, REJECTED, NOT_SENT, UNKNOWN."""
    kk_order_ids: tuple[str, ...] = ()
    code: int | None = None
    message: str = ""
