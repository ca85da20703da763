"""`kk`: the command line. Only the module of the command that was asked for is imported.

A command is a module with `add_arguments(parser)` and `run(arguments) -> int` (the exit status).
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import NoReturn

from airflow_provider_kk import __version__

# name: what it does, and its module
COMMANDS: dict[str, tuple[str, str]] = {
    "check": ("preview what would be sent from a file or a query", "airflow_provider_kk.cli.check"),
    "send": ("send the orders in a file or a query to KK, each exactly once", "airflow_provider_kk.cli.send"),
    "cancel": ("cancel orders at KK before they ship", "airflow_provider_kk.cli.cancel"),
    "pause": ("stop all sending of the account", "airflow_provider_kk.cli.pause"),
    "resume": ("allow sending after kk pause", "airflow_provider_kk.cli.pause"),
    "audit": ("compare KK's list of orders with the ledger", "airflow_provider_kk.cli.audit"),
    "ledger": (
        "list, show, resolve and retry orders in the ledger",
        "airflow_provider_kk.cli.ledger_command",
    ),
    "sandbox": ("run a local KK for demos and tests", "airflow_provider_kk.sandbox.command"),
}


class _Parser(argparse.ArgumentParser):
    """A parser that proposes what a mistyped command or option may have meant."""

    def error(self, message: str) -> NoReturn:
        """Print the usage, what is wrong and the nearest name; then exit."""
        wrong = re.search(r"invalid choice: '([^']*)'|unrecognized arguments: (.*)", message)
        given = (wrong[1] or wrong[2]).split() if wrong else []
        known = list(_names(self))
        found = [near for name in given for near in get_close_matches(name.partition("=")[0], known, n=1)]
        super().error(message + (f". Did you mean {' '.join(found)}?" if found else ""))


def _names(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield what may be given to a parser, and to the commands below it."""
    for action in parser._actions:
        yield from action.option_strings or map(str, action.choices or ())
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _names(below)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console script; return 0 when done, 2 for wrong arguments, else the command's exit status."""
    # Without this, Airflow 3 shows a console script no connections of its metadata database.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    words = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(prog="kk", description="Send warehouse orders to KK, each exactly once.")
    parser.add_argument("--version", action="version", version=f"airflow-provider-kk {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    parsers = {
        name: subparsers.add_parser(
            name,
            help=does,
            description=f"{does[0].upper()}{does[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        for name, (does, _module) in COMMANDS.items()
    }
    if words and words[0] in parsers:
        command = import_module(COMMANDS[words[0]][1])
        command.add_arguments(parsers[words[0]])
    arguments = parser.parse_args(words)
    try:
        return int(command.run(arguments))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
