"""The checks before a manual resolution: conditions at KK and in the ledger for a person's decision.

`resolution` applies a decision after these accept it. The checks decide nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_kk.sync.errors import ResolutionRejected, ResolutionUnavailable

if TYPE_CHECKING:
    from airflow_provider_kk.api.models import KKOrder
    from airflow_provider_kk.delivery.model import ListedOrder, Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook

T = TypeVar("T")


def _require_open(entry: Record, ledger: SqlLedger) -> None:
    """Require that an order is open: KK may have it or not.

    :raises ResolutionRejected: it is not open; the text has what to do instead.
    """
    from airflow_provider_kk.delivery.log import utc

    if entry.state.value in _NOTHING_TO_RESOLVE:
        raise ResolutionRejected(f"{entry.key} is {_NOTHING_TO_RESOLVE[entry.state.value]}")
    if entry.state.value == "sending" and entry.lease_until > ledger.now():
        raise ResolutionRejected(f"{entry.key} is being sent now. Try again after {utc(entry.lease_until)}")


_NOTHING_TO_RESOLVE = {
    "created": "created, so there is nothing to resolve. To order it once more, use --order-again",
    "not_sent": "not sent, so there is nothing to resolve. The next sync that selects it sends it, or adopts "
    "it if KK's list has it",
    "invalid": "invalid and was never sent, so there is nothing to resolve. Fix its row",
}


def doubt_of_orders(ids: Sequence[str], entry: Record, hook: KKHook, ledger: SqlLedger) -> str:
    """Require that KK's orders of these ids can be an open order, and return a doubt; empty if they fit.

    KK must list each under the order's number, and no older generation may have it. Other goods are a doubt.

    :raises ResolutionRejected: the order is not open, or an id is not its own.
    :raises KKError: KK does not answer.
    """
    from airflow_provider_kk.delivery.listing import listed_order
    from airflow_provider_kk.delivery.log import format_goods
    from airflow_provider_kk.delivery.model import add_goods

    _require_open(entry, ledger)
    at_kk = [listed_order(order).goods for order in _orders_at_kk(ids, entry, hook, ledger)]
    total = add_goods([goods or {} for goods in at_kk])
    if None not in at_kk and total == dict(entry.content.goods):
        return ""
    return (
        f"the goods of {entry.key} are {format_goods(entry.content.goods)}, but those of these KK orders are "
        f"{format_goods(total)}"
    )


def doubt_of_refunds(ids: Sequence[str], entry: Record, hook: KKHook, ledger: SqlLedger) -> str:
    """Require that KK's refunds of these numbers can be an open refund.

    Returns a doubt, empty if they fit.

    :param ledger: the ledger of refunds.
    :raises ResolutionRejected: it is not open, or KK does not list each of them as a refund of this order.
    :raises KKError: KK does not answer.
    """
    from airflow_provider_kk.delivery.refunds import carries, order_of_key

    _require_open(entry, ledger)
    order = order_of_key(entry.key)
    known = {one.refund_no: one for one in hook.get_refunds(order)}
    if not ids:
        raise ResolutionRejected("enter at least one refund number")
    if missing := [one for one in ids if one not in known]:
        raise ResolutionRejected(
            f"KK lists no refund {', '.join(missing)!r} of order {order_of_key(entry.key)}"
        )
    others = [one for one in ids if not carries(known[one], entry.key)]
    return f"the remark of {', '.join(others)} does not contain {entry.key}" if others else ""


def _orders_at_kk(ids: Sequence[str], entry: Record, hook: KKHook, ledger: SqlLedger) -> list[KKOrder]:
    from airflow_provider_kk.delivery.listing import listed_order
    from airflow_provider_kk.delivery.log import printable

    if not ids:
        raise ResolutionRejected("enter at least one kkOrderId")
    try:
        known = {order.id: order for order in hook.get_orders(ids)}
    except ValueError as error:
        raise ResolutionRejected(f"{','.join(ids)!r} are not kkOrderIds: {error}") from error
    if missing := [one for one in ids if one not in known]:
        raise ResolutionRejected(f"KK lists no order {', '.join(missing)!r}")
    others = {
        one: known[one].custom_order_number for one in ids if not listed_order(known[one]).is_of(entry.key)
    }
    if others:
        text = ", ".join(f"{one} has {printable(number or 'no number')}" for one, number in others.items())
        raise ResolutionRejected(f"KK lists other order numbers for these ids: {text}")
    for older in ledger.generations(entry.key) if entry.generation > 1 else ():
        if older.generation != entry.generation and (taken := set(ids) & set(older.kk_order_ids)):
            raise ResolutionRejected(
                f"{', '.join(sorted(taken))} belongs to generation {older.generation} of {entry.key}. Enter "
                f"the ids of generation {entry.generation}"
            )
    return [known[one] for one in ids]


def require_other_number(ids: Sequence[str], entry: Record, hook: KKHook, ledger: SqlLedger) -> None:
    """Require that KK's orders of these ids belong to another number.

    So no sync adopts them for this one.

    :raises ResolutionRejected: an id belongs to this number, or is not in the order's row.
    :raises KKError: KK cannot be read.
    """
    from airflow_provider_kk.delivery.listing import listed_order

    not_in_row = [one for one in ids if one not in entry.kk_order_ids]
    try:
        orders = hook.get_orders(ids) if ids else []
    except ValueError as error:
        raise ResolutionRejected(f"{','.join(ids)!r} are not kkOrderIds: {error}") from error
    # KK may have listed it after the sync read the list.
    listed = {one.id for one in orders if listed_order(one).is_of(entry.key)}
    if not ids or not listed.issuperset(not_in_row):
        has = ", ".join(entry.kk_order_ids) or "none"
        raise ResolutionRejected(f"the kkOrderIds of {entry.key} in the ledger are {has}. Use those")
    from airflow_provider_kk.delivery.listing import zero_padded_rows

    has_padded = bool(zero_padded_rows(ledger, [entry.key]))  # a sync does not adopt their integer
    same = [
        one.id
        for one in orders
        if one.custom_order_number == entry.key and not (one.number_is_integer and has_padded)
    ]
    if same:
        standing = ",".join(entry.kk_order_ids or same)
        raise ResolutionRejected(
            f"KK lists {', '.join(same)} under {entry.key} itself, so a sync may adopt it for this order. "
            f"To order this one in addition, run `kk ledger resolve {entry.key} --created {standing}`, then "
            "the same with --order-again"
        )


def doubts_of_absent_orders(
    entries: Sequence[Record], hook: KKHook, ledger: SqlLedger, not_mine: Sequence[str] = ()
) -> Mapping[str, str | ResolutionRejected]:
    """Return, by number, a doubt that KK never created an order, or why KK may have it; empty if it fits.

    KK may list a held order after the last sync read the list. KK's list is read once for all entries.

    :param not_mine: the ids that are another number's, see `require_other_number`.
    :raises ResolutionUnavailable: KK cannot be read.
    """
    from airflow_provider_kk.api.errors import KKError
    from airflow_provider_kk.delivery.listing import kk_skew_s, seen_at_kk
    from airflow_provider_kk.hooks.ledger_connection import open_order_list

    doubts, readable = _may_be_absent(entries, ledger, not_mine)
    if not readable:
        return doubts
    try:
        with open_order_list(hook, ledger) as order_list:
            readable = _over_by_kks_clock(readable, doubts, ledger, kk_skew_s(order_list))
            at_kk, doubt = seen_at_kk(ledger, order_list, readable) if readable else ({}, "")
    except KKError as error:
        raise ResolutionUnavailable(_CANNOT_READ.format(error=error)) from error
    for key, listed in at_kk.items():
        doubts[key] = doubt
        if ids := sorted({one.id for one in listed} - set(not_mine)):
            other = f". If that is another number's, use `--never-created --not-mine {','.join(ids)}`"
            doubts[key] = ResolutionRejected(f"{_listed(key, ids)}{other}")
    return doubts


def doubts_of_absent_refunds(
    entries: Sequence[Record], hook: KKHook, ledger: SqlLedger, not_mine: Sequence[str] = ()
) -> Mapping[str, str | ResolutionRejected]:
    """Return, by key, a doubt that KK never created a refund, or why KK may have it; empty if it fits.

    :param ledger: see `refund_ledger`.
    :raises ResolutionUnavailable: KK cannot be read.
    """
    from airflow_provider_kk.api.errors import KKError
    from airflow_provider_kk.delivery.refunds import carries, order_of_key

    doubts, readable = _may_be_absent(entries, ledger, not_mine)
    try:
        client = hook.get_conn()
        if readable:
            client.list_orders(page_size=1)  # measures KK's clock
        readable = _over_by_kks_clock(readable, doubts, ledger, client.clock_skew_s or 0.0)
    except KKError as error:
        raise ResolutionUnavailable(_CANNOT_READ.format(error=error)) from error
    for entry in readable:
        try:
            at_kk = hook.get_refunds(order_of_key(entry.key))
        except KKError as error:
            raise ResolutionUnavailable(_CANNOT_READ.format(error=error)) from error
        own = [one.refund_no for one in at_kk if one.refund_no and carries(one, entry.key)]
        is_readable = all(one.refund_no and one.remark for one in at_kk)
        doubts[entry.key] = "" if is_readable else "KK has refunds whose number or remark cannot be parsed"
        if own:
            doubts[entry.key] = ResolutionRejected(_listed(f"--refunds {entry.key}", own))
    return doubts


def _listed(arguments: str, ids: Sequence[str]) -> str:
    command = f"kk ledger resolve {arguments} --created {','.join(ids)}"
    return f"KK lists {', '.join(ids)} for it by now. Run `{command}`"


_CANNOT_READ = "KK cannot be read: {error}. Nothing changed. Try again when KK answers"


def _may_be_absent(
    entries: Sequence[Record], ledger: SqlLedger, not_mine: Sequence[str]
) -> tuple[dict[str, str | ResolutionRejected], list[Record]]:
    """Return the entries that KK may still list, each with its reason, and the others."""
    rejected: dict[str, str | ResolutionRejected] = {}
    others = []
    for entry in entries:
        # Within its settle window, KK's list need not have an order.
        try:
            _require_absent(entry, ledger, not_mine)
            others.append(entry)
        except ResolutionRejected as error:
            rejected[entry.key] = error
    return rejected, others


def _over_by_kks_clock(
    entries: Iterable[Record], rejected: dict[str, Any], ledger: SqlLedger, kk_skew_s: float
) -> list[Record]:
    """Return the entries whose settle window is over by KK's clock, too, since our clocks may be ahead."""
    from airflow_provider_kk.delivery.resolution import require_window_over

    over = []
    for entry in entries:
        try:
            require_window_over(ledger, entry, kk_skew_s)
            over.append(entry)
        except ValueError as error:
            rejected[entry.key] = ResolutionRejected(str(error))
    return over


def _require_absent(entry: Record, ledger: SqlLedger, not_mine: Sequence[str]) -> None:
    from airflow_provider_kk.delivery.resolution import require_absent

    if entry.state.value == "rejected":
        raise ResolutionRejected(
            "KK rejected it, so it was never created. To send it without waiting for its back-off, run "
            f"`kk ledger retry {entry.key}`"
        )
    _require_open(entry, ledger)
    try:
        require_absent(ledger, entry, not_mine)
    except ValueError as error:
        raise ResolutionRejected(str(error)) from error


def accepted(found: T | ResolutionRejected) -> T:
    """Return what a check found.

    :raises ResolutionRejected: the check rejected the order.
    """
    if isinstance(found, ResolutionRejected):
        raise found
    return found


def all_at_kk_of(
    entries: Sequence[Record], hook: KKHook, ledger: SqlLedger
) -> Mapping[str, list[ListedOrder] | ResolutionRejected]:
    """Return, by number, all its orders at KK by now, or why it cannot be ordered once more.

    An answer may have only a part of the splits. KK's list is read once for all entries.

    :raises ResolutionUnavailable: the list cannot be used.
    """
    from airflow_provider_kk.api.errors import KKError
    from airflow_provider_kk.delivery.listing import all_at_kk, kk_skew_s
    from airflow_provider_kk.delivery.model import InconclusiveError
    from airflow_provider_kk.delivery.resolution import require_over
    from airflow_provider_kk.hooks.ledger_connection import open_order_list

    found: dict[str, list[ListedOrder] | ResolutionRejected] = {}
    over = []
    for entry in entries:
        # Before the end of its settle window, KK's list may lack a part of an order.
        try:
            require_over(ledger, entry)
            over.append(entry)
        except ValueError as error:
            found[entry.key] = ResolutionRejected(str(error))
    if not over:
        return found
    try:
        with open_order_list(hook, ledger) as order_list:
            over = _over_by_kks_clock(over, found, ledger, kk_skew_s(order_list))
            return {**found, **(all_at_kk(ledger, order_list, over) if over else {})}
    except (KKError, InconclusiveError) as error:
        raise ResolutionUnavailable(
            f"KK's list cannot be read: {error}. Nothing changed. Try again when KK answers"
        ) from error


def require_reorder(entry: Record, at_kk: Sequence[ListedOrder]) -> list[str]:
    """Require that a number may be ordered once more, and return KK's ids of it.

    :param at_kk: see `all_at_kk_of`.
    :raises ResolutionRejected: KK rejected the order and has it nevertheless.
    """
    if entry.state.value == "rejected" and (alive := [one.id for one in at_kk if not one.is_cancelled]):
        raise ResolutionRejected(
            f"KK rejected it, but lists {', '.join(alive)} for it. Cancel those orders at KK, or run "
            f"`kk ledger resolve {entry.key} --created {','.join(alive)}`"
        )
    return sorted(one.id for one in at_kk)


def require_rejected(entry: Record) -> None:
    """Require that KK has rejected an order.

    :raises ResolutionRejected: KK has not; the text has what happens to the order.
    """
    if entry.state.value != "rejected":
        raise ResolutionRejected(_NOT_REJECTED[entry.state.value].format(key=entry.key))


#: The reason why an order that is not rejected needs no retry, by its state.
_NOT_REJECTED = {
    "in_doubt": "in doubt: KK may have it. Each sync of the account reconciles it, and resends it only if it "
    "is proven absent. See `kk ledger show {key}`",
    "sending": "being sent now, or in doubt: the next sync reconciles it",
    "held": "held: find it on KK's site, then run `kk ledger resolve {key}`",
    "created": "created: KK has it. To order it once more, run `kk ledger resolve {key} --order-again`",
    "not_sent": "not sent: the next sync that selects it sends it",
    "invalid": "invalid: fix its row. The next sync checks it again and sends it",
}
