"""Kills the delivery of orders at every system call, and counts what KK got.

python -m tests.chaos.kills --count 20000 --seed 1 --workers 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.chaos.killpoints import build
from tests.chaos.plans import KINDS
from tests.chaos.worker import Order, Tally
from tests.postgres import find_binaries, throwaway_postgres

_ROOT = Path(__file__).parents[2]


def run(
    *,
    count: int,
    seed: int,
    workers: int = 1,
    trial: int | None = None,
    kind: str | None = None,
    compiler: bool = True,
    postgres: bool = True,
    patch: str | None = None,
    max_failures: int = 5,
) -> Tally:
    """Kill so many processes (a few more, since trials are not cut short) and sum up what was found.

    :param trial: only this one, as a failure names it.
    :param patch: `module:function`, called in each worker before its trials, to switch a safeguard off.
    :param max_failures: after so many broken trials a worker gives up.
    :param compiler: False pretends that there is no C compiler.
    """
    tally = Tally()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kk-chaos-")))
        library = build(folder) if compiler else None
        binaries = find_binaries() if postgres else None
        url = stack.enter_context(throwaway_postgres(binaries)) if binaries else None
        running = []
        for number in range(workers if trial is None else 1):
            order = Order(
                seed=seed,
                count=-(-count // workers),
                first=number,
                step=workers,
                library=None if library is None else str(library),
                postgres_url=url,
                trial=trial,
                kind=kind,
                patch=patch,
                max_failures=max_failures,
            )
            running.append(stack.enter_context(_worker(order, folder / f"home-{number}")))
        for process in running:
            output, _ = process.communicate()
            if process.returncode:
                raise RuntimeError(f"a worker ended with status {process.returncode}")
            tally.merge(json.loads(output.splitlines()[-1]))
    return tally


def _worker(order: Order, home: Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    environment |= {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
        # The same draws, the same order of sets: a trial is the same each time.
        "PYTHONHASHSEED": "0",
    }
    if order.library:
        environment["LD_PRELOAD"] = order.library
    command = [sys.executable, "-P", "-m", "tests.chaos.worker", json.dumps(asdict(order))]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=_ROOT)


def table(tally: Tally) -> str:
    """The figures, for people."""
    kills = sum(tally.kills.values())
    lines = [
        f"{kills:,} SIGKILLs at {tally.points}, at {len(tally.places):,} places,"
        f" in {tally.trials:,} trials of {tally.orders:,} orders with {tally.children:,} processes"
    ]
    lines += ["", f"{'killed at':<16}{'before':>8}{'after':>8}"]
    for call in sorted({name.split()[0] for name in tally.kills}):
        lines.append(f"{call:<16}{tally.kills[f'{call} before']:>8,}{tally.kills[f'{call} after']:>8,}")
    for title, counts in (
        ("kills by kind of trial", tally.kills_by_kind),
        ("kills by the list's lag", tally.kills_by_lag),
        ("kills by ledger", tally.kills_by_ledger),
        ("kills by the order's faults", _single(tally.kills_by_fault)),
        ("faults that struck", tally.struck),
        ("stopped at (zombies, orphans)", tally.stops),
        ("held, and rightly so", tally.held),
        ("frozen beyond the window", tally.beyond),
    ):
        lines += ["", title, *(f"  {name:<38}{number:>8,}" for name, number in sorted(counts.items()))]
    lines += [
        "",
        f"POSTs that reached KK {tally.posts:,}, creates {tally.creates:,}",
        f"doubled by a proxy at KK, and named {tally.named:,}",
        f"doubled {tally.doubled}, lost {tally.lost}, stuck {tally.stuck}, otherwise broken {tally.wrong}",
        f"CPU {tally.cpu_s:.0f} s, {1000 * tally.cpu_s / max(1, kills):.0f} ms a kill",
    ]
    return "\n".join(lines)


def _single(counts: Mapping[str, int]) -> Counter[str]:
    """Kills by each fault: a kill of an order with two counts for both."""
    single: Counter[str] = Counter()
    for names, number in counts.items():
        for name in names.split("+"):
            single[name] += number
    return single


def describe(failure: Mapping[str, Any]) -> str:
    """A failure, with all that is needed to understand and to repeat it."""
    lines = [f"FAILED: python -m tests.chaos.kills --seed {failure['seed']} --trial {failure['trial']}"]
    lines += [f"  {what}" for what in failure["broken"]]
    for title in ("plan", "story", "ledger", "attempts", "orders at KK", "POSTs to KK"):
        lines.append(f" {title}:")
        content = failure[title]
        if isinstance(content, Mapping):
            content = [f"{name}: {value}" for name, value in content.items()]
        lines += [f"  {line}" for line in content]
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="how many SIGKILLs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--trial", type=int, help="only this trial of the seed")
    parser.add_argument("--kind", choices=sorted(set(KINDS) - {"postgres"}), help="only trials of this kind")
    parser.add_argument("--json", action="store_true", help="the counts as one line of JSON")
    parser.add_argument("--without-compiler", action="store_true", help="as if there were no C compiler")
    parser.add_argument("--patch", help="module:function that switches a safeguard off")
    arguments = parser.parse_args()
    tally = run(
        count=arguments.count,
        seed=arguments.seed,
        workers=arguments.workers,
        trial=arguments.trial,
        kind=arguments.kind,
        compiler=not arguments.without_compiler,
        patch=arguments.patch,
    )
    for failure in tally.failures:
        print(describe(failure), file=sys.stderr)
    print(json.dumps(tally.as_dict()) if arguments.json else table(tally))
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
