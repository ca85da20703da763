"""`python -m benchmarks [--long] [--only NAME ...]`: measures, prints one table, writes `results.md`."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from benchmarks.table import Row, markdown, report

PARTS = ("imports", "at_the_limit", "throughput", "guards", "settling", "growth", "created", "memory")
RESULTS = Path(__file__).with_name("results.md")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--long", action="store_true", help="with KK's real bucket: a few minutes more")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="some parts; results.md stays as it is")
    options = parser.parse_args()
    rows: list[Row] = []
    for part in options.only or PARTS:
        began = time.monotonic()
        for row in importlib.import_module(f"benchmarks.{part}").rows(is_long=options.long):
            print(f"{row.what}: {row.ours} {row.ratio}", file=sys.stderr, flush=True)
            rows.append(row)
        print(f"-- {part} took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        if not options.only:
            RESULTS.write_text(report(rows, command="make bench-long" if options.long else "make bench"))
    print(markdown(rows))


if __name__ == "__main__":
    main()
