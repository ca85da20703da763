"""One trial: tasks run, are killed and stopped, and are left in peace at last; then the rest is judged."""

from __future__ import annotations

import math
import random
import signal
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from airflow_provider_kk.delivery.states import State
from tests.chaos.children import Child, Nursery, Task
from tests.chaos.invariants import Facts, Findings, Pause, check
from tests.chaos.killpoints import Point
from tests.chaos.plans import Plan, Profile, point
from tests.chaos.world import World
from tests.operators import shop
from tests.simulation.traces import Step

_ROUNDS = 12


@dataclass
class Report:
    """What a trial did and found."""

    plan: Plan
    findings: Findings
    kills: Counter[str] = field(default_factory=Counter)
    """By call and side."""
    places: Counter[str] = field(default_factory=Counter)
    """By ledger, kind of trial, call, its number and side."""
    kills_by_fault: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    posts: int = 0
    creates: int = 0
    story: list[str] = field(default_factory=list)
    facts: Facts | None = None


class Trial:
    """Runs a plan."""

    def __init__(
        self,
        plan: Plan,
        draw: random.Random,
        world: World,
        nursery: Nursery,
        profiles: dict[str, Profile],
    ) -> None:
        self.plan, self.draw, self.world, self.nursery = plan, draw, world, nursery
        self.profiles = profiles
        self.report = Report(plan, Findings())
        self.frozen_s = 0.0
        self.pauses: list[Pause] = []
        self.lifted_at = 0.0
        self._tries: Counter[str] = Counter()
        self._summaries: list[dict[str, Any]] = []
        self._traces: defaultdict[tuple[str, int], list[Step]] = defaultdict(list)

    def run(self) -> Report:
        """Do it all."""
        plan = self.plan
        faults = {shop.number(n): [dict(fault) for fault in plan.faults[n]] for n in plan.numbers}
        self.world.begin(
            [0, *plan.numbers],
            faults,
            ledger=plan.ledger,
            account=f"{plan.seed}-{plan.trial}",
            list_lag_s=plan.lag_s,
            max_orders_per_day=plan.max_orders_per_day,
        )
        if plan.kind != "fresh":
            # An order that KK is known to have: without any, no absence from its list is believed.
            self.left_alone(self.sync([0], "yesterday"))
            self.pass_time(3_600)
        _SCENARIOS[plan.kind](self)
        self._come_to_rest()
        self._judge()
        return self.report

    # What scenarios do -----------------------------------------------------------------------------

    def sync(self, numbers: list[int], run_id: str) -> Task:
        """The next try of a sync."""
        self._tries[run_id] += 1
        options: dict[str, Any] = {"max_in_flight": self.plan.in_flight, "max_resends": self.plan.max_resends}
        if self.plan.write_back:
            options["write_back"] = "result"
        return self.world.sync(numbers, run_id=run_id, try_number=self._tries[run_id], **options)

    def create(self, n: int) -> Task:
        """The next try of a CreateOrderOperator."""
        self._tries[f"create {n}"] += 1
        return self.world.create(
            n, run_id="manual", try_number=self._tries[f"create {n}"], max_resends=self.plan.max_resends
        )

    def task(self, n: int) -> Task:
        """One order by itself, by either operator."""
        if self.plan.kind == "create" or (self.plan.kind != "sync" and self.draw.random() < 0.4):
            return self.create(n)
        return self.sync([n], f"order {n}")

    def point(self, profile: str, share: float = 1.0) -> Point:
        """Where to strike a task of this kind."""
        return point(self.draw, self.profiles[f"{self.plan.ledger} {profile}"], share)

    def start(self, name: str, task: Task, *arms: tuple[Point, int]) -> Child:
        """Start a task in a child."""
        self._tell(f"{name} starts" + "".join(f", {_SIGNALS[sig]} {at}" for at, sig in arms))
        return self.nursery.start(name, task, *arms)

    def finish(self, *children: Child) -> None:
        """Wait until they have stopped or ended, and until KK has done with what they sent."""
        self.nursery.wait(*children)
        for child in children:
            self.note(child)
        self.world.quiet()
        self._look()

    def left_alone(self, task: Task) -> dict[str, Any]:
        """A task that nobody kills; gives its own account."""
        child = self.start("undisturbed", task)
        self.finish(child)
        assert child.ended is not None
        assert child.ended.told is not None
        return child.ended.told

    def killed(self, name: str, task: Task, at: Point, *, fault: str = "several") -> Child:
        """A task that is killed there, if it comes so far; somebody may pause all sending, or resume it."""
        if self.plan.pauses and self.draw.random() < 0.3:
            if self.is_paused:
                self.resume()
            elif self.plan.ledger != "postgres" and self.draw.random() < 0.6:
                return self._paused_amid(name, task)
            else:
                self.pause()
        child = self.start(name, task, (at, signal.SIGKILL))
        self.finish(child)
        if child.ended and child.ended.killed:
            self.report.kills_by_fault[fault] += 1
        return child

    def _paused_amid(self, name: str, task: Task) -> Child:
        """A task that stands still somewhere while somebody pauses all sending; then it goes on."""
        at = point(self.draw, self.profiles[f"{self.plan.ledger} series"], share=0.5)
        child = self.start(name, task, (at, int(signal.SIGSTOP)))
        self.finish(child)
        if child.stopped:
            began = self.nursery.clock.passed()
            self.nursery.go_on(child)
            self.pause(child)
            self.frozen_s = max(self.frozen_s, self.nursery.clock.passed() - began)
            self.wake(child)
            self.finish(child)
        return child

    @property
    def is_paused(self) -> bool:
        """Whether somebody has paused all sending."""
        return bool(self.pauses) and math.isinf(self.pauses[-1].until)

    def pause(self, *stopped: Child) -> None:
        """Pause all sending from another process; these stand still meanwhile and may have a permit each."""
        if not self.left_alone(self.world.pause())["error"]:
            permits = self.plan.in_flight * len(stopped)
            self.pauses.append(Pause(time.time(), math.inf, permits))

    def resume(self) -> None:
        """Allow sending again, from another process."""
        until = time.time()
        self.left_alone(self.world.resume())
        self.pauses[-1] = replace(self.pauses[-1], until=until)

    def pass_time(self, seconds: float) -> None:
        """Nothing happens for a while."""
        self.nursery.clock.advance(seconds)
        self._tell(f"{seconds:.0f} s pass")

    def wake(self, child: Child) -> None:
        """Let a stopped one go on."""
        self._tell(f"{child.name} goes on")
        self.nursery.wake(child)

    def note(self, child: Child) -> None:
        """Write down what became of a child."""
        if child.at is not None and child.stopped:
            self.report.stops[child.at.kind] += 1
            self._tell(f"{child.name} was stopped {child.at}")
        elif child.at is not None and child.ended and child.ended.killed:
            self.report.kills[f"{child.at.kind} {'after' if child.at.after else 'before'}"] += 1
            self.report.places[f"{self.plan.ledger} {self.plan.kind} {child.at}"] += 1
            self._tell(f"{child.name} was killed {child.at}")
        if child.ended and child.ended.told:
            told = child.ended.told
            self._tell(f"{child.name} ended: {told['error'] or 'well'} {told['message'][:160]}")
            if told["summary"]:
                self._summaries.append(told["summary"])

    def _look(self) -> None:
        for key, generation, state, attempts in self.world.look():
            seen = self._traces[key, generation]
            if (step := (State(state), attempts)) not in seen[-1:]:
                seen.append(step)

    def _tell(self, what: str) -> None:
        self.report.story.append(f"{self.nursery.clock.passed():10.3f} {what}")

    # The end ---------------------------------------------------------------------------------------

    def _come_to_rest(self) -> None:
        """The final quiet period: no kill, no fault, and time enough for all that is late."""
        self._run_guarded()
        self.world.kk.ask("disarm")
        # Either its own retries bring each to its end, or a sync does with all of them.
        one_by_one = self.plan.kind == "create" and self.draw.random() < 0.3
        left = [n for n in self.plan.numbers if n not in self._at_rest()]
        for number in range(_ROUNDS):
            if one_by_one:
                for n in left:
                    self.left_alone(self.create(n))
            elif left or number == 0:
                self.left_alone(self.sync([0, *self.plan.numbers], f"last {number}"))
            left = [n for n in self.plan.numbers if n not in self._at_rest()]
            if not left:
                break
            self.pass_time(3_600)
        self.pass_time(2_000)

    def _run_guarded(self) -> None:
        """Let a sync try to send all while it is paused, then as much as the cap allows; then lift both."""
        if self.plan.pauses:
            if not self.is_paused:
                self.pause()
            self.left_alone(self.sync(self.plan.numbers, "paused"))
            if self.is_paused:
                self.resume()
        if self.plan.max_orders_per_day is not None:
            for _ in range(2):
                self.left_alone(self.sync(self.plan.numbers, "capped"))
                self.pass_time(800)  # what was in doubt may be sent again now
        self.lifted_at = time.time()
        self.world.set_cap(None)

    def _at_rest(self) -> set[int]:
        entries, _attempts = self.world.ledger()
        ended = {one["custom_order_number"] for one in entries if one["state"] in ("created", "held")}
        return {n for n in self.plan.numbers if shop.number(n) in ended}

    def _judge(self) -> None:
        orders, posts, struck = self.world.kk.ask("record")
        entries, attempts = self.world.ledger()
        facts = Facts(
            numbers=[0, *self.plan.numbers],
            orders=orders,
            posts=posts,
            entries=entries,
            attempts=attempts,
            results=self._results(),
            summaries=self._summaries + self.world.summaries(),
            max_resends=self.plan.max_resends,
            frozen_s=self.frozen_s,
            was_stopped=bool(self.report.stops),
            max_orders_per_day=self.plan.max_orders_per_day,
            lifted_at=self.lifted_at,
            pauses=self.pauses,
            traces=self._traces,
        )
        if self.plan.kind == "create":
            facts.results = {}
        self.report.facts = facts
        self.report.findings = check(facts)
        self.report.posts = len(posts)
        self.report.creates = len({one["call"] for one in orders})
        self.report.struck.update(struck)

    def _results(self) -> dict[str, tuple[str, str]]:
        if not self.plan.write_back:
            return {}
        with closing(sqlite3.connect(self.world.warehouse_path)) as db:
            rows = db.execute(
                "SELECT custom_order_number, state, kk_order_ids FROM result ORDER BY at, rowid"
            )
            return {key: (state, ids or "") for key, state, ids in rows}


_SIGNALS = {int(signal.SIGKILL): "to be killed", int(signal.SIGSTOP): "to be stopped"}


# Scenarios ---------------------------------------------------------------------------------------------


def _one_by_one(trial: Trial) -> None:
    """Each order by itself; some retries are killed, too, and then all that is left in one sync."""
    plan, draw = trial.plan, trial.draw
    profile = "create" if plan.kind == "create" else "sync"
    for n in plan.numbers:
        trial.killed(f"order {n}", trial.task(n), trial.point(profile), fault=plan.fault_of(n))
        if draw.random() < 0.5:
            trial.pass_time(draw.choice((0, 10, 130, 800)))
            trial.killed(f"order {n} again", trial.task(n), trial.point("again"), fault=plan.fault_of(n))
    if plan.kind == "sync":
        for _ in range(draw.randint(0, 3)):
            trial.killed("the recovery", trial.sync(plan.numbers, "recovery"), trial.point("recovery"))


def _again_and_again(trial: Trial) -> None:
    """One sync over all orders, killed in each of its tries until it comes through."""
    is_fresh = trial.plan.kind == "fresh"
    for number in range(2 * len(trial.plan.numbers)):
        profile = "first" if is_fresh and number < 4 else "series"
        # Each try gets an order or two further.
        at = trial.point(profile, share=1.0 if profile == "first" else 0.35)
        child = trial.killed("the sync", trial.sync(trial.plan.numbers, "series"), at)
        if child.ended and not child.ended.killed and not trial.is_paused:
            return
        if trial.draw.random() < 0.2:
            trial.pass_time(trial.draw.choice((10, 130, 800)))


def _twins(trial: Trial) -> None:
    """The same orders in two tasks at the same time: a second run, or the same try delivered twice."""
    for number in range(6):
        run_ids = ("twin", "twin") if trial.draw.random() < 0.5 else (f"left {number}", f"right {number}")
        arms = [(trial.point("series", share=0.5), int(signal.SIGKILL)) for _ in run_ids]
        both = [
            trial.start(name, trial.sync(trial.plan.numbers, run_id), arm)
            for name, run_id, arm in zip(("left", "right"), run_ids, arms, strict=True)
        ]
        trial.finish(*both)
        killed = sum(bool(one.ended and one.ended.killed) for one in both)
        trial.report.kills_by_fault["several"] += killed
        if not killed:
            return


def _stopped(trial: Trial, n: int, *, profile: str = "sync") -> Child:
    """A task that stands still somewhere, and may be killed later on."""
    arms = [(trial.point(profile), int(signal.SIGSTOP))]
    if trial.draw.random() < 0.5:
        arms.append((trial.point(profile), int(signal.SIGKILL)))
    child = trial.start(f"order {n}", trial.task(n), *arms)
    trial.finish(child)
    return child


def _zombies(trial: Trial) -> None:
    """A worker is stopped, its lease ends, others take over; then it wakes up and goes on."""
    for n in trial.plan.numbers:
        zombie = _stopped(trial, n)
        if zombie.stopped:
            assert zombie.at is not None
            # Between a look at the deadline and the bytes: they leave when it wakes up, in time to be listed.
            at = zombie.at
            is_at_the_send = at.kind == "setsockopt" or (at.kind == "send" and not at.after)
            asleep_s = trial.draw.choice((130, 200) if is_at_the_send else (130, 700, 5_000))
            if is_at_the_send:
                trial.frozen_s = max(trial.frozen_s, float(asleep_s))
            trial.nursery.go_on(zombie)
            if is_at_the_send or trial.draw.random() < 0.3:
                trial.pass_time(asleep_s)
            else:
                trial.left_alone(trial.task(n))
            trial.wake(zombie)
            trial.finish(zombie)
        _count_end(trial, zombie, n)


def _orphans(trial: Trial) -> None:
    """A first try stands still; the retry runs up to a point, or until it has to wait; the first goes on."""
    for n in trial.plan.numbers:
        first = _stopped(trial, n)
        retry = trial.start(
            f"order {n}, retry",
            trial.task(n),
            (trial.point("again"), int(trial.draw.choice((signal.SIGSTOP, signal.SIGKILL)))),
        )
        trial.nursery.wait_or_sleep(retry)
        if first.stopped:
            trial.wake(first)
        trial.nursery.wait_or_sleep(first)
        while not (first.ended and retry.ended):
            # While one of them waits for time to pass, the other may come to its point.
            for child in (first, retry):
                if child.stopped:
                    trial.note(child)
                    trial.wake(child)
            trial.nursery.wait_for_any()
        trial.finish(first, retry)
        _count_end(trial, first, n)
        _count_end(trial, retry, n)


def _beyond(trial: Trial) -> None:
    """A worker is stopped after its last check, before its last byte, for longer than the settle window."""
    (n,) = trial.plan.numbers
    send = trial.profiles[f"{trial.plan.ledger} sync"]["send"]
    frozen = trial.start(
        f"order {n}", trial.sync([n], f"order {n}"), (Point("send", send, after=False), int(signal.SIGSTOP))
    )
    trial.finish(frozen)
    trial.frozen_s = 10_000.0
    trial.nursery.go_on(frozen)
    trial.left_alone(trial.sync([n], f"order {n}"))
    trial.wake(frozen)
    trial.finish(frozen)


def _count_end(trial: Trial, child: Child, n: int) -> None:
    if child.ended and child.ended.killed:
        trial.report.kills_by_fault[trial.plan.fault_of(n)] += 1


_SCENARIOS: dict[str, Callable[[Trial], None]] = {
    "sync": _one_by_one,
    "create": _one_by_one,
    "series": _again_and_again,
    "fresh": _again_and_again,
    "twins": _twins,
    "zombie": _zombies,
    "orphan": _orphans,
    "beyond": _beyond,
}
