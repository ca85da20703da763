"""`kk send`: send the orders in a file or a query to KK, each once, as SyncOrdersOperator does."""

from __future__ import annotations

import argparse
import getpass
import hashlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.cli.check import Known, planned_with, print_plan
from airflow_provider_kk.cli.common import (
    CommandError,
    StderrLog,
    add_guard_options,
    add_ledger_options,
    add_output_options,
    confirm,
    guards_of,
    has_colours,
    open_ledger_of,
    print_line,
    printing_to,
    require_own_ledger,
    run_command,
    table,
    whole,
)
from airflow_provider_kk.cli.outcomes import as_data, print_counts, print_json, print_problems
from airflow_provider_kk.cli.source import (
    FILES,
    add_source_options,
    enqueue_source,
    read_source,
    statement_of,
)
from airflow_provider_kk.delivery.log import count_orders
from airflow_provider_kk.delivery.run_queue import RunQueue, RunStatus

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.model import Origin
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.connection import ConnectionSettings
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.sync.deliver import Delivery
    from airflow_provider_kk.sync.guards import Prices
    from airflow_provider_kk.sync.sync_counts import Summary
    from airflow_provider_kk.warehouse.spool import Spool

_EPILOG = f"""\
{FILES}

  kk send orders.csv --ledger ledger
  kk send orders.csv --columns custom_order_number=ORDER_NO --yes --json
  kk send --sql orders.sql --warehouse warehouse

First it prints the same preview as `kk check`, and asks. It uses the ledger and
the rate limit of the account's syncs. After Ctrl-C or SIGTERM it starts no new
request, and records those under way. However it ended, repeat the same command:
it continues where it stopped and sends nothing twice.

Exit status:
  0    every order is at KK, or was left out by --limit
  1    some are not: rejected, invalid, held, changed, in doubt or not sent
  2    nothing was sent: wrong arguments, file, columns or connection, a guard is
       exceeded, or the answer was no
  130  stopped by a second Ctrl-C"""
_IN_FLIGHT = 8
_SHOWN = 20
_SILENT = logging.CRITICAL + 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `kk send`."""
    parser.epilog = _EPILOG
    add_source_options(parser)
    parser.add_argument("--limit", type=whole, metavar="N", help="send at most N orders in this call")
    parser.add_argument(
        "--on-absence",
        choices=("resend", "hold"),
        default="resend",
        help="an order in doubt that KK's list proves absent: resend it, or hold it for a person "
        "(default: resend)",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    add_output_options(parser)
    add_guard_options(parser)
    add_ledger_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; the exit status is 0 when all is delivered, 1 when not, 2 when nothing was sent."""
    return run_command("kk send", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from airflow_provider_kk.sync.guards import Prices

    log = StderrLog("kk send")
    with closing(read_source(arguments, log)) as spool:
        require_own_ledger(arguments)
        hook, ledger = open_ledger_of(arguments, create=True, threads=_IN_FLIGHT, log=log)
        with closing(ledger):
            prices = Prices()
            if not arguments.yes:
                _ask(arguments, spool, hook.settings, ledger, log, prices)
            return _send(arguments, spool, hook, ledger, log, prices)


def _ask(
    arguments: argparse.Namespace,
    spool: Spool,
    settings: ConnectionSettings,
    ledger: SqlLedger,
    log: StderrLog,
    prices: Prices,
) -> None:
    run_queue, known = RunQueue(), Known(settings, ledger, "")
    enqueue_source(arguments, spool, run_queue, log, api_version=settings.api_version)
    planned = planned_with(arguments, known, run_queue, limit=arguments.limit, prices=prices)
    with printing_to(sys.stderr):
        print_plan(run_queue, planned, known, most=arguments.show)
    if planned.summary.not_sent:
        raise CommandError("nothing was sent, because a guard is exceeded, see above")
    number = planned.summary.postponed
    number = number if arguments.limit is None else min(number, arguments.limit)
    if number:
        confirm([], f"Send {count_orders(number)}?", yes=False)


# Sending -------------------------------------------------------------------------------------------


def _send(
    arguments: argparse.Namespace,
    spool: Spool,
    hook: KKHook,
    ledger: SqlLedger,
    log: StderrLog,
    prices: Prices,
) -> int:
    from sqlalchemy.exc import DBAPIError

    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.reconcile import AbsencePolicy
    from airflow_provider_kk.delivery.sql.driver_errors import describe_error
    from airflow_provider_kk.sync.deliver import Delivery

    stop, run_queue = Stop(), RunQueue()
    watched: Callable[[], AbstractContextManager[None]] = nullcontext
    if has_colours(sys.stderr) and not arguments.json:
        run_queue = _WatchedQueue()
        watched = run_queue.watched
    with _stopping(stop):
        delivery = Delivery(
            hook=hook,
            ledger=ledger,
            run_queue=run_queue,
            origin=_origin(arguments, ledger),
            stop=stop,
            policy=AbsencePolicy(arguments.on_absence),
            log=log,
            max_in_flight=_IN_FLIGHT,
            max_sent=arguments.limit,
            # A person decides on each call, while a task is retried by itself.
            counts_earlier_tries=False,
            guards=guards_of(arguments),
            prices=prices,
        )
        # Before the question, the plan has printed the same.
        quiet = log if arguments.yes else logging.Logger("kk send", _SILENT)
        enqueue_source(arguments, spool, run_queue, quiet, delivery, api_version=hook.settings.api_version)
        try:
            with watched():
                summary, failure = delivery.deliver()
            return _end(arguments, delivery, summary, failure)
        except DBAPIError as error:
            log.error(
                "the ledger's database cannot be used: %s. Fix it, then repeat the same command",
                describe_error(error),
            )
            return 1


def _end(
    arguments: argparse.Namespace, delivery: Delivery, summary: Summary, failure: BaseException | None
) -> int:
    from airflow_provider_kk.sync.failure_policy import task_failure

    is_unfinished = delivery.guard_exceeded or summary.in_doubt or summary.not_sent
    trouble = (
        (task_failure(delivery, summary, max_rejected=0, changes_fail=True) if is_unfinished else None)
        or delivery.postponed_because
        or _undelivered(summary)
    )
    delivery.end("failed" if failure or trouble else "done", summary)
    _print(delivery, summary, arguments)
    if failure is not None:
        raise failure
    if trouble:
        print_line(f"kk send: {trouble}", file=sys.stderr)
    return 2 if delivery.guard_exceeded else 1 if trouble else 0


def _undelivered(summary: Summary) -> str | None:
    """Count the orders that are not delivered; None if all are."""
    from airflow_provider_kk.sync.plan import PROBLEMS

    counts = {status: getattr(summary, status.value) for status in PROBLEMS}
    parts = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    if not parts:
        return None
    return (
        f"{sum(counts.values())} of {count_orders(summary.selected)} not delivered: {parts}. The reasons are "
        "above. To see what to do with an order, run `kk ledger show NUMBER`"
    )


def _origin(arguments: argparse.Namespace, ledger: SqlLedger) -> Origin:
    """Return who sends: a file's content, or a query, is one sync until it has come through."""
    from dataclasses import replace

    from airflow_provider_kk.delivery.model import Origin

    if arguments.file:
        with open(arguments.file, "rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
    else:
        query = f"{arguments.warehouse_conn_id}\n{statement_of(arguments)}"
        digest = hashlib.sha256(query.encode()).hexdigest()
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        login = ""
    origin = Origin(run_id=f"kk send {digest[:16]}", task_id=login)
    before = ledger.storage.newest_run(origin)
    tries = 0 if before is None or before.state == "done" else before.try_number
    return replace(origin, try_number=tries + 1)


class _WatchedQueue(RunQueue):
    """A run queue with a bar at the last line of standard error; lines of the log go above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        super().__init__()
        columns = (TextColumn("orders"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        # What programs read is on standard output: it is left alone.
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)
        self._task = self._bar.add_task("orders", total=None)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Show the bar, which moves when an order has its result."""
        self._bar.update(self._task, total=self.counts().get(RunStatus.PENDING, 0))
        with self._bar:
            yield

    def set(self, position: int, status: RunStatus, **details: Any) -> None:
        """Note where a job stands."""
        super().set(position, status, **details)
        if status not in (RunStatus.PENDING, RunStatus.WAITING):
            self._bar.advance(self._task)


@contextmanager
def _stopping(stop: Stop) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the sending as a task's stop does; a second one ends the waiting too."""

    def handle(number: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set(f"{signal.Signals(number).name} was received")
        with suppress(OSError):
            # Printing is not safe in here: the interrupted code may be in the middle of it.
            os.write(2, b"\nkk send: no new order is sent. Requests under way are recorded ...\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# What is shown -------------------------------------------------------------------------------------


def _print(delivery: Delivery, summary: Any, arguments: argparse.Namespace) -> None:
    from airflow_provider_kk.sync.plan import PROBLEMS

    run_queue = delivery.run_queue
    if arguments.json:
        for one in run_queue.finished():
            print_json(as_data(one))
        print_json({"summary": summary.as_dict()})
        return
    print_line(f"{count_orders(summary.selected)}, {summary.requests:,} requests, {summary.seconds:.0f} s:")
    print_counts(summary, {})
    print_problems(run_queue, (*PROBLEMS, RunStatus.NOT_SENT), arguments.show)
    created = run_queue.finished(RunStatus.CREATED, RunStatus.ADOPTED)
    if rows := [[one.name or "", ", ".join(one.kk_order_ids)] for one in islice(created, _SHOWN)]:
        print_line()
        table(["order", "kkOrderIds"], rows)
    if more := sum(1 for _ in created):
        print_line(f"and {more:,} more: use --json")
