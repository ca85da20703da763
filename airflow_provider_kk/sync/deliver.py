"""Deliver the orders of one task, from one to millions: the ledger, the dispatcher, and its waits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_provider_kk.api.models import Order, OrderAddress, OrderItem
from airflow_provider_kk.delivery.attempt import Limits
from airflow_provider_kk.delivery.dispatcher import Dispatcher
from airflow_provider_kk.delivery.listing import KKOrderList
from airflow_provider_kk.delivery.log import OrderLog, count_orders, utc
from airflow_provider_kk.delivery.model import content_of, order_job
from airflow_provider_kk.delivery.run_queue import QueuedOrder, RunQueue, RunStatus
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.hooks.metrics import count_orders_moved, count_requests, tags_of
from airflow_provider_kk.sync.guards import OFF, GuardCheck, Guards, Prices
from airflow_provider_kk.sync.stock import StockCheck
from airflow_provider_kk.sync.sync_counts import Summary, SyncRuns, summarise

if TYPE_CHECKING:
    from airflow_provider_kk.api.errors import Fault, KKError
    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.model import Origin, Record
    from airflow_provider_kk.delivery.reconcile import AbsencePolicy
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.sync.approval import Approval

#: A deferral costs more than a shorter wait in the worker.
_WORTH_DEFERRING_S = 5.0
_WORTH_LOGGING_S = 1.0
_LOG_EVERY_S = 30.0


class DeferUntil(Exception):
    """The task should be deferred until a time (epoch seconds), then run again."""

    def __init__(self, until: float) -> None:
        super().__init__(until)
        self.until = until


@dataclass
class Delivery:
    """Delivers the orders of a run queue.

    :param can_defer: raise `DeferUntil` instead of a long wait.
    """

    hook: KKHook
    ledger: SqlLedger
    run_queue: RunQueue
    origin: Origin
    stop: Stop
    policy: AbsencePolicy
    log: Log
    max_in_flight: int = 8
    max_seconds: float | None = None
    max_sent: int | None = None
    counts_earlier_tries: bool = True
    """Whether `max_sent` and the guards apply to all tries of this sync together."""
    check_stock: bool = False
    guards: Guards = OFF
    approval: Approval | None = None
    """The approved plan; None if no approval is needed."""
    prices: Prices = field(default_factory=Prices)
    can_defer: bool = False
    recover_max_age_s: float = 0.0
    before_waiting: Callable[[], object] = lambda: None
    """Called once, before the first wait for orders in doubt, to report the results that are final."""
    breaker_reason: str | None = None
    breaker_error: KKError | None = None
    postponed_because: str = ""
    """The pause or the daily limit because of which nothing more was sent; no error."""
    guard_exceeded: str = ""
    """The exceeded guard because of which nothing was sent."""

    def __post_init__(self) -> None:
        self._order_log = OrderLog(self.log)
        self._runs = SyncRuns(self.ledger)
        self.run = self._runs.begin(self.origin)
        self.tags = tags_of(self.ledger.account, self.origin)
        before = self.ledger.look_up(self.run.summary.get("held_elsewhere", []))
        #: Orders of the account that this sync held in any of its tries, but did not select.
        self.held_elsewhere = [key for key, entry in before.items() if entry.state is State.HELD]

    def deliver(self) -> tuple[Summary, BaseException | None]:
        """Send the pending orders, wait for those in doubt and reconcile them.

        Return the sync's summary and the error that stopped it, if any, so that the caller can report the
        results before it raises. `DeferUntil`: call this again then, with the same orders.
        """
        failure: BaseException | None = None
        self._bucket = self.hook.settings.shared_bucket(self.ledger)
        with self.hook.client(self._bucket) as self._client:
            try:
                self._deliver()
            except BaseException as error:
                failure = error
            summary = summarise(self.run_queue, self.run, self._runs)
            summary.newly_held += len(self.held_elsewhere)
            summary.requests = self.run.summary.get("requests", 0) + self._client.requests
            summary.seconds = round(self.ledger.now() - self.run.started_at, 1)
        return summary, failure

    def _deliver(self) -> None:
        dispatcher = self._new_dispatcher()
        try:
            dispatcher.run()
            self._wait(dispatcher)
        finally:
            self.breaker_reason = dispatcher.why_not_sent or None
            self.breaker_error = dispatcher.breaker_error
            self.postponed_because = dispatcher.postponed_because
            self.held_elsewhere += dispatcher.held_elsewhere
            dispatcher.stop_waiting()
            dispatcher.close()

    def _new_dispatcher(self) -> Dispatcher:
        client = self._client
        send_until = max_sent = None
        if self.max_seconds is not None:
            # The try's start has the database's clock; the dispatcher uses the worker's.
            passed_s = max(0.0, self.ledger.now() - self.run.try_started_at)
            send_until = self.ledger.clock.wall() + self.max_seconds - passed_s
        if self.max_sent is not None:
            max_sent = max(0, self.max_sent - sum(1 for _ in self._sent_before()))
        stock = StockCheck(client) if self.check_stock else None
        guard_check = GuardCheck(
            self.guards,
            self.run_queue,
            self.ledger,
            mark_invalid=self._mark_invalid,
            client=client,
            prices=self.prices,
            max_sent=max_sent,
            sent=self._sent_before,
            sync_id=self.run.sync_id,
            stock=stock,
        )
        return Dispatcher(
            ledger=self.ledger,
            order_list=KKOrderList(client),
            throttle=self._bucket,
            run_queue=self.run_queue,
            make_job=lambda payload: order_job(order_of(payload), client),
            probe=lambda: client.list_orders(page_size=1),
            log=self.log,
            origin=self.origin,
            sync_id=self.run.sync_id,
            stop=self.stop,
            policy=self.policy,
            limits=Limits(self.max_in_flight, send_until, max_sent),
            recover_max_age_s=self.recover_max_age_s,
            stock=stock,
            check_guards=lambda: self._check_guards(guard_check),
            check_approval=self.approval.why_not if self.approval else None,
        )

    def _sent_before(self) -> Iterable[Record]:
        return self._runs.sent(self.run, self.origin) if self.counts_earlier_tries else ()

    def _check_guards(self, check: GuardCheck) -> str:
        try:
            report = self.approval.check(check, self.log) if self.approval else check.run()
            self.guard_exceeded = report.exceeded
        finally:
            self._order_log.flush()
        return self.guard_exceeded

    def _mark_invalid(self, item: QueuedOrder, fault: Fault) -> None:
        # The digest is of the order alone, so that another limit does not make it newly invalid.
        is_new = self.ledger.note_invalid(
            item.key or "", f"guard {item.content.fingerprint}", str(fault), sync_id=self.run.sync_id
        )
        if is_new:
            self._order_log.warning("{orders} {are} invalid: {reason}", item.key or "", str(fault))
        self.run_queue.set(item.position, RunStatus.INVALID, is_new=is_new, message=str(fault))

    def _wait(self, dispatcher: Dispatcher) -> None:
        is_reported = False
        while not (dispatcher.cannot_list or self.stop.is_set()):
            wait_s = dispatcher.wait_s()
            if wait_s is None:
                return
            if self.can_defer and wait_s > _WORTH_DEFERRING_S:
                raise DeferUntil(self.ledger.clock.wall() + wait_s)
            if wait_s > _WORTH_LOGGING_S and not is_reported:
                self.before_waiting()
                is_reported = True
            self._sleep(wait_s)
            if not self.stop.is_set():
                dispatcher.reconcile_waiting()

    def _sleep(self, seconds: float) -> None:
        clock = self.ledger.clock
        until = clock.monotonic() + seconds
        while (rest_s := until - clock.monotonic()) > 0 and not self.stop.is_set():
            if rest_s > _WORTH_LOGGING_S:
                self.log.info(
                    "%s in doubt, the first: %s. KK's list is read next at %s, in %.0f s, to find out "
                    "whether KK has them",
                    count_orders(self.run_queue.counts().get(RunStatus.WAITING, 0)),
                    ", ".join(name for name, _ in self.run_queue.examples(RunStatus.WAITING)),
                    utc(clock.wall() + rest_s),
                    rest_s,
                )
            clock.sleep(min(rest_s, _LOG_EVERY_S), self.stop)

    def end(self, state: str, summary: Summary) -> None:
        """Store the sync's state, `waiting`, `failed` or `done`, and its counts; emit Airflow metrics."""
        counts = summary.as_dict()
        self._runs.end(self.run, state, counts | {"held_elsewhere": self.held_elsewhere})
        count_orders_moved(self.run.summary, counts, self.tags, is_over=state != "waiting")
        count_requests(self._client, self._bucket, self.tags)


def item_of(position: int, order: Order) -> QueuedOrder:
    """Convert an order to an item of a run queue."""
    return QueuedOrder(
        position=position,
        key=order.custom_order_number or "",
        content=content_of(order),
        payload=order.model_dump_json(exclude_none=True),
    )


def order_of(payload: str) -> Order:
    """Return the order of a run queue's payload, without checking it once more."""
    fields = json.loads(payload)
    fields["address"] = OrderAddress.model_construct(**fields["address"])
    fields["items"] = [OrderItem.model_construct(**line) for line in fields["items"]]
    return Order.model_construct(**fields)
