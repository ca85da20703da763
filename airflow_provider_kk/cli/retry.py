"""`kk ledger retry`: let rejected orders be sent without their back-off."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from typing import TYPE_CHECKING

from airflow_provider_kk.cli.common import CommandError, confirm, print_line
from airflow_provider_kk.cli.resolution_args import (
    add_resolution_options,
    apply_each,
    require_known,
    resolved_by_of,
    why,
)
from airflow_provider_kk.sync.resolution import clear_backoff, newest

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `kk ledger retry` takes."""
    parser.add_argument("number", nargs="*", help="order numbers")
    parser.add_argument("--code", type=int, help="all that KK has refused with this code")
    parser.add_argument("--all", action="store_true", help="all that KK has refused")
    add_resolution_options(parser)


def run(arguments: argparse.Namespace, _hook: KKHook, ledger: SqlLedger) -> int:
    """Lift the pause of rejected orders; the exit status is 1 when some that were named were skipped."""
    from airflow_provider_kk.delivery.log import count_orders

    resolved_by = resolved_by_of(arguments)
    entries = _selected(arguments, ledger)
    if not entries:
        print_line("KK has refused no order that is still open: there is nothing to retry")
        return 0
    rejected = [f"{one.key}: {why(one)}" for one in entries if one.state.value == "rejected"]
    if len(rejected) > 1:
        confirm(rejected, f"Ask KK again for {count_orders(len(rejected))}?", yes=arguments.yes)
    done, skipped = apply_each(
        entries, lambda one: clear_backoff(one, ledger, resolved_by), ledger, as_json=arguments.json
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


def _print_what_follows(done: int, skipped: int) -> None:
    from airflow_provider_kk.delivery.log import count_orders

    if done:
        print_line(
            f"The next sync that selects {'it' if done == 1 else 'them'} looks at KK's list first and sends "
            "what is not there. What KK refuses again rests longer than before"
        )
    if skipped:
        print(f"{count_orders(skipped)} skipped", file=sys.stderr)
