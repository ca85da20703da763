"""Orders and what becomes of them, as tables for people and as JSON lines for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from airflow_provider_kk.cli.common import print_line, table, write_raw

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.run_queue import RunQueue, RunResult, RunStatus
    from airflow_provider_kk.sync.runs import Summary


def print_counts(summary: Summary, outcomes: Mapping[str, str], *, file: TextIO | None = None) -> None:
    """Print how many orders have come, or would come, to what: those first that `words` has words for."""
    from airflow_provider_kk.delivery.run_queue import COUNTED

    for name in dict.fromkeys([*outcomes, *COUNTED]):
        if number := getattr(summary, name):
            print_line(f"  {number:>7,}  {outcomes.get(name, name.replace('_', ' '))}", file=file)


def print_problems(
    run_queue: RunQueue, statuses: Sequence[RunStatus], most: int, *, file: TextIO | None = None
) -> None:
    """Print each fault of each order in one of these states, of the first `most` orders."""
    found = run_queue.finished(*statuses)
    rows = [row for one in islice(found, most) for row in _rows(one)]
    if not rows:
        return
    print_line(file=file)
    head = ["order", "row", "state", "field", "what"]
    table(head, rows, wrapped=True, file=file)
    if more := sum(1 for _ in found):
        print_line(f"and {more:,} more: --show {most + more} or --json shows them", file=file)


def _rows(one: RunResult) -> Iterator[list[str]]:
    begin = [one.name or "-", str(one.position), one.status.replace("_", " ")]
    for fault in one.faults:
        yield [*begin, fault.path, fault.message]
    if not one.faults:
        code = f"code {one.code}: " if one.code is not None else ""
        yield [*begin, "", f"{code}{one.message}"]


def as_data(one: RunResult) -> dict[str, Any]:
    """Return an order as a JSON line has it."""
    return {
        "custom_order_number": one.name,
        "row": one.position,
        "state": one.status.value,
        "kk_order_ids": list(one.kk_order_ids),
        "code": one.code,
        "message": one.message,
        "faults": [{"field": fault.path, "message": fault.message} for fault in one.faults],
    }


def print_json(data: Mapping[str, Any]) -> None:
    """Print a line of JSON."""
    write_raw(json.dumps(data, ensure_ascii=False))
