"""Refund the orders of one task: find the orders and lines, and advance each refund."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_kk.api.fulfilment import not_listed
from airflow_provider_kk.delivery.listing import splits_of
from airflow_provider_kk.delivery.model import goods_of
from airflow_provider_kk.delivery.refunds import (
    FAILED,
    PENDING,
    RefundDelivery,
    RefundImpossibleError,
    RefundPostponedError,
    RefundRequest,
    refund_requests,
    status_of,
)
from airflow_provider_kk.delivery.states import DOUBTFUL, State
from airflow_provider_kk.hooks.metrics import count_refunds_moved, count_requests, tags_of
from airflow_provider_kk.sync.errors import SyncError

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import KKOrder
    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.model import Origin, Record
    from airflow_provider_kk.delivery.sql.bucket import LedgerBucket
    from airflow_provider_kk.delivery.sql.storage import SqlLedger

_RECONCILE_EVERY_S = 1.0


class RefundTask:
    """The refunds of one task, one for each order at KK."""

    def __init__(
        self,
        ledger: SqlLedger,
        client: KKClient,
        bucket: LedgerBucket,
        origin: Origin,
        stop: Stop,
        log: Log,
        *,
        goes_on_while_paused: bool = False,
    ) -> None:
        from airflow_provider_kk.delivery.sql.storage import refund_ledger

        self._orders = ledger
        self._refunds = refund_ledger(ledger)
        self._client = client
        self._origin = origin
        self._stop = stop
        self._log = log
        self._bucket = bucket
        self._began = self._refunds.now()
        self._delivery = RefundDelivery(
            self._refunds, client, bucket, origin, stop, log, goes_on_while_paused=goes_on_while_paused
        )
        self._requests: list[RefundRequest] = []
        self._entries: dict[str, Record] = {}
        self._statuses: dict[str, str | None] = {}
        self._impossible: dict[str, str] = {}

    def prepare(
        self, number: str | None, kk_order_id: str | None, goods: Any, remark: str, reason: str
    ) -> None:
        """Find the orders to refund, and the lines of each.

        :param goods: SKU to quantity; None: the whole order.
        :raises RefundImpossibleError, RefundPostponedError: there is no refund, or not yet; with the reason.
        :raises KKError, InconclusiveError: KK cannot be read.
        """
        orders = self._of_number(number) if number is not None else self._of_id(str(kk_order_id))
        self._requests = refund_requests(
            orders, goods, ledger=self._refunds, origin=self._origin, remark=remark, reason=reason
        )

    @property
    def kk_order_ids(self) -> list[str]:
        """The ids of the orders at KK to refund."""
        return [request.order.id for request in self._requests]

    def _of_id(self, kk_order_id: str) -> list[KKOrder]:
        try:
            orders = self._client.get_orders([kk_order_id])
        except ValueError as error:
            raise RefundImpossibleError(str(error)) from error
        if not orders:
            raise RefundPostponedError(not_listed([kk_order_id]))
        return orders

    def _of_number(self, number: str) -> list[KKOrder]:
        splits = splits_of(number, self._orders, self._client)
        if not splits.kk_order_ids:
            state = splits.state or "not known"
            text = f"order {number} is {state} in the ledger, and only a created order can be refunded"
            if splits.state in DOUBTFUL:
                raise RefundPostponedError(text)
            raise RefundImpossibleError(text)
        listed = {order.id for order in splits.orders}
        if missing := [kk_id for kk_id in splits.kk_order_ids if kk_id not in listed]:
            raise RefundPostponedError(f"order {number}: {not_listed(missing)}")
        if not splits.are_all:
            raise RefundPostponedError(f"KK's list does not have all goods of order {number} yet")
        return list(splits.orders)

    def advance(self) -> float | None:
        """Advance each refund as far as possible; return the seconds to wait, None if all are done."""
        waits = []
        for request in self._requests:
            try:
                step = self._delivery.advance(request)
            except RefundImpossibleError as error:
                self._impossible[request.key] = str(error)
                continue
            if step is None:
                waits.append(_RECONCILE_EVERY_S)
                continue
            self._entries[request.key] = step.entry
            if step.wait_s is not None:
                self._log.info(
                    "Refund %s is in doubt. KK's refunds are read in %.0f s to reconcile it",
                    request.key,
                    step.wait_s,
                )
                waits.append(step.wait_s)
        return min(waits) if waits else None

    def read_statuses(self) -> list[str]:
        """Read the refunds' statuses at KK; return the keys of those that KK has not decided on."""
        pending = []
        for key, entry in self._entries.items():
            if entry.state is not State.CREATED:
                continue
            at_kk = self._client.get_refunds(self._order_id(key))
            step = self._delivery.hold_duplicates(entry, at_kk)
            self._entries[key] = step.entry if step else entry
            self._statuses[key] = status_of(at_kk, entry)
            if self._statuses[key] in (PENDING, None) and self._entries[key].state is State.CREATED:
                pending.append(key)
        return pending

    def _order_id(self, key: str) -> str:
        return next(request.order.id for request in self._requests if request.key == key)

    def result(self) -> list[dict[str, Any]]:
        """Return the refunds that KK has, as plain data."""
        return [
            {
                "kk_order_id": request.order.id,
                "refund_no": number,
                "refund_status": self._statuses.get(request.key),
            }
            for request in self._requests
            if (entry := self._entries.get(request.key)) is not None and entry.state is State.CREATED
            for number in entry.kk_order_ids
        ]

    def require_sent(self) -> None:
        """Require that KK has each refund.

        :raises SyncError: a refund was not sent, or KK rejected it.
        """
        if final := self._final():
            raise SyncError("; ".join(final), is_retryable=False)
        unsent = [
            f"the refund of order {self._order_id(key)} was not sent: {entry.message}"
            for key, entry in self._entries.items()
            if entry.state in (State.NOT_SENT, State.INVALID)
        ]
        if unsent:
            raise SyncError("; ".join(unsent), is_retryable=True)

    def _final(self) -> list[str]:
        """Return a sentence for each refund that failed and that a retry does not help."""
        texts = [f"order {self._order_id(key)}: {why}" for key, why in self._impossible.items()]
        for key, entry in self._entries.items():
            if entry.state is State.REJECTED:
                code = "" if entry.code is None else f" (code {entry.code})"
                texts.append(f"KK rejected the refund of order {self._order_id(key)}{code}: {entry.message}")
            elif entry.state is State.HELD:
                texts.append(
                    f"refund {key} is held: {entry.message}. Find it on KK's site, then run `kk ledger "
                    f"resolve --refunds {key}`"
                )
        return texts

    @property
    def failed(self) -> list[str]:
        """The refunds that KK did not grant."""
        return [
            ", ".join(self._entries[key].kk_order_ids)
            for key, status in self._statuses.items()
            if status == FAILED
        ]

    def emit_metrics(self) -> None:
        """Emit Airflow metrics of the refunds that changed and of the requests."""
        tags = tags_of(self._refunds.account, self._origin)
        count_refunds_moved(self._entries.values(), self._began, tags)
        count_requests(self._client, self._bucket, tags)

    @property
    def requested_at(self) -> float:
        """The time of the last refund's request, epoch seconds."""
        # A clock that is ahead may have dated the answer, but not the intent.
        intents = {one.key: one.intent_at for one in self._refunds.attempts(list(self._entries))}
        requested = (
            min(one.created_at, intents.get(key, one.created_at)) for key, one in self._entries.items()
        )
        return max(requested, default=0.0)

    def now(self) -> float:
        """Return the time of the worker's clock, epoch seconds."""
        return self._refunds.clock.wall()

    def sleep(self, seconds: float) -> None:
        """Sleep, at most until the task is stopped."""
        self._refunds.clock.sleep(seconds, self._stop)


def lines_of(lines: Any) -> dict[str, int]:
    """Parse `[{"sku": ..., "quantity": ...}]`, or the same as JSON text, to SKU and quantity.

    :raises RefundImpossibleError: the lines are invalid; the text has every fault.
    """
    from airflow_provider_kk.api.errors import InvalidOrderError
    from airflow_provider_kk.api.models import RefundLines

    try:
        return goods_of(RefundLines.parse({"lines": lines}).lines)
    except InvalidOrderError as error:
        raise RefundImpossibleError(str(error)) from error
