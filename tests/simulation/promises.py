"""What holds, whatever happens to workers, answers, lists and the ledger: never two, never none."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter

from airflow_provider_kk.delivery.model import Attempt, Record, Timing, plain_number
from airflow_provider_kk.delivery.run_queue import COUNTED
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.sync.ledger_history import Rule, broken_rules
from airflow_provider_kk.sync.sync_counts import Summary
from tests.simulation.kk import KK, TIMEOUT_S, WINDOW_S, Manners, Order, Post, Row
from tests.simulation.memory import Database, Place, Tables
from tests.simulation.traces import rejected_step

SETTLE_DELAY_S = Timing().lease_s + TIMEOUT_S + WINDOW_S
#: A generation in one of these needs nobody any more.
ENDS = frozenset({State.CREATED, State.REJECTED})


@dataclass
class Failovers:
    """Which intents were lost with the last commits, and which orders that has put at risk.

    Such an order is exposed until its worker records the answer. Another sync that claims it meanwhile cannot
    know of the first POST, unless KK's list must show it when the sync begins. If that sync sends the order,
    no promise is kept, and the order is counted.
    """

    count: int = 0
    intents: dict[str, set[Place]] = field(default_factory=dict)
    """The lost ones, by order number."""
    exposed: dict[str, dict[Place, float]] = field(default_factory=dict)
    """Until when, by order number and lost intent."""
    claimed_unknowingly: set[str] = field(default_factory=set)
    sent_unknowingly: set[str] = field(default_factory=set)

    def lose(self, before: Tables, after: Tables, now: float) -> None:
        """Note what a standby lacks."""
        self.count += 1
        for key in before.newest:
            attempts = before.attempts.get(key, {})
            lost = attempts.keys() - after.attempts.get(key, {}).keys()
            if lost:
                self.intents.setdefault(key, set()).update(lost)
            elif key not in self.intents or before.newest.get(key) == after.newest.get(key):
                continue
            # A row that came back without its intent may be lost again.
            for place in self.intents[key]:
                self.exposed.setdefault(key, {})[place] = now + SETTLE_DELAY_S

    def hear(self, place: Place) -> None:
        """Note that the ledger has the answer of a lost intent."""
        self.exposed.get(place[0], {}).pop(place, None)

    def claim(self, key: str, sync_began_at: float) -> None:
        """Note a claim by a sync that could know of no POST: neither the ledger nor KK's list had it."""
        if any(sync_began_at < until for until in self.exposed.get(key, {}).values()):
            self.claimed_unknowingly.add(key)


class Promises:
    """The promises of a world, and the first one that it has broken.

    :param times_are_exact: the clocks agree, and each commit is recorded when it happens.
    :param rows_are_in_turn: no clock is set meanwhile, and no answer is stored a second time later.
    """

    def __init__(
        self,
        seed: int,
        orders: Sequence[Order],
        manners: Manners,
        database: Database,
        *,
        times_are_exact: bool,
        rows_are_in_turn: bool,
    ) -> None:
        self.broken = ""
        self.wanted = dict.fromkeys([order.key for order in orders], 1)
        """How often each number is to be at KK: once for each generation."""
        self.used_intents: set[Place] = set()
        self.spoken_of: set[str] = set()
        """Of these a human has said what KK has, which outweighs an answer that is recorded later."""
        self._seed, self._orders, self._manners, self._database = seed, orders, manners, database
        self._times_are_exact = times_are_exact
        self._rows_are_in_turn = rows_are_in_turn
        self._last_posts: dict[str, Post] = {}
        self._halves = 0
        self.traces = 0
        """How many were judged."""
        self.failovers = Failovers()
        self.paused_at: float | None = None
        """Since when a person has stopped all sending; None while it is allowed."""

    def require(self, holds: bool, promise: str, *details: object) -> None:
        """Note the first promise that does not hold; `details` are what `promise` has a %s for."""
        # Told at the end, since delivery takes what is raised while it sends for an unknown outcome.
        if not holds and not self.broken:
            self.broken = f"seed {self._seed}: {promise % details}"

    # Meanwhile -------------------------------------------------------------------------------------

    def check_post(self, key: str, post: Post) -> None:
        """Each POST has a committed intent of its own, and none follows another within its settle window."""
        self._halves += post.fate == "half_split"
        lost = self.failovers.intents.get(key, set())
        if self.paused_at is not None and not self._manners.is_beyond:
            # A worker that has its permit may stand still until its lease ends.
            late_s = post.at - self.paused_at - self._manners.freeze_before_first_byte_s
            self.require(late_s <= Timing().lease_s, "%s is sent %.0f s after all was paused", key, late_s)
        used = self.used_intents
        intents = [place for place in self._database.tables.attempts.get(key, ()) if place not in used]
        if not intents and lost - used:
            used.add(min(lost - used))  # the failover came between the intent and its POST
        else:
            self.require(bool(intents), "%s is sent without an intent", key)
            used.update(sorted(intents, key=itemgetter(2))[:1])
        if key in self.failovers.claimed_unknowingly:
            self.failovers.sent_unknowingly.add(key)
        last = self._last_posts.get(key)
        is_excused = self._manners.is_beyond or key in self.failovers.sent_unknowingly
        if last is not None and last.may_be_there and not is_excused:
            self.require(
                # A worker that stood still before its first byte has used up so much of the window.
                post.at >= last.at + WINDOW_S - self._manners.freeze_before_first_byte_s,
                "%s is sent %.0f s after its last POST, within the settle window",
                key,
                post.at - last.at,
            )
        if post.may_be_there:
            self._last_posts[key] = post

    def lose(self, after: Tables, now: float) -> None:
        """Note what a standby lacks that takes over now."""
        self.failovers.lose(self._database.tables, after, now)

    def hear(self, place: Place) -> None:
        """Note that an answer is recorded whose intent is not there."""
        self.failovers.hear(place)

    def claim(self, place: Place, sync_began_at: float) -> None:
        """Note a claim of a sync that began at this time."""
        self.failovers.claim(place[0], sync_began_at)

    def check_cap(self, kk: KK, max_orders_per_day: int | None) -> None:
        """No more than a day's orders were created, while all that happened lay within a day."""
        if max_orders_per_day is not None:
            # What KK said no to counts as nothing, though it may have made a half of it.
            created = sum(kk.creates.values()) - self._halves
            self.require(created <= max_orders_per_day, "%s orders, at most %s", created, max_orders_per_day)

    def check_summary(self, summary: Summary) -> None:
        """Every order is counted once."""
        total = sum([getattr(summary, name) for name in _COUNTS])
        is_sum = summary.selected == total == len(self._orders)
        self.require(is_sum, "a summary does not add up: %s", summary)

    # At the end ------------------------------------------------------------------------------------

    def check_end(self, kk: KK) -> None:
        """Every order is at KK as often as it should be, under the ids that the ledger has, or refused."""
        self._check_attempts()
        self.check_traces()
        if self._manners.is_beyond:
            return
        tables = self._database.tables
        entries: dict[str, list[Record]] = {}
        for entry in tables.orders.values():
            entries.setdefault(entry.key, []).append(entry)
        rows: dict[str | None, list[Row]] = {}
        for row in kk.rows:
            rows.setdefault(row.key, []).append(row)
        for order in self._orders:
            newest, as_integer = tables.newest.get(order.key), tables.newest.get(plain_number(order.key))
            if newest is None and as_integer and not as_integer.content.fingerprint:
                continue  # found as an integer with other goods: every sync tells that it is changed
            if order.key in self.failovers.sent_unknowingly:
                self.require(newest is not None, "%s is lost: the ledger does not know it", order.key)
                continue
            creates = kk.creates.get(order.key, 0)
            self.require(creates <= self.wanted[order.key], "%s is at KK %s times", order.key, creates)
            self.require(newest is not None, "%s is lost: the ledger does not know it", order.key)
            if newest is not None:
                self._check_order(order, newest, entries[order.key], rows.get(order.key, []), creates)
                self._check_history(entries[order.key])

    def _check_order(
        self, order: Order, entry: Record, generations: Sequence[Record], rows: Sequence[Row], creates: int
    ) -> None:
        key, wanted, require = order.key, self.wanted[order.key], self.require
        require(entry.state in ENDS, "%s is stuck: %s", key, entry)
        if entry.state is State.CREATED:
            there = {row.id for row in rows}
            ours = {one for generation in generations for one in generation.kk_order_ids}
            is_complete = ours == there if self._manners.names_all_ids else bool(ours) and ours <= there
            require(creates == wanted, "%s is called created and is not at KK", key)
            if not is_complete:
                require(False, "%s has ids %s, the ledger %s", key, sorted(there), sorted(ours))
            quantity = sum([item.quantity for row in rows for item in row.items])
            # Without a fingerprint, every sync tells that it differs.
            is_told = bool(entry.resolved_by) or not entry.content.fingerprint
            is_whole = quantity == wanted * sum(order.goods.values())
            require(is_whole or is_told, "%s is called created and is but a part", key)
        else:
            # A part of a split that KK refused, listed without its number, keeps it from being asked again.
            is_part = creates == wanted and self._manners.forgets_numbers > 0
            is_refused = is_part or creates == wanted - 1
            require(is_refused, "%s is at KK and called %s: %s", key, entry.state, entry)

    def check_traces(self) -> None:
        """Each row has become what it is by transitions that the code's own table allows."""
        for (key, generation), trace in self._database.tables.traces.items():
            if key in self.failovers.intents:
                continue  # a row that comes back in doubt has no attempt for it
            self.traces += 1
            if rejected := rejected_step(generation, trace):
                self.require(False, "the trace of %s is rejected: %s", key, rejected)

    def _check_history(self, generations: Sequence[Record]) -> None:
        """The ledger's rows break no rule by which `kk audit --history` judges them."""
        if generations[0].key in self.failovers.intents:
            return
        attempts = self._database.tables.attempts.get(generations[0].key, {}).values()
        in_turn = sorted(attempts, key=attrgetter("generation", "attempt", "intent_at"))
        broken = broken_rules(generations, in_turn, settle_delay_s=SETTLE_DELAY_S)
        if not self._rows_are_in_turn:
            broken = [one for one in broken if one.rule not in (Rule.OUTCOME, Rule.ONE_ATTEMPT)]
        self.require(not broken, "the history breaks a rule: %s", broken[:1])

    def _check_attempts(self) -> None:
        """Whatever KK and the workers do: two answers are never silent, none goes out over a new doubt."""
        for key, all_of_it in self._database.tables.attempts.items():
            if len(all_of_it) > 1:
                for generation in {one.generation for one in all_of_it.values()}:
                    of_it = [one for one in all_of_it.values() if one.generation == generation]
                    self._check_attempts_of(key, generation, of_it)

    def _check_attempts_of(self, key: str, generation: int, attempts: list[Attempt]) -> None:
        if key in self.spoken_of or key in self.failovers.sent_unknowingly:
            return
        entry = self._database.tables.orders.get((key, generation))
        answers = {one.kk_order_ids[:1] for one in attempts if one.outcome == "created"}
        is_told = entry is None or entry.state is State.HELD or bool(entry.resolved_by)
        self.require(is_told or len(answers) < 2, "%s was created twice, in silence", key)
        if not self._times_are_exact:
            return
        for one, after in itertools.pairwise(sorted(attempts, key=attrgetter("attempt"))):
            if one.outcome == "unknown" and after.intent_at > one.recorded_at:
                waited_s = after.intent_at - one.recorded_at
                is_over = waited_s > WINDOW_S - 0.001
                self.require(is_over, "%s is sent %.0f s after an unknown outcome", key, waited_s)


_COUNTS = [status.value for status in COUNTED]
