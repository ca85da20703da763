"""`kk cancel`: cancel orders at KK before they ship."""

from __future__ import annotations

import argparse
from contextlib import closing

from airflow_provider_kk.cli.common import open_ledger_of, print_line, run_command
from airflow_provider_kk.cli.resolve import add_resolution_options, apply_choice, require_known
from airflow_provider_kk.sync.record_types import ORDERS
from airflow_provider_kk.sync.resolution import CANCEL

_EPILOG = """\
  kk cancel A-1001 --why "bought twice"

KK cancels an order by a refund, and only before it ships. The refund is requested
exactly once, even if this command is killed and repeated. KK decides within a
day, usually within an hour. To see the refund, run `kk ledger show NUMBER`.
No sync sends a cancelled order again. To order it once more, run
`kk ledger resolve NUMBER --order-again`.

Exit status:
  0  KK has the refund of each order
  1  KK does not have the refund of some orders
  2  wrong arguments, connection or ledger"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `kk cancel`."""
    parser.epilog = _EPILOG
    parser.add_argument("number", nargs="+", metavar="NUMBER", help="order numbers")
    parser.set_defaults(record_type=ORDERS)
    add_resolution_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; the exit status is 0 when KK has the refund of each order."""
    return run_command("kk cancel", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from airflow_provider_kk.delivery.log import format_goods

    hook, ledger = open_ledger_of(arguments)
    with closing(ledger):
        entries = require_known(arguments.number, ledger)
        what = [
            f"{one.key}: {one.state.value}, {format_goods(one.content.goods)}, {', '.join(one.kk_order_ids)}"
            for one in entries
        ]
        question = "Ask KK to refund all of these orders?"
        _done, skipped = apply_choice(CANCEL, entries, arguments, hook, ledger, what=what, question=question)
    if skipped and not arguments.json:
        print_line(f"{skipped} of {len(entries)} orders are not cancelled, for the reasons above")
    return 1 if skipped else 0
