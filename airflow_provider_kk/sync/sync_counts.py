"""The syncs of a ledger and their counts. A task and its retries are one sync."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.log import count_orders
from airflow_provider_kk.delivery.model import Attempt, Origin, Record
from airflow_provider_kk.delivery.run_queue import COUNTED, RunQueue, RunStatus
from airflow_provider_kk.delivery.states import Event, State, is_unsent
from airflow_provider_kk.delivery.storage import RunRow

_SHOWN_REJECTIONS = 20
_BATCH = 1_000


@dataclass
class Summary:
    """The counts of a sync. `selected` is always the sum of the ten counts after it.

    The newly counts are of this sync alone, its retries included: an old rejection fails no new run.
    """

    selected: int = 0
    created: int = 0
    already_created: int = 0
    adopted: int = 0
    changed: int = 0
    rejected: int = 0
    invalid: int = 0
    in_doubt: int = 0
    held: int = 0
    not_sent: int = 0
    postponed: int = 0
    newly_rejected: int = 0
    newly_invalid: int = 0
    newly_held: int = 0
    requests: int = 0
    seconds: float = 0.0
    rejections: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)

    def line(self) -> str:
        """Return it as a line for the log, without the counts that are zero."""
        counts = [
            f"{getattr(self, name)} {name.replace('_', ' ')}" for name in COUNTED if getattr(self, name)
        ]
        return f"{count_orders(self.selected)}: {', '.join(counts) or 'nothing to do'}"


class SyncRuns:
    """The ledger's syncs."""

    def __init__(self, ledger: AnyLedger) -> None:
        self._ledger = ledger

    def begin(self, origin: Origin) -> RunRow:
        """Begin a sync, or continue the one that this task began and that has not succeeded.

        Its summary is that of its earlier tries, and of this one before it was deferred; empty at first.
        """
        now, storage = self._ledger.now(), self._ledger.storage
        row = storage.newest_run(origin)
        if row is None or row.state == "done":
            row = RunRow(self._ledger.new_version(), origin.try_number, now, now, "running", {})
            storage.add_run(row, origin)
            return row
        started_at = row.try_started_at if row.try_number == origin.try_number else now
        changes = {"try_number": origin.try_number, "try_started_at": started_at, "state": "running"}
        storage.change_run(row.sync_id, changes)
        return replace(row, try_number=origin.try_number, try_started_at=started_at, state="running")

    def end(self, run: RunRow, state: str, summary: Mapping[str, Any]) -> None:
        """Store a sync's state, `waiting`, `failed` or `done`, and its counts."""
        self._ledger.storage.change_run(run.sync_id, {"state": state, "summary": summary})

    def moved(self, run: RunRow) -> Iterator[Record]:
        """Yield the orders whose state this sync changed, in any of its tries."""
        return self._ledger.storage.of_sync(run.sync_id)

    def sent(self, run: RunRow, origin: Origin) -> Iterator[Record]:
        """Yield the orders that this sync was the first to send, without those that never reached KK."""
        moved = (entry for entry in self.moved(run) if entry.attempt > 0 and not is_unsent(entry))
        while batch := {entry.key: entry for entry in islice(moved, _BATCH)}:
            first: dict[str, Attempt] = {}
            for one in self._ledger.attempts(list(batch)):
                may_be_at_kk = one.outcome not in (Event.REJECTED.value, Event.NOT_SENT.value)
                is_own = _task_of(one) == _task_of(origin) and one.outcome != Event.NOT_SENT.value
                if one.generation == batch[one.key].generation and (may_be_at_kk or is_own):
                    first.setdefault(one.key, one)
            yield from (batch[key] for key, one in first.items() if _task_of(one) == _task_of(origin))


def _task_of(where: Attempt | Origin) -> tuple[str, str, str]:
    return where.dag_id, where.run_id, where.task_id


def summarise(run_queue: RunQueue, run: RunRow, runs: SyncRuns) -> Summary:
    """Count a sync: its run queue, and orders of its earlier tries that are not in the queue any more."""
    return count(run_queue, (entry for entry in runs.moved(run) if not run_queue.has(entry.key)))


def count(run_queue: RunQueue, elsewhere: Iterable[Record] = ()) -> Summary:
    """Count a run queue and further rows of the ledger."""
    counts: dict[RunStatus, int] = dict.fromkeys(COUNTED, 0)
    counts.update((status, number) for status, number in run_queue.counts().items() if status in counts)
    for entry in elsewhere:
        counts[_status(entry)] += 1
    summary = Summary(
        selected=sum(counts.values()),
        newly_rejected=run_queue.count_new(RunStatus.REJECTED),
        newly_invalid=run_queue.count_new(RunStatus.INVALID),
        newly_held=run_queue.count_new(RunStatus.HELD),
        rejections=_rejections(run_queue),
    )
    for status, number in counts.items():
        setattr(summary, status.value, number)
    return summary


def _status(entry: Record) -> RunStatus:
    if entry.state is State.CREATED:
        return RunStatus.ADOPTED if entry.adopted else RunStatus.CREATED
    return RunStatus.IN_DOUBT if entry.state is State.SENDING else RunStatus(entry.state.value)


def _rejections(run_queue: RunQueue) -> list[dict[str, Any]]:
    return [
        {
            "custom_order_number": one.name,
            "state": one.status.value,
            "code": one.code,
            "message": one.message,
        }
        for one in islice(run_queue.finished(RunStatus.REJECTED, RunStatus.INVALID), _SHOWN_REJECTIONS)
    ]
