"""`kk ledger`: what is known of each order number, and the human's last word."""

from __future__ import annotations

import argparse
import getpass
import json
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.rows import Attempt, Entry
    from airflow_provider_kk.delivery.sql_ledger import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook

#: What a human is asked about; `kk ledger list` without --state.
_OPEN = ("held", "in_doubt", "sending", "rejected", "invalid", "not_sent")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `list`, `show`, `resolve` and `ddl`."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    listing = actions.add_parser("list", help="orders that wait for something, or for somebody")
    listing.add_argument("--state", action="append", help="only this state; may be repeated; 'all' for all")
    listing.add_argument("--limit", type=int, default=200)
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    _add_place(listing)

    show = actions.add_parser("show", help="all that is known of one order number")
    show.add_argument("number", help="the order number")
    show.add_argument("--json", action="store_true")
    _add_place(show)

    resolve = actions.add_parser("resolve", help="say what became of an order, or order it again")
    resolve.add_argument("number", help="the order number")
    word = resolve.add_mutually_exclusive_group(required=True)
    word.add_argument("--created", metavar="IDS", help="KK has it, under these kkOrderIds (comma separated)")
    word.add_argument(
        "--never-created", action="store_true", help="KK never made it: the next sync sends it again"
    )
    word.add_argument(
        "--order-again", action="store_true", help="order the same number once more, as a new generation"
    )
    resolve.add_argument("--why", required=True, help="the reason, kept in the ledger")
    resolve.add_argument("--who", default=None, help="your name; the default is your login")
    _add_place(resolve)

    ddl = actions.add_parser("ddl", help="the statements that create the ledger's tables")
    ddl.add_argument("--dialect", choices=("postgresql", "sqlite", "mysql"), default="postgresql")


def run(arguments: argparse.Namespace) -> int:
    """Do it; the exit status is 1 when it could not be done."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # Airflow 2.11 logs to standard output, between the lines of `--json`
    try:
        return _run(arguments)
    finally:
        logging.disable(before)


def _run(arguments: argparse.Namespace) -> int:
    from sqlalchemy.exc import DBAPIError

    from airflow_provider_kk.delivery.database import LedgerUnusableError, told

    if arguments.action == "ddl":
        from airflow_provider_kk.delivery.tables import ddl

        print(ddl(arguments.dialect), end="")
        return 0
    try:
        hook, ledger = _open(arguments)
        return {"list": _list, "show": _show, "resolve": _resolve}[arguments.action](arguments, hook, ledger)
    except (_CannotError, LedgerUnusableError) as error:
        print(f"kk ledger: {error}", file=sys.stderr)
    except DBAPIError as error:
        print(f"kk ledger: the ledger's database cannot be used: {told(error)}", file=sys.stderr)
    return 1


class _CannotError(Exception):
    """Says why a command cannot be carried out, and what to do."""


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kk-conn-id", default="kk_default", help="the Airflow connection to KK")
    parser.add_argument("--ledger-conn-id", help="the ledger's connection, else the kk connection's")
    parser.add_argument("--warehouse-conn-id", help="the warehouse, when the ledger lives there")


def _open(arguments: argparse.Namespace) -> tuple[KKHook, SqlLedger]:
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    from airflow_provider_kk.hooks.connection import InvalidConnectionError
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.hooks.ledger import ledger_place, open_ledger

    hook = KKHook(arguments.kk_conn_id)
    try:
        place = ledger_place(hook, arguments.ledger_conn_id, arguments.warehouse_conn_id)
        if place is not None:
            return hook, open_ledger(hook, place, threads=2)
    except (AirflowNotFoundException, InvalidConnectionError) as error:
        raise _CannotError(str(error)) from error
    else:
        raise _CannotError(
            f"{arguments.kk_conn_id!r} names no ledger. Give --ledger-conn-id, or --warehouse-conn-id when "
            "the ledger lives in the warehouse"
        )


def _list(arguments: argparse.Namespace, _hook: KKHook, ledger: SqlLedger) -> int:
    from airflow_provider_kk.delivery.log import orders
    from airflow_provider_kk.delivery.states import State

    names = arguments.state or _OPEN
    unknown = set(names) - {"all"} - {state.value for state in State}
    if unknown:
        known = ", ".join(state.value for state in State)
        raise _CannotError(f"no such state: {', '.join(sorted(unknown))}; there are {known} and all")
    states = list(State) if "all" in names else [State(name) for name in names]
    entries = ledger.entries(states=states, limit=arguments.limit)
    if arguments.json:
        for entry in entries:
            print(json.dumps(_plain(entry)))
        return 0
    rows = [
        [one.key, one.state.value, ",".join(one.kk_order_ids), _time(one.updated_at), one.message]
        for one in entries
    ]
    _table(["order number", "state", "kkOrderIds", "since", "why"], rows)
    print(f"{orders(len(entries))} of account {ledger.account} at {ledger.host}")
    return 0


def _show(arguments: argparse.Namespace, _hook: KKHook, ledger: SqlLedger) -> int:
    generations = ledger.generations(arguments.number)
    if not generations:
        raise _CannotError(f"{arguments.number} is not in the ledger of {ledger.account} at {ledger.host}")
    attempts = ledger.attempts([arguments.number])
    if arguments.json:
        data = {
            "generations": [_plain(one) for one in generations],
            "attempts": [asdict(a) for a in attempts],
        }
        print(json.dumps(data))
        return 0
    for entry in generations:
        _print_entry(entry)
        mine = [one for one in attempts if one.generation == entry.generation]
        _table(["POST", "sent", "outcome", "kkOrderIds", "by", "what KK said"], [_row(one) for one in mine])
    _print_advice(generations[-1])
    return 0


def _print_entry(entry: Entry) -> None:
    again = f", generation {entry.generation}" if entry.generation > 1 else ""
    print(f"{entry.key}{again}: {entry.state.value.replace('_', ' ')}")
    facts = {
        "kkOrderIds": ", ".join(entry.kk_order_ids),
        "goods": ", ".join(f"{quantity} x {sku}" for sku, quantity in entry.goods.items()),
        "country": entry.country,
        "why": entry.message,
        "KK's code": "" if entry.code is None else str(entry.code),
        "settled after": _time(entry.settle_after) if entry.state.value in ("sending", "in_doubt") else "",
        "asked again after": _time(entry.retry_after) if entry.state.value == "rejected" else "",
        "resolved by": entry.resolved_by,
    }
    for name, value in facts.items():
        if value:
            print(f"  {name}: {value}")


def _row(attempt: Attempt) -> list[str]:
    task = "/".join(part for part in (attempt.dag_id, attempt.run_id, attempt.task_id) if part)
    code = "" if attempt.code is None else f"code {attempt.code} "
    return [
        str(attempt.attempt),
        _time(attempt.intent_at),
        attempt.outcome or "nobody came back",
        ",".join(attempt.kk_order_ids),
        f"{task} try {attempt.try_number}",
        f"{code}{attempt.message}",
    ]


def _print_advice(entry: Entry) -> None:
    if entry.state.value in ("held", "in_doubt", "sending"):
        print("Look it up on KK's site, then say what became of it:")
        print(f"  kk ledger resolve {entry.key} --created ID[,ID...] --why '...'")
        if not entry.kk_order_ids:
            never = f"kk ledger resolve {entry.key} --never-created --why '...'"
            print(f"  {never}    (the next sync sends it again)")


def _resolve(arguments: argparse.Namespace, hook: KKHook, ledger: SqlLedger) -> int:
    from airflow_provider_kk.delivery.states import Event, can_follow

    who = arguments.who or getpass.getuser()
    seen = ledger.look_up([arguments.number]).get(arguments.number)
    if seen is None:
        raise _CannotError(f"{arguments.number} is not in the ledger of {ledger.account} at {ledger.host}")
    if arguments.order_again:
        return _order_again(seen, ledger, who=who, why=arguments.why)
    event = Event.DECLARED_CREATED if arguments.created else Event.DECLARED_NEVER
    if not can_follow(seen.state, event):
        raise _CannotError(f"{seen.key} is {seen.state.value}: there is nothing to resolve")
    if seen.state.value == "sending" and seen.lease_until > ledger.now():
        raise _CannotError(f"{seen.key} is being sent right now; try again after {_time(seen.lease_until)}")
    ids = _checked_ids(arguments.created, seen, hook) if arguments.created else []
    try:
        moved = ledger.resolve(seen, event, ids=ids, who=who, why=arguments.why)
    except ValueError as error:
        raise _CannotError(str(error)) from error
    if moved is None:
        raise _CannotError(f"{seen.key} has moved meanwhile; look again with `kk ledger show {seen.key}`")
    what = f"created as {', '.join(ids)}" if ids else "never created; the next sync sends it again"
    print(f"{seen.key}: {what}")
    return 0


def _order_again(seen: Entry, ledger: SqlLedger, *, who: str, why: str) -> int:
    try:
        done = ledger.order_again(seen, who=who, why=why)
    except ValueError as error:
        raise _CannotError(str(error)) from error
    if not done:
        raise _CannotError(f"{seen.key} was ordered again by somebody else just now")
    print(f"{seen.key}: the next sync that selects it orders it once more (generation {seen.generation + 1})")
    print("If the warehouse has kkOrderIds for it, empty them, so that the query selects it")
    return 0


def _checked_ids(text: str, seen: Entry, hook: KKHook) -> list[str]:
    """Return the ids, if KK knows each of them under this order number."""
    ids = [part.strip() for part in text.split(",") if part.strip()]
    known = {order.id: order for order in hook.get_orders(ids)}
    missing = [one for one in ids if one not in known]
    if missing or not ids:
        raise _CannotError(f"KK lists no order {', '.join(missing) or text!r}")
    others = {one: known[one].custom_order_number for one in ids if not _is_of(known[one], seen.key)}
    if others:
        told = ", ".join(f"{one} is of {number or 'no number'}" for one, number in others.items())
        raise _CannotError(f"KK lists other order numbers for these ids: {told}")
    return ids


def _is_of(order: Any, key: str) -> bool:
    from airflow_provider_kk.delivery.orders import sighting

    return sighting(order).is_of(key)


def _plain(entry: Entry) -> dict[str, Any]:
    return {**asdict(entry), "state": entry.state.value}


def _time(epoch: float) -> str:
    from airflow_provider_kk.delivery.log import utc

    return utc(epoch)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    lines = [list(head), *[list(row) for row in rows]]
    if len(lines) == 1:
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
