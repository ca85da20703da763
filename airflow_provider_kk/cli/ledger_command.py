"""`kk ledger`: list, show, resolve and retry what the ledger knows of each order number."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING

from airflow_provider_kk.cli import resolve
from airflow_provider_kk.cli.common import (
    CommandError,
    add_ledger_options,
    duration,
    open_ledger_of,
    print_line,
    read_ledger_of,
    run_command,
    table,
    warn_of_pause,
    whole,
    write_raw,
)
from airflow_provider_kk.cli.outcomes import as_columns
from airflow_provider_kk.cli.resolve import find_key, why
from airflow_provider_kk.delivery.log import utc
from airflow_provider_kk.sync.record_types import ORDERS, REFUNDS, RecordType
from airflow_provider_kk.sync.resolution import newest

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Attempt, Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.delivery.states import State
    from airflow_provider_kk.hooks.kk import KKHook

_EPILOG = """\
The first sync creates the ledger; these commands do not. `list` and `show` change
nothing.

  kk ledger list --state held --older-than 2h
  kk ledger show A-1001
  kk ledger resolve A-1001 --never-created --why "KK's support: never arrived"
  kk ledger retry --code 40010 --why "restocked"

Exit status:
  0  done
  1  not done, or not for each order
  2  wrong arguments, no connection, no ledger, or the request to KK failed"""
#: The states of `kk ledger list` without --state.
_OPEN = ("held", "in_doubt", "sending", "rejected", "invalid", "not_sent")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list`, `show`, `resolve`, `retry` and `ddl`."""
    parser.epilog = _EPILOG
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="list orders, by default those that are not created")
    listing.add_argument("--state", action="append", help="only this state, or 'all'; may be repeated")
    listing.add_argument("--code", type=int, help="only orders for which KK returned this code")
    listing.add_argument(
        "--older-than", type=duration, metavar="TIME", help="only orders unchanged for 30m, 2h, 3d, ..."
    )
    listing.add_argument(
        "--newer-than", type=duration, metavar="TIME", help="only orders changed in the last 30m, 2h, 3d, ..."
    )
    listing.add_argument(
        "--limit", type=whole, default=200, metavar="N", help="at most N orders (default: 200)"
    )
    listing.add_argument("--json", action="store_true", help="print one JSON object per line")
    add_ledger_options(listing)

    show = actions.add_parser("show", help="show one order with all its attempts")
    show.add_argument("number", help="order number, or one of its kkOrderIds")
    show.add_argument("--json", action="store_true", help="print one JSON object")
    add_ledger_options(show)

    resolve_parser = actions.add_parser(
        "resolve", help="decide what became of orders, or order them once more"
    )
    resolve.add_arguments(resolve_parser)
    retrying = actions.add_parser("retry", help="end the back-off of rejected orders")
    resolve.add_retry_arguments(retrying)

    for parser_of_rows in (listing, show, resolve_parser, retrying):
        parser_of_rows.add_argument(
            REFUNDS.option,
            dest="record_type",
            action="store_const",
            const=REFUNDS,
            default=ORDERS,
            help="refunds, by their keys, instead of orders",
        )

    ddl = actions.add_parser("ddl", help="print the statements that create the ledger's tables")
    ddl.add_argument(
        "--dialect",
        choices=("postgresql", "sqlite", "mysql"),
        default="postgresql",
        help="default: postgresql",
    )
    ddl.add_argument(
        "--status",
        action="store_true",
        help="instead, the tables of SyncOrderStatusOperator in the warehouse",
    )
    ddl.add_argument(
        "--table-prefix",
        default="kk_",
        metavar="PREFIX",
        help="with --status: prefix of the names (default: kk_)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run an action; the exit status is 1 when it is not done, 2 when the ledger or KK cannot be asked."""
    return run_command("kk ledger", lambda: _run(arguments), failed=1)


def _run(arguments: argparse.Namespace) -> int:
    if arguments.action == "ddl":
        write_raw(_ddl(arguments).removesuffix("\n"))
        return 0
    only_reads = arguments.action in ("list", "show")
    hook, ledger = (read_ledger_of if only_reads else open_ledger_of)(arguments)
    actions = {"list": _list, "show": _show, "resolve": resolve.run, "retry": resolve.run_retry}
    return actions[arguments.action](arguments, hook, arguments.record_type.ledger(ledger))


def _ddl(arguments: argparse.Namespace) -> str:
    from airflow_provider_kk.delivery.sql import tables
    from airflow_provider_kk.warehouse import status_tables

    if not arguments.status:
        return tables.ddl(arguments.dialect)
    try:
        return status_tables.ddl(arguments.dialect, arguments.table_prefix)
    except ValueError as error:
        raise CommandError(str(error)) from error


def _list(arguments: argparse.Namespace, hook: KKHook, ledger: SqlLedger) -> int:
    from airflow_provider_kk.delivery.states import State

    warn_of_pause(ledger)
    names = arguments.state or _OPEN
    unknown = set(names) - {"all"} - {state.value for state in State}
    if unknown:
        known = ", ".join(state.value for state in State)
        raise CommandError(
            f"--state {', '.join(sorted(unknown))} does not exist. Give one of {known}, or all"
        )
    states = list(State) if "all" in names else [State(name) for name in names]
    found = _found(arguments, ledger, states)
    entries = found[: arguments.limit]
    if arguments.json:
        for entry in entries:
            write_raw(json.dumps(as_columns(entry, ledger)))
        return 0
    rows = [
        [one.key, one.state.value, ",".join(one.kk_order_ids), utc(one.updated_at), why(one)]
        for one in entries
    ]
    record_type: RecordType = arguments.record_type
    table([record_type.key, "state", record_type.ids, "since", "reason"], rows, wrapped=True)
    more = "" if len(found) == len(entries) else ". There are more: give a larger --limit"
    print_line(f"{record_type.count(len(entries))} of account {ledger.account} at {ledger.host}{more}")
    _print_clocks(entries, hook, ledger)
    return 0


def _print_clocks(entries: Iterable[Record], hook: KKHook, ledger: SqlLedger) -> None:
    """Print which clock is off, where an order waits for it."""
    from airflow_provider_kk.api.errors import KKError
    from airflow_provider_kk.delivery.clock import describe_clocks
    from airflow_provider_kk.delivery.states import DOUBTFUL

    if not any(entry.state in DOUBTFUL for entry in entries):
        return
    database_s = ledger.now() - ledger.clock.wall() if ledger.storage.has_own_clock else None
    with hook.client(hook.settings.local_bucket()) as client:
        try:
            client.list_orders(page_size=1)
        except KKError as error:
            print_line(f"KK's clock cannot be read: {error}")
        if text := describe_clocks(database_s, client.clock_skew_s):
            print_line(text)


def _found(arguments: argparse.Namespace, ledger: SqlLedger, states: list[State]) -> list[Record]:
    """Return the rows that match, one more than the limit when there are more."""
    is_filtered = any(one is not None for one in (arguments.code, arguments.older_than, arguments.newer_than))
    found = ledger.entries(states=states, limit=None if is_filtered else arguments.limit + 1)
    if arguments.code is not None:
        found = [one for one in found if one.code == arguments.code]
    if arguments.older_than is not None:
        before = ledger.now() - arguments.older_than
        found = [one for one in found if one.updated_at <= before]
    if arguments.newer_than is not None:
        after = ledger.now() - arguments.newer_than
        found = [one for one in found if one.updated_at >= after]
    return newest(found, ledger)


def _show(arguments: argparse.Namespace, hook: KKHook, ledger: SqlLedger) -> int:
    key = find_key(arguments.number, ledger)
    if key is None:
        raise CommandError(f"{arguments.number} is not in the ledger of {ledger.account} at {ledger.host}")
    generations, attempts = ledger.generations(key), ledger.attempts([key])
    if arguments.json:
        text = {
            "generations": [as_columns(one, ledger) for one in generations],
            "attempts": [as_columns(one, ledger) for one in attempts],
        }
        write_raw(json.dumps(text))
        return 0
    for entry in generations:
        _print_entry(entry)
        mine = [one for one in attempts if one.generation == entry.generation]
        head = ["attempt", "sent", "outcome", "kkOrderIds", "by", "KK's answer"]
        table(head, [_row(one) for one in mine], wrapped=True)
    if arguments.record_type is ORDERS:
        _print_refunds(generations, ledger)
    _print_commands(generations[-1], arguments)
    _print_clocks(generations[-1:], hook, ledger)
    return 0


def _print_entry(entry: Record) -> None:
    again = f", generation {entry.generation}" if entry.generation > 1 else ""
    print_line(f"{entry.key}{again}: {entry.state.value.replace('_', ' ')}")
    retry_after = utc(entry.retry_after) or "now, after kk ledger retry"
    facts = {
        "kkOrderIds": ", ".join(entry.kk_order_ids),
        "goods": ", ".join(f"{quantity} x {sku}" for sku, quantity in entry.content.goods.items()),
        "country": entry.content.country,
        "reason": entry.message,
        "KK's code": "" if entry.code is None else str(entry.code),
        "reconciled after": utc(entry.settle_after) if entry.state.value in ("sending", "in_doubt") else "",
        "retry after": retry_after if entry.state.value == "rejected" else "",
        "resolved by": entry.resolved_by,
    }
    for name, value in facts.items():
        if value:
            print_line(f"  {name}: {value}")


def _print_refunds(generations: Iterable[Record], ledger: SqlLedger) -> None:
    """Print what became of the refunds of whole orders: a cancelled order stays created."""
    from airflow_provider_kk.delivery.refunds import refund_key
    from airflow_provider_kk.delivery.sql.storage import refund_ledger

    keys = [refund_key(kk_id, None) for one in generations for kk_id in one.kk_order_ids]
    for key, refund in refund_ledger(ledger).look_up(keys).items():
        print_line(f"refund {key}: {refund.state.value.replace('_', ' ')} {', '.join(refund.kk_order_ids)}")


def _row(attempt: Attempt) -> list[str]:
    task = "/".join(part for part in (attempt.dag_id, attempt.run_id, attempt.task_id) if part)
    code = "" if attempt.code is None else f"code {attempt.code} "
    return [
        str(attempt.attempt),
        utc(attempt.intent_at),
        attempt.outcome or "not recorded",
        ",".join(attempt.kk_order_ids),
        f"{task} try {attempt.try_number}",
        f"{code}{attempt.message}",
    ]


def _print_commands(entry: Record, arguments: argparse.Namespace) -> None:
    from airflow_provider_kk.sync.record_types import resolve_commands

    kind, options = arguments.record_type, _ledger_options(arguments)
    ways = resolve_commands(entry.key, entry.state, entry.kk_order_ids, kind, options=options)
    if ways is None:
        return
    print_line(ways.first)
    for command in ways.commands:
        print_line(f"{command.when}:")
        print_line(f"  {command.line}")


def _ledger_options(arguments: argparse.Namespace) -> str:
    """Return the options of `add_ledger_options` as they were given."""
    given = {
        "--kk-conn-id": arguments.kk_conn_id if arguments.kk_conn_id != "kk_default" else None,
        "--ledger-conn-id": arguments.ledger_conn_id,
        "--warehouse-conn-id": arguments.warehouse_conn_id,
    }
    return shlex.join(part for name, value in given.items() if value for part in (name, value))
