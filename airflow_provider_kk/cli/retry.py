"""`kk ledger retry`: refused orders are asked for again without their pause, on a human's word."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import TYPE_CHECKING

from airflow_provider_kk.cli.common import CommandError, confirm, print_line, time
from airflow_provider_kk.cli.resolution_args import (
    add_resolution_options,
    apply_each,
    require_known,
    resolution_of,
    why,
)
from airflow_provider_kk.hooks.resolving import HAS_MOVED, ResolutionRejected, newest

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.ledger import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.hooks.resolving import Resolution


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `kk ledger retry` takes."""
    parser.add_argument("number", nargs="*", help="order numbers")
    parser.add_argument("--code", type=int, help="all that KK has refused with this code")
    parser.add_argument("--all", action="store_true", help="all that KK has refused")
    add_resolution_options(parser)


def run(arguments: argparse.Namespace, _hook: KKHook, ledger: SqlLedger) -> int:
    """Lift the pause of rejected orders; the exit status is 1 when some that were named were skipped."""
    from airflow_provider_kk.delivery.log import count_orders

    resolution = resolution_of(arguments)
    entries = _selected(arguments, ledger)
    if not entries:
        print_line("KK has refused no order that is still open: there is nothing to retry")
        return 0
    rejected = [f"{one.key}: {why(one)}" for one in entries if one.state.value == "rejected"]
    if len(rejected) > 1:
        confirm(rejected, f"Ask KK again for {count_orders(len(rejected))}?", yes=arguments.yes)
    done, skipped = apply_each(
        entries, lambda one: _lift(one, ledger, resolution), ledger, as_json=arguments.json
    )
    if not arguments.json:
        _print_what_follows(done, skipped)
    return 1 if skipped else 0


def _selected(arguments: argparse.Namespace, ledger: SqlLedger) -> list[Record]:
    from airflow_provider_kk.delivery.states import State

    ways = bool(arguments.number) + (arguments.code is not None) + arguments.all
    if ways != 1:
        raise CommandError("say which orders: their numbers, or --code CODE, or --all")
    if arguments.number:
        return require_known(arguments.number, ledger)
    rejected = newest(ledger.entries(states=[State.REJECTED]), ledger)
    if arguments.all:
        return rejected
    found = [one for one in rejected if one.code == arguments.code]
    if not found:
        codes = Counter(one.code for one in rejected)
        there_are = ", ".join(f"{code} ({count})" for code, count in codes.most_common()) or "none at all"
        raise CommandError(f"no order is rejected with code {arguments.code}; there are: {there_are}")
    return found


def _lift(entry: Record, ledger: SqlLedger, resolution: Resolution) -> str:
    if entry.state.value != "rejected":
        raise ResolutionRejected(f"{_NOT_REJECTED[entry.state.value].format(key=entry.key)}")
    if ledger.clear_backoff(entry, who=resolution.who, why=resolution.why) is None:
        raise ResolutionRejected(HAS_MOVED.format(key=entry.key))
    if entry.settle_after > ledger.now():
        return f"asked again by the next sync, once its settle window is over at {time(entry.settle_after)}"
    return "asked again by the next sync"


#: What becomes of an order that KK has not refused, by its state.
_NOT_REJECTED = {
    "in_doubt": "in doubt: KK may have it, so every sync of the account looks it up by itself and sends it "
    "again only when it is proven absent; see `kk ledger show {key}`",
    "sending": "being sent right now, or in doubt: the next sync looks it up by itself",
    "held": "held: look it up on KK's site, then `kk ledger resolve {key}`",
    "created": "created: KK has it. To order it once more: `kk ledger resolve {key} --order-again`",
    "not_sent": "not sent: the next sync that selects it sends it without more ado",
    "invalid": "invalid: mend its row; the next sync checks it anew and sends it",
}


def _print_what_follows(done: int, skipped: int) -> None:
    from airflow_provider_kk.delivery.log import count_orders

    if done:
        print_line(
            f"The next sync that selects {'it' if done == 1 else 'them'} looks at KK's list first and sends "
            "what is not there. What KK refuses again rests longer than before"
        )
    if skipped:
        print(f"{count_orders(skipped)} skipped", file=sys.stderr)
