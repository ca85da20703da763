"""A worker: one process that forks all children of its trials, with a KK beside it."""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.children import Nursery, Task
from tests.chaos.huge_pages import use_huge_pages
from tests.chaos.killpoints import Point, PythonCalls, SystemCalls
from tests.chaos.kk_process import kk_process
from tests.chaos.plans import Profile, plan
from tests.chaos.trial import Report, Trial
from tests.chaos.virtual_time import VirtualTime
from tests.chaos.world import World

#: A trial that takes longer hangs.
_LONGEST_S = 120


@dataclass
class Tally:
    """The sum of many trials."""

    points: str = ""
    trials: int = 0
    orders: int = 0
    posts: int = 0
    creates: int = 0
    children: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    places: Counter[str] = field(default_factory=Counter)
    kills_by_fault: Counter[str] = field(default_factory=Counter)
    kills_by_lag: Counter[str] = field(default_factory=Counter)
    kills_by_kind: Counter[str] = field(default_factory=Counter)
    kills_by_ledger: Counter[str] = field(default_factory=Counter)
    trials_by_kind: Counter[str] = field(default_factory=Counter)
    stops: Counter[str] = field(default_factory=Counter)
    struck: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    named: int = 0
    beyond: Counter[str] = field(default_factory=Counter)
    doubled: int = 0
    lost: int = 0
    stuck: int = 0
    wrong: int = 0
    cpu_s: float = 0.0
    failures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, report: Report) -> None:
        """Count a trial."""
        plan, findings = report.plan, report.findings
        kills = sum(report.kills.values())
        self.trials += 1
        self.orders += len(plan.numbers)
        self.posts += report.posts
        self.creates += report.creates
        self.places += report.places
        self.kills += report.kills
        self.kills_by_fault += report.kills_by_fault
        self.kills_by_lag[f"{plan.lag_s:.0f} s"] += kills
        self.kills_by_kind[plan.kind] += kills
        self.kills_by_ledger[plan.ledger] += kills
        self.trials_by_kind[plan.kind] += 1
        self.stops += report.stops
        self.struck += report.struck
        if plan.kind == "beyond":
            self.beyond["trials"] += 1
            self.beyond["doubled"] += bool(findings.doubled)
            self.beyond["doubled and held for a human"] += bool(findings.doubled and findings.held)
            return
        self.held += findings.held
        self.named += findings.named
        self.doubled += len(findings.doubled)
        self.lost += len(findings.lost)
        self.stuck += len(findings.stuck)
        self.wrong += len(findings.wrong)
        if findings.broken:
            self.failures.append(_failure(report))

    def as_dict(self) -> dict[str, Any]:
        """As plain data; `asdict` cannot copy a Counter."""
        return vars(self)

    def merge(self, other: dict[str, Any]) -> None:
        """Add what another worker has counted."""
        for name, value in other.items():
            mine = getattr(self, name)
            if isinstance(mine, Counter):
                mine.update(value)
            elif name == "points":
                self.points = value
            else:
                setattr(self, name, mine + value)


def _failure(report: Report) -> dict[str, Any]:
    facts = report.facts
    return {
        "seed": report.plan.seed,
        "trial": report.plan.trial,
        "broken": report.findings.broken,
        "plan": {name: str(value) for name, value in asdict(report.plan).items()},
        "story": report.story,
        "ledger": facts.entries if facts else [],
        "attempts": facts.attempts if facts else [],
        "orders at KK": facts.orders if facts else [],
        "POSTs to KK": facts.posts if facts else [],
    }


@dataclass
class Order:
    """What a worker is to do; the trials `first`, `first + step` and so on until so many were killed."""

    seed: int
    count: int
    first: int
    step: int
    library: str | None = None
    postgres_url: str | None = None
    trial: int | None = None
    kind: str | None = None
    patch: str | None = None
    max_failures: int = 5


def work(order: Order) -> Tally:
    """Run trials."""
    clock = VirtualTime()
    clock.install()
    _silence()
    points = SystemCalls(order.library) if order.library else PythonCalls()
    if order.patch:
        module, _, function = order.patch.partition(":")
        getattr(importlib.import_module(module), function)()
    tally = Tally(points=points.name)
    folder = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - memory, to be fast
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kk-kills-", dir=folder)))
        kk = stack.enter_context(kk_process())
        if isinstance(points, PythonCalls):
            points.install()
        world = World(home, kk, order.postgres_url and _own_database(order.postgres_url, order.first))
        world.warm_up()
        use_huge_pages()
        nursery = Nursery(points, clock)
        profiles = _profiles(world, nursery)
        number = order.first if order.trial is None else order.trial
        signal.signal(signal.SIGALRM, _hangs)
        while True:
            wanted, draw = plan(
                order.seed, number, has_postgres=order.postgres_url is not None, kind=order.kind
            )
            trial = Trial(wanted, draw, world, nursery, profiles)
            signal.alarm(_LONGEST_S)
            try:
                trial.run()
            except Exception:
                trial.report.findings.wrong.append(traceback.format_exc())
                nursery.clear()
            signal.alarm(0)
            tally.add(trial.report)
            tally.children = nursery.started
            number += order.step
            killed = sum(tally.kills.values())
            if order.trial is not None or killed >= order.count or len(tally.failures) >= order.max_failures:
                break
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        tally.cpu_s += usage.ru_utime + usage.ru_stime
    return tally


def _own_database(postgres_url: str, worker: int) -> str:
    """A database that only this worker's children use, so that the end of their sessions can be told."""
    import sqlalchemy as sa

    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as db:
        db.execute(sa.text(f"CREATE DATABASE worker_{worker}"))
    engine.dispose()
    return f"{postgres_url.rpartition('/')[0]}/worker_{worker}"


def _hangs(_signal: int, _frame: Any) -> None:
    raise TimeoutError(f"a trial has not ended within {_LONGEST_S} s")


def _silence() -> None:
    """What the tasks log would cost more than what they do."""
    import logging

    logging.disable(logging.CRITICAL)
    try:
        import airflow.sdk  # noqa: F401  (it configures structlog)
        import structlog
    except ImportError:
        return
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _profiles(world: World, nursery: Nursery) -> dict[str, Profile]:
    """How often undisturbed tasks call what: where a point may lie."""
    profiles: dict[str, Profile] = {}
    kinds = nursery.points.kinds

    def measure(name: str, task: Task, *kill: Point) -> None:
        child = nursery.start(name, task, *((at, int(signal.SIGKILL)) for at in kill))
        nursery.wait(child)
        world.quiet()
        profiles[name] = {kind: child.counts.calls[index] for index, kind in enumerate(kinds)}

    for ledger in world.ledgers:
        world.begin(range(20), {}, ledger=ledger, account="profiles", list_lag_s=0.0)
        many = list(range(4, 10))
        measure(f"{ledger} first", world.sync([0], run_id="0", max_in_flight=1))
        measure(f"{ledger} sync", world.sync([1], run_id="1", max_in_flight=1))
        measure(f"{ledger} create", world.create(2, run_id="2"))
        send = profiles[f"{ledger} sync"]["send"]
        measure("killed", world.sync([3], run_id="3", max_in_flight=1), Point("send", send, after=True))
        measure(f"{ledger} again", world.sync([3], run_id="3", max_in_flight=1))
        measure(f"{ledger} series", world.sync(many, run_id="4", max_in_flight=1, write_back="result"))
        for n in (11, 12):
            measure("killed", world.sync([n], run_id=f"{n}", max_in_flight=1), Point("send", send, False))
        measure(
            f"{ledger} recovery", world.sync([11, 12, *range(13, 16)], run_id="recovery", max_in_flight=1)
        )
    del profiles["killed"]
    return profiles


def main() -> None:
    """Called by `tests.chaos.kills` with the library preloaded; an order comes in, a tally goes out."""
    tally = work(Order(**json.loads(sys.argv[1])))
    print(json.dumps(tally.as_dict(), default=str))


if __name__ == "__main__":
    main()
