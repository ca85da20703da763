"""Manual resolution: apply a person's decision about an order after `resolution_checks` accepts it.

DAGs call `resolve` by `operators.held`. `kk ledger` and the Orders page call `resolve_many`, which uses the
rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_kk.sync.errors import ResolutionRejected
from airflow_provider_kk.sync.record_types import ORDERS, RecordType
from airflow_provider_kk.sync.resolution_checks import (
    accepted,
    all_at_kk_of,
    doubt_of_orders,
    doubts_of_absent_orders,
    require_reorder,
)

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook


@dataclass(frozen=True)
class ResolvedBy:
    """The person who resolves an order, and the reason. The ledger keeps both, so use no customer's name."""

    who: str
    why: str


def split_ids(text: str) -> list[str]:
    """Split comma-separated kkOrderIds."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def newest(entries: Iterable[Record], ledger: SqlLedger) -> list[Record]:
    """Return the entries without generations that a newer one replaced."""
    entries = list(entries)
    last = ledger.look_up(sorted({one.key for one in entries}))
    return [one for one in entries if one.key in last and last[one.key].generation == one.generation]


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


# One order, from a DAG --------------------------------------------------------------------------------


def resolve(
    number: str,
    resolution: str,
    resolved_by: ResolvedBy,
    hook: KKHook,
    ledger: SqlLedger,
    *,
    ids: Sequence[str] = (),
    accept_other_goods: bool = False,
    generation: int | None = None,
    version: str | None = None,
) -> str:
    """Resolve an order and return what happens next. A repeated call changes nothing more.

    :param resolution: one of `RESOLUTIONS`; `operators.held.resolve_order` describes all arguments.
    :raises ResolutionRejected: the resolution is rejected; the text has the reason.
    :raises KKError: KK does not answer.
    """
    from airflow_provider_kk.delivery.resolution import as_kept
    from airflow_provider_kk.delivery.states import CLOSED, State

    if not resolved_by.who.strip() or not resolved_by.why.strip():
        raise ResolutionRejected("set who and why: the next person on call reads them in the ledger")
    if resolution not in RESOLUTIONS:
        raise ResolutionRejected(f"resolution must be one of {', '.join(RESOLUTIONS)}, not {resolution!r}")
    entry = _known(number, ledger)
    is_resolved_so = entry.resolved_by == as_kept(resolved_by.who, resolved_by.why)
    if resolution == "order_again" and generation == entry.generation - 1 and is_resolved_so:
        return "ordered once more by an earlier try"
    if generation not in (None, entry.generation):
        raise ResolutionRejected(f"it was ordered again meanwhile, as generation {entry.generation}")
    if version not in (None, entry.version) and not is_resolved_so:
        raise ResolutionRejected(
            f"it changed meanwhile, and is {entry.state.value.replace('_', ' ')} now. See "
            f"`kk ledger show {entry.key}`"
        )
    if resolution == "never_created" and entry.state is State.NOT_SENT:
        return "never created, as resolved before"
    entry = shorten_waits(entry, hook, ledger)
    if resolution == "never_created":
        doubt = accepted(doubts_of_absent_orders([entry], hook, ledger)[number])
        return resolve_never_created(entry, doubt, ORDERS, ledger, resolved_by)
    if resolution == "created" or entry.state not in CLOSED:
        created = _resolve_as_created(entry, ids, resolved_by, hook, ledger, accept_other_goods)
        if resolution == "created":
            return created
        entry = _known(number, ledger)
    ids = require_reorder(entry, accepted(all_at_kk_of([entry], hook, ledger)[number]))
    return order_again(entry, ids, ledger, resolved_by)


RESOLUTIONS = ("created", "never_created", "order_again")


def _known(number: str, ledger: SqlLedger) -> Record:
    if entry := ledger.look_up([number]).get(number):
        return entry
    raise ResolutionRejected(f"it is not in the ledger of {ledger.account} at {ledger.host}")


def _resolve_as_created(
    entry: Record,
    ids: Sequence[str],
    resolved_by: ResolvedBy,
    hook: KKHook,
    ledger: SqlLedger,
    accept_other_goods: bool,
) -> str:
    if entry.state.value == "created" and set(entry.kk_order_ids) == set(ids):
        return "created, as resolved before"
    doubt = doubt_of_orders(ids, entry, hook, ledger)
    if doubt and not accept_other_goods:
        raise ResolutionRejected(f"{doubt}. To accept them, set accept_other_goods=True")
    return resolve_created(entry, ids, ledger, resolved_by)


# Created -------------------------------------------------------------------------------------------


def resolve_created(entry: Record, ids: Sequence[str], ledger: SqlLedger, resolved_by: ResolvedBy) -> str:
    """Record an order as created under these ids, which were checked; return the result in words.

    :raises ResolutionRejected: the order changed meanwhile.
    """
    from airflow_provider_kk.delivery.resolution import resolve
    from airflow_provider_kk.delivery.states import Event

    who, why = resolved_by.who, resolved_by.why
    if resolve(ledger, entry, Event.RESOLVED_CREATED, ids=ids, who=who, why=why) is None:
        raise ResolutionRejected(_HAS_CHANGED.format(key=entry.key))
    return f"created as {', '.join(ids)}"


_HAS_CHANGED = "it changed meanwhile. See `kk ledger show {key}`"


# Never created -------------------------------------------------------------------------------------


def resolve_never_created(
    entry: Record,
    doubt: str,
    record_type: RecordType,
    ledger: SqlLedger,
    resolved_by: ResolvedBy,
    not_mine: Sequence[str] = (),
) -> str:
    """Let the next sync send an order or refund that KK never created; return the result in words.

    :param doubt: see `doubts_of_absent_orders` and `doubts_of_absent_refunds`.
    :param not_mine: the ids that are another number's, see `require_other_number`.
    :raises ResolutionRejected: it changed meanwhile.
    """
    from airflow_provider_kk.delivery.resolution import resolve
    from airflow_provider_kk.delivery.states import Event

    try:
        who, why = resolved_by.who, resolved_by.why
        moved = resolve(ledger, entry, Event.RESOLVED_NEVER_CREATED, ids=not_mine, who=who, why=why)
    except ValueError as error:
        raise ResolutionRejected(str(error)) from error
    if moved is None:
        raise ResolutionRejected(_HAS_CHANGED.format(key=entry.key))
    unconfirmed = f". KK's list could not confirm that ({doubt}), so this relies on you" if doubt else ""
    return f"never created; {record_type.next_run} sends it{unconfirmed}"


# Order again ---------------------------------------------------------------------------------------


def order_again(entry: Record, ids: Sequence[str], ledger: SqlLedger, resolved_by: ResolvedBy) -> str:
    """Begin a new generation of a number, in addition to KK's orders of it; return the result in words.

    :param ids: see `require_reorder`.
    :raises ResolutionRejected: it changed meanwhile.
    """
    from airflow_provider_kk.delivery.resolution import order_again as order_once_more

    try:
        is_done = order_once_more(ledger, entry, ids=ids, who=resolved_by.who, why=resolved_by.why)
    except ValueError as error:
        raise ResolutionRejected(str(error)) from error
    if not is_done:
        raise ResolutionRejected(_HAS_CHANGED.format(key=entry.key))
    beside = f", in addition to {', '.join(ids)}" if ids else ""
    return f"the next sync that selects it orders it once more (generation {entry.generation + 1}){beside}"


# Back-off ------------------------------------------------------------------------------------------


def clear_backoff(entry: Record, record_type: RecordType, ledger: SqlLedger, resolved_by: ResolvedBy) -> str:
    """End the back-off of a rejected order; return the result in words.

    :raises ResolutionRejected: it changed meanwhile.
    """
    from airflow_provider_kk.delivery import resolution
    from airflow_provider_kk.delivery.log import utc

    if resolution.clear_backoff(ledger, entry, who=resolved_by.who, why=resolved_by.why) is None:
        raise ResolutionRejected(_HAS_CHANGED.format(key=entry.key))
    if entry.settle_after > ledger.now():
        end = utc(entry.settle_after)
        return f"its settle window ends at {end}. After that, {record_type.next_run} sends it"
    return f"{record_type.next_run} sends it"
