"""The rules by which a human has the last word on an order: checked at KK and in the ledger, asked of nobody.

`kk ledger resolve` asks and prints around them, DAGs call them by `operators.held`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_kk.api.models import KKOrder
    from airflow_provider_kk.delivery.job import Goods, Sighting
    from airflow_provider_kk.delivery.rows import Entry
    from airflow_provider_kk.delivery.sql.ledger import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook


class NotTakenError(Exception):
    """Says why a word on an order is not taken, and what to do instead; the order is as it was."""


class NotNowError(NotTakenError):
    """KK could not be asked, so that the same word may be taken later."""


@dataclass(frozen=True)
class Word:
    """Whose word it is, and the reason; the ledger keeps both with the order."""

    who: str
    why: str


def split_ids(text: str) -> list[str]:
    """Read kkOrderIds as a human writes them: comma separated."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def newest(entries: Iterable[Entry], ledger: SqlLedger) -> list[Entry]:
    """Leave out generations that a human has replaced."""
    entries = list(entries)
    last = ledger.look_up(sorted({one.key for one in entries}))
    return [one for one in entries if one.key in last and last[one.key].generation == one.generation]


# Created -------------------------------------------------------------------------------------------


def require_open(entry: Entry, ledger: SqlLedger) -> None:
    """Require that there is something to say of an order: KK may have it or not.

    :raises NotTakenError: says what else to do.
    """
    from airflow_provider_kk.delivery.log import utc

    if entry.state.value in _NOTHING_TO_SAY:
        raise NotTakenError(f"{entry.key} is {_NOTHING_TO_SAY[entry.state.value]}")
    if entry.state.value == "sending" and entry.lease_until > ledger.now():
        raise NotTakenError(f"{entry.key} is being sent right now; try again after {utc(entry.lease_until)}")


_NOTHING_TO_SAY = {
    "created": "created: there is nothing to resolve. To order it once more: --order-again",
    "not_sent": "not sent: there is nothing to resolve, the next sync that selects it sends it. If KK has it "
    "all the same, the next sync adopts it from KK's list",
    "invalid": "invalid: there is nothing to resolve, mend its row; nothing was ever sent",
}


def orders_at_kk(ids: Sequence[str], entry: Entry, hook: KKHook, ledger: SqlLedger) -> list[KKOrder]:
    """Return the KK orders of these ids: KK lists each under this number, and no older generation has them.

    :raises NotTakenError: names the ids that are not this order's.
    :raises KKError: KK cannot be asked.
    """
    from airflow_provider_kk.delivery.log import printable
    from airflow_provider_kk.delivery.orders import sighting

    if not ids:
        raise NotTakenError("not one kkOrderId was given")
    try:
        known = {order.id: order for order in hook.get_orders(ids)}
    except ValueError as error:
        raise NotTakenError(f"{','.join(ids)!r} are no kkOrderIds: {error}") from error
    if missing := [one for one in ids if one not in known]:
        raise NotTakenError(f"KK lists no order {', '.join(missing)!r}")
    others = {one: known[one].custom_order_number for one in ids if not sighting(known[one]).is_of(entry.key)}
    if others:
        told = ", ".join(f"{one} is of {printable(number or 'no number')}" for one, number in others.items())
        raise NotTakenError(f"KK lists other order numbers for these ids: {told}")
    for older in ledger.generations(entry.key) if entry.generation > 1 else ():
        if older.generation != entry.generation and (taken := set(ids) & set(older.kk_order_ids)):
            raise NotTakenError(
                f"{', '.join(sorted(taken))} is what generation {older.generation} of {entry.key} has come "
                f"to; give the ids of generation {entry.generation}"
            )
    return [known[one] for one in ids]


def other_goods(orders: Sequence[KKOrder], entry: Entry) -> Goods | None:
    """Return what these KK orders hold together, when that is not what was ordered; None when it is."""
    from airflow_provider_kk.delivery.job import add_goods
    from airflow_provider_kk.delivery.orders import sighting

    at_kk = [sighting(order).goods for order in orders]
    total = add_goods([goods or {} for goods in at_kk])
    return None if None not in at_kk and total == dict(entry.goods) else total


def declare_created(entry: Entry, ids: Sequence[str], ledger: SqlLedger, word: Word) -> str:
    """Take an order for created under these ids, which were checked; say so in a sentence.

    :raises NotTakenError: it has moved meanwhile.
    """
    from airflow_provider_kk.delivery.states import Event

    if ledger.resolve(entry, Event.DECLARED_CREATED, ids=ids, who=word.who, why=word.why) is None:
        raise NotTakenError(HAS_MOVED.format(key=entry.key))
    return f"created as {', '.join(ids)}"


HAS_MOVED = "it has moved meanwhile; look again with `kk ledger show {key}`"


# Never created -------------------------------------------------------------------------------------


def require_other_number(ids: Sequence[str], entry: Entry, hook: KKHook, ledger: SqlLedger) -> None:
    """Refuse what healing would take for this order, since KK lists it under this very number.

    :raises NotTakenError: names them, or those that the order's row does not have.
    :raises KKError: KK cannot be asked.
    """
    unknown = [one for one in ids if one not in entry.kk_order_ids]
    if unknown or not ids:
        has = ", ".join(entry.kk_order_ids) or "none"
        raise NotTakenError(f"the ledger has no such kkOrderId of {entry.key}; it has {has}")
    has_padded = bool(ledger.padded([entry.key]))  # whose integer healing leaves alone
    same = [
        one.id
        for one in hook.get_orders(ids)
        if one.custom_order_number == entry.key and not (one.number_is_integer and has_padded)
    ]
    if same:
        raise NotTakenError(
            f"KK lists {', '.join(same)} under {entry.key} itself, so a sync may take it for this order. "
            f"To keep it apart: `kk ledger resolve {entry.key} --created {','.join(entry.kk_order_ids)}`, "
            "then --order-again, which orders this one as a generation of its own"
        )


def declare_never(entry: Entry, ledger: SqlLedger, word: Word, not_mine: Sequence[str] = ()) -> str:
    """Let an order be sent again that KK never made; say so in a sentence.

    :param not_mine: the ids in its row that are another number's, see `require_other_number`.
    :raises NotTakenError: KK may have it, or it has moved meanwhile.
    """
    from airflow_provider_kk.delivery.states import Event

    if entry.state.value == "rejected":
        raise NotTakenError(
            "KK has refused it, so it was never created; to have it asked for again without its "
            f"pause: `kk ledger retry {entry.key}`"
        )
    require_open(entry, ledger)
    try:
        moved = ledger.resolve(entry, Event.DECLARED_NEVER, ids=not_mine, who=word.who, why=word.why)
    except ValueError as error:
        raise NotTakenError(str(error)) from error
    if moved is None:
        raise NotTakenError(HAS_MOVED.format(key=entry.key))
    return "never created; the next sync that selects it sends it again"


# Order again ---------------------------------------------------------------------------------------


def all_at_kk_of(
    entries: Sequence[Entry], hook: KKHook, ledger: SqlLedger
) -> Mapping[str, list[Sighting] | NotTakenError]:
    """Return, by number, what KK has of it by now, or why it cannot be ordered again.

    An answer may have named only a part of a split. KK's list is read once for all.

    :raises NotNowError: the list cannot be used.
    """
    from airflow_provider_kk.api.errors import KKError
    from airflow_provider_kk.delivery.job import InconclusiveError
    from airflow_provider_kk.delivery.listing import all_at_kk
    from airflow_provider_kk.hooks.reading import open_finder

    found: dict[str, list[Sighting] | NotTakenError] = {}
    over = []
    for entry in entries:
        # What is not over before KK's list is read may not be all in it.
        try:
            ledger.require_over(entry)
            over.append(entry)
        except ValueError as error:
            found[entry.key] = NotTakenError(str(error))
    if not over:
        return found
    try:
        with open_finder(hook, ledger) as finder:
            return {**found, **all_at_kk(ledger, finder, over)}
    except (KKError, InconclusiveError) as error:
        raise NotNowError(
            f"what KK has of these numbers by now cannot be told: {error}. Nothing was done"
        ) from error


def order_again(
    entry: Entry, at_kk: Sequence[Sighting] | NotTakenError, ledger: SqlLedger, word: Word
) -> str:
    """Order a number once more, beside what KK has of it, see `all_at_kk_of`; say so in a sentence.

    :raises NotTakenError: it is not over, KK has it though it has refused it, or it has moved meanwhile.
    """
    if isinstance(at_kk, NotTakenError):
        raise at_kk
    if entry.state.value == "rejected" and (alive := [one.id for one in at_kk if not one.is_cancelled]):
        raise NotTakenError(
            f"KK has refused it and has {', '.join(alive)} of it all the same: cancel there what is "
            f"wrong, or `kk ledger resolve {entry.key} --created {','.join(alive)}`"
        )
    ids = sorted(one.id for one in at_kk)
    try:
        is_done = ledger.order_again(entry, ids=ids, who=word.who, why=word.why)
    except ValueError as error:
        raise NotTakenError(str(error)) from error
    if not is_done:
        raise NotTakenError("it has moved meanwhile, or somebody has just ordered it again")
    beside = f", beside {', '.join(ids)}" if ids else ""
    return f"the next sync that selects it orders it once more (generation {entry.generation + 1}){beside}"
