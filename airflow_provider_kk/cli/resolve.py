"""`kk ledger resolve`: a human says what became of orders, or orders their numbers once more."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow_provider_kk.cli.common import CannotError, confirm, goods_told, open_finder, time
from airflow_provider_kk.cli.words import (
    HAS_MOVED,
    SkippedError,
    add_word,
    each,
    looked_up,
    who_says,
    why,
)

if TYPE_CHECKING:
    from airflow_provider_kk.api.models import KKOrder
    from airflow_provider_kk.delivery.job import Sighting
    from airflow_provider_kk.delivery.rows import Entry
    from airflow_provider_kk.delivery.sql_ledger import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what `kk ledger resolve` takes."""
    parser.add_argument("number", nargs="+", help="the order number; several where no ids are given")
    word = parser.add_mutually_exclusive_group(required=True)
    word.add_argument("--created", metavar="IDS", help="KK has it, under these kkOrderIds (comma separated)")
    word.add_argument(
        "--never-created", action="store_true", help="KK never made it: the next sync sends it again"
    )
    word.add_argument(
        "--order-again", action="store_true", help="order the same number once more, as a new generation"
    )
    parser.add_argument(
        "--not-mine",
        metavar="IDS",
        help="with --never-created: these kkOrderIds in its row are another order's (comma separated)",
    )
    add_word(parser)


def run(arguments: argparse.Namespace, hook: KKHook, ledger: SqlLedger) -> int:
    """Take a human's word; the exit status is 1 when it could not be taken for each."""
    who = who_says(arguments)
    entries = looked_up(arguments.number, ledger)
    _require_one_for_ids(arguments, entries)
    if arguments.refunds and (arguments.order_again or arguments.not_mine is not None):
        raise CannotError("--order-again and --not-mine are for orders: let another task ask for a refund")
    if arguments.order_again:
        return _resolve_order_again(arguments, entries, hook, ledger, who)
    if arguments.never_created:
        return _resolve_never(arguments, entries, hook, ledger, who)
    (entry,) = entries
    _require_open(entry, ledger)
    check = _checked_refunds if arguments.refunds else _checked_ids
    ids = check(arguments, entry, hook, ledger)
    _, skipped = each([entry], lambda one: _declare_created(one, ids, ledger, who, arguments), arguments)
    return 1 if skipped else 0


def _require_one_for_ids(arguments: argparse.Namespace, entries: Sequence[Entry]) -> None:
    if arguments.not_mine is not None and not arguments.never_created:
        raise CannotError("--not-mine goes with --never-created")
    with_ids = "--created" if arguments.created is not None else "--not-mine"
    if len(entries) > 1 and (arguments.created is not None or arguments.not_mine is not None):
        raise CannotError(f"{with_ids} takes one order number: the ids are of one order")


def _confirm_each(entries: Sequence[Entry], question: str, arguments: argparse.Namespace) -> None:
    if len(entries) > 1:
        confirm([f"{one.key}: {one.state.value} {why(one)}" for one in entries], question, yes=arguments.yes)


def _require_open(entry: Entry, ledger: SqlLedger) -> None:
    if entry.state.value in _NOTHING_TO_SAY:
        raise CannotError(f"{entry.key} is {_NOTHING_TO_SAY[entry.state.value].format(key=entry.key)}")
    if entry.state.value == "sending" and entry.lease_until > ledger.now():
        raise CannotError(f"{entry.key} is being sent right now; try again after {time(entry.lease_until)}")


_NOTHING_TO_SAY = {
    "created": "created: there is nothing to resolve. To order it once more: --order-again",
    "not_sent": "not sent: there is nothing to resolve, the next sync that selects it sends it. If KK has it "
    "all the same, the next sync adopts it from KK's list",
    "invalid": "invalid: there is nothing to resolve, mend its row; nothing was ever sent",
}


def _declare_created(
    entry: Entry, ids: Sequence[str], ledger: SqlLedger, who: str, arguments: argparse.Namespace
) -> str:
    from airflow_provider_kk.delivery.states import Event

    if ledger.resolve(entry, Event.DECLARED_CREATED, ids=ids, who=who, why=arguments.why) is None:
        raise SkippedError(HAS_MOVED.format(key=entry.key))
    return f"created as {', '.join(ids)}"


# Never created -------------------------------------------------------------------------------------


def _resolve_never(
    arguments: argparse.Namespace, entries: Sequence[Entry], hook: KKHook, ledger: SqlLedger, who: str
) -> int:
    not_mine: list[str] = []
    if arguments.not_mine is not None:
        not_mine = _ids_in_row(arguments.not_mine, entries[0])
        _require_other_number(not_mine, entries[0], hook, ledger)
    _confirm_each(entries, "Declare that KK never made these?", arguments)
    _, skipped = each(
        entries, lambda one: _declare_never(one, not_mine, ledger, who, arguments.why), arguments
    )
    return 1 if skipped else 0


def _ids_in_row(text: str, entry: Entry) -> list[str]:
    ids = _split(text)
    unknown = [one for one in ids if one not in entry.kk_order_ids]
    if unknown or not ids:
        has = ", ".join(entry.kk_order_ids) or "none"
        raise CannotError(
            f"--not-mine {text!r}: the ledger has no such kkOrderId of {entry.key}; it has {has}"
        )
    return ids


def _require_other_number(ids: Sequence[str], entry: Entry, hook: KKHook, ledger: SqlLedger) -> None:
    """Refuse what healing would take for this order, since KK lists it under this very number."""
    has_padded = bool(ledger.padded([entry.key]))  # whose integer healing leaves alone
    same = [
        one.id
        for one in hook.get_orders(ids)
        if one.custom_order_number == entry.key and not (one.number_is_integer and has_padded)
    ]
    if same:
        raise CannotError(
            f"KK lists {', '.join(same)} under {entry.key} itself, so a sync may take it for this order. "
            f"To keep it apart: `kk ledger resolve {entry.key} --created {','.join(entry.kk_order_ids)}`, "
            "then --order-again, which orders this one as a generation of its own"
        )


def _declare_never(entry: Entry, not_mine: Sequence[str], ledger: SqlLedger, who: str, reason: str) -> str:
    from airflow_provider_kk.delivery.states import Event

    if entry.state.value == "rejected":
        raise SkippedError(
            "skipped, KK has refused it, so it was never created; to have it asked for again without its "
            f"pause: `kk ledger retry {entry.key}`"
        )
    try:
        _require_open(entry, ledger)
        moved = ledger.resolve(entry, Event.DECLARED_NEVER, ids=not_mine, who=who, why=reason)
    except (CannotError, ValueError) as error:
        raise SkippedError(f"skipped, {error}") from error
    if moved is None:
        raise SkippedError(HAS_MOVED.format(key=entry.key))
    return "never created; the next sync that selects it sends it again"


# Order again ---------------------------------------------------------------------------------------


def _resolve_order_again(
    arguments: argparse.Namespace, entries: Sequence[Entry], hook: KKHook, ledger: SqlLedger, who: str
) -> int:
    _confirm_each(entries, "Order these once more?", arguments)
    faults: dict[str, str] = {}
    for entry in entries:
        try:
            ledger.require_over(entry)
        except ValueError as error:
            faults[entry.key] = str(error)
    at_kk = _at_kk([one for one in entries if one.key not in faults], hook, ledger)

    def act(entry: Entry) -> str:
        # What was not over before KK's list was read may not be all in it.
        if entry.key in faults:
            raise SkippedError(f"skipped, {faults[entry.key]}")
        return _order_again(entry, at_kk[entry.key], ledger, who, arguments.why)

    done, skipped = each(entries, act, arguments)
    if done and not arguments.json:
        print(
            "Where the warehouse has kkOrderIds for what is ordered again, empty them: the query selects it"
        )
    return 1 if skipped else 0


def _at_kk(entries: Sequence[Entry], hook: KKHook, ledger: SqlLedger) -> dict[str, list[Sighting]]:
    """Return, by number, what KK has of it by now: an answer may have named only a part of a split."""
    from airflow_provider_kk.api.errors import KKError
    from airflow_provider_kk.delivery.job import InconclusiveError
    from airflow_provider_kk.delivery.listing import all_at_kk

    if not entries:
        return {}
    try:
        with open_finder(hook, ledger) as finder:
            return all_at_kk(ledger, finder, entries)
    except (KKError, InconclusiveError) as error:
        raise CannotError(
            f"what KK has of these numbers by now cannot be told: {error}. Nothing was done"
        ) from error


def _order_again(entry: Entry, at_kk: Sequence[Sighting], ledger: SqlLedger, who: str, reason: str) -> str:
    if entry.state.value == "rejected" and (alive := [one.id for one in at_kk if not one.is_cancelled]):
        raise SkippedError(
            f"skipped, KK has refused it and has {', '.join(alive)} of it all the same: cancel there what is "
            f"wrong, or `kk ledger resolve {entry.key} --created {','.join(alive)}`"
        )
    ids = sorted(one.id for one in at_kk)
    try:
        is_done = ledger.order_again(entry, ids=ids, who=who, why=reason)
    except ValueError as error:
        raise SkippedError(f"skipped, {error}") from error
    if not is_done:
        raise SkippedError("skipped, it has moved meanwhile, or somebody has just ordered it again")
    beside = f", beside {', '.join(ids)}" if ids else ""
    return f"the next sync that selects it orders it once more (generation {entry.generation + 1}){beside}"


# Ids -----------------------------------------------------------------------------------------------


def _checked_ids(arguments: argparse.Namespace, entry: Entry, hook: KKHook, ledger: SqlLedger) -> list[str]:
    """Return the ids, if KK knows each of them under this order number and no older generation has them."""
    ids = _split(arguments.created)
    try:
        known = {order.id: order for order in hook.get_orders(ids)}
    except ValueError as error:
        raise CannotError(f"--created {arguments.created!r}: {error}") from error
    missing = [one for one in ids if one not in known]
    if missing or not ids:
        raise CannotError(f"KK lists no order {', '.join(missing) or arguments.created!r}")
    others = {one: known[one].custom_order_number for one in ids if not _is_of(known[one], entry.key)}
    if others:
        told = ", ".join(f"{one} is of {number or 'no number'}" for one, number in others.items())
        raise CannotError(f"KK lists other order numbers for these ids: {told}")
    for older in ledger.generations(entry.key) if entry.generation > 1 else ():
        if older.generation != entry.generation and (taken := set(ids) & set(older.kk_order_ids)):
            raise CannotError(
                f"{', '.join(sorted(taken))} is what generation {older.generation} of {entry.key} has come "
                f"to; give the ids of generation {entry.generation}"
            )
    _heed_goods([known[one] for one in ids], entry, arguments)
    return ids


def _checked_refunds(
    arguments: argparse.Namespace, entry: Entry, hook: KKHook, _ledger: SqlLedger
) -> list[str]:
    """Return the refund numbers, if KK knows each of them as a refund of this order."""
    from airflow_provider_kk.delivery.refunds import carries, order_of_key

    ids = _split(arguments.created)
    known = {one.refund_no: one for one in hook.get_refunds(order_of_key(entry.key))}
    missing = [one for one in ids if one not in known]
    if missing or not ids:
        told = ", ".join(missing) or arguments.created
        raise CannotError(f"KK lists no refund {told!r} of order {order_of_key(entry.key)}")
    if others := [one for one in ids if not carries(known[one], entry.key)]:
        print(f"warning: the remark of {', '.join(others)} does not hold {entry.key}", file=sys.stderr)
        confirm([], "Take it as this refund all the same?", yes=arguments.yes)
    return ids


def _split(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _is_of(order: KKOrder, key: str) -> bool:
    from airflow_provider_kk.delivery.orders import sighting

    return sighting(order).is_of(key)


def _heed_goods(orders: Sequence[KKOrder], entry: Entry, arguments: argparse.Namespace) -> None:
    """Warn, and ask, when the KK orders do not hold what was ordered."""
    from airflow_provider_kk.delivery.job import add_goods
    from airflow_provider_kk.delivery.orders import sighting

    at_kk = [sighting(order).goods for order in orders]
    total = add_goods([goods or {} for goods in at_kk])
    if None not in at_kk and total == dict(entry.goods):
        return
    print(
        f"warning: {entry.key} ordered {goods_told(entry.goods)}, these KK orders hold {goods_told(total)}",
        file=sys.stderr,
    )
    confirm([], "Take it as created all the same?", yes=arguments.yes)
