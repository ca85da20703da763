"""`kk ledger resolve`: a human says what became of orders, or orders their numbers once more."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_kk.cli.common import CommandError, confirm, format_goods, print_line
from airflow_provider_kk.cli.resolution_args import (
    add_resolution_options,
    apply_each,
    require_known,
    resolution_of,
    why,
)
from airflow_provider_kk.hooks.resolving import (
    all_at_kk_of,
    order_again,
    orders_at_kk,
    orders_seen_at_kk,
    other_goods,
    refunds_seen_at_kk,
    require_open,
    require_other_number,
    resolve_created,
    resolve_never_created,
    split_ids,
)

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.ledger import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.hooks.resolving import Resolution


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
    """Take a human's word; the exit status is 1 when it could not be taken for each."""
    resolution = resolution_of(arguments)
    entries = require_known(arguments.number, ledger)
    _require_one_for_ids(arguments, entries)
    if arguments.refunds and (arguments.order_again or arguments.not_mine is not None):
        raise CommandError("--order-again and --not-mine are for orders: let another task ask for a refund")
    if arguments.order_again:
        return _order_again(arguments, entries, hook, ledger, resolution)
    if arguments.never_created:
        return _never(arguments, entries, hook, ledger, resolution)
    return _created(arguments, entries[0], hook, ledger, resolution)


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
    arguments: argparse.Namespace, entry: Record, hook: KKHook, ledger: SqlLedger, resolution: Resolution
) -> int:
    require_open(entry, ledger)
    ids = split_ids(arguments.created)
    if arguments.refunds:
        _check_refunds(ids, entry, hook, arguments)
    else:
        orders = orders_at_kk(ids, entry, hook, ledger)
        if (held := other_goods(orders, entry)) is not None:
            text = (
                f"{entry.key} ordered {format_goods(entry.goods)}, these KK orders hold {format_goods(held)}"
            )
            print_line(f"warning: {text}", file=sys.stderr)
            confirm([], "Take it as created all the same?", yes=arguments.yes)
    _, skipped = apply_each(
        [entry], lambda one: resolve_created(one, ids, ledger, resolution), ledger, as_json=arguments.json
    )
    return 1 if skipped else 0


def _check_refunds(ids: Sequence[str], entry: Record, hook: KKHook, arguments: argparse.Namespace) -> None:
    """Require that KK knows each of these numbers as a refund of this order."""
    from airflow_provider_kk.delivery.refunds import carries, order_of_key

    known = {one.refund_no: one for one in hook.get_refunds(order_of_key(entry.key))}
    missing = [one for one in ids if one not in known]
    if missing or not ids:
        text = ", ".join(missing) or arguments.created
        raise CommandError(f"KK lists no refund {text!r} of order {order_of_key(entry.key)}")
    if others := [one for one in ids if not carries(known[one], entry.key)]:
        print_line(f"warning: the remark of {', '.join(others)} does not hold {entry.key}", file=sys.stderr)
        confirm([], "Take it as this refund all the same?", yes=arguments.yes)


def _never(
    arguments: argparse.Namespace,
    entries: Sequence[Record],
    hook: KKHook,
    ledger: SqlLedger,
    resolution: Resolution,
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
        return resolve_never_created(one, seen[one.key], ledger, resolution, not_mine, options=options)

    _, skipped = apply_each(entries, resolve_one, ledger, as_json=arguments.json)
    return 1 if skipped else 0


def _order_again(
    arguments: argparse.Namespace,
    entries: Sequence[Record],
    hook: KKHook,
    ledger: SqlLedger,
    resolution: Resolution,
) -> int:
    _confirm_each(entries, "Order these once more?", arguments)
    at_kk = all_at_kk_of(entries, hook, ledger)
    done, skipped = apply_each(
        entries,
        lambda one: order_again(one, at_kk[one.key], ledger, resolution),
        ledger,
        as_json=arguments.json,
    )
    if done and not arguments.json:
        print_line(
            "Where the warehouse has kkOrderIds for what is ordered again, empty them: the query selects it"
        )
    return 1 if skipped else 0
