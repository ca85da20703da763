"""`make demo`: a shop's orders go to a local KK in a real Airflow run, twice, and all is compared.

Exit codes: 0 when each order is at KK exactly as often as it must be, 1 when not, 130 and 143 when stopped.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from demo import warehouse
from demo.airflow import Airflow, AirflowError, connections
from demo.orders import ShopOrder, arm, make_orders
from demo.processes import exit_on_signals
from demo.terminal import fitting, heading, say, show_table, styled
from demo.verdict import Verdict, judge, observe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_kk.sandbox.control import SandboxControl

DAG_ID = "kk_sync_orders"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; gives the exit code."""
    arguments = _parser().parse_args(argv)
    exit_on_signals()
    begin = time.monotonic()
    try:
        with _folder(arguments.keep) as folder:
            verdict = run(folder, dict(arguments.fault), arguments.limit)
    except KeyboardInterrupt:
        say("\nStopped; nothing is left behind.")
        return 130
    _conclude(verdict, time.monotonic() - begin)
    return 0 if verdict.is_good else 1


def run(folder: Path, more_faults: dict[str, str], limit_s: float) -> Verdict:
    """All parts, in a folder of its own."""
    from airflow_provider_kk.sandbox.server import SandboxServer

    orders = make_orders()
    _introduce(orders)
    database = folder / "warehouse.db"
    warehouse.create(database, orders)
    with SandboxServer() as kk:
        for number, fault in more_faults.items():
            kk.control.arm(fault, times=1, number=number)
        arm(kk.control, orders)
        airflow = Airflow(folder / "airflow", connections(kk.url, kk.token, database))
        failed, sent_again = _run_twice(airflow, kk.control, database, limit_s)
        seen = observe(
            orders,
            warehouse.results(database),
            warehouse.ledger(database),
            kk.control.orders(),
            kk.control.requests(),
        )
    verdict = judge(orders, seen, failed_runs=failed, sent_again=sent_again)
    heading("What KK has, against what the warehouse asked for")
    show_table(verdict.lines)
    return verdict


def _run_twice(airflow: Airflow, kk: SandboxControl, database: Path, limit_s: float) -> tuple[list[str], int]:
    """Give what went wrong, and how many orders the second run sent."""
    try:
        heading("First run: airflow dags test kk_sync_orders")
        say("  Airflow is starting, that takes some seconds ...", "dim")
        airflow.migrate(limit_s)
        airflow.run_dag(DAG_ID, limit_s, _Live())
        creates = int(kk.counts()["creates"])
        say(f"  {creates} create requests came to KK.")
        heading("Second run, after the warehouse has forgotten all results, as from a restored backup")
        warehouse.forget_results(database)
        airflow.run_dag(DAG_ID, limit_s, _Live())
        sent_again = int(kk.counts()["creates"]) - creates
        say(f"  {sent_again} create requests came to KK.")
        return [], sent_again
    except AirflowError as error:
        heading("The end of Airflow's log")
        say(error.log_tail.rstrip())
        return [str(error)], 0


class _Live:
    """Shows what the provider logs, with the seconds since the run began."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __call__(self, level: str, text: str) -> None:
        style = {"warning": "yellow", "error": "red", "critical": "red"}.get(level, "")
        stamp = f"  {time.monotonic() - self._begin:5.1f} s  "
        say(styled(stamp, "dim") + styled(fitting(text, len(stamp)), style))


def _introduce(orders: Sequence[ShopOrder]) -> None:
    numbers = {order.number: order.story for order in orders}
    struck = sum(1 for story in numbers.values() if story.fault)
    bad = sum(1 for story in numbers.values() if not story.is_created)
    say(f"airflow-provider-kk on Airflow {Airflow.version()}", "bold")
    say(f"""
  A shop's SQLite warehouse holds {len(numbers)} orders; {bad} of them are invalid or something KK refuses.
  A local KK, the sandbox, takes them and loses {struck} requests or answers on the way.
  Airflow runs the example DAG kk_sync_orders on it, unchanged, then once more. In the end each good order
  must be at KK once, not twice and not never. Everything stays on this machine, and takes about 40 s.""")


def _conclude(verdict: Verdict, seconds: float) -> None:
    say()
    if verdict.is_good:
        created = sum(line.seen.creates for line in verdict.lines)
        say(f"GOOD: {created} good orders are at KK once each, the second run sent nothing.", "green")
        say(f"It took {seconds:.0f} s.")
        say("Next: `make ui` for the same in Airflow's UI, docs/tutorial.md for a first DAG of your own.")
        return
    say("BAD:", "red")
    for fault in verdict.faults:
        say(f"  {fault}", "red")
    say("Look closer: `make demo ARGS=--keep` leaves warehouse, ledger and logs in place.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make demo ARGS=...", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the folder with all data in place")
    parser.add_argument("--limit", type=float, default=120, metavar="SECONDS", help="of each run (120)")
    parser.add_argument(
        "--fault",
        type=_fault,
        action="append",
        default=[],
        metavar="NUMBER=KIND",
        help="let an order suffer another of the sandbox's faults; duplicate_by_proxy must end in BAD",
    )
    return parser


def _fault(text: str) -> tuple[str, str]:
    from airflow_provider_kk.sandbox.faults import FAULTS

    number, _, kind = text.partition("=")
    if kind not in FAULTS:
        raise argparse.ArgumentTypeError(f"is NUMBER=KIND, with one of: {', '.join(FAULTS)}")
    return number, kind


@contextmanager
def _folder(keep: bool) -> Iterator[Path]:
    if keep:
        folder = tempfile.mkdtemp(prefix="kk-demo-")
        say(f"Everything is kept in {folder}\n")
        yield Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="kk-demo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


if __name__ == "__main__":
    sys.exit(main())
