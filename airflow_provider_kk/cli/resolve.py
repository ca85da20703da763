"""`kk ledger resolve` decides what became of orders; `kk ledger retry` ends the back-off of rejected ones.

This module has the options and questions. `sync.resolution` resolves, as it does for the Orders page.
"""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_kk.cli.common import (
    CommandError,
    StderrLog,
    add_ledger_options,
    confirm,
    print_line,
    write_raw,
)
from airflow_provider_kk.sync.resolution import (
    RESOLUTIONS,
    RETRY,
    ResolutionRequest,
    ResolvedBy,
    apply_resolutions,
    newest,
    split_ids,
)

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.sync.record_types import RecordType


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


def who_of(arguments: argparse.Namespace) -> str:
    """Return the person who acts.

    :raises CommandError: when that is not known.
    """
    try:
        return str(arguments.who or getpass.getuser())
    except (KeyError, OSError) as error:  # a container's user without a name
        raise CommandError("your login has no name on this machine. Give --who") from error


def why(entry: Record) -> str:
    """Return what KK or the sync reported about an order."""
    return f"code {entry.code}: {entry.message}" if entry.code is not None else entry.message


def apply_choice(
    choice: str,
    entries: Sequence[Record],
    arguments: argparse.Namespace,
    hook: KKHook,
    ledger: SqlLedger,
    *,
    what: Sequence[str],
    question: str,
    ids: Sequence[str] = (),
) -> tuple[int, int]:
    """Confirm and resolve, and print each result when it is there. Return how many were done, and skipped.

    :param what: the lines to confirm; without any, only a doubt is asked about.
    :raises CommandError: it is not confirmed, or the user's name is not known.
    """

    def accepts(doubt: str) -> bool:
        print_line(f"warning: {doubt}", file=sys.stderr)
        confirm([], "Resolve it as created all the same?", yes=arguments.yes)
        return True

    resolved_by = ResolvedBy(who_of(arguments), arguments.why)
    versions = {one.key: one.version for one in entries}
    request = ResolutionRequest(arguments.record_type, choice, versions, tuple(ids))
    if what:
        confirm(what, question, yes=arguments.yes)
    log = StderrLog(f"kk {arguments.command}")
    done = skipped = 0
    for one in apply_resolutions(request, resolved_by, hook, ledger, accepts, log):
        message = one.message if one.is_done else f"skipped, {one.message}"
        done, skipped = done + one.is_done, skipped + (not one.is_done)
        if arguments.json:
            write_raw(json.dumps({ledger.storage.jobs.key: one.key, "done": one.is_done, "message": message}))
        else:
            print_line(f"{one.key}: {message}", file=None if one.is_done else sys.stderr)
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
        key = find_key(unknown[0], ledger)
        names = ", ".join([f"{unknown[0]} (KK's id of {key})" if key else unknown[0], *unknown[1:]])
        raise CommandError(
            f"{names} {verb} not in the ledger of {ledger.account} at {ledger.host}. "
            "Correct the number or leave it out. Nothing was done"
        )
    return [known[one] for one in wanted]


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
    entries = require_known(arguments.number, ledger)
    ids = split_ids(arguments.created or arguments.not_mine or "")
    if arguments.not_mine is not None and not (arguments.never_created and ids):
        raise CommandError("--not-mine needs --never-created, and at least one kkOrderId")
    choice = next(one for one in RESOLUTIONS if getattr(arguments, one))
    done, skipped = apply_choice(
        choice,
        entries,
        arguments,
        hook,
        ledger,
        what=[f"{one.key}: {one.state.value} {why(one)}" for one in entries] if len(entries) > 1 else [],
        question=_QUESTIONS.get(choice, ""),
        ids=ids,
    )
    if arguments.order_again and done and not arguments.json:
        print_line(
            "If the warehouse has kkOrderIds in the rows of these orders, empty them. Otherwise the query "
            "does not select the rows"
        )
    return 1 if skipped else 0


_QUESTIONS = {
    "never_created": "Resolve these as never created at KK?",
    "order_again": "Order all of these once more?",
}


def add_retry_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `kk ledger retry` takes."""
    parser.add_argument("number", nargs="*", help="order numbers")
    parser.add_argument("--code", type=int, help="all orders that KK rejected with this code")
    parser.add_argument("--all", action="store_true", help="all rejected orders")
    add_resolution_options(parser)


def run_retry(arguments: argparse.Namespace, hook: KKHook, ledger: SqlLedger) -> int:
    """Clear the back-off of rejected orders; the exit status is 1 when some that were named were skipped."""
    entries = _rejected_orders(arguments, ledger)
    if not entries:
        print_line("No order is rejected, so there is nothing to retry")
        return 0
    rejected = [f"{one.key}: {why(one)}" for one in entries if one.state.value == "rejected"]
    record_type: RecordType = arguments.record_type
    done, skipped = apply_choice(
        RETRY,
        entries,
        arguments,
        hook,
        ledger,
        what=rejected if len(rejected) > 1 else [],
        question=f"End the back-off of {record_type.count(len(rejected))}?",
    )
    if done and not arguments.json:
        print_line(
            "KK's list is read first, and only what it does not have is sent. After another rejection the "
            "back-off is longer"
        )
    if skipped and not arguments.json:
        print(f"{record_type.count(skipped)} skipped", file=sys.stderr)
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
