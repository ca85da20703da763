"""Send only the orders of an approved plan, with exactly the content that was planned."""

from __future__ import annotations

import ast
import base64
import binascii
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.api.api_versions import API_VERSIONS
from airflow_provider_kk.delivery.log import Log, OrderLog, count_orders
from airflow_provider_kk.delivery.run_queue import QueuedOrder, RunQueue, RunStatus
from airflow_provider_kk.delivery.states import DOUBTFUL
from airflow_provider_kk.sync.deliver import order_of
from airflow_provider_kk.sync.errors import SyncError

if TYPE_CHECKING:
    from airflow_provider_kk.hooks.connection import ConnectionSettings
    from airflow_provider_kk.sync.guards import GuardCheck, GuardReport, Prices

#: Bytes of an order's digest: 16 characters of base64, without padding.
_SIZE = 12
_TOP_SKUS = 10
_PLAN_DIGEST = re.compile(r"1:[0-9a-f]{24}")
_OTHER_ORDER = "it is not in the approved plan, or its content differs from what was approved"
_OTHER_WHOLE = (
    "the orders to send are not exactly those of the approved plan, and approved_plan has only its digest. "
    "Make a new plan, and pass its whole summary as approved_plan to send the orders that did not change"
)


@dataclass
class PlanSummary:
    """The summary of a plan, without personal data, by which a person decides and a sync is bound."""

    new_orders: int
    """The number of orders that would be sent, at most `limit`."""
    units: int
    value: str | None
    """The price of their goods at KK in US dollars, without freight; None if KK's prices are not read."""
    top_skus: dict[str, int]
    """The SKUs with the most units, and their units."""
    countries: dict[str, int]
    """The number of orders by country, the largest first."""
    warnings: int
    """The number of warnings that the plan logged."""
    plan_digest: str
    """A digest of `plan_orders` and the account. It begins with the version of its format."""
    plan_orders: str
    """A digest of 16 characters for each order that may be sent, in one text."""

    def line(self) -> str:
        """Return it as a line for the log."""
        value = "" if self.value is None else f", {Decimal(self.value):,.2f} USD"
        return (
            f"Plan {self.plan_digest}: {count_orders(self.new_orders)}, {self.units:,} units{value}; "
            f"countries: {_counted(self.countries)}; SKUs: {_counted(self.top_skus)}"
        )


def summarise_plan(
    run_queue: RunQueue, settings: ConnectionSettings, *, limit: int | None, prices: Prices, warnings: int
) -> PlanSummary:
    """Summarise the orders that a planned run queue would send: the postponed ones, up to `limit`.

    Orders in doubt are not counted, since they were sent before. Their digests are in the plan, since a sync
    may resend one that KK's list proves absent.
    """
    skus, countries = Counter[str](), Counter[str]()
    value: Decimal | None = Decimal(0)
    digests = _Digests()
    for item in islice(chain.from_iterable(run_queue.batches(RunStatus.POSTPONED)), limit):
        cost = prices.total(item.content.goods)
        value = None if value is None or cost is None else value + cost
        skus.update(item.content.goods)
        countries[item.content.country or ""] += 1
        digests.add(_digest(item, settings))
    for item in chain.from_iterable(run_queue.batches(RunStatus.IN_DOUBT)):
        digests.add(_digest(item, settings))
    texts = [base64.urlsafe_b64encode(part).decode() for part in digests.in_order()]
    return PlanSummary(
        new_orders=countries.total(),
        units=skus.total(),
        value=f"{value:.2f}" if value else None,
        top_skus=_most(skus, _TOP_SKUS),
        countries=_most(countries),
        warnings=warnings,
        plan_digest=_plan_digest(map(base64.urlsafe_b64decode, texts), settings),
        plan_orders="".join(texts),
    )


@dataclass
class Approval:
    """An approved plan: only its orders may be sent, each with the planned content.

    :param orders: the digests of its orders; None if only `digest` is known.
    """

    digest: str
    orders: frozenset[bytes] | None
    settings: ConnectionSettings
    _why_not: str = _OTHER_ORDER

    @classmethod
    def parse(cls, given: object, settings: ConnectionSettings) -> Approval:
        """Parse an operator's `approved_plan`: a plan's summary, the same as text, or its `plan_digest`.

        :raises SyncError: it is empty, not a plan, or was changed since the plan.
        """
        if isinstance(given, str):
            given = _parsed(given.strip())
        if not given:
            raise _unusable("it is empty. The approval was rejected, skipped or timed out")
        if isinstance(given, str):
            given = {"plan_digest": given}
        digest = given.get("plan_digest") if isinstance(given, Mapping) else None
        if not isinstance(given, Mapping) or not _PLAN_DIGEST.fullmatch(str(digest)):
            raise _unusable("it is not a plan. Pass the result of the task with plan_only=True")
        if "plan_orders" not in given:
            return cls(str(digest), None, settings)
        try:
            joined = base64.b64decode(str(given["plan_orders"]), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            joined = b"?"
        if _plan_digest([joined], settings) != digest:
            raise _unusable(
                "its plan_digest does not fit its plan_orders and this account. It was changed or truncated, "
                "or made with another kk connection. Make a new plan"
            )
        return cls(str(digest), frozenset(_separate(joined)), settings)

    def why_not(self, item: QueuedOrder) -> str:
        """Return the reason why an order may not be sent; empty if it may."""
        is_approved = self.orders is not None and _digest(item, self.settings) in self.orders
        return "" if is_approved else self._why_not

    def check(self, guards: GuardCheck, log: Log) -> GuardReport:
        """Check the guards, and postpone the orders that are not approved."""
        if self.orders is not None:
            # First, so that guards and stock count only the orders to send.
            self._postpone_others(guards, log)
            return guards.run()
        report = guards.run()
        if not report.exceeded:
            orders = {_digest(item, self.settings) for item in _whole(guards)}
            is_approved = _plan_digest(sorted(orders), self.settings) == self.digest
            self.orders = frozenset(orders if is_approved else ())
            self._why_not = _OTHER_ORDER if is_approved else _OTHER_WHOLE
            self._postpone_others(guards, log)
        return report

    def _postpone_others(self, guards: GuardCheck, log: Log) -> None:
        log.info("Only orders of the approved plan %s are sent", self.digest)
        order_log = OrderLog(log)
        for item in guards.candidates():
            if why := self.why_not(item):
                guards.run_queue.set(item.position, RunStatus.POSTPONED, message=why)
                order_log.warning("{orders} {are} postponed: {reason}", item.key or "", why)
        order_log.flush()


def _whole(guards: GuardCheck) -> Iterator[QueuedOrder]:
    """Yield the orders of a plan's digest: those to send, in doubt, or sent by this sync before."""
    stock, ledger = guards.stock, guards.ledger
    candidates = (item for item in guards.candidates() if stock is None or not stock.shortage(item))
    yield from islice(candidates, guards.max_sent)
    for batch in guards.run_queue.batches(RunStatus.PENDING):
        known = ledger.look_up([item.key for item in batch if item.key]) if ledger else {}
        for item in batch:
            entry = known.get(item.key or "")
            if entry and (entry.state in DOUBTFUL or (entry.attempt and entry.sync_id == guards.sync_id)):
                yield item


def _digest(item: QueuedOrder, settings: ConnectionSettings) -> bytes:
    """Return a digest of the request that would create an order, without the order of its lines.

    The ledger's fingerprint is not enough: it lacks the remark, the sale platform and the shipping speed.
    """
    order = order_of(item.payload)
    order.items.sort(key=lambda line: (line.sku, line.quantity))
    version = API_VERSIONS[settings.api_version]
    body = version.create_body(order, settings.address_key, settings.sale_platform)
    text = json.dumps([item.key, settings.api_version, body], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=_SIZE).digest()


class _Digests:
    """Digests of a plan, in buckets by their first byte: a set of a million needs ten times the memory."""

    def __init__(self) -> None:
        self._buckets = [bytearray() for _ in range(256)]

    def add(self, digest: bytes) -> None:
        self._buckets[digest[0]] += digest

    def in_order(self) -> Iterator[bytes]:
        """Yield the digests in order, each once, and forget them; those of a bucket are joined."""
        for bucket in self._buckets:
            yield b"".join(sorted(set(_separate(bytes(bucket)))))
            bucket.clear()


def _separate(joined: bytes) -> Iterator[bytes]:
    return (joined[at : at + _SIZE] for at in range(0, len(joined), _SIZE))


def _plan_digest(parts: Iterable[bytes], settings: ConnectionSettings) -> str:
    account = json.dumps([settings.host, settings.account])
    digest = hashlib.blake2b(account.encode(), digest_size=_SIZE)
    for part in parts:
        digest.update(part)
    return f"1:{digest.hexdigest()}"


def _parsed(text: str) -> Any:
    """Parse JSON text, or the Python text that Jinja renders an XCom to; return other text as it is."""
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return text


def _unusable(why: str) -> SyncError:
    return SyncError(f"Nothing is sent: approved_plan cannot be used, because {why}", is_retryable=False)


def _most(counts: Mapping[str, int], number: int | None = None) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0]))[:number])


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items()) or "none"
