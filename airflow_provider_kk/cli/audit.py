"""`kk audit`: compare KK's list with the ledger, or check the ledger's history against the protocol."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.cli.common import (
    CommandError,
    StderrLog,
    add_ledger_options,
    duration,
    open_ledger_of,
    print_line,
    read_ledger_of,
    run_command,
    table,
    write_raw,
)
from airflow_provider_kk.cli.outcomes import as_columns
from airflow_provider_kk.delivery.log import format_goods, utc

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sync.audit import Audit, Finding

_DAY_S = 86_400.0
#: How a result is counted, where that is not its own name.
_COUNTED = {
    "agrees": "agree",
    "other_goods": "with other goods",
    "other_ids": "under other ids",
    "unnumbered": "without a number",
}
_EPILOG = """\
Lists each order number for which KK has more or fewer orders than the ledger.
With --history, checks the ledger's rows against the delivery protocol, and each
day against max_orders_per_day of the connection, without a request to KK.
Changes nothing.

  kk audit --since 2d
  kk audit --history

Exit status:
  0  all agree
  1  there are differences or broken rules
  2  KK's list or the ledger cannot be read, so there is no result"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `kk audit` takes."""
    parser.epilog = _EPILOG
    when = "a UTC time such as 2026-01-31T08:00, or an age such as 6h, 2d or 1w"
    parser.add_argument(
        "--since", metavar="TIME", help=f"begin of the period: {when} (default: a day before --until)"
    )
    parser.add_argument("--until", metavar="TIME", help="its end, likewise (default: a settle window ago)")
    parser.add_argument(
        "--history", action="store_true", help="check the ledger's own history instead of KK's list"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per line, the counts in the last"
    )
    add_ledger_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; the exit status is 0 when all agree, 1 for differences, 2 when inconclusive."""
    return run_command("kk audit", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    from airflow_provider_kk.delivery.model import InconclusiveError
    from airflow_provider_kk.hooks.ledger_connection import open_order_list
    from airflow_provider_kk.sync.audit import audit

    if arguments.history:
        return _audit_history(arguments)
    hook, ledger = open_ledger_of(arguments)
    with open_order_list(hook, ledger) as order_list:
        since, until = _period(arguments, ledger, order_list)
        try:
            result = audit(ledger, order_list, since, until, StderrLog("kk audit"))
        except InconclusiveError as error:
            raise CommandError(f"no result: {error}") from error
    _print(result, ledger, as_json=arguments.json)
    return 0 if result.agrees else 1


def _audit_history(arguments: argparse.Namespace) -> int:
    from airflow_provider_kk.sync.ledger_history import broken_rules, over_cap

    if arguments.since or arguments.until:
        raise CommandError("--history checks all orders. Leave --since and --until out")
    _hook, ledger = read_ledger_of(arguments)
    rows, checked, attempts = [], 0, 0
    for generations, posts in ledger.storage.histories():
        rows += broken_rules(generations, posts, settle_delay_s=ledger.settle_delay_s)
        checked, attempts = checked + 1, attempts + len(posts)
    if ledger.max_orders_per_day is not None:
        rows += over_cap(ledger.storage.attempts_by_time(), ledger.max_orders_per_day)
    counts = {"orders": checked, "attempts": attempts, "broken_rules": len(rows)}
    if arguments.json:
        for one in rows:
            write_raw(json.dumps(as_columns(one, ledger)))
        write_raw(json.dumps(counts))
    else:
        table(
            ["order number", "generation", "rule", "reason"],
            [[one.key, str(one.generation), one.rule.value, one.message] for one in rows],
            wrapped=True,
        )
        print_line(
            f"{checked} order numbers and {attempts} attempts of account {ledger.account} at {ledger.host}: "
            f"{len(rows) or 'no'} broken rule{'' if len(rows) == 1 else 's'}"
        )
    return 1 if rows else 0


def _period(arguments: argparse.Namespace, ledger: SqlLedger, order_list: Any) -> tuple[float, float]:
    from airflow_provider_kk.sync.audit import latest_until

    latest = latest_until(ledger, order_list)
    until = latest if arguments.until is None else _epoch("--until", arguments.until, ledger.now())
    if until > latest:
        print(
            f"kk audit: KK may still list what is newer than a settle window: this ends at {utc(latest)}",
            file=sys.stderr,
        )
        until = latest
    since = until - _DAY_S if arguments.since is None else _epoch("--since", arguments.since, ledger.now())
    if since >= until:
        raise CommandError(f"the period is empty: --since {utc(since)} must be before {utc(until)}")
    return since, until


def _epoch(option: str, text: str, now: float) -> float:
    import pendulum

    try:
        return now - duration(text)
    except argparse.ArgumentTypeError:
        pass
    try:
        return float(pendulum.parse(text, exact=False, tz="UTC").timestamp())  # type: ignore[union-attr]
    except ValueError as error:
        raise CommandError(
            f"{option} {text!r} is not a time. Write 2026-01-31T08:00, or an age such as 6h, 2d or 1w"
        ) from error


def _print(result: Audit, ledger: SqlLedger, *, as_json: bool) -> None:
    counts = {verdict.value: count for verdict, count in sorted(result.counts.items())}
    if as_json:
        for one in result.findings:
            write_raw(json.dumps(as_columns(one, ledger)))
        write_raw(json.dumps({"since": result.since, "until": result.until, "counts": counts}))
        return
    head = ["order number", "verdict", "ledger", "should have", "KK has", "kkOrderIds at KK", "reason"]
    table(head, [_row(one) for one in result.findings], wrapped=True)
    numbers = sum(count for verdict, count in counts.items() if verdict != "unnumbered")
    text = ", ".join(f"{count} {_COUNTED.get(verdict, verdict)}" for verdict, count in counts.items())
    print_line(
        f"{numbers} order numbers of account {ledger.account} at {ledger.host} "
        f"from {utc(result.since)} to {utc(result.until)}: {text or 'nothing to compare'}"
    )
    if result.findings:
        print_line(
            "To see the attempts of an order, run `kk ledger show NUMBER`. Cancel surplus orders on KK's "
            "site",
            file=sys.stderr,
        )


def _row(one: Finding) -> list[str]:
    again = f" (generation {one.generation})" if one.generation > 1 else ""
    return [
        one.key or "",
        one.verdict.value.replace("_", " "),
        one.state.replace("_", " ") + again,
        format_goods(one.should_have),
        format_goods(one.kk_has),
        ",".join(one.kk_ids),
        one.message,
    ]
