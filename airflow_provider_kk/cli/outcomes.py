"""Orders and what becomes of them, as tables for people and as JSON lines for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, TextIO

from airflow_provider_kk.cli.common import print_line, table, write_raw
from airflow_provider_kk.delivery.log import count_orders, some_of

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Attempt, Record
    from airflow_provider_kk.delivery.run_queue import RunQueue, RunResult, RunStatus
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sync.audit import Finding
    from airflow_provider_kk.sync.ledger_history import BrokenRule
    from airflow_provider_kk.sync.sync_counts import Summary


def print_counts(summary: Summary, outcomes: Mapping[str, str]) -> None:
    """Print how many orders have come, or would come, to what: those first that `words` has words for."""
    from airflow_provider_kk.delivery.run_queue import COUNTED
    from airflow_provider_kk.sync.plan import PROBLEMS

    for name in dict.fromkeys([*outcomes, *COUNTED]):
        if number := getattr(summary, name):
            style = "green" if name in _GOOD else "red" if name in PROBLEMS else ""
            text = f"  {number:>7,}  {outcomes.get(name, name.replace('_', ' '))}"
            print_line(text, style=style)


_GOOD = ("created", "already_created", "adopted")


def print_problems(
    run_queue: RunQueue, statuses: Sequence[RunStatus], most: int, *, file: TextIO | None = None
) -> None:
    """Print the faults that orders share, then each fault of the first `most` orders in these states."""
    shared = _shared_faults(run_queue.finished(*statuses))
    if shared:
        print_line()
    for names, number, text in shared:
        print_line(f"{count_orders(number)}: {text} ({some_of(names, number)})", style="bold")
    found = run_queue.finished(*statuses)
    long = {text for _, _, text in shared if len(text) > _LONG}
    rows = [
        [*row[:4], "as above"] if " ".join(row[3:]).strip() in long else row
        for one in islice(found, most)
        for row in _rows(one)
    ]
    if not rows:
        return
    print_line()
    head = ["order", "row", "state", "field", "reason"]
    table(head, rows, wrapped=True)
    if more := sum(1 for _ in found):
        print_line(f"and {more:,} more: use --show {most + more} or --json")


def _shared_faults(found: Iterable[RunResult]) -> list[tuple[list[str], int, str]]:
    """Return what several orders have in common: some of their numbers, how many they are, and the fault."""
    groups: dict[str, tuple[list[str], int]] = {}
    for one in found:
        for text in {_fault(row) for row in _rows(one)}:
            names, number = groups.get(text, ([], 0))
            if number or len(groups) < _GROUPS:
                names += [one.name or f"row {one.position}"] if number < _NAMED else []
                groups[text] = (names, number + 1)
    shared = [(names, number, text) for text, (names, number) in groups.items() if number > 1]
    return sorted(shared, key=lambda group: -group[1])[:_SHOWN_GROUPS]


def _fault(row: Sequence[str]) -> str:
    """Return a fault without what is the order's own: where in it a line stands, and its row."""
    *_, path, text = row
    return re.sub(r"\[\d+\]", "", f"{path} {_ROWS.sub('', text)}").strip()


#: A shared fault above this length is not printed again for each order.
_LONG = 100
#: The rows that a fault names.
_ROWS = re.compile(r" ?\((?:row \d+(?: and )?)+\)")
#: Memory does not grow with the number of different faults.
_GROUPS, _SHOWN_GROUPS, _NAMED = 1_000, 20, 3


def print_samples(run_queue: RunQueue, most: int = 3) -> None:
    """Print some of the orders that would be sent, with personal data masked."""
    from airflow_provider_kk.delivery.run_queue import RunStatus
    from airflow_provider_kk.sync.deliver import order_of

    orders = islice(run_queue.finished(RunStatus.POSTPONED), most)
    items = [item for one in orders if (item := run_queue.item(one.key or ""))]
    if not items:
        return
    print_line()
    print_line("The first orders as they would be sent, with personal data masked (--bodies prints it):")
    for item in items:
        order = order_of(item.payload)
        lines = ", ".join(f"{line.quantity} x {line.sku}" for line in order.items)
        fields = {**order.address.model_dump(), **order.model_dump(include={"remark", *_NOT_PERSONAL})}
        texts = [
            f"{name} {text if name in _NOT_PERSONAL else _masked(str(text))}"
            for name, text in fields.items()
            if text is not None
        ]
        print_line(f"  {order.custom_order_number}: {lines}; {'; '.join(texts)}")


_NOT_PERSONAL = ("country", "sale_platform", "channel_type")


def _masked(text: str) -> str:
    """Return the shape of a text: enough to see a phone in the place of a name."""
    return "".join(
        "9" if one.isdigit() else "X" if one.isupper() else "x" if one.isalpha() else one for one in text
    )


def _rows(one: RunResult) -> Iterator[list[str]]:
    begin = [one.name or "-", str(one.position), one.status.replace("_", " ")]
    for fault in one.faults:
        yield [*begin, fault.path, fault.message]
    if not one.faults:
        code = f"code {one.code}: " if one.code is not None else ""
        yield [*begin, "", f"{code}{one.message}"]


def as_columns(row: Record | Attempt | Finding | BrokenRule, ledger: SqlLedger) -> dict[str, Any]:
    """Return a row for JSON, its fields named as the ledger's columns."""
    columns: dict[str, Any] = {}
    for name, value in asdict(row).items():
        columns |= value if name == "content" else {ledger.storage.jobs.column(name): value}
    return columns


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
