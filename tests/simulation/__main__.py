"""Runs the protocol in simulated worlds.

python -m tests.simulation --schedules 100000 --workers 2
python -m tests.simulation --replay 4711      # one world, step by step
python -m tests.simulation --mutants          # each safeguard switched off in turn
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.run import Report, hunt_all, mutants_table, simulate_all
from tests.simulation.world import Broken, World


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--schedules", type=int, default=100_000)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one world and tell every step")
    parser.add_argument("--mutants", action="store_true", help="switch each safeguard off in turn")
    parser.add_argument("--worlds", type=int, default=60_000, help="of each mutant, at most")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        return replay(arguments.replay)
    if arguments.mutants:
        return mutants(arguments.first_seed, arguments.worlds, arguments.workers)
    return schedules(arguments.first_seed, arguments.schedules, arguments.workers)


def replay(seed: int) -> int:
    """Tell one world, step by step."""
    world = World(seed, traced=True)
    told = "all promises were kept"
    try:
        world.run()
    except Broken as broken:
        told = str(broken)
    print(world.kk.manners, world.habits, sep="\n")
    print(*world.hub.trace or (), sep="\n")
    for entry in world.database.tables.orders.values():
        print(f"{entry.key} (generation {entry.generation}): {entry.state.value} {entry.kk_order_ids}")
    print(told)
    return 0 if told.startswith("all") else 1


def mutants(first_seed: int, worlds: int, workers: int) -> int:
    """Look for every mutant and tell how each was found."""
    caught = hunt_all(first_seed=first_seed, worlds=worlds, workers=workers)
    print(*mutants_table(caught), sep="\n")
    survivors = [one.name for one in caught if not one.promise]
    print(f"{len(caught) - len(survivors)} of {len(caught)} mutants caught")
    return 1 if survivors else 0


def schedules(first_seed: int, number: int, workers: int) -> int:
    """Run so many schedules; tells how far it is."""
    report, told_at = Report(), time.monotonic()
    for report in simulate_all(first_seed=first_seed, schedules=number, workers=workers):
        if time.monotonic() - told_at > 15:
            told_at = time.monotonic()
            print(f"  {report.schedules:,} schedules, {len(report.broken)} promises broken", flush=True)
    print(*report.lines(), sep="\n")
    if report.broken:
        print("to see one step by step: python -m tests.simulation --replay SEED")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
