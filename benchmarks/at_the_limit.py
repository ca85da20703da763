"""How much of what KK's leaky bucket admits is used, by one process and by four, on one ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from statistics import quantiles
from typing import Any

from benchmarks.places import databases, kk, run_child, run_children
from benchmarks.table import Row

BURST = 120
REAL_RATE = 2.0
#: Half of the time, and twice the effect of every delay.
SCALED_RATE = 4.0
#: Runs wait most of their time, so they go side by side; their first bursts do not.
APART_S = 10.0
WANTED = {180: "0.96", 240: "0.98", 600: "0.98"}


def rows(*, is_long: bool) -> Iterator[Row]:
    rate = REAL_RATE if is_long else SCALED_RATE
    with ThreadPoolExecutor(7) as pool:
        slow = pool.submit(deliver, 600, 1, burst=BURST, rate=rate, latency_s=1.0)
        time.sleep(APART_S)
        runs = {}
        for number, processes in product((600, 240, 180), (4, 1)):
            runs[processes, number] = pool.submit(deliver, number, processes, burst=BURST, rate=rate)
            time.sleep(APART_S)
    for (processes, number), run in sorted(runs.items()):
        yield _row(number, processes, rate, run.result())
    yield _slow_kk(rate, slow.result())
    yield _sleeping_loop()


def _row(number: int, processes: int, rate: float, run: dict[str, Any]) -> Row:
    return Row(
        f"share of the theoretical rate, {number} orders, {_processes(processes)}, {rate:g} a second",
        f"{run['share']:.3f} of all requests, {run['of_orders']:.3f} of orders alone; "
        f"{run['rate_limited']} answers 429",
        "arithmetic: (requests - 120) / rate, by KK's log",
        f"{run['theory_s']:.1f} s",
        f"{run['share']:.3f}",
        f"{WANTED[number]}, no 429; way to KK {run['delay']}",
    )


def _slow_kk(rate: float, run: dict[str, Any]) -> Row:
    return Row(
        f"the same when KK takes 1 s to answer: 600 orders, 8 in flight, {rate:g} a second",
        f"{run['share']:.3f}; {run['rate_limited']} answers 429",
        "arithmetic",
        f"{run['theory_s']:.1f} s",
        f"{run['share']:.3f}",
        "the full rate",
    )


def _sleeping_loop() -> Row:
    numbers = [f"sleep-{n}" for n in range(10)]
    with kk(latency_s=0.02) as control:
        loop = run_child("peers", {"url": control.url, "numbers": numbers, "sleep_s": 0.5})
    rate = len(numbers) / loop["seconds"]
    theirs, ours = 240 / rate, (240 - BURST + 5) / REAL_RATE
    return Row(
        "240 orders at KK's real limit",
        f"{ours:.0f} s, by arithmetic: 2 of headroom, 3 for reads",
        "a loop with sleep(0.5): `python -m benchmarks.peers`",
        f"{theirs:.0f} s at its {rate:.2f} a second",
        f"{theirs / ours:.1f} times as fast",
    )


def deliver(
    number: int, processes: int, *, burst: int, rate: float, latency_s: float = 0.02
) -> dict[str, Any]:
    """Deliver orders from several processes at once; what KK's log tells of it."""
    with kk(rate_burst=burst, rate_per_second=rate, latency_s=latency_s) as control, databases() as urls:
        task = {
            "url": control.url,
            "ledger": urls.get("postgresql", urls["sqlite"]),
            "burst": burst,
            "per_second": rate,
            "in_flight": 8,
        }
        numbers = [f"n-{n}" for n in range(number)]
        shares = [{**task, "numbers": numbers[place::processes]} for place in range(processes)]
        told = run_children("worker", shares)
        log = control.requests()
    admitted = [entry for entry in log if entry["outcome"] != "rate_limited"]
    created = sum(entry["outcome"] == "created" for entry in log)
    assert created == number, f"{created} of {number} orders were created"
    took_s = max(entry["at"] for entry in log) - min(entry["at"] for entry in log)
    granted = {number: at for one in told for number, at in one["granted"].items()}
    delays = [entry["at"] - granted[entry["number"]] for entry in log if entry["number"] in granted]
    theory_s = (len(admitted) - burst) / rate
    return {
        "theory_s": theory_s,
        "share": theory_s / took_s,
        "of_orders": (number - burst) / rate / took_s,
        "rate_limited": len(log) - len(admitted),
        "delay": _delay(delays),
    }


def _delay(delays: list[float]) -> str:
    cuts = quantiles(delays, n=100)
    return f"{cuts[49] * 1000:.0f} ms, at most {max(delays) * 1000:.0f} ms"


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"
