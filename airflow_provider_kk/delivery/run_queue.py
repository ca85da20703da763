"""The run queue: the orders of one run with their results, in a private temporary file, and its progress."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from airflow_provider_kk.api.errors import Fault
from airflow_provider_kk.delivery.clock import Clock
from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.log import HELD, Log, OrderLog, utc
from airflow_provider_kk.delivery.model import Content, Record, fingerprint_with
from airflow_provider_kk.delivery.states import DOUBTFUL, Action, State, next_action

_BATCH = 1_000


class RunStatus(StrEnum):
    """The status of an order in this run: the summary's counts, and two that end in one of them."""

    PENDING = "pending"
    WAITING = "waiting"
    """In doubt, being sent by another worker, or to be reconciled before it is resent."""
    CREATED = "created"
    ALREADY_CREATED = "already_created"
    ADOPTED = "adopted"
    CHANGED = "changed"
    REJECTED = "rejected"
    INVALID = "invalid"
    IN_DOUBT = "in_doubt"
    HELD = "held"
    NOT_SENT = "not_sent"
    POSTPONED = "postponed"


#: The ten counts that add up to `selected`.
COUNTED = tuple(status for status in RunStatus if status not in (RunStatus.PENDING, RunStatus.WAITING))


@dataclass(frozen=True)
class QueuedOrder:
    """An order of the run. Its `Job` is made from `payload`; `position` is the position of its first row."""

    position: int
    key: str
    content: Content
    payload: str


@dataclass(frozen=True)
class RunResult:
    """An order and its result."""

    position: int
    key: str | None
    status: RunStatus
    is_new: bool
    """Whether this sync caused the result, since an old rejection does not fail a new run."""
    kk_order_ids: tuple[str, ...]
    code: int | None
    message: str
    name: str | None = None
    """The number in the warehouse, even if it cannot be a key."""
    faults: tuple[Fault, ...] = ()
    """The faults of an invalid order, as in the message."""

    def warn(self, log: OrderLog) -> None:
        """Log the result and its reason."""
        code = f" (code {self.code})" if self.code is not None else ""
        text = f"{{orders}} {{are}} {self.status.replace('_', ' ')}{code}: {{reason}}"
        log.warning(text, f"{self.name or 'without a number'} (row {self.position})", self.message)


class RunQueue:
    """The queue of a run's orders, for one thread. Memory does not grow with the number of orders."""

    def __init__(self) -> None:
        # With an empty name, SQLite makes a temporary file and unlinks it at once.
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=OFF")
        self._db.execute(
            "CREATE TABLE job (position INTEGER PRIMARY KEY, key TEXT, content TEXT, payload TEXT,"
            " status TEXT, is_new INTEGER DEFAULT 0, ids TEXT DEFAULT '[]', code INTEGER,"
            " message TEXT DEFAULT '', name TEXT, faults TEXT DEFAULT '[]')"
        )
        self._db.execute("CREATE INDEX job_status ON job (status, position)")
        self._db.execute("CREATE INDEX job_key ON job (key)")

    def close(self) -> None:
        """Delete the file."""
        self._db.close()

    def add(self, items: Iterable[QueuedOrder]) -> None:
        """Add orders as pending."""
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT INTO job (position, key, content, payload, status, name)"
            " VALUES (?, ?, ?, ?, 'pending', ?)",
            ((i.position, i.key, json.dumps(vars(i.content)), i.payload, i.key) for i in items),
        )
        self._db.execute("COMMIT")

    def add_finished(self, finished: RunResult) -> None:
        """Add an order with its result, such as an invalid one."""
        ids, faults = json.dumps(finished.kk_order_ids), json.dumps(finished.faults)
        values = {**vars(finished), "kk_order_ids": ids, "faults": faults}
        self._db.execute(
            "INSERT INTO job (position, key, status, is_new, ids, code, message, name, faults) VALUES"
            " (:position, :key, :status, :is_new, :kk_order_ids, :code, :message, :name, :faults)",
            values,
        )

    def set(
        self,
        position: int,
        status: RunStatus,
        *,
        is_new: bool = False,
        ids: Sequence[str] = (),
        code: int | None = None,
        message: str = "",
    ) -> None:
        """Set the status of an order."""
        self._db.execute(
            "UPDATE job SET status = ?, is_new = ?, ids = ?, code = ?, message = ? WHERE position = ?",
            (status, is_new, json.dumps(list(ids)), code, message, position),
        )

    def set_all(self, status: RunStatus, to: RunStatus, message: str = "") -> None:
        """Move all orders of one status to another."""
        self._db.execute("UPDATE job SET status = ?, message = ? WHERE status = ?", (to, message, status))

    def batches(self, status: RunStatus) -> Iterator[list[QueuedOrder]]:
        """Yield the orders of a status, a thousand at a time; they may be changed meanwhile."""
        for rows in self._pages(f"SELECT {_ITEM} FROM job WHERE status = ?", status):  # noqa: S608 - constant names
            yield [_item(row) for row in rows]

    def finished(self, *statuses: RunStatus) -> Iterator[RunResult]:
        """Yield the orders of these statuses, or all, by position."""
        marks = ", ".join("?" for _ in statuses)
        # With the +, SQLite reads by position; by the index of statuses it would sort each batch anew.
        wanted = f"+status IN ({marks})" if statuses else "TRUE"
        for rows in self._pages(f"SELECT {_FINISHED} FROM job WHERE {wanted}", *statuses):  # noqa: S608 - constant names
            yield from map(_finished, rows)

    def _pages(self, query: str, *values: str) -> Iterator[list[Any]]:
        query += " AND position > ? ORDER BY position LIMIT ?"
        last = -1
        while rows := self._db.execute(query, (*values, last, _BATCH)).fetchall():
            yield rows
            last = rows[-1][0]

    def item(self, key: str) -> QueuedOrder | None:
        """Return the order of this key; None if there is none or it is invalid."""
        row = self._db.execute(
            f"SELECT {_ITEM} FROM job WHERE key = ? AND payload IS NOT NULL LIMIT 1",  # noqa: S608 - constant names
            (key,),
        ).fetchone()
        return _item(row) if row else None

    def has(self, key: str) -> bool:
        """Return whether an order has this key."""
        return self._db.execute("SELECT 1 FROM job WHERE key = ? LIMIT 1", (key,)).fetchone() is not None

    def counts(self) -> Mapping[RunStatus, int]:
        """Return the number of orders by status."""
        rows = self._db.execute("SELECT status, COUNT(*) FROM job GROUP BY status")
        return {RunStatus(status): number for status, number in rows}

    def examples(self, status: RunStatus, limit: int = 5) -> list[tuple[str, str]]:
        """Return numbers and messages of the first orders of a status, new ones first."""
        query = "SELECT name, message FROM job WHERE status = ? ORDER BY is_new DESC, position LIMIT ?"
        return self._db.execute(query, (status, limit)).fetchall()

    def count_new(self, *statuses: RunStatus) -> int:
        """Return how many orders got one of these statuses in this sync."""
        marks = ", ".join("?" for _ in statuses)
        query = f"SELECT COUNT(*) FROM job WHERE is_new AND status IN ({marks})"  # noqa: S608 - constant names
        return int(self._db.execute(query, statuses).fetchone()[0])


_ITEM = "position, key, content, payload"
_FINISHED = "position, key, status, is_new, ids, code, message, name, faults"


def _item(row: Sequence[Any]) -> QueuedOrder:
    position, key, content, payload = row
    return QueuedOrder(position, key, Content(**json.loads(content)), payload)


def _finished(row: Sequence[Any]) -> RunResult:
    position, key, status, is_new, ids, code, message, name, faults = row
    found = tuple(Fault(path, text) for path, text in json.loads(faults))
    ids = tuple(json.loads(ids))
    return RunResult(position, key, RunStatus(status), bool(is_new), ids, code, message, name, found)


_EVERY_S = 5.0


class Progress:
    """Logs the progress of a run every few seconds."""

    def __init__(self, log: Log, clock: Clock, min_duration_s: Callable[[int], float]) -> None:
        """Set the log and the clock.

        :param min_duration_s: returns the seconds that so many requests take at KK's rate, without the first
            burst.
        """
        self._log, self._clock, self._min_duration_s = log, clock, min_duration_s
        self._started = self._last = clock.monotonic()
        self._total = 0

    def start(self, total: int) -> None:
        """Start counting, over `total` orders."""
        self._started = self._last = self._clock.monotonic()
        self._total = total

    def tick(self, run_queue: RunQueue) -> None:
        """Log the progress, every few seconds."""
        now = self._clock.monotonic()
        if now - self._last < _EVERY_S:
            return
        self._last = now
        counts = run_queue.counts()
        left = counts.get(RunStatus.PENDING, 0)
        done = max(self._total - left, 0)
        rate = done / (now - self._started)
        self._log.info(
            "%d of %d orders done, %.1f a second; %d created, %d rejected, %d in doubt, %d not sent; %s left",
            done,
            self._total,
            rate,
            counts.get(RunStatus.CREATED, 0),
            counts.get(RunStatus.REJECTED, 0),
            counts.get(RunStatus.WAITING, 0),
            counts.get(RunStatus.NOT_SENT, 0),
            format_duration(max(left / rate, self._min_duration_s(left))) if rate else "?",
        )


def format_duration(seconds: float) -> str:
    """Return `5 s`, `2 min 5 s` or `3 h 2 min`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


class Results:
    """Records the result of each order in the run queue, and logs it.

    :param sync_id: the sync of this run; results that it caused are new.
    """

    def __init__(self, run_queue: RunQueue, ledger: AnyLedger, order_log: OrderLog, sync_id: str) -> None:
        self._run_queue, self._ledger, self._order_log = run_queue, ledger, order_log
        self._sync_id = sync_id

    def record_known(self, item: QueuedOrder, entry: Record) -> None:
        """Record the ledger's status of an order that is not sent now."""
        action = next_action(item, entry, self._ledger.now)
        if action is Action.COMPARE:
            self.compare(item, entry)
        elif action is Action.HOLD:
            self.finish(item, RunStatus.HELD, entry)
        elif action is Action.BACK_OFF:
            name = f"{item.key} (retry after {utc(entry.retry_after)})"
            self._order_log.info("KK rejected before, so not sent yet: {orders}", name)
            self.finish(item, RunStatus.REJECTED, entry)
        else:
            self._run_queue.set(item.position, RunStatus.WAITING)

    def compare(self, item: QueuedOrder, entry: Record) -> None:
        """Record whether a created order still has the content that was sent."""
        is_same = item.content.is_same(entry.content)
        if is_same and not entry.content.fingerprint:
            self._ledger.attach_fingerprint(entry, item.content)
        if not is_same:
            self._run_queue.set(
                item.position,
                RunStatus.CHANGED,
                is_new=True,
                ids=entry.kk_order_ids,
                message=difference(item, entry),
            )
        elif entry.sync_id == self._sync_id:
            self.finish(item, RunStatus.ADOPTED if entry.adopted else RunStatus.CREATED, entry)
        else:
            self.finish(item, RunStatus.ALREADY_CREATED, entry)

    def finish(self, item: QueuedOrder, status: RunStatus, entry: Record) -> None:
        """Record a final status with the ids, code and message of the row."""
        self._run_queue.set(
            item.position,
            status,
            is_new=entry.sync_id == self._sync_id,
            ids=entry.kk_order_ids,
            code=entry.code,
            message=entry.message,
        )

    def skip(self, item: QueuedOrder, expected: Record | None, status: RunStatus, why: str) -> None:
        """Record an order that is not sent. An order in doubt or rejected stays so."""
        if expected is not None and expected.state in DOUBTFUL:
            status = RunStatus.IN_DOUBT
        elif expected is not None and expected.state is State.REJECTED:
            status = RunStatus.REJECTED
        self._run_queue.set(item.position, status, message=why)

    def record_result(self, item: QueuedOrder, entry: Record) -> None:
        """Record the result of an attempt by its row."""
        if entry.state is State.REJECTED:
            why = f"code {entry.code}, {entry.message}"
            self._order_log.warning("KK rejected {orders}: {reason}", entry.key, why)
        elif entry.state is State.HELD:
            self._order_log.error(HELD, entry.key, entry.message)
        elif entry.state not in (State.CREATED, State.NOT_SENT):
            text = "the outcome of {orders} is unknown: {reason}"
            self._order_log.warning(text, entry.key, entry.message)
            self._run_queue.set(item.position, RunStatus.WAITING)
            return
        self.finish(item, RunStatus(entry.state.value), entry)

    def leave_in_doubt(
        self, reasons: Mapping[str, str], entries: Mapping[str, Record], items: Mapping[str, QueuedOrder]
    ) -> None:
        """Record and log the orders whose outcome is still open, by the reason of each."""
        for key, why in reasons.items():
            if key in items:
                status = RunStatus.REJECTED if entries[key].state is State.REJECTED else RunStatus.IN_DOUBT
                text = f"{{orders}} {{are}} still {status.replace('_', ' ')}: {{reason}}"
                self._order_log.warning(text, key, why)
                self._run_queue.set(items[key].position, status, message=why)


def difference(item: QueuedOrder, entry: Record) -> str:
    """Describe the difference between an order and the one under its number: goods, address, or both."""
    if item.content.goods == entry.content.goods:
        what = "its address differs"
    else:
        what = "its goods and address differ" if _has_other_address(item, entry) else "its goods differ"
    return f"{what} from the order that was sent under this number"


def _has_other_address(item: QueuedOrder, entry: Record) -> bool:
    if not entry.content.fingerprint:  # an adopted order: only country and zip are known
        return item.content.goes_elsewhere(entry.content)
    # The ledger has no address. With its goods, the address alone makes the fingerprint differ.
    return fingerprint_with(item.payload, entry.content.goods) != entry.content.fingerprint
