"""Tries to break the promise: kills the real thing at system calls, simulates it, and breaks it on purpose.

python -m tests.chaos                     # all of it, a quarter of an hour on two processors
python -m tests.chaos --kills 500 --schedules 50000 --worlds 2000

Exits with 1 when an order was doubled, lost or stuck, or when a safeguard that is off was not missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tests.chaos import kills
from tests.simulation.__main__ import mutants, schedules


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kills", type=int, default=20_000, help="SIGKILLs, at least")
    parser.add_argument("--schedules", type=int, default=5_000_000, help="simulated, at least")
    parser.add_argument("--worlds", type=int, default=60_000, help="to look for each mutant in, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    seed, workers = arguments.seed, arguments.workers
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, Python {platform.python_version()}, "
        f"{os.cpu_count()} processors, {workers} workers, seed {seed}"
    )
    parts: list[tuple[str, Callable[[], int]]] = [
        ("Real processes, killed at system calls", lambda: _kill(arguments.kills, seed, workers)),
        ("The protocol, simulated", lambda: schedules(seed, arguments.schedules, workers)),
        ("Each safeguard switched off in turn", lambda: mutants(seed, arguments.worlds, workers)),
    ]
    failed, began = [], time.monotonic()
    for title, part in parts:
        print(f"\n== {title}", flush=True)
        at = time.monotonic()
        if part():
            failed.append(title)
        print(f"== {time.monotonic() - at:.0f} s", flush=True)
    told = f"FAILED: {', '.join(failed)}" if failed else "no order was doubled, lost or stuck"
    print(f"\n{told}; {time.monotonic() - began:.0f} s in all")
    return 1 if failed else 0


def _kill(count: int, seed: int, workers: int) -> int:
    tally = kills.run(count=count, seed=seed, workers=workers)
    for failure in tally.failures[:20]:
        print(kills.describe(failure))
    print(kills.table(tally))
    return 1 if tally.failures or tally.doubled or tally.lost or tally.stuck or tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
