"""Manual resolution: apply what a person decides about an order, once `resolution_checks` accepts it.

`kk ledger resolve` and `kk ledger retry` ask and print around them. DAGs call `resolve` by `operators.held`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_kk.sync.errors import ResolutionRejected
from airflow_provider_kk.sync.resolution_checks import (
    KKView,
    all_at_kk_of,
    bound_waits,
    doubt_of_orders,
    orders_seen_at_kk,
    require_never_created,
    require_rejected,
    require_reorder,
)

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import ListedOrder, Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook


@dataclass(frozen=True)
class ResolvedBy:
    """Who resolves an order, and the reason. The ledger keeps both with the order, so no customer's name."""

    who: str
    why: str


def split_ids(text: str) -> list[str]:
    """Read kkOrderIds as a human writes them: comma separated."""
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def newest(entries: Iterable[Record], ledger: SqlLedger) -> list[Record]:
    """Leave out generations that a human has replaced."""
    entries = list(entries)
    last = ledger.look_up(sorted({one.key for one in entries}))
    return [one for one in entries if one.key in last and last[one.key].generation == one.generation]


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
    """Resolve an order and return what happens next; a second call of the same changes nothing more.

    :param resolution: one of `RESOLUTIONS`; see `operators.held.resolve_order`, for the others too.
    :raises ResolutionRejected: says why.
    :raises KKError: KK does not answer.
    """
    from airflow_provider_kk.delivery.resolution import as_kept
    from airflow_provider_kk.delivery.states import CLOSED, State

    if not resolved_by.who.strip() or not resolved_by.why.strip():
        raise ResolutionRejected("a resolution needs who and why: the next one on call reads them")
    if resolution not in RESOLUTIONS:
        raise ResolutionRejected(f"{resolution!r} is none of {', '.join(RESOLUTIONS)}")
    entry = _known(number, ledger)
    is_resolved_so = entry.resolved_by == as_kept(resolved_by.who, resolved_by.why)
    if resolution == "order_again" and generation == entry.generation - 1 and is_resolved_so:
        return "ordered once more by an earlier try"
    if generation not in (None, entry.generation):
        raise ResolutionRejected(f"it was ordered again meanwhile, as generation {entry.generation}")
    if version not in (None, entry.version) and not is_resolved_so:
        raise ResolutionRejected(
            f"it has moved on since this was asked, and is {entry.state.value.replace('_', ' ')} now; "
            f"see `kk ledger show {entry.key}`"
        )
    if resolution == "never_created" and entry.state is State.NOT_SENT:
        return "never created, as was said before"
    entry = bound_waits(entry, hook, ledger)
    if resolution == "never_created":
        return resolve_never_created(
            entry, orders_seen_at_kk([entry], hook, ledger)[number], ledger, resolved_by
        )
    if resolution == "created" or entry.state not in CLOSED:
        created = _resolve_as_created(entry, ids, resolved_by, hook, ledger, accept_other_goods)
        if resolution == "created":
            return created
        entry = _known(number, ledger)
    return order_again(entry, all_at_kk_of([entry], hook, ledger)[number], ledger, resolved_by)


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
        return "created, as was said before"
    doubt = doubt_of_orders(ids, entry, hook, ledger)
    if doubt and not accept_other_goods:
        raise ResolutionRejected(f"{doubt}. To accept them, set accept_other_goods=True")
    return resolve_created(entry, ids, ledger, resolved_by)


# Created -------------------------------------------------------------------------------------------


def resolve_created(entry: Record, ids: Sequence[str], ledger: SqlLedger, resolved_by: ResolvedBy) -> str:
    """Take an order for created under these ids, which were checked; say so in a sentence.

    :raises ResolutionRejected: it has moved meanwhile.
    """
    from airflow_provider_kk.delivery.resolution import resolve
    from airflow_provider_kk.delivery.states import Event

    who, why = resolved_by.who, resolved_by.why
    if resolve(ledger, entry, Event.RESOLVED_CREATED, ids=ids, who=who, why=why) is None:
        raise ResolutionRejected(_HAS_MOVED.format(key=entry.key))
    return f"created as {', '.join(ids)}"


_HAS_MOVED = "it has moved meanwhile; look again with `kk ledger show {key}`"


# Never created -------------------------------------------------------------------------------------


def resolve_never_created(
    entry: Record,
    seen: KKView | ResolutionRejected,
    ledger: SqlLedger,
    resolved_by: ResolvedBy,
    not_mine: Sequence[str] = (),
    *,
    options: str = "",
) -> str:
    """Let an order or refund be sent again that KK never made; say so in a sentence.

    :param seen: see `orders_seen_at_kk` and `refunds_seen_at_kk`.
    :param not_mine: the ids that are another number's, see `require_other_number`.
    :param options: what a command of `kk ledger resolve` needs beside the number and the resolution.
    :raises ResolutionRejected: KK has it, or may have it, or it has moved meanwhile.
    """
    from airflow_provider_kk.delivery.resolution import resolve
    from airflow_provider_kk.delivery.states import Event

    doubt = require_never_created(entry, seen, options)
    try:
        who, why = resolved_by.who, resolved_by.why
        moved = resolve(ledger, entry, Event.RESOLVED_NEVER_CREATED, ids=not_mine, who=who, why=why)
    except ValueError as error:
        raise ResolutionRejected(str(error)) from error
    if moved is None:
        raise ResolutionRejected(_HAS_MOVED.format(key=entry.key))
    on_whose_word = f", on your word: KK's list could not confirm it ({doubt})" if doubt else ""
    return f"never created; the next sync that selects it sends it again{on_whose_word}"


# Order again ---------------------------------------------------------------------------------------


def order_again(
    entry: Record,
    at_kk: Sequence[ListedOrder] | ResolutionRejected,
    ledger: SqlLedger,
    resolved_by: ResolvedBy,
) -> str:
    """Order a number once more, beside what KK has of it, see `all_at_kk_of`; say so in a sentence.

    :raises ResolutionRejected: it is not over, KK has it though it has refused it, or it has moved meanwhile.
    """
    from airflow_provider_kk.delivery.resolution import order_again as order_once_more

    ids = require_reorder(entry, at_kk)
    try:
        is_done = order_once_more(ledger, entry, ids=ids, who=resolved_by.who, why=resolved_by.why)
    except ValueError as error:
        raise ResolutionRejected(str(error)) from error
    if not is_done:
        raise ResolutionRejected("it has moved meanwhile, or somebody has just ordered it again")
    beside = f", beside {', '.join(ids)}" if ids else ""
    return f"the next sync that selects it orders it once more (generation {entry.generation + 1}){beside}"


# Back-off ------------------------------------------------------------------------------------------


def clear_backoff(entry: Record, ledger: SqlLedger, resolved_by: ResolvedBy) -> str:
    """Let a rejected order be sent without its back-off; say so in a sentence.

    :raises ResolutionRejected: it is not rejected, or it has moved meanwhile.
    """
    from airflow_provider_kk.delivery import resolution
    from airflow_provider_kk.delivery.log import utc

    require_rejected(entry)
    if resolution.clear_backoff(ledger, entry, who=resolved_by.who, why=resolved_by.why) is None:
        raise ResolutionRejected(_HAS_MOVED.format(key=entry.key))
    if entry.settle_after > ledger.now():
        return f"asked again by the next sync, once its settle window is over at {utc(entry.settle_after)}"
    return "asked again by the next sync"
