"""The syncs: what each has selected, sent and found out, its retries counted as one."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from airflow_provider_kk.delivery import tables
from airflow_provider_kk.delivery.board import COUNTED, Board, Status
from airflow_provider_kk.delivery.ledger import Ledger
from airflow_provider_kk.delivery.log import orders
from airflow_provider_kk.delivery.rows import Entry, Origin
from airflow_provider_kk.delivery.states import State

_RUN = tables.sync_run
_SHOWN_REJECTIONS = 20


@dataclass(frozen=True)
class SyncRun:
    """One sync: a task of a run, from its first try until it succeeds."""

    sync_id: str
    started_at: float
    """When its first try began, epoch seconds of the database."""
    try_started_at: float
    """When this try began; a deferral goes on with the same try."""
    requests: int = 0
    """Requests of its earlier tries, and of this one before it was deferred."""


@dataclass
class Summary:
    """What a sync has done; `selected` is always the sum of the ten counts after it."""

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
        return f"{orders(self.selected)}: {', '.join(counts) or 'nothing to do'}"


class SyncRuns:
    """The ledger's table of syncs."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def begin(self, origin: Origin) -> SyncRun:
        """Begin a sync, or go on with the one that this task has begun and not brought to success."""
        now = self._ledger.now()
        row = self._unfinished(origin)
        if row is None:
            run = SyncRun(secrets.token_hex(16), now, now)
            with self._ledger.database.write() as db:
                db.execute(_RUN.insert().values(self._row(run, origin)))
            return run
        try_started_at = row.try_started_at if row.try_number == origin.try_number else now
        with self._ledger.database.write() as db:
            db.execute(
                _RUN.update()
                .where(_RUN.c.sync_id == row.sync_id)
                .values(try_number=origin.try_number, try_started_at=try_started_at, state="running")
            )
        requests = json.loads(row.summary).get("requests", 0)
        return SyncRun(row.sync_id, row.started_at, try_started_at, requests)

    def end(self, run: SyncRun, state: str, summary: Mapping[str, Any]) -> None:
        """Store how far a sync has come: `waiting`, `failed` or `done`."""
        text = json.dumps(dict(summary))
        with self._ledger.database.write() as db:
            db.execute(
                _RUN.update()
                .where(_RUN.c.sync_id == run.sync_id)
                .values(state=state, summary=text, ended_at=self._ledger.database.now())
            )

    def moved(self, run: SyncRun) -> Iterator[Entry]:
        """Yield the orders that this sync has moved, in any of its tries."""
        yield from self._ledger.of_sync(run.sync_id)

    def sent(self, run: SyncRun) -> int:
        """Return how many orders this sync has sent so far, in any of its tries."""
        return sum(entry.attempt > 0 for entry in self.moved(run))

    def _unfinished(self, origin: Origin) -> Any:
        query = (
            sa.select(_RUN)
            .where(
                _RUN.c.host == self._ledger.host,
                _RUN.c.account == self._ledger.account,
                _RUN.c.dag_id == origin.dag_id,
                _RUN.c.run_id == origin.run_id,
                _RUN.c.task_id == origin.task_id,
                _RUN.c.map_index == origin.map_index,
            )
            .order_by(_RUN.c.started_at.desc())
            .limit(1)
        )
        with self._ledger.database.read() as db:
            row = db.execute(query).one_or_none()
        return row if row is not None and row.state != "done" else None

    def _row(self, run: SyncRun, origin: Origin) -> dict[str, Any]:
        return {
            "sync_id": run.sync_id,
            "host": self._ledger.host,
            "account": self._ledger.account,
            "dag_id": origin.dag_id,
            "run_id": origin.run_id,
            "task_id": origin.task_id,
            "map_index": origin.map_index,
            "try_number": origin.try_number,
            "started_at": run.started_at,
            "try_started_at": run.try_started_at,
            "ended_at": 0.0,
            "state": "running",
            "summary": "{}",
        }


def summarise(board: Board, run: SyncRun, runs: SyncRuns) -> Summary:
    """Count a sync: what is on the board, and what its earlier tries moved and is not there any more."""
    counts: dict[Status, int] = dict.fromkeys(COUNTED, 0)
    counts.update((status, number) for status, number in board.counts().items() if status in counts)
    for entry in runs.moved(run):
        if not board.has(entry.key):
            counts[_status(entry)] += 1
    summary = Summary(selected=sum(counts.values()), rejections=_rejections(board))
    for status, number in counts.items():
        setattr(summary, status.value, number)
    return summary


def _status(entry: Entry) -> Status:
    if entry.state is State.CREATED:
        return Status.ADOPTED if entry.adopted else Status.CREATED
    return Status.IN_DOUBT if entry.state is State.SENDING else Status(entry.state.value)


def _rejections(board: Board) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = []
    for one in board.finished():
        if len(shown) == _SHOWN_REJECTIONS:
            break
        if one.status in (Status.REJECTED, Status.INVALID):
            shown.append(
                {
                    "custom_order_number": one.name,
                    "state": one.status.value,
                    "code": one.code,
                    "message": one.message,
                }
            )
    return shown
