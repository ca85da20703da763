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
from airflow_provider_kk.cli.resolve import add_who, resolved_by_of

_EPILOG = """\
  kk pause --why "wrong query sent last year's orders"
  kk resume --why "query fixed"

A pause stops all sending of the account within seconds: of every DAG, task,
machine and command that uses this ledger. What KK is being asked at that moment
is finished and recorded. Syncs go on reconciling and reading statuses, count
their orders as postponed, and succeed. Tasks that create one order or refund one
fail, and a retry after `kk resume` goes on. Who, why and when stay in the ledger.
Exit status: 0 done, or it was so before; 2 wrong arguments, connection or ledger."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `kk pause` and `kk resume`."""
    parser.epilog = _EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add_who(parser, why_required=parser.prog.endswith("pause"))
    add_ledger_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Pause or resume; the exit status is 0 when it is so now."""
    work = _pause if arguments.command == "pause" else _resume
    return run_command(f"kk {arguments.command}", lambda: work(arguments))


def _pause(arguments: argparse.Namespace) -> int:
    person = resolved_by_of(arguments)
    _hook, ledger = open_ledger_of(arguments, create=True)
    with closing(ledger):
        if ledger.storage.add_pause(person.who, person.why):
            print_line(
                f"Sending of account {ledger.account} at {ledger.host} is paused until `kk resume`. Within "
                "seconds nothing more is sent. `kk ledger list --state created --newer-than 1h` lists what "
                "was bought in the last hour, `kk cancel` cancels it"
            )
        else:
            warn_of_pause(ledger)
    return 0


def _resume(arguments: argparse.Namespace) -> int:
    person = resolved_by_of(arguments)
    _hook, ledger = open_ledger_of(arguments)
    with closing(ledger):
        is_changed = ledger.storage.end_pause(person.who, person.why)
        state = "is allowed again" if is_changed else "was not paused"
        print_line(f"Sending of account {ledger.account} at {ledger.host} {state}")
    return 0
