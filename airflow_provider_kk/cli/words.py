"""`kk ledger resolve` and `kk ledger retry`: a human's word on orders, kept with name and reason."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from airflow_provider_kk.cli.common import CannotError, add_place, confirm, goods_told, time

if TYPE_CHECKING:
    from airflow_provider_kk.api.models import KKOrder
    from airflow_provider_kk.delivery.rows import Entry
    from airflow_provider_kk.delivery.sql_ledger import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook


def add_resolve(parser: argparse.ArgumentParser) -> None:
    """Declare what `kk ledger resolve` takes."""
    parser.add_argument("number", nargs="+", help="the order number; several with one of the last two words")
    word = parser.add_mutually_exclusive_group(required=True)
    word.add_argument("--created", metavar="IDS", help="KK has it, under these kkOrderIds (comma separated)")
    word.add_argument(
        "--never-created", action="store_true", help="KK never made it: the next sync sends it again"
    )
    word.add_argument(
        "--order-again", action="store_true", help="order the same number once more, as a new generation"
    )
    _add_word(parser)


def add_retry(parser: argparse.ArgumentParser) -> None:
    """Declare what `kk ledger retry` takes."""
    parser.add_argument("number", nargs="*", help="order numbers")
    parser.add_argument("--code", type=int, help="all that KK has refused with this code")
    parser.add_argument("--all", action="store_true", help="all that KK has refused")
    _add_word(parser)


def _add_word(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--why", required=True, type=_text, help="the reason, kept in the ledger")
    parser.add_argument("--who", default=None, type=_text, help="your name; the default is your login")
    parser.add_argument("--yes", action="store_true", help="do not ask before several orders change")
    parser.add_argument("--json", action="store_true", help="what became of each, one JSON object a line")
    add_place(parser)


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; say something that the next one on call can use")
    return text.strip()


def _who(arguments: argparse.Namespace) -> str:
    try:
        return arguments.who or getpass.getuser()
    except (KeyError, OSError) as error:  # a container's user without a name
        raise CannotError("your login has no name here: give --who") from error


def newest(entries: Iterable[Entry], ledger: SqlLedger) -> list[Entry]:
    """Leave out generations that a human has replaced."""
    entries = list(entries)
    last = ledger.look_up(sorted({one.key for one in entries}))
    return [one for one in entries if one.key in last and last[one.key].generation == one.generation]


def why(entry: Entry) -> str:
    """Return what KK or the sync has said of an order."""
    return f"code {entry.code}: {entry.message}" if entry.code is not None else entry.message


class _SkippedError(Exception):
    """Says why one of several orders was left as it is."""


_HAS_MOVED = "skipped, it has moved meanwhile; look again with `kk ledger show {key}`"


def _each(
    entries: Sequence[Entry], act: Callable[[Entry], str], arguments: argparse.Namespace
) -> tuple[int, int]:
    """Do it with each and say what became of it; how many were done and how many skipped."""
    done = skipped = 0
    for entry in entries:
        try:
            told, is_done = act(entry), True
        except _SkippedError as error:
            told, is_done = str(error), False
        done, skipped = done + is_done, skipped + (not is_done)
        if arguments.json:
            print(json.dumps({"key": entry.key, "done": is_done, "message": told}))
        else:
            print(f"{entry.key}: {told}", file=sys.stdout if is_done else sys.stderr)
    return done, skipped


def _looked_up(numbers: Sequence[str], ledger: SqlLedger) -> list[Entry]:
    wanted = list(dict.fromkeys(numbers))
    known = ledger.look_up(wanted)
    unknown = [one for one in wanted if one not in known]
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        raise CannotError(
            f"{', '.join(unknown)} {verb} not in the ledger of {ledger.account} at {ledger.host}. "
            "Nothing was done"
        )
    return [known[one] for one in wanted]


# Retry ---------------------------------------------------------------------------------------------


def retry(arguments: argparse.Namespace, _hook: KKHook, ledger: SqlLedger) -> int:
    """Lift the pause of rejected orders; the exit status is 1 when some that were named were skipped."""
    from airflow_provider_kk.delivery.log import orders

    who = _who(arguments)
    entries = _selected(arguments, ledger)
    if not entries:
        print("KK has refused no order that is still open: there is nothing to retry")
        return 0
    rejected = [f"{one.key}: {why(one)}" for one in entries if one.state.value == "rejected"]
    if len(rejected) > 1:
        confirm(rejected, f"Ask KK again for {orders(len(rejected))}?", yes=arguments.yes)
    done, skipped = _each(entries, lambda one: _lift(one, ledger, who, arguments.why), arguments)
    if not arguments.json:
        _print_what_follows(done, skipped)
    return 1 if skipped else 0


def _selected(arguments: argparse.Namespace, ledger: SqlLedger) -> list[Entry]:
    from airflow_provider_kk.delivery.states import State

    ways = bool(arguments.number) + (arguments.code is not None) + arguments.all
    if ways != 1:
        raise CannotError("say which orders: their numbers, or --code CODE, or --all")
    if arguments.number:
        return _looked_up(arguments.number, ledger)
    rejected = newest(ledger.entries(states=[State.REJECTED]), ledger)
    if arguments.all:
        return rejected
    found = [one for one in rejected if one.code == arguments.code]
    if not found:
        codes = Counter(one.code for one in rejected)
        there_are = ", ".join(f"{code} ({count})" for code, count in codes.most_common()) or "none at all"
        raise CannotError(f"no order is rejected with code {arguments.code}; there are: {there_are}")
    return found


def _lift(entry: Entry, ledger: SqlLedger, who: str, reason: str) -> str:
    if entry.state.value != "rejected":
        raise _SkippedError(f"skipped, {_NOT_REJECTED[entry.state.value].format(key=entry.key)}")
    if ledger.lift_pause(entry, who=who, why=reason) is None:
        raise _SkippedError(_HAS_MOVED.format(key=entry.key))
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
    from airflow_provider_kk.delivery.log import orders

    if done:
        print(
            f"The next sync that selects {'it' if done == 1 else 'them'} looks at KK's list first and sends "
            "what is not there. What KK refuses again rests longer than before"
        )
    if skipped:
        print(f"{orders(skipped)} skipped", file=sys.stderr)


# Resolve -------------------------------------------------------------------------------------------


def resolve(arguments: argparse.Namespace, hook: KKHook, ledger: SqlLedger) -> int:
    """Take a human's word; the exit status is 1 when it could not be taken for each."""
    who = _who(arguments)
    entries = _looked_up(arguments.number, ledger)
    if arguments.created is not None:
        if len(entries) > 1:
            raise CannotError("--created takes one order number: the ids are of one order")
        (entry,) = entries
        _require_open(entry, ledger)
        ids = _checked_ids(arguments, entry, hook, ledger)
        _, skipped = _each([entry], lambda one: _declare_created(one, ids, ledger, who, arguments), arguments)
        return 1 if skipped else 0
    act = _order_again if arguments.order_again else _declare_never
    if len(entries) > 1:
        question = "Order these once more?" if arguments.order_again else "Declare that KK never made these?"
        confirm([f"{one.key}: {one.state.value} {why(one)}" for one in entries], question, yes=arguments.yes)
    done, skipped = _each(entries, lambda one: act(one, ledger, who, arguments.why), arguments)
    if done and arguments.order_again and not arguments.json:
        print(
            "Where the warehouse has kkOrderIds for what is ordered again, empty them: the query selects it"
        )
    return 1 if skipped else 0


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
        raise _SkippedError(_HAS_MOVED.format(key=entry.key))
    return f"created as {', '.join(ids)}"


def _declare_never(entry: Entry, ledger: SqlLedger, who: str, reason: str) -> str:
    from airflow_provider_kk.delivery.states import Event

    if entry.state.value == "rejected":
        raise _SkippedError(
            "skipped, KK has refused it, so it was never created; to have it asked for again without its "
            f"pause: `kk ledger retry {entry.key}`"
        )
    try:
        _require_open(entry, ledger)
        moved = ledger.resolve(entry, Event.DECLARED_NEVER, who=who, why=reason)
    except (CannotError, ValueError) as error:
        raise _SkippedError(f"skipped, {error}") from error
    if moved is None:
        raise _SkippedError(_HAS_MOVED.format(key=entry.key))
    return "never created; the next sync that selects it sends it again"


def _order_again(entry: Entry, ledger: SqlLedger, who: str, reason: str) -> str:
    try:
        is_done = ledger.order_again(entry, who=who, why=reason)
    except ValueError as error:
        raise _SkippedError(f"skipped, {error}") from error
    if not is_done:
        raise _SkippedError("skipped, it was ordered again by somebody else just now")
    return f"the next sync that selects it orders it once more (generation {entry.generation + 1})"


# Ids -----------------------------------------------------------------------------------------------


def _checked_ids(arguments: argparse.Namespace, entry: Entry, hook: KKHook, ledger: SqlLedger) -> list[str]:
    """Return the ids, if KK knows each of them under this order number and no older generation has them."""
    ids = list(dict.fromkeys(part.strip() for part in arguments.created.split(",") if part.strip()))
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
