"""`kk ledger resolve`: decide what became of orders, or order their numbers once more."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_kk.cli.common import CommandError, confirm, print_line
from airflow_provider_kk.cli.resolution_args import (
    add_resolution_options,
    apply_each,
    require_known,
    resolved_by_of,
    why,
)
from airflow_provider_kk.sync.resolution import (
    all_at_kk_of,
    bound_waits,
    doubt_of_orders,
    doubt_of_refunds,
    order_again,
    orders_seen_at_kk,
    refunds_seen_at_kk,
    require_other_number,
    resolve_created,
    resolve_never_created,
    split_ids,
)

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.sync.resolution import ResolvedBy


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `kk ledger resolve` takes."""
    parser.add_argument("number", nargs="+", help="the order number; several where no ids are given")
    resolution = parser.add_mutually_exclusive_group(required=True)
    resolution.add_argument(
        "--created", metavar="IDS", help="KK has it, under these kkOrderIds (comma separated)"
    )
    resolution.add_argument(
        "--never-created",
        action="store_true",
        help="KK never made it: the next sync sends it again; refused when KK lists it by now",
    )
    resolution.add_argument(
        "--order-again", action="store_true", help="order the same number once more, as a new generation"
    )
    parser.add_argument(
        "--not-mine",
        metavar="IDS",
        help="with --never-created: these kkOrderIds in its row are another order's (comma separated)",
    )
    add_resolution_options(parser)


def run(arguments: argparse.Namespace, hook: KKHook, ledger: SqlLedger) -> int:
    """Resolve the orders; the exit status is 1 when one is skipped."""
    resolved_by = resolved_by_of(arguments)
    entries = [bound_waits(one, hook, ledger) for one in require_known(arguments.number, ledger)]
    _require_one_for_ids(arguments, entries)
    if arguments.refunds and (arguments.order_again or arguments.not_mine is not None):
        raise CommandError("--order-again and --not-mine are for orders: let another task ask for a refund")
    if arguments.order_again:
        return _order_again(arguments, entries, hook, ledger, resolved_by)
    if arguments.never_created:
        return _never(arguments, entries, hook, ledger, resolved_by)
    return _created(arguments, entries[0], hook, ledger, resolved_by)


def _require_one_for_ids(arguments: argparse.Namespace, entries: Sequence[Record]) -> None:
    if arguments.not_mine is not None and not arguments.never_created:
        raise CommandError("--not-mine goes with --never-created")
    with_ids = "--created" if arguments.created is not None else "--not-mine"
    if len(entries) > 1 and (arguments.created is not None or arguments.not_mine is not None):
        raise CommandError(f"{with_ids} takes one order number: the ids are of one order")


def _confirm_each(entries: Sequence[Record], question: str, arguments: argparse.Namespace) -> None:
    if len(entries) > 1:
        confirm([f"{one.key}: {one.state.value} {why(one)}" for one in entries], question, yes=arguments.yes)


def _created(
    arguments: argparse.Namespace, entry: Record, hook: KKHook, ledger: SqlLedger, resolved_by: ResolvedBy
) -> int:
    ids = split_ids(arguments.created)
    check = doubt_of_refunds if arguments.refunds else doubt_of_orders
    if doubt := check(ids, entry, hook, ledger):
        print_line(f"warning: {doubt}", file=sys.stderr)
        confirm([], "Take it as created all the same?", yes=arguments.yes)
    _, skipped = apply_each(
        [entry], lambda one: resolve_created(one, ids, ledger, resolved_by), ledger, as_json=arguments.json
    )
    return 1 if skipped else 0


def _never(
    arguments: argparse.Namespace,
    entries: Sequence[Record],
    hook: KKHook,
    ledger: SqlLedger,
    resolved_by: ResolvedBy,
) -> int:
    not_mine: list[str] = []
    if arguments.not_mine is not None:
        not_mine = split_ids(arguments.not_mine)
        require_other_number(not_mine, entries[0], hook, ledger)
    _confirm_each(entries, "Declare that KK never made these?", arguments)
    if arguments.refunds:
        seen, options = refunds_seen_at_kk(entries, hook, ledger), "--refunds"
    else:
        seen, options = orders_seen_at_kk(entries, hook, ledger, not_mine), ""

    def resolve_one(one: Record) -> str:
        return resolve_never_created(one, seen[one.key], ledger, resolved_by, not_mine, options=options)

    _, skipped = apply_each(entries, resolve_one, ledger, as_json=arguments.json)
    return 1 if skipped else 0


def _order_again(
    arguments: argparse.Namespace,
    entries: Sequence[Record],
    hook: KKHook,
    ledger: SqlLedger,
    resolved_by: ResolvedBy,
) -> int:
    _confirm_each(entries, "Order these once more?", arguments)
    at_kk = all_at_kk_of(entries, hook, ledger)
    done, skipped = apply_each(
        entries,
        lambda one: order_again(one, at_kk[one.key], ledger, resolved_by),
        ledger,
        as_json=arguments.json,
    )
    if done and not arguments.json:
        print_line(
            "Where the warehouse has kkOrderIds for what is ordered again, empty them: the query selects it"
        )
    return 1 if skipped else 0
