"""`kk send`: the orders in a file to KK, each once, by the same delivery as SyncOrdersOperator's."""

from __future__ import annotations

import argparse
import getpass
import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.cli.check import Known, planned_with, print_plan
from airflow_provider_kk.cli.common import (
    StderrLog,
    add_ledger_options,
    confirm,
    open_ledger_of,
    print_line,
    require_own_ledger,
    run_command,
    table,
    whole,
)
from airflow_provider_kk.cli.outcomes import as_data, print_counts, print_json, print_problems
from airflow_provider_kk.cli.source import FILES, add_file_options, read_file

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.model import Origin
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.sync.delivery import Delivery
    from airflow_provider_kk.sync.runs import Summary
    from airflow_provider_kk.warehouse.spool import Spool

_EPILOG = f"""\
{FILES}

  kk send orders.csv --ledger ledger
  kk send orders.csv --columns custom_order_number=ORDER_NO --yes --json

It says first what would happen, as `kk check` does, and asks. It uses the ledger
and the rate limit of the account's syncs. At Ctrl-C or SIGTERM nothing new is
sent, and what is in flight is recorded. However it ended, the same command again
goes on where it stopped and sends nothing twice.
Exit status: 0 every order is at KK as the file has it, or left out by --limit;
1 some are not: rejected, invalid, held, changed, in doubt or not sent, since now
or before; 2 nothing was sent: wrong arguments, file, columns, connection, or not
confirmed; 130 stopped a second time."""
_IN_FLIGHT = 8
_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `kk send` takes."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("file", metavar="FILE", help="a CSV file, or .jsonl")
    add_file_options(parser)
    parser.add_argument("--limit", type=whole, metavar="N", help="send at most so many in this call")
    parser.add_argument(
        "--on-absence",
        choices=("resend", "hold"),
        default="resend",
        help="what to do with an order in doubt that KK's list does not show: send it again, or ask a human",
    )
    parser.add_argument("--yes", action="store_true", help="do not ask")
    parser.add_argument("--show", type=whole, default=100, metavar="N", help="orders in the table (100)")
    parser.add_argument("--json", action="store_true", help="one order a line, the summary in the last")
    add_ledger_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Send; the exit status is 0 when all is delivered, 1 when not, 2 when nothing was sent."""
    return run_command("kk send", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    log = StderrLog("kk send")
    with closing(read_file(arguments, log)) as spool:
        require_own_ledger(arguments)
        hook, ledger = open_ledger_of(arguments, create=True, threads=_IN_FLIGHT, log=log)
        with closing(ledger):
            if not arguments.yes:
                _ask(arguments, spool, hook, ledger, log)
            return _send(arguments, spool, hook, ledger, log)


def _ask(
    arguments: argparse.Namespace, spool: Spool, hook: KKHook, ledger: SqlLedger, log: StderrLog
) -> None:
    from airflow_provider_kk.delivery.log import count_orders
    from airflow_provider_kk.delivery.run_queue import RunQueue
    from airflow_provider_kk.sync.load_orders import enqueue_orders

    run_queue, known = RunQueue(), Known(hook.settings, ledger, "")
    enqueue_orders(
        run_queue,
        spool,
        dict(arguments.columns),
        log,
        api_version=hook.settings.api_version,
        defaults=dict(arguments.default),
        duplicate_rows=arguments.duplicate_rows,
    )
    planned = planned_with(known, run_queue)
    print_plan(run_queue, planned, known, most=arguments.show, file=sys.stderr)
    number = planned.summary.postponed
    number = number if arguments.limit is None else min(number, arguments.limit)
    if number:
        confirm([], f"Send {count_orders(number)}?", yes=False)


# Sending -------------------------------------------------------------------------------------------


def _send(
    arguments: argparse.Namespace, spool: Spool, hook: KKHook, ledger: SqlLedger, log: StderrLog
) -> int:
    from sqlalchemy.exc import DBAPIError

    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.reconcile import Policy
    from airflow_provider_kk.delivery.run_queue import RunQueue
    from airflow_provider_kk.delivery.sql.driver_errors import describe_error
    from airflow_provider_kk.sync.delivery import Delivery
    from airflow_provider_kk.sync.load_orders import enqueue_orders

    stop, run_queue = Stop(), RunQueue()
    with _stopping(stop):
        delivery = Delivery(
            hook=hook,
            ledger=ledger,
            run_queue=run_queue,
            origin=_origin(arguments.file, ledger),
            stop=stop,
            policy=Policy(arguments.on_absence),
            log=log,
            max_in_flight=_IN_FLIGHT,
        )
        if arguments.limit is not None:
            # It is for each call, while a sync's is for all tries of a task.
            delivery.max_sent = arguments.limit + delivery.runs.sent(delivery.run)
        enqueue_orders(
            run_queue,
            spool,
            dict(arguments.columns),
            log,
            delivery,
            api_version=hook.settings.api_version,
            defaults=dict(arguments.default),
            duplicate_rows=arguments.duplicate_rows,
        )
        try:
            return _deliver(arguments, delivery)
        except DBAPIError as error:
            log.error(
                "the ledger's database cannot be used: %s. The same command goes on", describe_error(error)
            )
            return 1


def _deliver(arguments: argparse.Namespace, delivery: Delivery) -> int:
    from airflow_provider_kk.sync.failure_policy import task_failure

    summary, failure = delivery.carry_out()
    trouble = task_failure(delivery, summary, max_rejected=0, changes_fail=True) or _undelivered(summary)
    delivery.end("failed" if failure or trouble else "done", summary)
    _print(delivery, summary, arguments)
    if failure is not None:
        raise failure
    if trouble is not None:
        print_line(f"kk send: {trouble}", file=sys.stderr)
    return 1 if trouble else 0


def _undelivered(summary: Summary) -> str | None:
    """Say what is not delivered, though that is no news, which alone would fail a sync."""
    from airflow_provider_kk.delivery.log import count_orders
    from airflow_provider_kk.sync.plan import PROBLEMS

    counts = {status: getattr(summary, status.value) for status in PROBLEMS}
    parts = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return f"{count_orders(sum(counts.values()))} not delivered, as before: {parts}" if parts else None


def _origin(file: str, ledger: SqlLedger) -> Origin:
    """Who sends: this file's content is one sync, until it has come through, however often it is tried."""
    from dataclasses import replace

    from airflow_provider_kk.delivery.model import Origin

    with open(file, "rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    try:
        login = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        login = ""
    origin = Origin(run_id=f"kk send {digest[:16]}", task_id=login)
    before = ledger.storage.newest_run(origin)
    tries = 0 if before is None or before.state == "done" else before.try_number
    return replace(origin, try_number=tries + 1)


@contextmanager
def _stopping(stop: Stop) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the sending as a task's stop does; a second one ends the waiting too."""

    def handle(number: int, _frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set(f"{signal.Signals(number).name} came")
        with suppress(OSError):
            # Printing is not safe in here: the interrupted code may be in the middle of it.
            os.write(2, b"\nkk send: nothing new is sent; what is in flight is recorded ...\n")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# What is shown -------------------------------------------------------------------------------------


def _print(delivery: Delivery, summary: Any, arguments: argparse.Namespace) -> None:
    from airflow_provider_kk.delivery.log import count_orders
    from airflow_provider_kk.delivery.run_queue import RunStatus
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
        print_line(f"and {more:,} more: --json shows them")
