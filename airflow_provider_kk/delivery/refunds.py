"""Refunds as jobs: each is sent once, and found at KK by its key in the remark.

KK's refund call has no idempotency key (page "Refund"). KK lists an order's refunds with their remarks, but
not their lines. A refund that is absent after its settle window is held: it is never requested twice.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.api.redact import redact
from airflow_provider_kk.delivery.attempt import attempt
from airflow_provider_kk.delivery.listing import KKOrderList, kk_skew_s, trusted_now
from airflow_provider_kk.delivery.log import Log, OrderLog
from airflow_provider_kk.delivery.model import MAX_KEY, Content, Goods, Job, ListedOrder, add_goods
from airflow_provider_kk.delivery.reconcile import attempts_of, shorten_wait
from airflow_provider_kk.delivery.recover import adopt_unknown
from airflow_provider_kk.delivery.states import DOUBTFUL, TO_RECONCILE, Event, State

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import KKOrder, Refund
    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.model import Origin, Record
    from airflow_provider_kk.delivery.sql.bucket import LedgerBucket
    from airflow_provider_kk.delivery.sql.storage import SqlLedger

PENDING, REFUNDED, FAILED = "pending_review", "refund_successfully", "refund_failed"
"""Values of `refundStatus`."""

_WHOLE = "whole"
#: In these states KK may have the refund, so its goods stay as they are.
_FIXED = DOUBTFUL | {State.CREATED, State.HELD}


class RefundImpossibleError(Exception):
    """The refund is not possible; the text has every fault."""


class RefundPostponedError(Exception):
    """The refund cannot be sent yet; a retry helps."""


def refund_key(kk_order_id: str, origin: Origin | None) -> str:
    """Return the key of a refund, in the ledger and in its remark at KK.

    A whole order (`origin` None) is refunded once. Lines are refunded once by each task of a run.
    """
    if origin is None:
        return f"{kk_order_id}-{_WHOLE}"
    text = json.dumps([origin.dag_id, origin.run_id, origin.task_id, origin.map_index])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return f"{kk_order_id}-{digest}"[:MAX_KEY]


def order_of_key(key: str) -> str:
    """Return the kkOrderId of a refund's key."""
    return key.rpartition("-")[0]


def carries(refund: Refund, key: str) -> bool:
    """Return whether a refund at KK is the one of this key."""
    return re.search(rf"(?<![\w-]){re.escape(key)}(?![\w-])", refund.remark or "") is not None


@dataclass(frozen=True)
class RefundRequest:
    """The refund of one order at KK."""

    order: KKOrder
    key: str
    goods: Goods
    is_whole: bool
    remark: str
    reason: str

    def job(self, client: KKClient) -> Job:
        """Make the job that requests this refund."""
        lines = None if self.is_whole else _lines(self.order, self.goods)
        what = _WHOLE if self.is_whole else json.dumps(sorted(self.goods.items()))

        def send(before_send: Any) -> list[str]:
            number = client.refund_order(
                self.order.id,
                # The key is first, since KK may cut a remark.
                f"[{self.key}] {self.remark}",
                lines=lines,
                refund_reason=self.reason,
                throttled=False,
                before_send=before_send,
            )
            return [number]

        address = self.order.shipping_address
        names = ("recipient", "phone", "street1", "street2", "city", "zip", "vat", "ioss")
        private = [str(value) for name in names if (value := getattr(address, name, None))]
        return Job(
            key=self.key,
            content=Content("1:" + hashlib.sha256(what.encode()).hexdigest()[:40], self.goods),
            send=send,
            redact=lambda text: redact(text, [*private, self.remark]),
        )


def refund_requests(
    orders: Sequence[KKOrder],
    goods: Goods | None,
    *,
    ledger: SqlLedger,
    origin: Origin,
    remark: str,
    reason: str,
) -> list[RefundRequest]:
    """Return one refund for each of these orders: of all its goods, or of its share of `goods`.

    The share of an order that an earlier try sent stays.

    :param ledger: see `refund_ledger`.
    :raises RefundImpossibleError: more, or other goods, than were ordered; the text has all of them.
    """
    keys = {one.id: refund_key(one.id, origin if goods is not None else None) for one in orders}
    if goods is None:
        shares = {one.id: dict(_ordered(one)) for one in orders}
    else:
        known = ledger.look_up(list(keys.values()))
        fixed = {kk_id: known[key].content.goods for kk_id, key in keys.items() if _is_fixed(known.get(key))}
        shares = _shares(orders, goods, fixed)
    return [
        RefundRequest(one, keys[one.id], shares[one.id], goods is None, remark, reason)
        for one in orders
        if goods is None or shares.get(one.id)
    ]


def _is_fixed(entry: Record | None) -> bool:
    return entry is not None and entry.state in _FIXED


def _shares(orders: Sequence[KKOrder], goods: Goods, fixed: Mapping[str, Goods]) -> dict[str, dict[str, int]]:
    """Divide goods among the orders that have them, smaller ids first."""
    shares = {kk_id: dict(share) for kk_id, share in fixed.items()}
    rest = dict(goods)
    for sku, quantity in add_goods(list(fixed.values())).items():
        rest[sku] = rest.get(sku, 0) - quantity
    if any(quantity < 0 for quantity in rest.values()):
        raise RefundImpossibleError(
            "this task already sent a refund of other lines in this run, and a refund cannot be changed. To "
            "refund more lines, use another task"
        )
    for one in sorted(orders, key=lambda order: (len(order.id), order.id)):
        if one.id in fixed:
            continue
        has = _ordered(one)
        share = {sku: min(rest[sku], has.get(sku, 0)) for sku in rest if min(rest[sku], has.get(sku, 0))}
        shares[one.id] = share
        rest = {sku: quantity - share.get(sku, 0) for sku, quantity in rest.items()}
    if faults := {sku: quantity for sku, quantity in rest.items() if quantity}:
        ordered = add_goods([_ordered(one) for one in orders])
        text = ", ".join(f"{sku}: {goods[sku]} to refund, {ordered.get(sku, 0)} ordered" for sku in faults)
        raise RefundImpossibleError(f"lines has more than was ordered: {text}")
    return shares


def _ordered(order: KKOrder) -> dict[str, int]:
    return add_goods([{one.sku.upper(): one.quantity} for one in order.items if one.sku and one.quantity])


def _lines(order: KKOrder, goods: Goods) -> list[dict[str, Any]]:
    """Return KK's lines for these goods.

    :raises RefundImpossibleError: KK's list has no itemId for a line.
    """
    lines = []
    rest = dict(goods)
    for item in order.items:
        taken = min(rest.get((item.sku or "").upper(), 0), item.quantity or 0)
        if taken and item.sku:
            if item.item_id is None:
                raise RefundImpossibleError(f"KK's list has no itemId for {item.sku} in order {order.id}")
            lines.append(
                {
                    "itemId": item.item_id,
                    "skuCode": item.sku,
                    "quantity": taken,
                    "countryCode": item.country_code or "",
                }
            )
            rest[item.sku.upper()] -= taken
    return lines


@dataclass(frozen=True)
class RefundProgress:
    """The state of a refund, and when to continue."""

    entry: Record
    wait_s: float | None = None
    """Seconds until the next call; None: final for this run."""


@dataclass(frozen=True)
class RefundDelivery:
    """Sends refunds by the same protocol as orders.

    :param ledger: see `refund_ledger`.
    :param client: has read from KK before, so that KK's clock is known.
    """

    ledger: SqlLedger
    client: KKClient
    throttle: LedgerBucket
    origin: Origin
    stop: Stop
    log: Log
    goes_on_while_paused: bool = False
    """Send also while sending is paused, since a person asks for it."""

    def advance(self, request: RefundRequest) -> RefundProgress | None:
        """Do the next action; None: another worker has the refund, so call this again in a moment.

        :raises KKError: KK's refunds cannot be read; nothing was sent.
        :raises RefundImpossibleError, RefundPostponedError: it must not be sent; nothing was sent.
        :raises ThrottleStopped: the task was stopped before the refund was sent.
        :raises SendingPausedError: sending is paused; nothing was sent.
        """
        entry = self.ledger.look_up([request.key]).get(request.key)
        if entry is not None and entry.state in (State.CREATED, State.HELD):
            return RefundProgress(entry)
        order_list = KKOrderList(self.client)
        now = trusted_now(self.ledger, order_list)
        if entry is not None and entry.state in TO_RECONCILE:
            order_log = OrderLog(self.log)
            entry = shorten_wait(self.ledger, entry, order_log, kk_skew_s=order_list.clock_skew_s)
            order_log.flush()
            if entry.settle_after > now:
                # KK may list a rejected refund nevertheless, but not reliably yet.
                return _with_wait(entry, now)
        at_kk = self.client.get_refunds(request.order.id)
        if own := [one for one in at_kk if one.refund_no and carries(one, request.key)]:
            return self._found(request, entry, own)
        if entry is not None and entry.state in DOUBTFUL:
            return self._absent(entry, at_kk)
        if entry is not None and entry.state is State.REJECTED and entry.retry_after > now:
            return RefundProgress(entry)
        self._require_possible(request, at_kk)
        self.throttle.acquire(self.stop, to_send=not self.goes_on_while_paused)
        done = attempt(
            request.job(self.client),
            entry,
            self.ledger,
            origin=self.origin,
            sync_id="",
            kk_skew_s=lambda: kk_skew_s(order_list),
        )
        if done is None:
            return None
        return _with_wait(done[0], trusted_now(self.ledger, order_list))

    def _found(
        self, request: RefundRequest, entry: Record | None, own: Sequence[Refund]
    ) -> RefundProgress | None:
        ids = [str(one.refund_no) for one in own]
        if entry is None or entry.state not in TO_RECONCILE:
            adopt_unknown(
                self.ledger, [ListedOrder(id=one, key=request.key, goods=request.goods) for one in ids]
            )
            entry = self.ledger.look_up([request.key]).get(request.key)
            if entry is None or entry.state is not State.CREATED:
                return None
        else:
            newest = attempts_of(self.ledger, [entry])[entry.key][0]
            entry = self.ledger.adopt(entry, newest, ids)
        return self.hold_duplicates(entry, own) if entry else None

    def _absent(self, entry: Record, at_kk: Sequence[Refund]) -> RefundProgress | None:
        why = "not among KK's refunds of the order. It is never sent again automatically"
        if unread := [str(one.refund_no) for one in at_kk if not one.remark]:
            why = f"KK's refund {', '.join(unread)} may be this one, but its remark cannot be parsed"
        moved = self.ledger.hold(entry, Event.GIVEN_UP, why)
        return RefundProgress(moved) if moved else None

    def hold_duplicates(self, entry: Record, at_kk: Sequence[Refund]) -> RefundProgress | None:
        """Hold a refund that KK lists more than once."""
        own = sorted(str(one.refund_no) for one in at_kk if one.refund_no and carries(one, entry.key))
        if len(own) < 2 or entry.state is not State.CREATED or entry.resolved_by:
            return RefundProgress(entry)
        why = f"conflict: KK has this refund {len(own)} times"
        moved = self.ledger.hold(entry, Event.CONFLICT, why, own)
        return RefundProgress(moved) if moved else None

    def _require_possible(self, request: RefundRequest, at_kk: Sequence[Refund]) -> None:
        ours = [one for one in self.ledger.storage.refunds_of(request.order.id) if one.key != request.key]
        known = {number for one in ours for number in one.kk_order_ids}
        foreign = [
            one.refund_no for one in at_kk if one.refund_status == PENDING and one.refund_no not in known
        ]
        if foreign:
            raise RefundPostponedError(
                f"KK has not decided yet on refund {', '.join(map(str, foreign))} of order "
                f"{request.order.id}, which the ledger does not have. Retry after KK's decision"
            )
        if request.is_whole:
            return
        failed = {one.refund_no for one in at_kk if one.refund_status == FAILED}
        taken = add_goods([one.content.goods for one in ours if _is_fixed(one) and not _all_in(one, failed)])
        has = _ordered(request.order)
        faults = [
            f"{sku}: {quantity} to refund, {has.get(sku, 0)} ordered, {taken[sku]} refunded before"
            for sku, quantity in request.goods.items()
            if taken.get(sku) and quantity + taken[sku] > has.get(sku, 0)
        ]
        if faults:
            raise RefundImpossibleError(
                f"lines has more than is left of order {request.order.id}: {', '.join(faults)}"
            )


def _with_wait(entry: Record, now: float) -> RefundProgress:
    wait_s = max(0.0, entry.settle_after - now) if entry.state in DOUBTFUL else None
    return RefundProgress(entry, wait_s)


def _all_in(entry: Record, numbers: set[str | None]) -> bool:
    return bool(entry.kk_order_ids) and set(entry.kk_order_ids) <= numbers


def status_of(at_kk: Sequence[Refund], entry: Record) -> str | None:
    """Return KK's status of a refund; None while KK does not list it."""
    for one in at_kk:
        if one.refund_no in entry.kk_order_ids:
            return one.refund_status
    return None


def is_decided(at_kk: Sequence[Refund], key: str) -> bool:
    """Return whether KK lists a refund and has decided on it."""
    statuses = [one.refund_status for one in at_kk if carries(one, key)]
    return bool(statuses) and not any(status in (PENDING, None) for status in statuses)
