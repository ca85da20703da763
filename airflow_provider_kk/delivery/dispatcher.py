"""Many jobs: what to do with each, several at once, when to stop, and what to do with those in doubt."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_kk.api.errors import KKAuthError, KKEndpointError, KKError, KKRateLimitedError
from airflow_provider_kk.api.throttle import StopSignal, ThrottleStopped
from airflow_provider_kk.delivery.actions import (
    Action,
    difference,
    found_as_integer,
    is_unsent,
    next_action,
)
from airflow_provider_kk.delivery.attempt import attempt
from airflow_provider_kk.delivery.circuit_breaker import CircuitBreaker, Limits
from airflow_provider_kk.delivery.clock import Stop, describe_clocks
from airflow_provider_kk.delivery.job import InconclusiveError, Job, OrderList
from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.listing import kk_skew_s, trusted_now
from airflow_provider_kk.delivery.log import HELD, Log, OrderLog, count_orders, some_of, utc
from airflow_provider_kk.delivery.model import Origin, Record
from airflow_provider_kk.delivery.progress import Progress
from airflow_provider_kk.delivery.reconcile import Policy, reconcile, within_bounds
from airflow_provider_kk.delivery.recover import recover, rename
from airflow_provider_kk.delivery.run_queue import QueuedOrder, RunQueue, RunStatus
from airflow_provider_kk.delivery.sql.driver_errors import describe_error
from airflow_provider_kk.delivery.states import DOUBTFUL, RECONCILE_FIRST, State

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.stock import StockCheck

_RATE_LIMITED_TRIES = 5
#: How often a job that another worker is sending is looked at again.
_RECONCILE_EVERY_S = 10.0
#: Progress is logged also while no attempt ends.
_PROGRESS_EVERY_S = 0.5


def _wait_for_one(attempts: Collection[Future[Any]]) -> Collection[Future[Any]]:
    return wait(attempts, timeout=_PROGRESS_EVERY_S, return_when=FIRST_COMPLETED).done


class RateLimit(Protocol):
    """The account's bucket, as a stream uses it."""

    def acquire(self, stop: StopSignal | None = None) -> None:
        """Take a place for one request, and wait for its moment. Raises ThrottleStopped."""
        ...

    def min_duration_s(self, requests: int) -> float:
        """Return how many seconds so many requests take at least, if nobody else sends."""
        ...

    def release(self, held_s: float) -> None:
        """Give others a place that `acquire` returned with `held_s` seconds ago and that is not used."""
        ...


@dataclass
class Dispatcher:
    """One run over the jobs of a board.

    :param make_job: makes the job of an item's payload; called by the worker threads.
    :param probe: a cheap read of KK; raises `KKError` when KK cannot be used at all.
    :param stock: asked before an order is sent, unless KK has refused it before or it is in doubt: then KK's
        answer to another POST tells more. None sends without asking.
    """

    ledger: AnyLedger
    order_list: OrderList
    throttle: RateLimit
    run_queue: RunQueue
    make_job: Callable[[str], Job]
    probe: Callable[[], object]
    log: Log
    origin: Origin
    sync_id: str
    stop: Stop
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    recover_max_age_s: float = 0.0
    stock: StockCheck | None = None
    check_guards: Callable[[], str] | None = None
    """Called before the first order is sent; returns why nothing may be sent, and is empty when it may."""
    executor: Executor | None = None
    """Runs the attempts; None: threads."""
    wait_for_one: Callable[[Collection[Future[Any]]], Collection[Future[Any]]] = _wait_for_one
    """Waits until one of some attempts is done, or for a moment, and returns those that are done."""
    breaker_reason: str | None = None
    """Why nothing more is sent; None while it is."""
    breaker_error: KKError | None = None
    """What KK said or did that stopped it, if it was that."""
    cannot_list: bool = False
    """KK's list cannot be read: waiting for it is in vain."""
    held_elsewhere: list[str] = field(default_factory=list)
    """Orders of the account that this run has given to a human and that are not on its board."""

    def __post_init__(self) -> None:
        self._breaker = CircuitBreaker()
        self._order_log = OrderLog(self.log)
        self._sent = 0
        self._tries: dict[int, int] = {}
        self._in_flight: dict[Future[_Attempted], tuple[QueuedOrder, Record | None]] = {}
        #: Orders to send again: after a 429, or since KK's list does not show them.
        self._resends: deque[tuple[QueuedOrder, Record]] = deque()
        self._executor = self.executor or ThreadPoolExecutor(
            self.limits.max_in_flight, thread_name_prefix="kk"
        )
        self._progress = Progress(self.log, self.ledger.clock, self.throttle.min_duration_s)

    @property
    def why_not_sent(self) -> str:
        """Why nothing more is sent; empty while it is."""
        return self.breaker_reason or self.stop.reason or ""

    # What a run does -------------------------------------------------------------------------------

    def run(self) -> None:
        """Send what is pending; afterwards nothing is pending, but some may be waiting.

        Whatever is raised meanwhile (a signal, a timeout): what is in flight is recorded first.
        """
        with self._recording():
            self._progress.start(self.run_queue.counts().get(RunStatus.PENDING, 0))
            self._start()
            self._send_pending()

    def wait_s(self) -> float | None:
        """Return in how many seconds to call `reconcile_waiting`; None when nothing is waiting."""
        now, trusted = self.ledger.now(), trusted_now(self.ledger, self.order_list)
        waits = [_wait_s(entry, now, trusted) for _item, entry in self._waiting()]
        # A clock that is off may be set right meanwhile.
        return max(0.0, min(*waits, self.ledger.settle_delay_s)) if waits else None

    def reconcile_waiting(self) -> None:
        """Settle what is waiting and can be settled by now, and send again what is allowed to be."""
        with self._recording():
            self._follow_other_workers()
            self._reconcile(entry for _item, entry in self._waiting() if entry is not None)

    def stop_waiting(self) -> None:
        """Call what is still waiting in doubt."""
        for batch in self.run_queue.batches(RunStatus.WAITING):
            for item in batch:
                self.run_queue.set(item.position, RunStatus.IN_DOUBT, message="KK's list decides later")

    def close(self) -> None:
        """Let go of the threads."""
        self._executor.shutdown(cancel_futures=True)
        if self.stock is not None:
            self.stock.close()

    @contextmanager
    def _recording(self) -> Iterator[None]:
        try:
            yield
            self._finish_sending()
        except BaseException as error:
            self.stop.set(type(error).__name__)
            self.log.error("Nothing more is sent after %s", describe_error(error))
            try:
                # What is in flight ends by its own deadline, and is recorded before anything is raised.
                self._drain()
                self._skip_unsent()
            finally:
                self.run_queue.set_all(RunStatus.PENDING, RunStatus.NOT_SENT, self.why_not_sent)
            raise
        finally:
            self._order_log.flush()

    def _batches(self, status: RunStatus) -> Iterator[list[tuple[QueuedOrder, Record | None]]]:
        """Yield the orders of a status with what the ledger knows of each."""
        for batch in self.run_queue.batches(status):
            known = self.ledger.look_up([item.key for item in batch if item.key])
            yield [(item, known.get(item.key or "")) for item in batch]

    def _waiting(self) -> Iterator[tuple[QueuedOrder, Record | None]]:
        for batch in self._batches(RunStatus.WAITING):
            yield from batch

    # Starting --------------------------------------------------------------------------------------

    def _start(self) -> None:
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
        self._breaker.open_doubts = len(doubts)
        if reason := self._breaker.reason():
            self._open_breaker(reason)

    def _check_guards(self) -> None:
        try:
            exceeded = self.check_guards() if self.check_guards else ""
        except KKError as error:
            exceeded = f"KK's prices or stock cannot be read, and without them nothing is sent: {error}"
            self._open_breaker(exceeded, error)
        if exceeded:
            self._open_breaker(exceeded)

    def _log_clocks(self) -> None:
        ledger = self.ledger
        database_s = ledger.now() - ledger.clock.wall() if ledger.storage.has_own_clock else None
        if text := describe_clocks(database_s, self.order_list.clock_skew_s):
            self.log.warning("%s", text)

    def _warn_of_other_doubts(self, doubts: Iterable[Record]) -> None:
        others = [entry.key for entry in doubts if not self.run_queue.has(entry.key)]
        if others:
            self.log.warning(
                "%s of this account in doubt and not selected by this sync: %s. See `kk ledger list`",
                count_orders(len(others)),
                some_of(others[:20], len(others)),
            )

    def _open_breaker(self, reason: str, error: Exception | None = None) -> None:
        if self.breaker_reason is None:
            self.breaker_reason = reason
            self.breaker_error = error if isinstance(error, KKError) else None
            self.log.warning("Nothing more is sent: %s", reason)

    # Sending ---------------------------------------------------------------------------------------

    def _send_pending(self) -> None:
        for batch in self._batches(RunStatus.PENDING):
            if self.stock is not None:
                self.stock.expect(item for item, entry in batch if is_unsent(entry))
            for item, entry in batch:
                self._dispatch(item, entry or self._found_as_integer(item))
        self._finish_sending()

    def _dispatch(self, item: QueuedOrder, entry: Record | None) -> None:
        """Do the next thing with an order, by what the ledger knows of it."""
        entry = entry and self._within_bounds(entry)
        if next_action(item, entry, self.ledger.now) is Action.SEND:
            shortage = self._shortage(item)
            if not shortage:
                self._send(item, entry)
                return
            entry = self._note_shortage(item, shortage)
        if entry is not None:
            self._record_known(item, entry)

    def _record_known(self, item: QueuedOrder, entry: Record) -> None:
        """Record what the ledger knows of an order that is not to be sent now."""
        action = next_action(item, entry, self.ledger.now)
        if action is Action.COMPARE:
            self._compare(item, entry)
        elif action is Action.HOLD:
            self._finish(item, RunStatus.HELD, entry)
        elif action is Action.BACK_OFF:
            name = f"{item.key} (retry after {utc(entry.retry_after)})"
            self._order_log.info("KK refused before, so not sent yet: {orders}", name)
            self._finish(item, RunStatus.REJECTED, entry)
        else:
            self.run_queue.set(item.position, RunStatus.WAITING)

    def _skip_unsent(self) -> None:
        """Record of all that is left what the ledger knows, and send none of it."""
        while self._resends:
            self._skip(*self._resends.popleft(), RunStatus.NOT_SENT, self.why_not_sent)
        for batch in self._batches(RunStatus.PENDING):
            for item, known in batch:
                entry = known or self._found_as_integer(item)
                if entry is None or is_unsent(entry):
                    self._skip(item, entry, RunStatus.NOT_SENT, self.why_not_sent)
                else:
                    self._record_known(item, entry)

    def _shortage(self, item: QueuedOrder) -> str:
        """Return which goods KK lacks for an order that is about to be sent; empty when it has all."""
        if self.stock is None or not self._sends_more():
            return ""
        try:
            return self.stock.shortage(item)
        except KKError as error:
            self._open_breaker(f"KK's stock cannot be read, and without it nothing is sent: {error}", error)
            return ""  # so that it becomes not sent, like all the others

    def _note_shortage(self, item: QueuedOrder, shortage: str) -> Record | None:
        """Make an order invalid for now; return its record when another worker has sent it meanwhile."""
        # The digest is of the order alone: other counts, or other goods that are missing, are nothing new.
        is_new = self.ledger.note_invalid(
            item.key or "", f"stock {item.content.fingerprint}", shortage, sync_id=self.sync_id
        )
        entry = self.ledger.look_up([item.key or ""]).get(item.key or "")
        if not is_unsent(entry):
            return entry  # the worker that sent it may have taken the very goods that are missing
        if is_new:
            self._order_log.warning("KK cannot serve {orders}: {reason}", item.key or "", shortage)
        self.run_queue.set(item.position, RunStatus.INVALID, is_new=is_new, message=shortage)
        return None

    def _found_as_integer(self, item: QueuedOrder) -> Record | None:
        """Return the order that healing found under this number without leading zeros; rename what is it."""
        entry = found_as_integer(self.ledger, item)
        if entry is None or not item.content.is_same_content(entry.content):
            return entry
        return rename(self.ledger, entry, item.key or "")

    def _compare(self, item: QueuedOrder, entry: Record) -> None:
        is_same = item.content.is_same(entry.content)
        if is_same and not entry.content.fingerprint:
            self.ledger.attach_fingerprint(entry, item.content)
        if not is_same:
            self.run_queue.set(
                item.position,
                RunStatus.CHANGED,
                is_new=True,
                ids=entry.kk_order_ids,
                message=difference(item, entry),
            )
        elif entry.sync_id == self.sync_id:
            self._finish(item, RunStatus.ADOPTED if entry.adopted else RunStatus.CREATED, entry)
        else:
            self._finish(item, RunStatus.ALREADY_CREATED, entry)

    def _finish(self, item: QueuedOrder, status: RunStatus, entry: Record) -> None:
        self.run_queue.set(
            item.position,
            status,
            is_new=entry.sync_id == self.sync_id,
            ids=entry.kk_order_ids,
            code=entry.code,
            message=entry.message,
        )

    def _send(self, item: QueuedOrder, expected: Record | None) -> None:
        """Hand a job to a worker, or say why not; waits for a free worker."""
        while len(self._in_flight) >= self.limits.max_in_flight:
            self._collect()
        if self.breaker_reason or self.stop.is_set():
            self._skip(item, expected, RunStatus.NOT_SENT, self.why_not_sent)
        elif self._is_time_up() or (self._is_enough() and not (expected and expected.state in DOUBTFUL)):
            self._skip(item, expected, RunStatus.POSTPONED, "left for the next run")
        else:
            if expected is not None and expected.state in RECONCILE_FIRST:
                self._order_log.info("{orders} {are} sent again", item.key or "")
            self._sent += 1
            self._in_flight[self._executor.submit(self._work, item, expected)] = (item, expected)

    def _skip(self, item: QueuedOrder, expected: Record | None, status: RunStatus, why: str) -> None:
        if expected is not None and expected.state in DOUBTFUL:
            status = RunStatus.IN_DOUBT
        elif expected is not None and expected.state is State.REJECTED:
            status = RunStatus.REJECTED
        self.run_queue.set(item.position, status, message=why)

    def _sends_more(self) -> bool:
        return not (self.breaker_reason or self.stop.is_set() or self._is_time_up() or self._is_enough())

    def _is_time_up(self) -> bool:
        return self.limits.send_until is not None and self.ledger.clock.wall() >= self.limits.send_until

    def _is_enough(self) -> bool:
        return self.limits.max_sent is not None and self._sent >= self.limits.max_sent

    def _work(self, item: QueuedOrder, expected: Record | None) -> _Attempted:
        """In a worker thread: one job, once."""
        self.throttle.acquire(self.stop)
        if self.breaker_reason or self.stop.is_set():
            raise ThrottleStopped
        taken = self.ledger.clock.monotonic()
        job = self.make_job(item.payload)
        delivered = attempt(
            job,
            expected,
            self.ledger,
            origin=self.origin,
            sync_id=self.sync_id,
            # A clock may have been set since the last POST.
            kk_skew_s=kk_skew_s(self.order_list),
        )
        if delivered is None:  # another worker was faster
            self.throttle.release(self.ledger.clock.monotonic() - taken)
        return delivered

    # Collecting ------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Wait for at least one attempt and record what became of it, unless a moment passes without any."""
        for future in self.wait_for_one(self._in_flight):
            self._on_done(*self._in_flight.pop(future), future)
        self._progress.tick(self.run_queue)
        self._order_log.tick(self.ledger.clock.monotonic())

    def _finish_sending(self) -> None:
        """Send again what is to be, and wait for all that is in flight."""
        while self._in_flight or self._resends:
            if self._resends:
                self._send(*self._resends.popleft())
            else:
                self._collect()

    def _drain(self) -> None:
        """Take in all that is in flight, though some of it may fail: the first failure is being raised."""
        failed: Counter[str] = Counter()
        while self._in_flight:
            try:
                self._collect()
            except Exception as error:
                failed[describe_error(error)] += 1
        for name, number in failed.items():
            self.log.error("%s in flight failed, too: %s", count_orders(number), name)

    def _on_done(self, item: QueuedOrder, expected: Record | None, future: Future[_Attempted]) -> None:
        try:
            delivered = future.result()
        except ThrottleStopped:
            self._sent -= 1
            self._skip(item, expected, RunStatus.NOT_SENT, self.why_not_sent)
            return
        if delivered is None:
            self.run_queue.set(item.position, RunStatus.WAITING)  # another worker was faster
            return
        entry, error = delivered
        # The row may be another worker's by now, and then its doubt is not ours to send over.
        is_free = entry.state is State.NOT_SENT
        if isinstance(error, KKRateLimitedError) and is_free and self._may_retry(item):
            self._sent -= 1
            self._resends.append((item, entry))
            return
        self._record_result(item, entry)
        self._check_breaker(entry, error)

    def _may_retry(self, item: QueuedOrder) -> bool:
        self._tries[item.position] = self._tries.get(item.position, 0) + 1
        return self._tries[item.position] < _RATE_LIMITED_TRIES

    def _record_result(self, item: QueuedOrder, entry: Record) -> None:
        if entry.state is State.CREATED:
            self._finish(item, RunStatus.CREATED, entry)
        elif entry.state is State.REJECTED:
            why = f"code {entry.code}, {entry.message}"
            self._order_log.warning("KK refused {orders}: {reason}", entry.key, why)
            self._finish(item, RunStatus.REJECTED, entry)
        elif entry.state is State.NOT_SENT:
            self._finish(item, RunStatus.NOT_SENT, entry)
        elif entry.state is State.HELD:
            self._order_log.error(HELD, entry.key, entry.message)
            self._finish(item, RunStatus.HELD, entry)
        else:
            text = "the outcome of {orders} is unknown: {reason}"
            self._order_log.warning(text, entry.key, entry.message)
            self.run_queue.set(item.position, RunStatus.WAITING)

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
        """Take in what other workers have made of jobs that wait here."""
        for item, entry in list(self._waiting()):
            if entry is None:
                why = "the ledger has lost its row, as after a restored backup: the next run looks for it"
                self.run_queue.set(item.position, RunStatus.IN_DOUBT, message=why)
            elif entry.state not in DOUBTFUL:
                self._dispatch(item, entry)
        self._finish_sending()

    def _reconcile(self, candidates: Iterable[Record]) -> None:
        """Settle rows of the ledger, those of other syncs too, and send again what may be."""
        by_key = {entry.key: self._within_bounds(entry) for entry in candidates}
        items = {key: item for key in by_key if (item := self.run_queue.item(key)) is not None}
        reconciled = reconcile(
            self.ledger,
            self.order_list,
            by_key.values(),
            at_hand=items.keys(),
            policy=self.policy,
            sync_id=self.sync_id,
            log=self.log,
        )
        for entry in reconciled.adopted:
            name = f"{entry.key} as {', '.join(entry.kk_order_ids)}"
            self._order_log.info("KK's list shows {orders}: adopted, not sent again", name)
            if entry.key in items:
                self._compare(items[entry.key], entry)
        for entry in reconciled.held:
            self._order_log.error(HELD, entry.key, entry.message)
            if entry.key in items:
                self._finish(items[entry.key], RunStatus.HELD, entry)
            else:
                self.held_elsewhere.append(entry.key)
        for entry in reconciled.absent:
            self._order_log.warning("{orders} {are} not at KK", entry.key)
            self._resends.append((items[entry.key], entry))
        self._leave_open(reconciled.open, by_key, items)

    def _within_bounds(self, entry: Record) -> Record:
        """Shorten a wait that is longer than its rule allows."""
        if entry.state not in RECONCILE_FIRST or not self.ledger.waits_too_long(
            entry, kk_skew_s(self.order_list)
        ):
            return entry
        if self.order_list.clock_skew_s is None:
            with suppress(KKError):
                self.probe()
        return within_bounds(self.ledger, entry, self._order_log, kk_skew_s=self.order_list.clock_skew_s)

    def _leave_open(
        self, reasons: Mapping[str, str], entries: Mapping[str, Record], items: Mapping[str, QueuedOrder]
    ) -> None:
        for key, why in reasons.items():
            if key in items:
                status = RunStatus.REJECTED if entries[key].state is State.REJECTED else RunStatus.IN_DOUBT
                text = f"{{orders}} {{are}} still {status.replace('_', ' ')}: {{reason}}"
                self._order_log.warning(text, key, why)
                self.run_queue.set(items[key].position, status, message=why)


_Attempted = tuple[Record, KKError | None] | None


def _wait_s(entry: Record | None, now: float, trusted: float) -> float:
    if entry is None or entry.state not in RECONCILE_FIRST:
        return 0.0
    if entry.state is State.SENDING and entry.lease_until > now:
        return min(entry.settle_after - trusted, _RECONCILE_EVERY_S)  # its worker may well come back
    return entry.settle_after - trusted
