"""`kk pause` and `kk resume`: stop all sending of an account, and allow it again."""

from __future__ import annotations

import argparse
from contextlib import closing

from airflow_provider_kk.cli.common import (
    add_ledger_options,
    open_ledger_of,
    print_line,
    run_command,
    warn_of_pause,
)
from airflow_provider_kk.cli.resolve import add_who, who_of

_EPILOG = """\
  kk pause --why "wrong query sent last year's orders"
  kk resume --why "query fixed"

A pause stops all sending of the account within seconds: in every DAG, task and
command that uses this ledger. Requests that are under way are finished and
recorded. Syncs still reconcile and read statuses, count their orders as
postponed, and succeed. Tasks that create or refund a single order fail. Retry
them after `kk resume`. The ledger keeps who paused, when and why.

Exit status:
  0  done, or it was so before
  2  wrong arguments, connection or ledger"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `kk pause` and `kk resume`."""
    parser.epilog = _EPILOG
    add_who(parser, why_required=parser.prog.endswith("pause"))
    add_ledger_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pause or resume; the exit status is 0 when it is so now."""
    work = _pause if arguments.command == "pause" else _resume
    return run_command(f"kk {arguments.command}", lambda: work(arguments))


def _pause(arguments: argparse.Namespace) -> int:
    who = who_of(arguments)
    _hook, ledger = open_ledger_of(arguments, create=True)
    with closing(ledger):
        if ledger.storage.add_pause(who, arguments.why):
            print_line(
                f"Sending of account {ledger.account} at {ledger.host} is paused. It stops within seconds. "
                "To list the orders of the last hour, run `kk ledger list --state created --newer-than 1h`. "
                "To cancel some, run `kk cancel`. To allow sending again, run `kk resume`"
            )
        else:
            warn_of_pause(ledger)
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    who = who_of(arguments)
    _hook, ledger = open_ledger_of(arguments)
    with closing(ledger):
        is_changed = ledger.storage.end_pause(who, arguments.why or "")
        state = "is allowed again" if is_changed else "was not paused"
        print_line(f"Sending of account {ledger.account} at {ledger.host} {state}")
    return 0
