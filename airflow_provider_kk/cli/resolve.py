"""`kk ledger resolve` decides what became of orders; `kk ledger retry` ends the back-off of rejected ones.

This module has the options and messages. `sync.resolution_checks` has the conditions of each decision.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from airflow_provider_kk.cli.common import CommandError, add_ledger_options, confirm, print_line, write_raw
from airflow_provider_kk.sync.errors import ResolutionRejected
from airflow_provider_kk.sync.record_types import REFUNDS
from airflow_provider_kk.sync.resolution import (
    ResolvedBy,
    clear_backoff,
    newest,
    order_again,
    resolve_created,
    resolve_never_created,
    split_ids,
)
from airflow_provider_kk.sync.resolution_checks import (
    accepted,
    all_at_kk_of,
    require_other_number,
    require_reorder,
    shorten_waits,
)

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.sync.resolution import ResolvedBy


def add_resolution_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of every resolution."""
    add_who(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    parser.add_argument("--json", action="store_true", help="print one JSON object per order")
    add_ledger_options(parser)


def add_who(parser: argparse.ArgumentParser, *, why_required: bool = True) -> None:
    """Declare who acts, and why."""
    parser.add_argument(
        "--why", required=why_required, default=None, type=_text, help="reason, kept in the ledger"
    )
    parser.add_argument("--who", default=None, type=_text, help="your name (default: your login)")


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty. Write a text for the next person on call")
    return text.strip()


def resolved_by_of(arguments: argparse.Namespace) -> ResolvedBy:
    """Return who resolves, and why.

    :raises CommandError: when that is not known.
    """
    try:
        return ResolvedBy(arguments.who or getpass.getuser(), arguments.why or "")
    except (KeyError, OSError) as error:  # a container's user without a name
        raise CommandError("your login has no name on this machine. Give --who") from error


def why(entry: Record) -> str:
    """Return what KK or the sync reported about an order."""
    return f"code {entry.code}: {entry.message}" if entry.code is not None else entry.message


def apply_each(
    entries: Sequence[Record], act: Callable[[Record], str], ledger: SqlLedger, *, as_json: bool
) -> tuple[int, int]:
    """Apply `act` to each and print the result. Return how many were done, and how many skipped."""
    done = skipped = 0
    for entry in entries:
        try:
            message, is_done = act(entry), True
        except ResolutionRejected as error:
            message, is_done = f"skipped, {error}", False
        done, skipped = done + is_done, skipped + (not is_done)
        if as_json:
            write_raw(json.dumps({ledger.storage.jobs.key: entry.key, "done": is_done, "message": message}))
        else:
            print_line(f"{entry.key}: {message}", file=None if is_done else sys.stderr)
    return done, skipped


def find_key(text: str, ledger: SqlLedger) -> str | None:
    """Return the key of an order number or of KK's id; None when there is none."""
    from airflow_provider_kk.delivery.sql.report import Report

    found = Report(ledger.storage).find(text, limit=1)
    return found[0].key if found else None


def require_known(numbers: Sequence[str], ledger: SqlLedger) -> list[Record]:
    """Return the rows of these numbers. KK's ids do not count, since a split has several.

    :raises CommandError: names those that the ledger does not know.
    """
    wanted = list(dict.fromkeys(numbers))
    known = ledger.look_up(wanted)
    unknown = [one for one in wanted if one not in known]
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        names = ", ".join([_whose(unknown[0], ledger), *unknown[1:]])
        raise CommandError(
            f"{names} {verb} not in the ledger of {ledger.account} at {ledger.host}. "
            "Correct the number or leave it out. Nothing was done"
        )
    return [known[one] for one in wanted]


def _whose(text: str, ledger: SqlLedger) -> str:
    key = find_key(text, ledger)
    return f"{text} (KK's id of {key})" if key else text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `kk ledger resolve` takes."""
    parser.add_argument("number", nargs="+", help="order number; several, unless ids are given")
    resolution = parser.add_mutually_exclusive_group(required=True)
    resolution.add_argument(
        "--created", metavar="IDS", help="KK has the order under these kkOrderIds (comma-separated)"
    )
    resolution.add_argument(
        "--never-created",
        action="store_true",
        help="KK does not have the order: the next sync sends it. Skipped if KK lists it",
    )
    resolution.add_argument(
        "--order-again", action="store_true", help="order the same number once more, as a new generation"
    )
    parser.add_argument(
        "--not-mine",
        metavar="IDS",
        help="with --never-created: these kkOrderIds of its row belong to another order (comma-separated)",
    )
    add_resolution_options(parser)


def run(arguments: argparse.Namespace, hook: KKHook, ledger: SqlLedger) -> int:
    """Resolve the orders; the exit status is 1 when one is skipped."""
    resolved_by = resolved_by_of(arguments)
    entries = [shorten_waits(one, hook, ledger) for one in require_known(arguments.number, ledger)]
    _require_one_for_ids(arguments, entries)
    if arguments.record_type is REFUNDS and (arguments.order_again or arguments.not_mine is not None):
        raise CommandError(
            "--order-again and --not-mine are for orders only. To refund more, use another task"
        )
    prepare = _order_again if arguments.order_again else _never if arguments.never_created else _created
    act = prepare(arguments, entries, hook, ledger, resolved_by)
    done, skipped = apply_each(entries, act, ledger, as_json=arguments.json)
    if arguments.order_again and done and not arguments.json:
        print_line(
            "If the warehouse has kkOrderIds in the rows of these orders, empty them. Otherwise the query "
            "does not select the rows"
        )
    return 1 if skipped else 0


def _require_one_for_ids(arguments: argparse.Namespace, entries: Sequence[Record]) -> None:
    if arguments.not_mine is not None and not arguments.never_created:
        raise CommandError("--not-mine needs --never-created")
    with_ids = "--created" if arguments.created is not None else "--not-mine"
    if len(entries) > 1 and (arguments.created is not None or arguments.not_mine is not None):
        raise CommandError(f"{with_ids} takes only one order number, because the ids belong to one order")


def _confirm_each(entries: Sequence[Record], question: str, arguments: argparse.Namespace) -> None:
    if len(entries) > 1:
        confirm([f"{one.key}: {one.state.value} {why(one)}" for one in entries], question, yes=arguments.yes)


def _created(
    arguments: argparse.Namespace,
    entries: Sequence[Record],
    hook: KKHook,
    ledger: SqlLedger,
    resolved_by: ResolvedBy,
) -> Callable[[Record], str]:
    ids = split_ids(arguments.created)
    if doubt := arguments.record_type.doubt_created(ids, entries[0], hook, ledger):
        print_line(f"warning: {doubt}", file=sys.stderr)
        confirm([], "Resolve it as created all the same?", yes=arguments.yes)
    return lambda one: resolve_created(one, ids, ledger, resolved_by)


def _never(
    arguments: argparse.Namespace,
    entries: Sequence[Record],
    hook: KKHook,
    ledger: SqlLedger,
    resolved_by: ResolvedBy,
) -> Callable[[Record], str]:
    not_mine: list[str] = []
    if arguments.not_mine is not None:
        not_mine = split_ids(arguments.not_mine)
        require_other_number(not_mine, entries[0], hook, ledger)
    _confirm_each(entries, "Resolve these as never created at KK?", arguments)
    doubts = arguments.record_type.doubts_never_created(entries, hook, ledger, not_mine)
    return lambda one: resolve_never_created(
        one, accepted(doubts[one.key]), arguments.record_type, ledger, resolved_by, not_mine
    )


def _order_again(
    arguments: argparse.Namespace,
    entries: Sequence[Record],
    hook: KKHook,
    ledger: SqlLedger,
    resolved_by: ResolvedBy,
) -> Callable[[Record], str]:
    _confirm_each(entries, "Order all of these once more?", arguments)
    at_kk = all_at_kk_of(entries, hook, ledger)
    return lambda one: order_again(one, require_reorder(one, accepted(at_kk[one.key])), ledger, resolved_by)


def add_retry_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `kk ledger retry` takes."""
    parser.add_argument("number", nargs="*", help="order numbers")
    parser.add_argument("--code", type=int, help="all orders that KK rejected with this code")
    parser.add_argument("--all", action="store_true", help="all rejected orders")
    add_resolution_options(parser)


def run_retry(arguments: argparse.Namespace, _hook: KKHook, ledger: SqlLedger) -> int:
    """Clear the back-off of rejected orders; the exit status is 1 when some that were named were skipped."""
    from airflow_provider_kk.delivery.log import count_orders

    resolved_by = resolved_by_of(arguments)
    entries = _rejected_orders(arguments, ledger)
    if not entries:
        print_line("No order is rejected, so there is nothing to retry")
        return 0
    rejected = [f"{one.key}: {why(one)}" for one in entries if one.state.value == "rejected"]
    if len(rejected) > 1:
        confirm(rejected, f"End the back-off of {count_orders(len(rejected))}?", yes=arguments.yes)
    done, skipped = apply_each(
        entries, lambda one: clear_backoff(one, ledger, resolved_by), ledger, as_json=arguments.json
    )
    if not arguments.json:
        _print_what_follows(done, skipped)
    return 1 if skipped else 0


def _rejected_orders(arguments: argparse.Namespace, ledger: SqlLedger) -> list[Record]:
    from airflow_provider_kk.delivery.states import State

    ways = bool(arguments.number) + (arguments.code is not None) + arguments.all
    if ways != 1:
        raise CommandError("give order numbers, --code CODE or --all")
    if arguments.number:
        return require_known(arguments.number, ledger)
    rejected = newest(ledger.entries(states=[State.REJECTED]), ledger)
    if arguments.all:
        return rejected
    found = [one for one in rejected if one.code == arguments.code]
    if not found:
        codes = Counter(one.code for one in rejected)
        there_are = ", ".join(f"{code} ({count})" for code, count in codes.most_common()) or "none"
        raise CommandError(
            f"no order is rejected with code {arguments.code}. Codes of the rejected orders: {there_are}"
        )
    return found


def _print_what_follows(done: int, skipped: int) -> None:
    from airflow_provider_kk.delivery.log import count_orders

    if done:
        print_line(
            f"The next sync that selects {'it' if done == 1 else 'them'} reads KK's list first, and sends "
            "what is absent. After another rejection the back-off is longer"
        )
    if skipped:
        print(f"{count_orders(skipped)} skipped", file=sys.stderr)
