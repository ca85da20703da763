"""Check the model of the delivery protocol: every schedule within bounds.

python -m tests.model                      # some minutes on two processors, under 4 GB
python -m tests.model --mutant "no lease"  # one mutant, with its schedule

Exits with 1 when a promise is broken, or when a mutant breaks none.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Any

from tests.model import spin
from tests.model.checks import CHECKS, INEXPRESSIBLE, MUTANTS, Check, Mutant

_EXHAUSTIVE = """\
Exhaustive: each check stores every state in full and ends when there is no new one. No bit-state hashing
and no hash compaction, which would only sample. No partial-order reduction. The liveness check assumes weak
fairness.
Not bounded: tries, attempts, crashes, lost and late answers, blind lists, broken commits, pauses, and time.
Only the liveness check bounds the faults, to TROUBLE in all. Bounded is what each check lists, with times in
units."""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mutant", help="check this mutant only")
    parser.add_argument("--workers", type=int, default=2, help="searches at once")
    arguments = parser.parse_args()
    if not spin.is_installed():
        print("The model is not checked: spin or gcc is missing. Install Debian's packages `spin` and `gcc`.")
        return 0
    began = time.monotonic()
    with ThreadPoolExecutor(arguments.workers) as executor:
        if arguments.mutant:
            return _mutants(executor, [one for one in MUTANTS if one.name == arguments.mutant])
        print(spin.version(), _EXHAUSTIVE, sep="\n")
        failed = _checks(executor) + _mutants(executor, MUTANTS)
        _print_inexpressible()
    print(f"\n{'FAILED' if failed else 'Every promise holds'}; {time.monotonic() - began:.0f} s in all")
    return 1 if failed else 0


def _checks(executor: Executor) -> int:
    print("\n== Promises")
    failed = 0
    for check, result in zip(CHECKS, executor.map(_try, CHECKS), strict=True):
        kind = "liveness" if check.is_liveness else "safety"
        print(f"\n{check.name} ({kind}): {check.all_bounds}, {', '.join(check.switches)}")
        if isinstance(result, spin.SpinError):
            print(f"  FAILED: {result}")
            failed += 1
            continue
        violations = 1 if result.schedule else 0
        print(
            f"  {result.states:,} states, depth {result.depth:,}, {result.seconds:.0f} s, "
            f"{result.memory_mb:.0f} MB, violations {violations}",
            flush=True,
        )
        _print_schedule(result.schedule)
        failed += violations
    return failed


def _mutants(executor: Executor, mutants: Sequence[Mutant]) -> int:
    print("\n== Mutants: one safeguard removed, and the shortest schedule that breaks a promise for it")
    results = executor.map(partial(_try, shortest=True), [one.check for one in mutants])
    rows = []
    for mutant, result in zip(mutants, results, strict=True):
        print(f"\n{mutant.name} ({', '.join(mutant.check.defines)})")
        if isinstance(result, spin.SpinError) or not result.schedule:
            print(
                f"  FAILED: {result if isinstance(result, spin.SpinError) else 'no promise is broken'}",
                flush=True,
            )
            rows.append((mutant.name, "-", "SURVIVED"))
            continue
        _print_schedule(result.schedule)
        promise = result.schedule[-1].removeprefix("BROKEN: ")
        broken = "in the end created once, or held" if mutant.check.is_liveness else promise
        rows.append((mutant.name, f"{result.states:,}", broken))
    print("\n| mutant | states | broken promise |\n|---|---:|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    survivors = sum(row[2] == "SURVIVED" for row in rows)
    print(f"{len(rows) - survivors} of {len(rows)} mutants break a promise")
    return survivors


def _try(check: Check, **options: Any) -> spin.Result | spin.SpinError:
    try:
        return spin.search(check, **options)
    except spin.SpinError as error:
        return error


def _print_schedule(schedule: Sequence[str]) -> None:
    for number, step in enumerate(schedule, 1):
        print(f"  {number:3} {step}", flush=True)


def _print_inexpressible() -> None:
    print("\n== Mutants of the simulation that the model cannot express")
    for name, why in INEXPRESSIBLE.items():
        print(f"  {name}: {why}")


if __name__ == "__main__":
    sys.exit(main())
