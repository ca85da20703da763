"""What must hold in the end, judged by KK's own record."""

from __future__ import annotations

import json
import math
from collections import Counter, namedtuple
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from types import SimpleNamespace
from typing import Any

from airflow_provider_kk.delivery.sql.ledger_rows import RECORD_FIELDS, attempt_of, record_of
from airflow_provider_kk.delivery.sql.tables import ORDERS
from airflow_provider_kk.sync.ledger_history import Rule, broken_rules
from tests.operators.shop import COUNTS, goods, number
from tests.simulation.traces import Step, rejected_jump

LEASE_S, TIMEOUT_S, WINDOW_S = 120.0, 30.0, 600.0
_DAY_S = 86_400.0
#: Answers that prove that KK has not even looked at the order.
_NEVER_LOOKED_AT = {"rate_limit", "auth"}
#: Intents and transactions take time, in which another thread or process may pass a pause of seconds;
#: everything that is judged by it takes minutes.
_MOMENT_S = 20.0


@dataclass(frozen=True)
class Pause:
    """A time in which nobody may take a permit to send.

    :param permits: how many may be held at its beginning, by workers that stand still then.
    """

    at: float
    until: float
    permits: int


@dataclass
class Facts:
    """What is left when a trial is over.

    :param orders: KK's orders. :param posts: the POSTs that reached KK, in their order.
    :param entries: `kk_order`. :param attempts: `kk_order_attempt`.
    :param results: what the warehouse was told last: order number to (state, ids).
    :param frozen_s: how long a worker was stopped between its last check and its last byte, at most.
    :param was_stopped: whether any worker was stopped anywhere, so that even a transaction may take long.
    """

    numbers: Sequence[int]
    orders: list[dict[str, Any]]
    posts: list[dict[str, Any]]
    entries: list[dict[str, Any]]
    attempts: list[dict[str, Any]]
    results: Mapping[str, tuple[str, str]]
    summaries: list[dict[str, Any]]
    max_resends: int
    frozen_s: float = 0.0
    was_stopped: bool = False
    max_orders_per_day: int | None = None
    lifted_at: float = 0.0
    """When the cap was taken away, so that the rest could be sent."""
    pauses: Sequence[Pause] = ()
    traces: Mapping[tuple[str, int], Sequence[Step]] = field(default_factory=dict)
    """What each row was whenever a process had stopped or ended, by order number and generation."""


@dataclass
class Findings:
    """What was found: what breaks a promise, and what a human is told of."""

    doubled: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    held: Counter[str] = field(default_factory=Counter)
    named: int = 0
    """Orders that a proxy at KK has doubled, and that the ledger's ids give away."""

    @property
    def broken(self) -> list[str]:
        """All that must not be."""
        return [*self.doubled, *self.lost, *self.stuck, *self.wrong]


def check(facts: Facts) -> Findings:
    """Compare KK's record with the ledger's, the warehouse's and the summaries."""
    findings = Findings()
    for n in facts.numbers:
        _Order(facts, n).check(findings)
    _check_cap(facts, findings)
    _check_pauses(facts, findings)
    for (key, _generation), seen in facts.traces.items():
        if rejected := rejected_jump(seen):
            findings.wrong.append(f"{key}: the trace is rejected: {rejected}")
    strangers = {row["number"] for row in facts.orders} - {number(n) for n in facts.numbers}
    findings.wrong += [f"KK has {stranger}, which nobody ordered" for stranger in sorted(strangers, key=str)]
    for summary in facts.summaries:
        if summary["selected"] != sum(summary[name] for name in COUNTS):
            findings.wrong.append(f"a summary does not add up: {summary}")
    return findings


def _check_cap(facts: Facts, findings: Findings) -> None:
    """No day has more orders at KK than the cap; one in doubt keeps its share."""
    if facts.max_orders_per_day is None:
        return
    first_at = {one["call"]: one["created_at"] for one in reversed(facts.orders)}
    times = sorted(at for at in first_at.values() if at < facts.lifted_at)
    # What KK said no to counts as nothing, though it has made a half of it; a proxy doubles one request.
    uncounted = sum(one["fault"] in ("half_split", "duplicate_by_proxy") for one in facts.posts)
    most = facts.max_orders_per_day + uncounted
    for first, last in zip(times, times[most:], strict=False):
        # An order may arrive late, and be counted from its intent on.
        if last - first < _DAY_S - LEASE_S - TIMEOUT_S - WINDOW_S - facts.frozen_s:
            findings.wrong.append(
                f"KK has {len(times)} orders, {uncounted} of which do not count, "
                f"within {times[-1] - times[0]:.0f} s with at most {facts.max_orders_per_day} a day"
            )
            return


def _check_pauses(facts: Facts, findings: Findings) -> None:
    """Nothing is sent whose permit was taken after the pause."""
    for pause in facts.pauses:
        sent = [post for post in facts.posts if pause.at < post["at"] < pause.until]
        if len(sent) > pause.permits:
            findings.wrong.append(
                f"{len(sent)} POSTs while all was paused, for {pause.permits} permits: "
                + ", ".join(f"{post['number']} after {post['at'] - pause.at:.0f} s" for post in sent[:3])
            )


def _history(facts: Facts, key: str) -> list[str]:
    """Return the rules by which `kk audit --history` judges that the rows of an order number break."""
    own = [one for one in facts.entries if one["custom_order_number"] == key]
    attempts = [one for one in facts.attempts if one["custom_order_number"] == key]
    broken = broken_rules(
        [record_of(_row(one, RECORD_FIELDS)) for one in sorted(own, key=itemgetter("generation"))],
        [attempt_of(SimpleNamespace(**one), ORDERS) for one in attempts],
        settle_delay_s=LEASE_S + TIMEOUT_S + WINDOW_S,
    )
    # A worker that was stopped writes times that were old by then.
    late = (Rule.OUTCOME, Rule.ONE_ATTEMPT) if facts.was_stopped else ()
    return [f"{one.rule.value}: {one.message}" for one in broken if one.rule not in late]


def _row(values: Mapping[str, Any], names: Sequence[str]) -> Any:
    return namedtuple("Row", names)(*[values[ORDERS.column(name)] for name in names])  # type: ignore[misc]


class _Order:
    """One order number's part of the facts."""

    def __init__(self, facts: Facts, n: int) -> None:
        self.key = key = number(n)
        self.wanted = Counter(goods(n))
        self.facts = facts
        self.orders = [one for one in facts.orders if one["number"] == key]
        self.posts = [one for one in facts.posts if one["number"] == key]
        self.attempts = [one for one in facts.attempts if one["custom_order_number"] == key]
        entries = [one for one in facts.entries if one["custom_order_number"] == key]
        self.entry = max(entries, key=lambda one: one["generation"], default=None)
        self.ids = {one["id"] for one in self.orders}
        self.calls = {one["call"] for one in self.orders}
        self.faults = {one["fault"] for one in self.posts}

    def check(self, findings: Findings) -> None:
        self._check_count(findings)
        self._check_state(findings)
        self._check_intents(findings)
        self._check_window(findings)
        self._check_warehouse(findings)
        findings.wrong += [
            f"{self.key}: the history breaks {rule}" for rule in _history(self.facts, self.key)
        ]

    def _check_count(self, findings: Findings) -> None:
        doubled_by_proxy = sum(one["fault"] == "duplicate_by_proxy" for one in self.posts)
        if len(self.calls) > 1 + (doubled_by_proxy == 1):
            findings.doubled.append(f"{self.key}: KK has {len(self.calls)} of it")
        if self.entry is None:
            findings.lost.append(f"{self.key}: the ledger does not know it")
        elif self.entry["state"] == "created" and not self.orders:
            findings.lost.append(f"{self.key}: the ledger says created, KK has none")

    def _check_state(self, findings: Findings) -> None:
        if self.entry is None:
            return
        state, message = self.entry["state"], self.entry["message"]
        known = set(json.loads(self.entry["kk_order_ids"]))
        whole = sum((Counter(one["goods"]) for one in self.orders), Counter())
        if state == "created" and len(self.calls) > 1:
            # The one that was answered; an audit finds the other by its id.
            findings.named += 1
            if not known or not known < self.ids:
                findings.wrong.append(f"{self.key}: {known} do not give away KK's {self.ids}")
        elif state == "created" and (known != self.ids or whole != self.wanted):
            findings.wrong.append(f"{self.key}: {known} in the ledger, {self.ids} at KK with {whole}")
        elif state == "held":
            self._check_held(findings, message, whole)
        elif state != "created":
            findings.stuck.append(f"{self.key}: {state}: {message}")

    def _check_held(self, findings: Findings, message: str, whole: Counter[str]) -> None:
        is_part = bool(whole) and whole < self.wanted and "half_split" in self.faults
        is_more = len(self.calls) > 1
        given_up = not whole and len(self.attempts) > self.facts.max_resends and "resent before" in message
        if not message or not (is_part or is_more or given_up):
            findings.stuck.append(f"{self.key}: held without need: {message}")
        findings.held["half of a split" if is_part else "doubled by a proxy" if is_more else "gave up"] += 1
        findings.named += is_more

    def _check_intents(self, findings: Findings) -> None:
        """Every POST had an intent of its own, committed before it."""
        intents = sorted(one["intent_at"] for one in self.attempts)
        # A worker that was stopped while KK answered dates its intent by a `Date` that is old by then.
        longest = math.inf if self.facts.was_stopped else LEASE_S + _MOMENT_S
        for post in self.posts:
            mine = [at for at in intents if at <= post["at"] <= at + longest]
            if not mine:
                findings.wrong.append(f"{self.key}: no intent for the POST at {post['at']:.3f}: {intents}")
                return
            intents.remove(mine[0])

    def _check_window(self, findings: Findings) -> None:
        """Nothing is sent again before KK's list can tell."""
        # A worker that was stopped while it wrote its intent is bound by its lease, which began before; the
        # attempt's time tells nothing then, and KK's record alone decides.
        attempts = [] if self.facts.was_stopped else self.attempts
        for earlier, later in pairwise(attempts):
            allowed_at = {
                "": earlier["settle_after"],
                "unknown": earlier["settle_after"],
                "rejected": earlier["recorded_at"] + WINDOW_S,
            }.get(earlier["outcome"], 0.0)
            if later["intent_at"] < allowed_at - _MOMENT_S:
                findings.wrong.append(f"{self.key}: sent again {allowed_at - later['intent_at']:.0f} s early")
        looked_at = [one for one in self.posts if one["fault"] not in _NEVER_LOOKED_AT]
        for earlier, later in pairwise(looked_at):
            if later["at"] - earlier["at"] < WINDOW_S - self.facts.frozen_s:
                apart = later["at"] - earlier["at"]
                findings.wrong.append(f"{self.key}: two POSTs reached KK within {apart:.0f} s")

    def _check_warehouse(self, findings: Findings) -> None:
        if self.entry is None or self.entry["state"] != "created" or self.key not in self.facts.results:
            return
        state, ids = self.facts.results[self.key]
        known = set(json.loads(self.entry["kk_order_ids"]))
        if state != "created" or set(ids.split(",")) != known:
            findings.wrong.append(f"{self.key}: the warehouse was told {state} {ids}, not {known}")
