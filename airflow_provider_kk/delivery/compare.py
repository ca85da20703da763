"""One order number: what KK has of it against what the ledger says that it should have."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from airflow_provider_kk.delivery.log import utc
from airflow_provider_kk.delivery.model import Attempt, Goods, ListedOrder, Record, add_goods, union
from airflow_provider_kk.delivery.states import DOUBTFUL, State

_PENDING = DOUBTFUL | {State.HELD}


class AuditResult(StrEnum):
    """What a comparison says of one order number."""

    AGREES = "agrees"
    """KK's orders of this number hold what was ordered, once."""
    MORE = "more"
    """KK has more than that: a second order, or one that the ledger does not count as created."""
    FEWER = "fewer"
    """KK has a part of it."""
    MISSING = "missing"
    """KK shows none of it at the times at which it was sent and created."""
    OTHER_GOODS = "other_goods"
    """KK has this number with other goods."""
    OTHER_IDS = "other_ids"
    """KK has the goods once, but not under the kkOrderIds that the ledger knows."""
    UNCLAIMED = "unclaimed"
    """KK has a number that nobody here has ordered: the ledger does not know it, or only from KK's list."""
    UNCLEAR = "unclear"
    """KK's orders have goods that cannot be read, and other ids than the ledger knows."""
    OPEN = "open"
    """In doubt, being sent, held, or refused just now, and KK has what it may have by then."""
    UNNUMBERED = "unnumbered"
    """A KK order without a number that can be read: nobody can say whose it is."""

    @property
    def is_difference(self) -> bool:
        """Whether somebody has to look at it because of this comparison."""
        return self not in (AuditResult.AGREES, AuditResult.OPEN, AuditResult.UNNUMBERED)


@dataclass(frozen=True)
class Finding:
    """What is said of one order number, or of one KK order without a number."""

    key: str | None
    verdict: AuditResult
    message: str = ""
    state: str = ""
    """Of the newest generation; empty when the ledger does not know the number."""
    generation: int = 0
    should_have: Goods = field(default_factory=dict)
    """The goods of all created generations that were looked for."""
    kk_has: Goods = field(default_factory=dict)
    ledger_ids: tuple[str, ...] = ()
    kk_ids: tuple[str, ...] = ()


def unclaimed(key: str, shown: Sequence[ListedOrder]) -> Finding:
    """Return what is said of a number that the ledger does not know."""
    standing = [one for one in shown if not one.is_cancelled]
    if not standing:
        return Finding(key, AuditResult.AGREES, "cancelled at KK", kk_ids=_ids(shown))
    message = "the ledger does not know this number"
    return Finding(key, AuditResult.UNCLAIMED, message, kk_has=_goods(standing), kk_ids=_ids(standing))


def unnumbered(one: ListedOrder) -> Finding:
    """Return what is said of a KK order without a number that can be read."""
    at = f"created {utc(one.created_at)}" if one.created_at else ""
    return Finding(None, AuditResult.UNNUMBERED, at, kk_has=one.goods or {}, kk_ids=(one.id,))


def compare(
    key: str,
    generations: Sequence[Record],
    shown: Sequence[ListedOrder],
    attempts: Sequence[Attempt],
    now: float,
) -> Finding:
    """Compare one order number.

    :param generations: those whose times were read, oldest first.
    :param shown: all KK orders of this number from these times.
    :param attempts: POSTs that may have reached KK; they tell what an open generation may have ordered.
    :param now: the database's clock, epoch seconds.
    """
    created = [one for one in generations if one.state is State.CREATED]
    ids = _all_ids(generations)
    # What was cancelled at KK and is not counted on here is over.
    standing = [one for one in shown if one.id in ids or not one.is_cancelled]
    verdict, message = _audit_result(generations, created, standing, attempts, now)
    return Finding(
        key,
        verdict,
        message,
        state=generations[-1].state.value if generations else "",
        generation=generations[-1].generation if generations else 0,
        should_have=add_goods([one.content.goods for one in created]),
        kk_has=_goods(standing),
        ledger_ids=ids,
        kk_ids=_ids(standing),
    )


def _audit_result(
    generations: Sequence[Record],
    created: Sequence[Record],
    shown: Sequence[ListedOrder],
    attempts: Sequence[Attempt],
    now: float,
) -> tuple[AuditResult, str]:
    if created and all(map(_is_nobodys, generations)):
        return (
            AuditResult.UNCLAIMED,
            "known from KK's list alone: no sync has sent or selected this very order",
        )
    unsettled = [one for one in generations if one.state is not State.CREATED and one.settle_after > now]
    if unsettled:
        return AuditResult.OPEN, f"its settle window is open until {utc(unsettled[-1].settle_after)}"
    pending = [one for one in generations if one.state in _PENDING]
    known = set(_all_ids(created))
    if not pending and _is_resolved_so(created, known, shown):
        return AuditResult.AGREES, ""
    if any(not one.content.goods for one in created) or any(one.goods is None for one in shown):
        return _by_ids(known, pending, shown)
    verdict, message = _by_goods(created, pending, shown, attempts)
    others = sorted(set(_ids(shown)) - set(_all_ids(generations)))
    if verdict is AuditResult.MORE and others:
        return verdict, f"{message}; the ledger does not know {', '.join(others)}"
    if verdict is AuditResult.AGREES and not known <= set(_ids(shown)):
        lost = sorted(known - set(_ids(shown)))
        return AuditResult.OTHER_IDS, f"KK does not show {', '.join(lost)}, which the ledger knows"
    return verdict, message


def _is_nobodys(entry: Record) -> bool:
    return not (entry.attempt or entry.content.fingerprint or entry.resolved_by)


def _is_resolved_so(created: Sequence[Record], known: set[str], shown: Sequence[ListedOrder]) -> bool:
    """Whether a human has seen exactly these orders at KK and said that they are it."""
    has_spoken = any(one.adopted and one.resolved_by for one in created)
    return has_spoken and known == set(_ids(shown))


def _by_ids(
    known: Collection[str], pending: Sequence[Record], shown: Sequence[ListedOrder]
) -> tuple[AuditResult, str]:
    ids = set(_ids(shown))
    if pending:
        return AuditResult.OPEN, _waits(pending)
    if known and not ids:
        return AuditResult.MISSING, "KK shows no order of this number"
    if lost := sorted(set(known) - ids):
        return AuditResult.FEWER, f"KK does not show {', '.join(lost)}, which the ledger knows"
    if others := sorted(ids - set(known)):
        return AuditResult.UNCLEAR, f"the ledger does not know {', '.join(others)}, and goods cannot be read"
    return AuditResult.AGREES, ""


def _by_goods(
    created: Sequence[Record],
    pending: Sequence[Record],
    shown: Sequence[ListedOrder],
    attempts: Sequence[Attempt],
) -> tuple[AuditResult, str]:
    wanted, found = add_goods([one.content.goods for one in created]), _goods(shown)
    may_be = [wanted, *(add_goods([wanted, goods]) for goods in _pending_goods(pending, attempts))]
    if found in may_be:
        return (AuditResult.OPEN, _waits(pending)) if pending else (AuditResult.AGREES, "")
    if wanted and not found:
        return AuditResult.MISSING, "KK shows no order of this number"
    waits = f" ({_waits(pending)})" if pending else ""
    if any(_is_part(found, one) for one in may_be):
        return AuditResult.FEWER, f"KK has only a part of its goods{waits}"
    if all(_is_part(one, found) for one in may_be):
        return AuditResult.MORE, _how_much_more(may_be[-1], found, shown) + waits
    return AuditResult.OTHER_GOODS, f"KK has other goods under this number{waits}"


def _how_much_more(wanted: Goods, found: Goods, shown: Sequence[ListedOrder]) -> str:
    if not wanted:
        return "KK has it, and by the ledger it should not"
    times = min(found[sku] // quantity for sku, quantity in wanted.items())
    if dict(found) == {sku: times * quantity for sku, quantity in wanted.items()}:
        return f"KK has it {times} times"
    return f"KK has more goods than were ordered, in {len(shown)} orders"


def _pending_goods(pending: Sequence[Record], attempts: Sequence[Attempt]) -> list[Goods]:
    """Return what an open generation may have come to; only the newest can be open."""
    generations = {one.generation for one in pending}
    older = [one.content.goods for one in attempts if one.generation in generations]
    return [*older, *(one.content.goods for one in pending)]


def _waits(pending: Sequence[Record]) -> str:
    one = pending[-1]
    return f"{one.state.value.replace('_', ' ')}: {one.message}" if one.message else one.state.value


def _is_part(goods: Goods, whole: Goods) -> bool:
    return all(quantity <= whole.get(sku, 0) for sku, quantity in goods.items())


def _goods(shown: Sequence[ListedOrder]) -> dict[str, int]:
    return add_goods([one.goods or {} for one in shown])


def _ids(shown: Iterable[ListedOrder]) -> tuple[str, ...]:
    return tuple(one.id for one in shown)


def _all_ids(generations: Iterable[Record]) -> tuple[str, ...]:
    return union((), (one for entry in generations for one in entry.kk_order_ids))
