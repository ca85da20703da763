"""Audit: compare a period of KK's list with the ledger, and report each order number that differs.

It only reads. It finds differences that no sync finds: a request that a proxy sent twice, an order that KK
lost, and order numbers that the ledger did not send.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from airflow_provider_kk.api.client import chunks
from airflow_provider_kk.delivery.listing import NOT_OUR_STORE, KKOrderList, is_part, trusted_now
from airflow_provider_kk.delivery.log import Log, utc
from airflow_provider_kk.delivery.model import (
    Attempt,
    Goods,
    InconclusiveError,
    ListedOrder,
    Record,
    add_goods,
    plain_number,
    union,
)
from airflow_provider_kk.delivery.states import DOUBTFUL, Event, State

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.storage import SqlLedger

_PENDING = DOUBTFUL | {State.HELD}


class AuditResult(StrEnum):
    """The result of the comparison for one order number."""

    AGREES = "agrees"
    """KK's orders of this number have the ordered goods once."""
    MORE = "more"
    """KK has too much: a second order, or one that the ledger does not have as created."""
    FEWER = "fewer"
    """KK has only a part of the goods."""
    MISSING = "missing"
    """KK lists no order of this number at the times at which it was sent and created."""
    OTHER_GOODS = "other_goods"
    """KK has this number with other goods."""
    OTHER_IDS = "other_ids"
    """KK has the goods once, but not under the kkOrderIds in the ledger."""
    UNCLAIMED = "unclaimed"
    """The ledger never sent this number of KK's list: it does not have it, or only from KK's list."""
    UNCLEAR = "unclear"
    """KK's orders have goods that cannot be parsed, and other ids than the ledger has."""
    OPEN = "open"
    """In doubt, being sent, held, or rejected within the settle window, and KK's list fits."""
    UNNUMBERED = "unnumbered"
    """A KK order whose order number is missing or cannot be parsed."""

    @property
    def is_difference(self) -> bool:
        """Whether a person has to look into it."""
        return self not in (AuditResult.AGREES, AuditResult.OPEN, AuditResult.UNNUMBERED)


@dataclass(frozen=True)
class Finding:
    """The result for one order number, or for one KK order without a number."""

    key: str | None
    verdict: AuditResult
    message: str = ""
    state: str = ""
    """The state of the newest generation; empty if the ledger does not have the number."""
    generation: int = 0
    should_have: Goods = field(default_factory=dict)
    """The goods of all created generations in the comparison."""
    kk_has: Goods = field(default_factory=dict)
    ledger_ids: tuple[str, ...] = ()
    kk_ids: tuple[str, ...] = ()


class _Comparison:
    """One order number in the ledger and at KK, side by side.

    :param generations: the ledger's rows at whose times KK's list was read, oldest first.
    :param shown: all KK orders of this number from these times.
    :param attempts: POSTs that may have reached KK. An open generation may have ordered any of their goods.
    """

    def __init__(
        self, generations: Sequence[Record], shown: Sequence[ListedOrder], attempts: Sequence[Attempt]
    ) -> None:
        self.generations, self.attempts = generations, attempts
        self.created = [one for one in generations if one.state is State.CREATED]
        self.pending = [one for one in generations if one.state in _PENDING]
        self.ledger_ids = _ids_of(generations)
        # An order that was cancelled at KK counts only if the ledger has its id.
        self.shown = [one for one in shown if one.id in self.ledger_ids or not one.is_cancelled]
        self.kk_ids = tuple(one.id for one in self.shown)
        self.should_have = add_goods([one.content.goods for one in self.created])
        self.kk_has = add_goods([one.goods or {} for one in self.shown])
        #: The ids with which KK's orders have to be listed, and those of them that KK does not list.
        self.known = set(_ids_of(self.created))
        self.lost = ", ".join(sorted(self.known - set(self.kk_ids)))

    def finding(self, key: str, now: float) -> Finding:
        """Compare; `now` is the database's clock, epoch seconds."""
        newest = self.generations[-1] if self.generations else None
        verdict, message = self._result(now)
        return Finding(
            key,
            verdict,
            message,
            state=newest.state.value if newest else "",
            generation=newest.generation if newest else 0,
            should_have=self.should_have,
            kk_has=self.kk_has,
            ledger_ids=self.ledger_ids,
            kk_ids=self.kk_ids,
        )

    def _result(self, now: float) -> tuple[AuditResult, str]:
        if self.created and all(map(_is_unclaimed, self.generations)):
            return (
                AuditResult.UNCLAIMED,
                "the ledger has this number from KK's list alone: no sync sent or selected it",
            )
        not_created = [one for one in self.generations if one.state is not State.CREATED]
        if unsettled := [one for one in not_created if one.settle_after > now]:
            return AuditResult.OPEN, f"its settle window is open until {utc(unsettled[-1].settle_after)}"
        # A person resolved the number as exactly these KK orders.
        is_resolved = any(one.adopted and one.resolved_by for one in self.created)
        if not self.pending and is_resolved and self.known == set(self.kk_ids):
            return AuditResult.AGREES, ""
        if any(not one.content.goods for one in self.created) or any(one.goods is None for one in self.shown):
            return self._by_ids()
        verdict, message = self._by_goods()
        if verdict is AuditResult.MORE and (others := self._others(self.ledger_ids)):
            return verdict, f"{message}; the ledger does not have {others}"
        if verdict is AuditResult.AGREES and self.lost:
            return AuditResult.OTHER_IDS, f"KK does not list {self.lost}, which the ledger has"
        return verdict, message

    def _others(self, ids: Iterable[str]) -> str:
        return ", ".join(sorted(set(self.kk_ids) - set(ids)))

    def _by_ids(self) -> tuple[AuditResult, str]:
        if self.pending:
            return AuditResult.OPEN, self._waits()
        if self.known and not self.kk_ids:
            return AuditResult.MISSING, "KK shows no order of this number"
        if self.lost:
            return AuditResult.FEWER, f"KK does not list {self.lost}, which the ledger has"
        if others := self._others(self.known):
            text = f"the ledger does not have {others}, and their goods cannot be parsed"
            return AuditResult.UNCLEAR, text
        return AuditResult.AGREES, ""

    def _by_goods(self) -> tuple[AuditResult, str]:
        wanted, found = self.should_have, self.kk_has
        # The goods that the open generation may have ordered; only the newest can be open.
        generations = {one.generation for one in self.pending}
        sent = [one.content.goods for one in self.attempts if one.generation in generations]
        not_known = [*sent, *(one.content.goods for one in self.pending)]
        may_be = [wanted, *(add_goods([wanted, goods]) for goods in not_known)]
        if found in may_be:
            return (AuditResult.OPEN, self._waits()) if self.pending else (AuditResult.AGREES, "")
        if wanted and not found:
            return AuditResult.MISSING, "KK shows no order of this number"
        waits = f" ({self._waits()})" if self.pending else ""
        if any(is_part(found, one) for one in may_be):
            return AuditResult.FEWER, f"KK has only a part of its goods{waits}"
        if all(is_part(one, found) for one in may_be):
            return AuditResult.MORE, self._how_much_more(may_be[-1]) + waits
        return AuditResult.OTHER_GOODS, f"KK has other goods under this number{waits}"

    def _how_much_more(self, wanted: Goods) -> str:
        if not wanted:
            return "KK has this order, and the ledger does not have it as created"
        times = min(self.kk_has[sku] // quantity for sku, quantity in wanted.items())
        if self.kk_has == {sku: times * quantity for sku, quantity in wanted.items()}:
            return f"KK has this order {times} times"
        return f"KK has more goods than were ordered, in {len(self.shown)} orders"

    def _waits(self) -> str:
        one = self.pending[-1]
        return f"{one.state.value.replace('_', ' ')}: {one.message}" if one.message else one.state.value


def _is_unclaimed(entry: Record) -> bool:
    return not (entry.attempt or entry.content.fingerprint or entry.resolved_by)


def _ids_of(generations: Iterable[Record]) -> tuple[str, ...]:
    return union((), (one for entry in generations for one in entry.kk_order_ids))


#: Seconds that are read around a period: an answer is recorded after KK created the order, and clocks differ.
_MARGIN_S = 600.0
_LOG_EVERY_S = 10.0
_SENTINELS = 3
_KEYS_AT_ONCE = 500


@dataclass
class Audit:
    """The result of an audit."""

    since: float
    until: float
    findings: list[Finding] = field(default_factory=list)
    """All findings except those that agree, by order number; orders without one are at the end."""
    counts: Counter[AuditResult] = field(default_factory=Counter)
    """The number of order numbers by result, those that agree included."""

    @property
    def agrees(self) -> bool:
        """Whether each order number has as many KK orders as it should."""
        return not any(verdict.is_difference for verdict in self.counts)


def latest_until(ledger: SqlLedger, order_list: KKOrderList) -> float:
    """Return the time up to which KK's list is complete by now, epoch seconds."""
    return trusted_now(ledger, order_list) - ledger.timing.settle_window_s


def audit(ledger: SqlLedger, order_list: KKOrderList, since: float, until: float, log: Log) -> Audit:
    """Compare the orders that KK created from `since` to `until` (epoch seconds) with the ledger.

    :param until: not later than `latest_until`.
    :raises InconclusiveError, KKError: KK's list cannot be read completely, or it has no sentinel order, so
        the comparison has no result.
    """
    return _Auditor(ledger, order_list, since, until, log).run()


class _Auditor:
    def __init__(
        self, ledger: SqlLedger, order_list: KKOrderList, since: float, until: float, log: Log
    ) -> None:
        self._ledger, self._order_list = ledger, order_list
        self._since, self._until = since, until
        self._margin_s = _MARGIN_S + abs(ledger.now() - ledger.clock.wall())
        self._shown = _Shown(order_list, ledger, log)

    def run(self) -> Audit:
        # KK's list first: each order in it has its intent in the ledger already.
        start, end = self._since - self._margin_s, self._until + self._margin_s
        self._shown.read(start, end)
        near = self._ledger.storage.created_between(start, end)
        pending = self._ledger.entries(states=[*DOUBTFUL, State.HELD])
        self._require_sentinel(near)
        self._shown.attribute([*near, *pending])
        keys = self._keys(near, pending)
        rows = self._rows(keys)
        findings = {key: self._audit_result(key, rows.get(key, []), start, end) for key in keys}
        self._compare_goods({key: rows[key] for key, one in findings.items() if _deserves(one)}, findings)
        return self._sum_up(findings)

    def _sum_up(self, findings: dict[str, Finding]) -> Audit:
        apart = [
            Finding(
                None,
                AuditResult.UNNUMBERED,
                f"created {utc(one.created_at)}" if one.created_at else "",
                kk_has=one.goods or {},
                kk_ids=(one.id,),
            )
            for one in self._shown.unnumbered()
            if self._is_inside(one.created_at)
        ]
        result = Audit(self._since, self._until)
        for one in [*(findings[key] for key in sorted(findings)), *apart]:
            result.counts[one.verdict] += 1
            if one.verdict is not AuditResult.AGREES:
                result.findings.append(one)
        return result

    def _is_inside(self, epoch: float | None) -> bool:
        return epoch is None or self._since <= epoch <= self._until

    def _require_sentinel(self, near: Iterable[Record]) -> None:
        """Raise an error if there are sentinel orders and KK's list has none of them."""
        if any(one.attempt and self._shown.has(one.kk_order_ids) for one in near):
            return
        known = self._ledger.storage.newest_sent(before=self._until, limit=_SENTINELS)
        for one in known:
            self._shown.read(one.created_at - self._margin_s, one.created_at + self._margin_s)
            if self._shown.has(one.kk_order_ids):
                return
        if known:
            raise InconclusiveError(NOT_OUR_STORE)

    # What is compared ------------------------------------------------------------------------------

    def _keys(self, near: Iterable[Record], pending: Iterable[Record]) -> set[str]:
        """Return the order numbers of the period, in the ledger or at KK."""
        keys = {one.key for one in near if self._is_inside(one.created_at)}
        keys |= {key for key, one in self._shown.numbered() if self._is_inside(one.created_at)}
        sent = self._ledger.attempts(sorted({one.key for one in pending}))
        return keys | {one.key for one in sent if self._is_inside(one.intent_at)}

    def _rows(self, keys: Iterable[str]) -> dict[str, list[Record]]:
        newest = self._ledger.look_up(sorted(keys))
        return {
            key: [entry] if entry.generation == 1 else self._ledger.generations(key)
            for key, entry in newest.items()
        }

    def _audit_result(self, key: str, generations: Sequence[Record], start: float, end: float) -> Finding:
        shown = self._shown.of(key)
        # An order that was created at another time need not be in the part of the list that was read.
        ids = {one.id for one in shown}
        looked_for = [
            one
            for one in generations
            if one.state is not State.CREATED or start <= one.created_at <= end or ids & set(one.kk_order_ids)
        ]
        compared = _Comparison(looked_for, shown, ())
        if generations:
            return compared.finding(key, self._ledger.now())
        if not compared.shown:
            return Finding(key, AuditResult.AGREES, "cancelled at KK", kk_ids=tuple(one.id for one in shown))
        message = "the ledger does not have this number"
        return Finding(key, AuditResult.UNCLAIMED, message, kk_has=compared.kk_has, kk_ids=compared.kk_ids)

    # A second look ---------------------------------------------------------------------------------

    def _compare_goods(self, rows: dict[str, list[Record]], findings: dict[str, Finding]) -> None:
        """Compare the numbers that differ once more, with KK's list of all times of their orders."""
        for some in chunks(sorted(rows), _KEYS_AT_ONCE):
            attempts = _by_key(self._ledger.attempts(some))
            times = [time for key in some for time in _times(rows[key], attempts.get(key, []))]
            for since, until in _merged(times, self._margin_s):
                self._shown.read(since, until)
            self._shown.attribute(one for key in some for one in rows[key])
            for key in some:
                compared = _Comparison(rows[key], self._shown.of(key), attempts.get(key, []))
                findings[key] = compared.finding(key, self._ledger.now())


def _deserves(finding: Finding) -> bool:
    return finding.verdict not in (AuditResult.AGREES, AuditResult.UNCLAIMED)


def _by_key(attempts: Iterable[Attempt]) -> dict[str, list[Attempt]]:
    grouped: dict[str, list[Attempt]] = {}
    for one in attempts:
        if one.outcome != Event.NOT_SENT.value:
            grouped.setdefault(one.key, []).append(one)
    return grouped


def _times(generations: Iterable[Record], attempts: Iterable[Attempt]) -> Iterator[float]:
    yield from (one.created_at for one in generations if one.created_at)
    # After a manual resolution, the time of creation is the time of the resolution.
    yield from (one.intent_at for one in attempts)


def _merged(times: Iterable[float], margin_s: float) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    for time in sorted(times):
        if spans and time - margin_s <= spans[-1][1]:
            spans[-1] = (spans[-1][0], time + margin_s)
        else:
            spans.append((time - margin_s, time + margin_s))
    return spans


class _Shown:
    """The parts of KK's list that were read."""

    def __init__(self, order_list: KKOrderList, ledger: SqlLedger, log: Log) -> None:
        self._order_list, self._clock, self._log = order_list, ledger.clock, log
        self._look_up = ledger.look_up
        self._last_log = self._clock.monotonic()
        self._read: list[tuple[float, float]] = []
        self._by_id: dict[str, ListedOrder] = {}
        self._key_of: dict[str, str | None] = {}
        self._ids_of: dict[str, set[str]] = {}

    def read(self, since: float, until: float) -> None:
        """Read a period that was not read before, wider by the error of KK's clock."""
        if any(start <= since and until <= end for start, end in self._read):
            return
        skew_s = self._order_list.clock_skew_s or 0.0
        now = self._clock.wall() + skew_s
        for listed in self._order_list.find(since - abs(skew_s), min(until + abs(skew_s), now)):
            self._by_id.update((one.id, one) for one in listed)
            self._log_progress(listed)
        if abs((self._order_list.clock_skew_s or 0.0) - skew_s) > _MARGIN_S / 2:
            self.read(since, until)  # KK's first answer gives the error of its clock
        else:
            self._read.append((since, until))

    def _log_progress(self, listed: Sequence[ListedOrder]) -> None:
        times = [one.created_at for one in listed if one.created_at]
        if times and self._clock.monotonic() - self._last_log >= _LOG_EVERY_S:
            self._last_log = self._clock.monotonic()
            self._log.info("Reading KK's list: %d orders, up to %s", len(self._by_id), utc(max(times)))

    def attribute(self, rows: Iterable[Record]) -> None:
        """Assign each KK order to an order number, also by rows of the ledger that may be its own."""
        rows = list(rows)
        by_id = {one: row.key for row in rows for one in row.kk_order_ids}
        plain = {plain_number(row.key): row.key for row in rows}
        integers = {one.key for one in self._by_id.values() if one.key and one.key_is_integer}
        exact = self._look_up(sorted(integers))
        for one in self._by_id.values():
            key = one.key
            if not key or one.key_is_integer:
                key = by_id.get(one.id) or self._key_of.get(one.id) or key
            if key == one.key and one.key_is_integer and key not in exact:
                key = plain.get(key or "", key)
            self._note(one.id, key or None)

    def _note(self, kk_order_id: str, key: str | None) -> None:
        before = self._key_of.get(kk_order_id)
        if before is not None:
            self._ids_of[before].discard(kk_order_id)
        self._key_of[kk_order_id] = key
        if key is not None:
            self._ids_of.setdefault(key, set()).add(kk_order_id)

    def has(self, ids: Iterable[str]) -> bool:
        return any(one in self._by_id for one in ids)

    def of(self, key: str) -> list[ListedOrder]:
        return [self._by_id[one] for one in sorted(self._ids_of.get(key, ()))]

    def numbered(self) -> Iterator[tuple[str, ListedOrder]]:
        for key, ids in self._ids_of.items():
            for one in ids:
                yield key, self._by_id[one]

    def unnumbered(self) -> list[ListedOrder]:
        return [self._by_id[one] for one, key in sorted(self._key_of.items()) if key is None]
