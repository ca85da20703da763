"""Send a run's orders, several at once, until the circuit breaker opens; reconcile those in doubt.

One thread dispatches orders and records their results. Worker threads take a permit and make an attempt
(`_work`). The caller sleeps for `wait_s` and calls `reconcile_waiting` until no order is waiting.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_kk.api.errors import KKAuthError, KKEndpointError, KKError, KKRateLimitedError
from airflow_provider_kk.delivery.attempt import CircuitBreaker, Limits, attempt
from airflow_provider_kk.delivery.clock import Stop, describe_clocks
from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.listing import KKOrderList, kk_skew_s, trusted_now
from airflow_provider_kk.delivery.log import HELD, Log, OrderLog, count_orders, some_of
from airflow_provider_kk.delivery.model import (
    DailyCapError,
    InconclusiveError,
    Job,
    Origin,
    Record,
    SendingPausedError,
    ThrottleStopped,
)
from airflow_provider_kk.delivery.reconcile import AbsencePolicy, reconcile, shorten_wait
from airflow_provider_kk.delivery.recover import found_as_integer, recover, rename
from airflow_provider_kk.delivery.run_queue import Progress, QueuedOrder, Results, RunQueue, RunStatus
from airflow_provider_kk.delivery.sql.driver_errors import describe_error
from airflow_provider_kk.delivery.states import (
    DOUBTFUL,
    TO_RECONCILE,
    Action,
    State,
    is_unsent,
    next_action,
)

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.bucket import LedgerBucket

#: POSTs of an order in all that KK may answer with HTTP 429.
_RATE_LIMITED_TRIES = 5
#: Seconds between two readings of the row of a job that another worker is sending.
_FOLLOW_EVERY_S = 10.0
#: The row after an attempt and the error of its call; None if another worker claimed the order.
_Attempted = tuple[Record, KKError | None] | None
#: Seconds after which progress is logged even if no attempt ends.
_PROGRESS_EVERY_S = 0.5


def _wait_for_one(attempts: Collection[Future[Any]]) -> Collection[Future[Any]]:
    return wait(attempts, timeout=_PROGRESS_EVERY_S, return_when=FIRST_COMPLETED).done


class StockLookup(Protocol):
    """KK's stock; see `StockCheck`."""

    def expect(self, items: Iterable[QueuedOrder]) -> None:
        """Announce the orders that come next."""

    def shortage(self, item: QueuedOrder) -> str:
        """Reserve an order's goods, or return the missing goods.

        :raises KKError: KK's stock cannot be read.
        """

    def close(self) -> None:
        """Delete the data."""


@dataclass
class Dispatcher:
    """One run over the orders of a run queue.

    :param make_job: makes the job of an order's payload; the worker threads call it.
    :param probe: a cheap read of KK; raises `KKError` if KK cannot be used at all.
    :param stock: checked before an order is sent, unless KK rejected it before or it is in doubt.
    """

    ledger: AnyLedger
    order_list: KKOrderList
    throttle: LedgerBucket
    run_queue: RunQueue
    make_job: Callable[[str], Job]
    probe: Callable[[], object]
    log: Log
    origin: Origin
    sync_id: str
    stop: Stop
    policy: AbsencePolicy = field(default_factory=AbsencePolicy)
    limits: Limits = field(default_factory=Limits)
    recover_max_age_s: float = 0.0
    stock: StockLookup | None = None
    check_guards: Callable[[], str] | None = None
    """Called before the first order is sent; returns a reason to send nothing, empty if there is none."""
    check_approval: Callable[[QueuedOrder], str] | None = None
    """Returns a reason not to send an order, empty if there is none."""
    executor: Executor | None = None
    """Runs the attempts; None: threads."""
    wait_for_one: Callable[[Collection[Future[Any]]], Collection[Future[Any]]] = _wait_for_one
    """Waits until an attempt is done, or for a moment, and returns those that are done."""
    breaker_reason: str | None = None
    """The reason why the circuit breaker is open; None while it is closed."""
    postponed_because: str = ""
    """The pause or the daily limit because of which this run sends nothing more; no error."""
    breaker_error: KKError | None = None
    """KK's error that opened the circuit breaker, if one did."""
    cannot_list: bool = False
    """KK's list cannot be read, so waiting for it is useless."""
    held_elsewhere: list[str] = field(default_factory=list)
    """Orders that this run held and that are not in its queue."""

    def __post_init__(self) -> None:
        self._breaker = CircuitBreaker()
        self._order_log = OrderLog(self.log)
        self._results = Results(self.run_queue, self.ledger, self._order_log, self.sync_id)
        self._sent = 0
        #: 429s by position.
        self._rate_limited: Counter[int] = Counter()
        self._in_flight: dict[Future[_Attempted], tuple[QueuedOrder, Record | None]] = {}
        #: Orders to resend: after a 429, or because they are absent in KK's list.
        self._resends: deque[tuple[QueuedOrder, Record]] = deque()
        self._executor = self.executor or ThreadPoolExecutor(
            self.limits.max_in_flight, thread_name_prefix="kk"
        )
        self._progress = Progress(self.log, self.ledger.clock, self.throttle.min_duration_s)

    @property
    def why_not_sent(self) -> str:
        """The reason why nothing more is sent; empty while orders are sent."""
        return self.breaker_reason or self.stop.reason or ""

    # What a run does -------------------------------------------------------------------------------

    def run(self) -> None:
        """Send the pending orders. Afterwards none is pending, but some may be waiting.

        If an error is raised meanwhile, such as a signal or a timeout, the attempts in flight are recorded
        first.
        """
        with self._recording_attempts():
            self._progress.start(self.run_queue.counts().get(RunStatus.PENDING, 0))
            self._prepare()
            self._send_pending()

    def wait_s(self) -> float | None:
        """Return the seconds until `reconcile_waiting` should be called; None if nothing is waiting."""
        now, trusted = self.ledger.now(), trusted_now(self.ledger, self.order_list)
        waits = [_wait_s(entry, now, trusted) for _item, entry in self._waiting()]
        # A wrong clock may be corrected during the wait.
        return max(0.0, min(*waits, self.ledger.settle_delay_s)) if waits else None

    def reconcile_waiting(self) -> None:
        """Reconcile the waiting orders that are due, and resend those that are absent at KK."""
        with self._recording_attempts():
            self._follow_other_workers()
            self._reconcile(entry for _item, entry in self._waiting() if entry is not None)

    def stop_waiting(self) -> None:
        """Leave the waiting orders in doubt."""
        why = "a later try or run reconciles it"
        self.run_queue.set_all(RunStatus.WAITING, RunStatus.IN_DOUBT, why)

    def close(self) -> None:
        """Stop the threads."""
        self._executor.shutdown(cancel_futures=True)
        if self.stock is not None:
            self.stock.close()

    @contextmanager
    def _recording_attempts(self) -> Iterator[None]:
        """Finish resends and attempts when the body ends; after an error, only record those in flight."""
        try:
            yield
            self._finish_sending()
        except BaseException as error:
            self.stop.set(type(error).__name__)
            self.log.error("Nothing more is sent after %s", describe_error(error))
            try:
                # Attempts in flight end by their own deadline, and are recorded before anything is raised.
                self._drain()
                self._skip_unsent()
            finally:
                self.run_queue.set_all(RunStatus.PENDING, RunStatus.NOT_SENT, self.why_not_sent)
            raise
        finally:
            self._order_log.flush()

    def _batches(self, status: RunStatus) -> Iterator[list[tuple[QueuedOrder, Record | None]]]:
        """Yield the orders of a status, each with its row in the ledger."""
        for batch in self.run_queue.batches(status):
            known = self.ledger.look_up([item.key for item in batch])
            yield [(item, known.get(item.key)) for item in batch]

    def _waiting(self) -> Iterator[tuple[QueuedOrder, Record | None]]:
        for batch in self._batches(RunStatus.WAITING):
            yield from batch

    # Starting --------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Before new orders are sent: recover, check the guards, reconcile the account's orders in doubt."""
        if pause := self.ledger.storage.pause():
            self._postpone(str(pause))
        try:
            recover(self.ledger, self.order_list, self.log, max_age_s=self.recover_max_age_s)
        except (KKError, InconclusiveError) as error:
            self.cannot_list = True
            self._open_breaker(
                f"KK's list of orders cannot be read, and without it nothing is sent: {error}", error
            )
            return
        self._log_clocks()
        self._check_guards()
        self._reconcile(self.ledger.doubts())
        self._finish_sending()
        doubts = self.ledger.doubts()
        self._warn_of_other_doubts(doubts)
        self._breaker.doubts = len(doubts)
        if reason := self._breaker.reason():
            self._open_breaker(reason)

    def _check_guards(self) -> None:
        try:
            if self.check_guards and (exceeded := self.check_guards()):
                self._open_breaker(exceeded)
        except KKError as error:
            why = f"KK's prices or stock cannot be read, and without them nothing is sent: {error}"
            self._open_breaker(why, error)

    def _log_clocks(self) -> None:
        ledger = self.ledger
        database_s = ledger.now() - ledger.clock.wall() if ledger.storage.has_own_clock else None
        if text := describe_clocks(database_s, self.order_list.clock_skew_s):
            self.log.warning("%s", text)

    def _warn_of_other_doubts(self, doubts: Iterable[Record]) -> None:
        others = [entry.key for entry in doubts if not self.run_queue.has(entry.key)]
        if others:
            self.log.warning(
                "%s of this account in doubt and not selected by this sync: %s. See `kk ledger list --state "
                "in_doubt`",
                count_orders(len(others)),
                some_of(others[:20], len(others)),
            )

    def _open_breaker(self, reason: str, error: Exception | None = None) -> None:
        if self.breaker_reason is None:
            self.breaker_reason = reason
            self.breaker_error = error if isinstance(error, KKError) else None
            self.log.warning("Nothing more is sent: %s", reason)

    def _postpone(self, reason: str) -> None:
        """Postpone all orders that are not sent yet to a later run."""
        if not self.postponed_because:
            self.postponed_because = reason
            self.log.warning("Nothing more is sent in this run: %s", reason)

    # Sending ---------------------------------------------------------------------------------------

    def _send_pending(self) -> None:
        """Go through the pending orders once: send or skip each."""
        for batch in self._batches(RunStatus.PENDING):
            if self.stock is not None:
                self.stock.expect(item for item, entry in batch if is_unsent(entry))
            for item, entry in batch:
                self._dispatch(item, entry or self._adopt_integer(item))
        self._finish_sending()

    def _dispatch(self, item: QueuedOrder, entry: Record | None) -> None:
        """Send an order if that is its next action and KK has the goods; else record what the ledger has."""
        entry = entry and self._shorten_wait(entry)
        if next_action(item, entry, self.ledger.now) is Action.SEND:
            shortage = self._shortage(item)
            if not shortage:
                self._send(item, entry)
                return
            entry = self._note_shortage(item, shortage)
        if entry is not None:
            self._results.record_known(item, entry)

    def _skip_unsent(self) -> None:
        """Record the ledger's status of all remaining orders, without sending."""
        while self._resends:
            self._results.skip(*self._resends.popleft(), RunStatus.NOT_SENT, self.why_not_sent)
        for batch in self._batches(RunStatus.PENDING):
            for item, known in batch:
                entry = known or self._adopt_integer(item)
                if entry is None or is_unsent(entry):
                    self._results.skip(item, entry, RunStatus.NOT_SENT, self.why_not_sent)
                else:
                    self._results.record_known(item, entry)

    def _shortage(self, item: QueuedOrder) -> str:
        """Return the goods that KK lacks for an order; empty if it has all."""
        is_stopped = self.breaker_reason or self.postponed_because or self.stop.is_set()
        if self.stock is None or is_stopped or self._is_time_up() or self._is_enough():
            return ""
        try:
            return self.stock.shortage(item)
        except KKError as error:
            self._open_breaker(f"KK's stock cannot be read, and without it nothing is sent: {error}", error)
            return ""  # the order becomes not sent, like all others

    def _note_shortage(self, item: QueuedOrder, shortage: str) -> Record | None:
        """Record an order as invalid for now; return its row if another worker sent it meanwhile."""
        # The digest is of the order alone, so that another missing quantity does not make it newly invalid.
        is_new = self.ledger.note_invalid(
            item.key, f"stock {item.content.fingerprint}", shortage, sync_id=self.sync_id
        )
        entry = self.ledger.look_up([item.key]).get(item.key)
        if not is_unsent(entry):
            return entry  # the other worker may have ordered the missing goods
        if is_new:
            self._order_log.warning("KK lacks goods of {orders}: {reason}", item.key, shortage)
        self.run_queue.set(item.position, RunStatus.INVALID, is_new=is_new, message=shortage)
        return None

    def _adopt_integer(self, item: QueuedOrder) -> Record | None:
        """Rename an order that was adopted without leading zeros if it is this one; return its row."""
        entry = found_as_integer(self.ledger, item)
        if entry is None or not item.content.is_same_content(entry.content):
            return entry
        return rename(self.ledger, entry, item.key)

    def _send(self, item: QueuedOrder, expected: Record | None) -> None:
        """Give an order to a free worker thread, or record why it is not sent."""
        while len(self._in_flight) >= self.limits.max_in_flight:
            self._collect()
        if self.breaker_reason or self.stop.is_set():
            self._results.skip(item, expected, RunStatus.NOT_SENT, self.why_not_sent)
        elif self.check_approval and (why := self.check_approval(item)):
            self._order_log.warning("{orders} {are} not sent: {reason}", item.key, why)
            self._results.skip(item, expected, RunStatus.POSTPONED, why)
        elif self.postponed_because:
            self._results.skip(item, expected, RunStatus.POSTPONED, self.postponed_because)
        elif self._is_time_up() or (self._is_enough() and not (expected and expected.state in DOUBTFUL)):
            self._results.skip(item, expected, RunStatus.POSTPONED, "the limit of this run is reached")
        else:
            if expected is not None and expected.state in TO_RECONCILE:
                self._order_log.info("{orders} {are} resent", item.key)
            self._sent += 1
            self._in_flight[self._executor.submit(self._work, item, expected)] = (item, expected)

    def _is_time_up(self) -> bool:
        return self.limits.send_until is not None and self.ledger.clock.wall() >= self.limits.send_until

    def _is_enough(self) -> bool:
        return self.limits.max_sent is not None and self._sent >= self.limits.max_sent

    def _work(self, item: QueuedOrder, expected: Record | None) -> _Attempted:
        """Make one attempt, in a worker thread."""
        self.throttle.acquire(self.stop, to_send=True)
        if self.breaker_reason or self.stop.is_set():
            raise ThrottleStopped
        taken = self.ledger.clock.monotonic()
        job = self.make_job(item.payload)
        try:
            delivered = attempt(
                job,
                expected,
                self.ledger,
                origin=self.origin,
                sync_id=self.sync_id,
                kk_skew_s=lambda: kk_skew_s(self.order_list),
            )
        except DailyCapError:
            self.throttle.release(self.ledger.clock.monotonic() - taken)
            raise
        if delivered is None:  # another worker was faster
            self.throttle.release(self.ledger.clock.monotonic() - taken)
        return delivered

    # Collecting ------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Wait for an attempt, or a moment, and record the attempts that are done."""
        for future in self.wait_for_one(self._in_flight):
            self._on_done(*self._in_flight.pop(future), future)
        self._progress.tick(self.run_queue)
        self._order_log.tick(self.ledger.clock.monotonic())

    def _finish_sending(self) -> None:
        """Send the resends, and wait for all attempts in flight."""
        while self._in_flight or self._resends:
            if self._resends:
                self._send(*self._resends.popleft())
            else:
                self._collect()

    def _drain(self) -> None:
        """Record all attempts in flight. Later failures are logged, since the first one is being raised."""
        failed: Counter[str] = Counter()
        while self._in_flight:
            try:
                self._collect()
            except Exception as error:
                failed[describe_error(error)] += 1
        for name, number in failed.items():
            self.log.error("%s in flight failed, too: %s", count_orders(number), name)

    def _on_done(self, item: QueuedOrder, expected: Record | None, future: Future[_Attempted]) -> None:
        """Record the result of an attempt, or queue a resend after a 429."""
        try:
            delivered = future.result()
        except ThrottleStopped:
            self._sent -= 1
            self._results.skip(item, expected, RunStatus.NOT_SENT, self.why_not_sent)
            return
        except (SendingPausedError, DailyCapError) as limit:
            self._sent -= 1
            self._postpone(str(limit))
            self._results.skip(item, expected, RunStatus.POSTPONED, self.postponed_because)
            return
        if delivered is None:
            self.run_queue.set(item.position, RunStatus.WAITING)  # another worker was faster
            return
        entry, error = delivered
        # This worker must not resend an order whose row another worker owns by now.
        if isinstance(error, KKRateLimitedError) and entry.state is State.NOT_SENT:
            self._rate_limited[item.position] += 1
            if self._rate_limited[item.position] < _RATE_LIMITED_TRIES:
                self._sent -= 1
                self._resends.append((item, entry))
                return
        self._results.record_result(item, entry)
        self._check_breaker(entry, error)

    def _check_breaker(self, entry: Record, error: KKError | None) -> None:
        if reason := self._breaker.note(entry):
            self._open_breaker(reason)
        if isinstance(error, (KKAuthError, KKEndpointError)) and self.breaker_reason is None:
            try:
                self.probe()
            except KKError as second:
                self._open_breaker(f"KK cannot be used: {second}", second)

    # Waiting ---------------------------------------------------------------------------------------

    def _follow_other_workers(self) -> None:
        """Copy the results that other workers recorded for waiting orders."""
        for item, entry in list(self._waiting()):
            if entry is None:
                why = "its row is missing in the ledger, as after a restored backup. The next run recovers it"
                self.run_queue.set(item.position, RunStatus.IN_DOUBT, message=why)
            elif entry.state not in DOUBTFUL:
                self._dispatch(item, entry)
        self._finish_sending()

    def _reconcile(self, candidates: Iterable[Record]) -> None:
        """Reconcile rows, also those of other syncs, and queue the resends."""
        by_key = {entry.key: self._shorten_wait(entry) for entry in candidates}
        items = {key: item for key in by_key if (item := self.run_queue.item(key)) is not None}
        reconciled = reconcile(
            self.ledger,
            self.order_list,
            by_key.values(),
            resendable=items.keys(),
            policy=self.policy,
            sync_id=self.sync_id,
            log=self.log,
        )
        for entry in reconciled.adopted:
            name = f"{entry.key} as {', '.join(entry.kk_order_ids)}"
            self._order_log.info("KK's list has {orders}: adopted, not sent again", name)
            if entry.key in items:
                self._results.compare(items[entry.key], entry)
        for entry in reconciled.held:
            self._order_log.error(HELD, entry.key, entry.message)
            if entry.key in items:
                self._results.finish(items[entry.key], RunStatus.HELD, entry)
            else:
                self.held_elsewhere.append(entry.key)
        for entry in reconciled.absent:
            self._order_log.warning("{orders} {are} not at KK", entry.key)
            self._resends.append((items[entry.key], entry))
        self._results.leave_in_doubt(reconciled.unresolved, by_key, items)

    def _shorten_wait(self, entry: Record) -> Record:
        """Shorten a wait that is longer than its rule allows; return the row."""
        if entry.state not in TO_RECONCILE or not self.ledger.waits_too_long(
            entry, kk_skew_s(self.order_list)
        ):
            return entry
        if self.order_list.clock_skew_s is None:
            with suppress(KKError):
                self.probe()
        return shorten_wait(self.ledger, entry, self._order_log, kk_skew_s=self.order_list.clock_skew_s)


def _wait_s(entry: Record | None, now: float, trusted: float) -> float:
    if entry is None or entry.state not in TO_RECONCILE:
        return 0.0
    if entry.state is State.SENDING and entry.lease_until > now:
        return min(entry.settle_after - trusted, _FOLLOW_EVERY_S)  # its worker may still record a result
    return entry.settle_after - trusted
