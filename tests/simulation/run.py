"""Many worlds, on several processors, and what came of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields
from multiprocessing import get_context

from tests.simulation.hub import START
from tests.simulation.mutants import MUTANTS, Caught, hunt
from tests.simulation.quick import forget_world, quickened
from tests.simulation.world import Broken, World

_WORLDS_AT_ONCE = 250


@dataclass
class Report:
    """What happened in some worlds."""

    worlds: int = 0
    schedules: int = 0
    """Orders that went through a world, each with faults, rivals and deaths of its own."""
    traces: int = 0
    """What became of a row of the ledger, change by change."""
    posts: int = 0
    killed: int = 0
    frozen: int = 0
    list_requests: int = 0
    summaries: int = 0
    virtual_days: float = 0.0
    cpu_s: float = 0.0
    broken: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Count another's worlds, too."""
        for one in fields(self):
            setattr(self, one.name, getattr(self, one.name) + getattr(other, one.name))

    def lines(self) -> list[str]:
        """Return it as text."""
        return [
            f"{self.worlds:,} worlds, {self.schedules:,} schedules (an order's way through a world)",
            f"{self.posts:,} POSTs, {self.killed:,} processes killed and {self.frozen:,} frozen, "
            f"{self.list_requests:,} pages of KK's list, {self.summaries:,} summaries, "
            f"{self.virtual_days:,.0f} days of virtual time",
            f"{self.traces:,} traces of the ledger's rows follow the code's transitions",
            f"promises broken: {len(self.broken)}",
            *(f"  {told}" for told in self.broken[:20]),
            f"CPU {self.cpu_s:.0f} s, {self.cpu_s / max(1, self.schedules) * 1e6:.0f} µs a schedule",
        ]


def simulate(first_seed: int, worlds: int) -> Report:
    """Run the worlds of some seeds."""
    report = Report()
    began = time.process_time()
    with quickened():
        for seed in range(first_seed, first_seed + worlds):
            _run(World(seed), report)
            forget_world()
    report.cpu_s = time.process_time() - began
    return report


def _run(world: World, report: Report) -> None:
    try:
        world.run()
    except Broken as broken:
        report.broken.append(str(broken))
    report.worlds += 1
    report.schedules += len(world.orders)
    report.traces += world.promises.traces
    report.posts += world.kk.posts
    report.killed += world.hub.killed
    report.frozen += world.hub.frozen
    report.list_requests += world.kk.requests
    report.summaries += world.summaries
    report.virtual_days += (world.hub.now - START) / 86_400.0


def simulate_all(*, first_seed: int, schedules: int, workers: int) -> Iterator[Report]:
    """Run worlds until so many schedules were run; yields what there is so far, now and then."""
    total = Report()
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        seeds = range(first_seed, 2**40, _WORLDS_AT_ONCE)
        running = [pool.submit(simulate, seed, _WORLDS_AT_ONCE) for seed in seeds[:workers]]
        submitted = workers
        while running:
            total.add(running.pop(0).result())
            yield total
            if total.schedules < schedules and not total.broken:
                running.append(pool.submit(simulate, seeds[submitted], _WORLDS_AT_ONCE))
                submitted += 1


def hunt_all(*, first_seed: int, worlds: int, workers: int) -> list[Caught]:
    """Look for every mutant."""
    with ProcessPoolExecutor(workers, mp_context=get_context("fork")) as pool:
        found = [pool.submit(_hunt, place, first_seed, worlds) for place in range(len(MUTANTS))]
        return [one.result() for one in found]


def _hunt(place: int, first_seed: int, worlds: int) -> Caught:
    with quickened():
        return hunt(MUTANTS[place], first_seed=first_seed, worlds=worlds)


def mutants_table(caught: list[Caught]) -> list[str]:
    """Return how each mutant was found, as lines."""
    lines = [f"{'safeguard that is off':<52}{'schedules':>10}  broken promise"]
    for one in caught:
        promise = one.promise.partition(": ")[2].partition(": Entry(")[0]
        lines.append(f"{one.name:<52}{one.orders:>10,}  {promise[:90] or 'SURVIVED'}")
    return lines
