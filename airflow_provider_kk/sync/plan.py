"""Preview a sync: the result that each order in a run queue would have. Nothing changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.api.errors import Fault, KKError
from airflow_provider_kk.delivery.attempt import CircuitBreaker
from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.log import Log, OrderLog, utc
from airflow_provider_kk.delivery.model import Record
from airflow_provider_kk.delivery.recover import found_as_integer
from airflow_provider_kk.delivery.run_queue import QueuedOrder, RunQueue, RunStatus, difference
from airflow_provider_kk.delivery.states import Action, State, is_unsent, next_action
from airflow_provider_kk.sync.approval import summarise_plan
from airflow_provider_kk.sync.errors import SyncError
from airflow_provider_kk.sync.guards import GuardCheck, Guards, Prices
from airflow_provider_kk.sync.load_orders import load_orders
from airflow_provider_kk.sync.stock import StockCheck
from airflow_provider_kk.sync.sync_counts import Summary, count

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.throttle import LocalBucket
    from airflow_provider_kk.delivery.sql.bucket import LedgerBucket
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.sync.load_orders import Selection

#: The results that need a person or more time.
PROBLEMS = (RunStatus.INVALID, RunStatus.CHANGED, RunStatus.HELD, RunStatus.REJECTED, RunStatus.IN_DOUBT)
#: KK's list is read before anything is sent.
_REQUESTS_OF_A_LISTING = 1


@dataclass(frozen=True)
class Plan:
    """The preview of a sync.

    `summary` counts the orders that would be sent as postponed; its `requests` and `seconds` are the least
    that this takes at KK's limit. If a guard is exceeded, these orders count as not sent. `obstacle` is a
    reason why the sync would send nothing, if there is one.
    """

    summary: Summary
    obstacle: str | None = None
    guards: str = ""
    """The effect that each guard would have."""

    @property
    def is_good(self) -> bool:
        """Whether every order would be sent, or is created already with this content."""
        return not any(getattr(self.summary, status.value) for status in (*PROBLEMS, RunStatus.NOT_SENT))


def plan(
    run_queue: RunQueue,
    ledger: AnyLedger | None,
    bucket: LocalBucket | LedgerBucket,
    *,
    guards: Guards,
    limit: int | None = None,
    client: KKClient | None = None,
    check_stock: bool = False,
    prices: Prices | None = None,
) -> Plan:
    """Set the result that each pending order in a run queue would have, and count the results.

    :param ledger: None if there is no ledger yet.
    :param bucket: the rate limit of the requests.
    :param limit: the most orders that the run would send.
    :param client: reads KK's prices and stock, if they are needed.
    :raises KKError: KK's prices or stock cannot be read.
    """

    def mark_invalid(item: QueuedOrder, fault: Fault) -> None:
        run_queue.set(item.position, RunStatus.INVALID, message=str(fault))

    with closing(StockCheck(client)) if client and check_stock else nullcontext() as stock:
        report = GuardCheck(
            guards, run_queue, ledger, mark_invalid, client, prices or Prices(), limit, stock=stock
        ).run()
        for batch in run_queue.batches(RunStatus.PENDING):
            _mark(run_queue, batch, ledger, stock)
    if report.exceeded:
        run_queue.set_all(RunStatus.POSTPONED, RunStatus.NOT_SENT, report.exceeded)
    summary = count(run_queue)
    if summary.postponed:
        questions = client.requests if client else 0
        summary.requests = summary.postponed + _REQUESTS_OF_A_LISTING + questions
        summary.seconds = round(bucket.min_duration_s(summary.requests), 1)
    doubts = len(ledger.doubts()) if ledger else 0
    pause = ledger.storage.pause() if ledger else None
    paused = str(pause) if pause else ""
    obstacle = report.exceeded or paused or CircuitBreaker(doubts).reason()
    return Plan(summary, obstacle, report.line())


def plan_orders(
    selection: Selection,
    hook: KKHook,
    ledger_connection: Any,
    hook_params: Mapping[str, Any] | None,
    *,
    guards: Guards,
    limit: int | None,
    check_stock: bool,
    log: Log,
) -> dict[str, Any]:
    """Preview the sync of a query, log the results, and return the plan's summary.

    :param ledger_connection: the Airflow connection to the ledger's database, which may have no ledger yet.
    :param hook_params: arguments of that connection's hook.
    :raises SyncError: the query fails, see `load_orders`, or KK's prices or stock cannot be read.
    """
    from airflow_provider_kk.hooks.ledger_connection import ledger_to_read

    run_queue, settings, prices = RunQueue(), hook.settings, Prices()
    log = counting = _CountingLog(log)
    ledger = ledger_to_read(ledger_connection, hook, hook_params)
    if ledger is None:
        log.info(
            "Connection %r has no ledger yet, so the plan counts every order as new",
            ledger_connection.conn_id,
        )
    bucket = settings.shared_bucket(ledger) if ledger else settings.local_bucket()
    with closing(ledger) if ledger else nullcontext():
        load_orders(run_queue, selection, log, api_version=settings.api_version)
        try:
            with hook.client(bucket) if check_stock or guards.need_prices else nullcontext() as client:
                planned = plan(
                    run_queue,
                    ledger,
                    bucket,
                    guards=guards,
                    limit=limit,
                    client=client,
                    check_stock=check_stock,
                    prices=prices,
                )
        except KKError as error:
            what = "stock" if check_stock else "prices"
            raise SyncError(
                f"No plan, because KK's {what} cannot be read: {error}. A retry reads them again",
                is_retryable=True,
            ) from error
    _log(planned, run_queue, log)
    found = summarise_plan(run_queue, settings, limit=limit, prices=prices, warnings=counting.warnings)
    log.info("%s", found.line())
    return planned.summary.as_dict() | asdict(found)


class _CountingLog:
    """A log that counts its warnings."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.warnings = 0

    def info(self, msg: Any, /, *args: Any) -> None:
        self._log.info(msg, *args)

    def warning(self, msg: Any, /, *args: Any) -> None:
        self.warnings += 1
        self._log.warning(msg, *args)

    def error(self, msg: Any, /, *args: Any) -> None:
        self._log.error(msg, *args)


def _log(plan: Plan, run_queue: RunQueue, log: Log) -> None:
    order_log = OrderLog(log)
    for one in run_queue.finished(*PROBLEMS):
        one.warn(order_log)
    order_log.flush()
    if plan.obstacle:
        log.warning("A sync would send nothing now: %s", plan.obstacle)
    summary = plan.summary
    log.info("%s", plan.guards)
    log.info(
        "Plan only, nothing was sent: %s. A sync would send the postponed orders, with at least %d requests "
        "in at least %.0f s at KK's limit",
        summary.line(),
        summary.requests,
        summary.seconds,
    )


def _mark(
    run_queue: RunQueue, batch: Sequence[QueuedOrder], ledger: AnyLedger | None, stock: StockCheck | None
) -> None:
    known = ledger.look_up([item.key for item in batch if item.key]) if ledger else {}
    if stock is not None:
        stock.expect(item for item in batch if is_unsent(known.get(item.key or "")))
    for item in batch:
        entry = known.get(item.key or "")
        if entry is None and ledger is not None:
            entry = found_as_integer(ledger, item)
        if stock is not None and is_unsent(entry) and (shortage := stock.shortage(item)):
            run_queue.set(item.position, RunStatus.INVALID, message=shortage)
        elif entry is None or ledger is None:
            run_queue.set(item.position, RunStatus.POSTPONED)
        else:
            status, message = _outcome(item, entry, ledger)
            run_queue.set(item.position, status, ids=entry.kk_order_ids, code=entry.code, message=message)


def _outcome(item: QueuedOrder, entry: Record, ledger: AnyLedger) -> tuple[RunStatus, str]:
    step = next_action(item, entry, ledger.now)
    if step is Action.SEND:
        return RunStatus.POSTPONED, ""
    if step is Action.COMPARE:
        is_same = item.content.is_same(entry.content)
        return (RunStatus.ALREADY_CREATED, "") if is_same else (RunStatus.CHANGED, difference(item, entry))
    if step is Action.HOLD:
        return RunStatus.HELD, entry.message
    if step is Action.BACK_OFF:
        return RunStatus.REJECTED, f"{entry.message}; retry after {utc(entry.retry_after)}"
    if entry.state is State.REJECTED:
        return RunStatus.POSTPONED, f"KK rejected it before: {entry.message}"
    return RunStatus.IN_DOUBT, "a sync reconciles it after its settle window"
