"""The checks before a manual resolution: conditions at KK and in the ledger for a person's decision.

`resolution` applies a decision after these accept it. The checks decide nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from airflow_provider_kk.delivery.resolution import (
    ResolutionRejected,
    require_absent,
    require_over,
    require_window_over,
)

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import ListedOrder, Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook

T = TypeVar("T")


class ResolutionUnavailable(ResolutionRejected):
    """KK did not answer, so the same resolution may be accepted later."""


class Candidates:
    """The rows to resolve, without those that a check has rejected."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = {one.key: one for one in records}
        self.rejected: dict[str, ResolutionRejected] = {}
        """The reasons, by order number or refund key."""

    def check(self, check: Callable[[Record], T]) -> dict[str, T]:
        """Check each row, and return what was found about those that stay, by order number or refund key."""
        found: dict[str, T] = {}
        for key, record in list(self.records.items()):
            try:
                found[key] = check(record)
            except ResolutionRejected as error:
                self.rejected[key] = error
                del self.records[key]
        return found

    def check_windows(self, ledger: SqlLedger, kk_skew_s: float) -> None:
        """Reject rows whose settle window is not over by KK's clock, since our clocks may be ahead."""
        self.check(lambda one: require_window_over(ledger, one, kk_skew_s))


@contextmanager
def reading_kk(what: str = "KK") -> Iterator[None]:
    """Translate an error of KK until the end of the block.

    :raises ResolutionUnavailable: KK does not answer, or its list cannot be used.
    """
    from airflow_provider_kk.api.errors import KKError
    from airflow_provider_kk.delivery.model import InconclusiveError

    try:
        yield
    except (KKError, InconclusiveError) as error:
        raise ResolutionUnavailable(
            f"{what} cannot be read: {error}. Nothing changed. Try again when KK answers"
        ) from error


def shorten_waits(entry: Record, hook: KKHook, ledger: SqlLedger) -> Record:
    """Shorten, as a sync does, a wait that a clock that was ahead made too long; return the row.

    This needs KK's clock. While KK does not answer, the row stays as it is.
    """
    from airflow_provider_kk.api.errors import KKError

    if not ledger.waits_too_long(entry, 0.0):
        return entry
    with hook.client(hook.settings.local_bucket()) as client:
        try:
            client.list_orders(page_size=1)
        except KKError:
            return entry
        return ledger.shorten_waits(entry, client.clock_skew_s) or entry


# Created -------------------------------------------------------------------------------------------


def doubt_of_orders(ids: Sequence[str], entry: Record, hook: KKHook, ledger: SqlLedger) -> str:
    """Require that KK's orders of these ids can be an open order, and return a doubt; empty if they fit.

    KK must list each under the order's number, and no older generation may have it. Other goods are a doubt.

    :raises ResolutionRejected: the order is not open, or an id is not its own.
    :raises KKError: KK does not answer.
    """
    from airflow_provider_kk.delivery.log import format_goods, printable
    from airflow_provider_kk.delivery.model import add_goods

    _require_open(entry, ledger)
    if not ids:
        raise ResolutionRejected("enter at least one kkOrderId")
    at_kk = {one.id: one for one in _listed_orders(ids, hook)}
    if missing := [one for one in ids if one not in at_kk]:
        raise ResolutionRejected(f"KK lists no order {', '.join(missing)!r}")
    if others := [at_kk[one] for one in ids if not at_kk[one].is_of(entry.key)]:
        text = ", ".join(f"{one.id} has {printable(one.key or 'no number')}" for one in others)
        raise ResolutionRejected(f"KK lists other order numbers for these ids: {text}")
    for older in ledger.generations(entry.key)[:-1]:
        if taken := set(ids) & set(older.kk_order_ids):
            raise ResolutionRejected(
                f"{', '.join(sorted(taken))} belongs to generation {older.generation} of {entry.key}. Enter "
                f"the ids of generation {entry.generation}"
            )
    goods = [at_kk[one].goods for one in ids]
    total = add_goods([one or {} for one in goods])
    if None not in goods and total == dict(entry.content.goods):
        return ""
    return (
        f"the goods of {entry.key} are {format_goods(entry.content.goods)}, but those of these KK orders are "
        f"{format_goods(total)}"
    )


def _listed_orders(ids: Sequence[str], hook: KKHook) -> list[ListedOrder]:
    from airflow_provider_kk.delivery.listing import listed_order

    try:
        return [listed_order(order) for order in hook.get_orders(ids)]
    except ValueError as error:
        raise ResolutionRejected(f"{','.join(ids)!r} are not kkOrderIds: {error}") from error


def doubt_of_refunds(ids: Sequence[str], entry: Record, hook: KKHook, ledger: SqlLedger) -> str:
    """Require that KK's refunds of these numbers can be an open refund; return a doubt, empty if they fit.

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
        raise ResolutionRejected(f"KK lists no refund {', '.join(missing)!r} of order {order}")
    others = [one for one in ids if not carries(known[one], entry.key)]
    return f"the remark of {', '.join(others)} does not contain {entry.key}" if others else ""


def _require_open(entry: Record, ledger: SqlLedger) -> None:
    """Require that KK may have an order or not."""
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


# Never created -------------------------------------------------------------------------------------


def require_other_number(ids: Sequence[str], entry: Record, hook: KKHook, ledger: SqlLedger) -> None:
    """Require that KK's orders of these ids belong to another number, so that no sync adopts them.

    :raises ResolutionRejected: an id belongs to this number, or is not in the order's row.
    :raises KKError: KK cannot be read.
    """
    from airflow_provider_kk.delivery.listing import zero_padded_rows

    orders = _listed_orders(ids, hook)
    # KK may have listed it after the sync read the list.
    of_number = {one.id for one in orders if one.is_of(entry.key)}
    if not of_number.issuperset(one for one in ids if one not in entry.kk_order_ids):
        has = ", ".join(entry.kk_order_ids) or "none"
        raise ResolutionRejected(f"the kkOrderIds of {entry.key} in the ledger are {has}. Use those")
    has_padded = bool(zero_padded_rows(ledger, [entry.key]))  # a sync does not adopt their integer
    same = [one.id for one in orders if one.key == entry.key and not (one.key_is_integer and has_padded)]
    if same:
        standing = ",".join(entry.kk_order_ids or same)
        raise ResolutionRejected(
            f"KK lists {', '.join(same)} under {entry.key} itself, so a sync may adopt it for this order. "
            f"To order this one in addition, run `kk ledger resolve {entry.key} --created {standing}`, then "
            "the same with --order-again"
        )


def doubts_of_absent_orders(
    rows: Candidates, hook: KKHook, ledger: SqlLedger, not_mine: Sequence[str]
) -> dict[str, str]:
    """Reject orders that KK may have. Return, by number, a doubt that KK never created it; empty if it fits.

    KK may list a held order after the last sync read the list. KK's list is read once for all rows.

    :param not_mine: the ids that are another number's, see `require_other_number`.
    :raises ResolutionUnavailable: KK cannot be read.
    """
    from airflow_provider_kk.delivery.listing import kk_skew_s, seen_at_kk
    from airflow_provider_kk.hooks.ledger_connection import open_order_list

    rows.check(lambda one: _require_absent(one, ledger, not_mine))
    if not rows.records:
        return {}
    with reading_kk(), open_order_list(hook, ledger) as order_list:
        rows.check_windows(ledger, kk_skew_s(order_list))
        at_kk, doubt = seen_at_kk(ledger, order_list, [*rows.records.values()]) if rows.records else ({}, "")

    def doubt_of(entry: Record) -> str:
        if ids := sorted({one.id for one in at_kk[entry.key]} - set(not_mine)):
            other = f". If that is another number's, use `--never-created --not-mine {','.join(ids)}`"
            raise ResolutionRejected(_LISTED.format(entry.key, ", ".join(ids), ",".join(ids)) + other)
        return doubt

    return rows.check(doubt_of)


def doubts_of_absent_refunds(
    rows: Candidates, hook: KKHook, ledger: SqlLedger, not_mine: Sequence[str]
) -> dict[str, str]:
    """Reject refunds that KK may have. Return, by key, a doubt that KK never created it; empty if it fits.

    :param ledger: see `refund_ledger`.
    :raises ResolutionUnavailable: KK cannot be read.
    """
    from airflow_provider_kk.delivery.refunds import carries, order_of_key

    def doubt_of(entry: Record) -> str:
        at_kk = hook.get_refunds(order_of_key(entry.key))
        if own := [one.refund_no for one in at_kk if one.refund_no and carries(one, entry.key)]:
            key = f"--refunds {entry.key}"
            raise ResolutionRejected(_LISTED.format(key, ", ".join(own), ",".join(own)))
        is_readable = all(one.refund_no and one.remark for one in at_kk)
        return "" if is_readable else "KK has refunds whose number or remark cannot be parsed"

    rows.check(lambda one: _require_absent(one, ledger, not_mine))
    if not rows.records:
        return {}
    with reading_kk():
        client = hook.get_conn()
        client.list_orders(page_size=1)  # measures KK's clock
        rows.check_windows(ledger, client.clock_skew_s or 0.0)
        return rows.check(doubt_of)


_LISTED = "KK lists {1} for it by now. Run `kk ledger resolve {0} --created {2}`"


def _require_absent(entry: Record, ledger: SqlLedger, not_mine: Sequence[str]) -> None:
    if entry.state.value == "rejected":
        raise ResolutionRejected(
            "KK rejected it, so it was never created. To send it without waiting for its back-off, run "
            f"`kk ledger retry {entry.key}`"
        )
    _require_open(entry, ledger)
    # Within its settle window, KK's list need not have an order.
    require_absent(ledger, entry, not_mine)


# Order again and retry -----------------------------------------------------------------------------


def ids_to_reorder(rows: Candidates, hook: KKHook, ledger: SqlLedger) -> dict[str, list[str]]:
    """Reject orders that may not be ordered once more. Return, by number, all its ids at KK by now.

    An answer may have only a part of the splits. KK's list is read once for all rows.

    :raises ResolutionUnavailable: the list cannot be used.
    """
    from airflow_provider_kk.delivery.listing import all_at_kk, kk_skew_s
    from airflow_provider_kk.hooks.ledger_connection import open_order_list

    # Before the end of its settle window, KK's list may lack a part of an order.
    rows.check(lambda one: require_over(ledger, one))
    if not rows.records:
        return {}
    with reading_kk("KK's list"), open_order_list(hook, ledger) as order_list:
        rows.check_windows(ledger, kk_skew_s(order_list))
        at_kk = all_at_kk(ledger, order_list, [*rows.records.values()]) if rows.records else {}

    def ids_of(entry: Record) -> list[str]:
        listed = at_kk[entry.key]
        if entry.state.value == "rejected" and (alive := [one.id for one in listed if not one.is_cancelled]):
            raise ResolutionRejected(
                f"KK rejected it, but lists {', '.join(alive)} for it. Cancel those orders at KK, or run "
                f"`kk ledger resolve {entry.key} --created {','.join(alive)}`"
            )
        return sorted(one.id for one in listed)

    return rows.check(ids_of)


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


# Cancel --------------------------------------------------------------------------------------------


def require_cancellable(entry: Record, hook: KKHook, ledger: SqlLedger) -> None:
    """Require that an order is at KK and not shipped. Nothing changes.

    :raises ResolutionRejected: it cannot be cancelled; the text has the reason and what to do.
    :raises KKError: KK does not answer.
    """
    from airflow_provider_kk.api.fulfilment import FulfilmentStatus, why_never

    number, state = entry.key, entry.state.value
    if state != "created":
        raise ResolutionRejected(f"{number} is {state.replace('_', ' ')}{_NOT_CANCELLABLE[state]}")
    # A bulk cancel sends a request for each order, so it shares the account's rate limit.
    with hook.client(hook.settings.shared_bucket(ledger)) as client:
        listed = client.get_orders(list(entry.kk_order_ids))
    reasons = {one.id: reason for one in listed if (reason := why_never(one, FulfilmentStatus.REFUNDED))}
    if listed and len(reasons) == len(listed):
        text = "; ".join(f"{kk_id}: {why}" for kk_id, why in reasons.items())
        raise ResolutionRejected(f"{number} cannot be cancelled: {text}")


_NOT_AT_KK = (
    ": KK does not have it, so there is nothing to cancel. To keep it from being sent, remove it from the "
    "query or run `kk pause`"
)
_NOT_CANCELLABLE = {
    "invalid": _NOT_AT_KK,
    "not_sent": _NOT_AT_KK,
    "rejected": _NOT_AT_KK,
    "sending": ": wait until a sync records its outcome, then cancel it",
    "in_doubt": ": wait until a sync reconciles it, then cancel it",
    "held": ": resolve it first with `kk ledger resolve`",
}
