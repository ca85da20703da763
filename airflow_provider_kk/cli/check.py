"""`kk check`: preview what would become of the orders in a file or a query. Sends and changes nothing."""

from __future__ import annotations

import argparse
import json
import logging
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_provider_kk.cli.common import (
    KK_CONN_ID,
    CommandError,
    StderrLog,
    add_guard_options,
    add_ledger_options,
    add_output_options,
    connection_to,
    guards_of,
    ledger_connection,
    print_line,
    quiet_airflow,
    run_command,
    write_raw,
)
from airflow_provider_kk.cli.outcomes import as_data, print_counts, print_json, print_problems, print_samples
from airflow_provider_kk.cli.source import FILES, add_source_options, enqueue_source, read_source
from airflow_provider_kk.delivery.log import count_orders
from airflow_provider_kk.delivery.run_queue import RunQueue, RunResult, RunStatus, format_duration

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.connection import ConnectionSettings
    from airflow_provider_kk.sync.guards import Prices
    from airflow_provider_kk.sync.plan import Plan

_EPILOG = f"""\
{FILES}

  kk check orders.csv
  kk check orders.csv --columns custom_order_number=ORDER_NO --ledger ledger
  kk check --sql 'SELECT ...' --warehouse warehouse --json

Sends no order. It requests only prices of KK, for --max-order-value and
--max-run-value. Without a kk connection or a ledger the orders are checked, too,
and the output lists what is unknown.

Exit status:
  0  every order would be sent, or is created already
  1  some would not be sent: rejected, invalid, held, changed or in doubt
  2  no result: wrong arguments, file, columns or connection"""
#: The bucket that KK documents, where no connection sets another one.
_BURST, _PER_SECOND = 120, 2.0
#: What a status of a plan is in words.
OUTCOMES = {
    "postponed": "would be sent",
    "already_created": "created already, nothing to do",
    "changed": "changed: created with other goods or another address, not sent",
    "rejected": "rejected by KK before: not sent until their back-off ends",
    "in_doubt": "in doubt: reconciled with KK's list before anything is sent",
    "held": "held: resolve them by `kk ledger resolve`",
    "not_sent": "not sent, because a guard stops the run",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `kk check`."""
    parser.epilog = _EPILOG
    add_source_options(parser)
    add_output_options(parser)
    parser.add_argument(
        "--bodies",
        action="store_true",
        help="print the exact body of each order that would be sent, with PERSONAL DATA",
    )
    add_guard_options(parser)
    add_ledger_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; the exit status is 0 when all is well, 1 for problems, 2 when it cannot check."""
    return run_command("kk check", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    run_queue, log = RunQueue(), StderrLog("kk check")
    known = what_is_known(arguments)
    if arguments.bodies and known.settings is None:
        raise CommandError(
            "--bodies needs the kk connection, because its api_version decides the names of the fields"
        )
    api_version = known.settings.api_version if known.settings else None
    with closing(read_source(arguments, log)) as spool:
        warned = enqueue_source(arguments, spool, run_queue, log, api_version=api_version)
    planned = planned_with(arguments, known, run_queue)
    if arguments.json:
        _print_json(run_queue, planned, known, warned, with_bodies=arguments.bodies)
    else:
        print_plan(run_queue, planned, known, most=arguments.show)
        if warned:
            print_line(f"{count_orders(warned)} with a warning, see above.")
        if planned.summary.postponed and not planned.obstacle:
            print_line("To send the orders that would be sent, run `kk send` with the same arguments.")
        if not arguments.bodies:
            print_samples(run_queue)
        else:
            _print_bodies(run_queue, known.settings)
    return 0 if planned.is_good else 1


# What is known ---------------------------------------------------------------------------------------


class Known(NamedTuple):
    """The facts that a plan can be made with; `note` describes the missing ones."""

    settings: ConnectionSettings | None
    ledger: SqlLedger | None
    note: str


def what_is_known(arguments: argparse.Namespace) -> Known:
    """Find the kk connection and the ledger, as far as there are any.

    :raises CommandError: when one that was named cannot be used.
    """
    from airflow_provider_kk.delivery.model import LedgerUnusableError
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.hooks.ledger_connection import ledger_to_read

    is_named = arguments.kk_conn_id != KK_CONN_ID or arguments.ledger_conn_id is not None
    hook = KKHook(arguments.kk_conn_id)
    try:
        # Without a metadata database Airflow 2.11 logs that at length, and a file needs none.
        with quiet_airflow(logging.INFO if is_named else logging.ERROR):
            connection_to(arguments.kk_conn_id)
    except CommandError:
        if is_named:
            raise
        return Known(None, None, f"There is no connection {KK_CONN_ID!r}, so {_UNKNOWN}")
    settings = hook.settings
    try:
        connection = ledger_connection(arguments, hook)
    except LedgerUnusableError as error:
        return Known(settings, None, f"{error} Until then {_UNKNOWN}")
    if connection is None:
        return Known(settings, None, f"No ledger is given (--ledger), so {_UNKNOWN}")
    ledger = ledger_to_read(connection, hook)
    return Known(settings, ledger, "" if ledger else f"The ledger does not exist yet, so {_UNKNOWN}")


_UNKNOWN = "it is unknown which orders are created already"


def planned_with(
    arguments: argparse.Namespace,
    known: Known,
    run_queue: RunQueue,
    *,
    limit: int | None = None,
    prices: Prices | None = None,
) -> Plan:
    """Plan a run queue, by what is known and with the guards of the arguments.

    :raises CommandError: prices are needed, and there is no connection to ask for them.
    :raises KKError: KK's prices cannot be read.
    """
    from airflow_provider_kk.api.throttle import LocalBucket
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.sync.plan import plan

    settings, ledger, guards = known.settings, known.ledger, guards_of(arguments)
    if settings is None:
        if guards.need_prices:
            raise CommandError(
                "--max-order-value and --max-run-value need the kk connection, to read KK's prices"
            )
        return plan(run_queue, None, LocalBucket(_BURST, _PER_SECOND), guards=guards)
    bucket = settings.shared_bucket(ledger) if ledger else settings.local_bucket()
    with KKHook(arguments.kk_conn_id).client(bucket) if guards.need_prices else nullcontext() as client:
        return plan(run_queue, ledger, bucket, guards=guards, limit=limit, client=client, prices=prices)


# What is shown ---------------------------------------------------------------------------------------


def print_plan(run_queue: RunQueue, planned: Plan, known: Known, *, most: int) -> None:
    """Print a plan for people."""
    from airflow_provider_kk.sync.plan import PROBLEMS

    summary, settings = planned.summary, known.settings
    where = f" for account {settings.account} at {settings.host}" if settings else ""
    print_line(f"{count_orders(summary.selected)}{where}:")
    print_counts(summary, OUTCOMES)
    print_problems(run_queue, PROBLEMS, most)
    print_line()
    if summary.postponed:
        burst = settings.rate_limit_burst if settings else _BURST
        per_second = settings.rate_limit_per_second if settings else _PER_SECOND
        takes = format_duration(round(summary.seconds))
        print_line(
            f"Sending takes at least {summary.requests:,} requests and {takes}, at KK's "
            f"limit of {burst:,} at once and {per_second:g} a second.",
        )
    print_line(f"{planned.guards}.")
    for note in filter(
        None, (known.note, planned.obstacle and f"Nothing would be sent for now: {planned.obstacle}")
    ):
        print_line(f"{note.removesuffix('.')}.")


def _print_json(run_queue: RunQueue, planned: Plan, known: Known, warned: int, *, with_bodies: bool) -> None:
    for one in run_queue.finished():
        body = _body(run_queue, one, known.settings) if with_bodies else None
        print_json(as_data(one) | ({"body": body} if body else {}))
    print_json(
        {
            "summary": planned.summary.as_dict(),
            "good": planned.is_good,
            "warned": warned,
            "obstacle": planned.obstacle,
            "guards": planned.guards,
            "created_is_known": known.ledger is not None,
            "note": known.note,
        }
    )


def _print_bodies(run_queue: RunQueue, settings: ConnectionSettings | None) -> None:
    for one in run_queue.finished():
        if body := _body(run_queue, one, settings):
            write_raw(f"\n{one.name}\n{json.dumps(body, ensure_ascii=False, indent=2)}")


def _body(run_queue: RunQueue, one: RunResult, settings: ConnectionSettings | None) -> dict[str, Any] | None:
    """Return the body that would be sent for an order, as the client makes it, or None."""
    from airflow_provider_kk.api.api_versions import API_VERSIONS
    from airflow_provider_kk.sync.deliver import order_of

    item = run_queue.item(one.key or "") if one.status is RunStatus.POSTPONED else None
    if item is None or settings is None:
        return None
    version = API_VERSIONS[settings.api_version]
    return version.create_body(order_of(item.payload), settings.address_key, settings.sale_platform)
