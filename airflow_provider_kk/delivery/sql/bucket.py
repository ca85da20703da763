"""KK's rate limit as a row of the ledger, so that all workers share it."""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from airflow_provider_kk.api.throttle import HEADROOM, MAX_BACK_OFF_S, WaitLog, log_backoff
from airflow_provider_kk.delivery.clock import Stop
from airflow_provider_kk.delivery.log import utc
from airflow_provider_kk.delivery.model import SendingPausedError, ThrottleStopped
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.ledger_rows import where_equal
from airflow_provider_kk.delivery.sql.storage import SqlLedger

_log = logging.getLogger(__name__)

_BACK_OFF_S = 30.0
#: The most requests of an account that may wait for a permit at once.
_LONGEST_QUEUE = 500


class LedgerBucket:
    """A `Throttle` whose state is one number in the ledger, changed by one statement on the database's clock.

    The number is GCRA's theoretical arrival time: the time at which the bucket is empty. KK documents the
    bucket: 120 requests, leaking 2 a second, for each store and app.

    One thread books permits for all waiting threads. Measured with 24 threads, a booking for each thread
    takes up to 60 % more CPU and halves the orders a second. No permit is booked before it is needed.
    """

    def __init__(self, ledger: SqlLedger, *, burst: int, per_second: float) -> None:
        self._clock = ledger.clock
        self._storage = ledger.storage
        self._database = ledger.storage.database
        self._account = ledger.account
        self._burst = max(1, burst - HEADROOM)
        self._interval_s = 1.0 / per_second
        #: If the bucket's number is further ahead, a clock that was ahead wrote it.
        self._longest_s = MAX_BACK_OFF_S + (self._burst + _LONGEST_QUEUE) * self._interval_s
        self._row = where_equal(tables.account, {"host": ledger.host, "account": ledger.account})
        self._booking = threading.Lock()
        self._arriving = threading.Lock()
        self._waiting = 0
        #: The permits that are booked for waiting threads; see `_permit`.
        self._permits: deque[tuple[float, bool]] = deque()
        self._counting = threading.Lock()
        self._paused_until = 0.0
        self._wait_log = WaitLog()
        self.waited_s = 0.0
        """Seconds that threads have waited for permits, added up."""
        self.rate_limited = 0
        """The number of KK's 429 responses."""

    def acquire(self, stop: Stop | None = None, *, to_send: bool = False) -> None:
        """Wait until one request may be sent.

        :param to_send: the request is an order or a refund, which a person may have paused.
        :raises ThrottleStopped: `stop` is set meanwhile.
        :raises SendingPausedError: sending is paused, and `to_send` is set.
        """
        stop = stop or Stop()
        if stop.is_set():
            raise ThrottleStopped
        permit_at, is_paused = self._permit(stop)
        wait_s = permit_at - self._clock.monotonic()
        while wait_s > 0 and not stop.is_set() and not (to_send and is_paused):
            self._wait_log.note(self._clock.monotonic(), wait_s)
            self._sleep(wait_s, stop)
            # During the sleep, another worker may have got a 429, or a person may have paused all sending.
            wait_s, is_paused = self._back_off_left()
        if stop.is_set():
            self.release()
            raise ThrottleStopped
        if to_send and is_paused and (pause := self._storage.pause()):
            self.release()
            raise SendingPausedError(pause)

    def min_duration_s(self, requests: int) -> float:
        """Return the least seconds that so many requests take, if no other worker sends."""
        row = self._database.read_with_retry(lambda db: db.execute(self._state, self._here()).one_or_none())
        free_in_s = 0.0 if row is None else max(0.0, row.bucket_tat - row.now)
        if free_in_s > self._longest_s:
            free_in_s = self._full_s
        return max(0.0, free_in_s + (requests - self._burst) * self._interval_s)

    def release(self, held_s: float = 0.0) -> None:
        """Return an unused permit, `held_s` seconds after its time.

        A late return has no effect, since the permit has leaked out of the bucket by then. Neither has one
        after a 429, since the bucket's level is a guess then.
        """
        if held_s > self._interval_s:
            return
        left = tables.account.c.bucket_tat - self._interval_s
        unused = tables.account.update().where(*self._row, tables.account.c.paused_until <= self._now)
        # If this fails, another worker waits longer once.
        with suppress(DBAPIError), self._database.write() as db:
            db.execute(unused.values(bucket_tat=left), self._here())

    def back_off(self, retry_after_s: float | None) -> None:
        """Pause all workers of the account after a 429."""
        pause_s = random.uniform(0.5, 1.0) * _BACK_OFF_S if retry_after_s is None else retry_after_s  # noqa: S311 - a pause, no secret
        pause_s = min(pause_s, MAX_BACK_OFF_S)
        here = self._clock.monotonic()
        with self._counting:
            self.rate_limited += 1
            is_new = here >= self._paused_until
            self._paused_until = max(self._paused_until, here + pause_s)
        if is_new:
            log_backoff("all workers of the account pause", pause_s)
        now = self._database.now()
        pause = tables.account.update().where(*self._row)
        pause = pause.values(
            paused_until=_later(tables.account.c.paused_until, now + pause_s),
            bucket_tat=_later(tables.account.c.bucket_tat, now + pause_s + self._full_s),
        )
        self._database.persist(lambda db: db.execute(pause))

    def _permit(self, stop: Stop) -> tuple[float, bool]:
        """Return the monotonic time from which this thread may send, and whether sending is paused."""
        with self._arriving:
            self._waiting += 1
        with self._booking:
            with self._arriving:
                self._waiting -= 1
                number = 1 + self._waiting
            if not self._permits:
                if stop.is_set():  # if the database is lost, each thread's own attempt would take minutes
                    raise ThrottleStopped
                self._permits.extend(self._book(number))
            return self._permits.popleft()

    def _book(self, number: int) -> list[tuple[float, bool]]:
        """Book the next free permits, and return their monotonic times."""
        cost_s = number * self._interval_s

        def work(db: Connection) -> Any:
            booked = db.execute(self._booking_of, {"cost_s": cost_s, **self._here()})
            return booked.one() if self._database.returns_rows else self._read_state(db)

        # If a commit's answer is lost, this books twice. Others then wait, which costs less than a failed
        # sync.
        row = self._within_bounds(lambda: self._database.persist(work))
        first_s = row.bucket_tat - cost_s + self._interval_s - self._burst * self._interval_s - row.now
        soonest_s = max(0.0, row.paused_until - row.now)
        here = self._clock.monotonic()
        moments = (max(soonest_s, first_s + index * self._interval_s) for index in range(number))
        return [(here + moment_s, bool(row.is_paused)) for moment_s in moments]

    def _back_off_left(self) -> tuple[float, bool]:
        row = self._within_bounds(lambda: self._database.read_with_retry(self._read_state))
        return float(row.paused_until - row.now), bool(row.is_paused)

    def _within_bounds(self, read: Callable[[], Any]) -> Any:
        """Return a row; read it again if a wrong clock wrote its times."""
        row = read()
        if row.bucket_tat - row.now <= self._longest_s and row.paused_until - row.now <= MAX_BACK_OFF_S + 1.0:
            return row
        self._set_right(row)
        return read()

    def _set_right(self, row: Any) -> None:
        """Set a full bucket without a pause if a wrong clock wrote later times."""
        account = tables.account.c
        tat_is_off = account.bucket_tat > self._now + self._longest_s
        pause_is_off = account.paused_until > self._now + MAX_BACK_OFF_S
        statement = tables.account.update().where(*self._row, sa.or_(tat_is_off, pause_is_off))
        statement = statement.values(
            bucket_tat=sa.case((tat_is_off, self._now + self._full_s), else_=account.bucket_tat),
            paused_until=sa.case((pause_is_off, self._now), else_=account.paused_until),
        )
        changed = self._database.persist(lambda db: db.execute(statement, self._here()).rowcount)
        if changed:
            _log.warning(
                "The rate limit of account %s was used up until %s, later than any queue or pause takes. A "
                "clock was ahead when this was stored, and is right again. Requests continue at once",
                self._account,
                utc(max(row.bucket_tat, row.paused_until)),
            )

    def _read_state(self, db: Connection) -> Any:
        return db.execute(self._state, self._here()).one()

    def _here(self) -> dict[str, float]:
        here = self._database.time_here()
        return {} if here is None else {"here": here}

    @property
    def _full_s(self) -> float:
        return (self._burst - 1) * self._interval_s

    @cached_property
    def _booking_of(self) -> Any:
        tat = _later(tables.account.c.bucket_tat, self._now) + sa.bindparam("cost_s", type_=sa.Float(53))
        statement = tables.account.update().where(*self._row).values(bucket_tat=tat)
        return statement.returning(*self._columns) if self._database.returns_rows else statement

    @cached_property
    def _state(self) -> Any:
        return sa.select(*self._columns).where(*self._row)

    @property
    def _columns(self) -> tuple[Any, ...]:
        # One statement reads both, so that the check of a pause needs no query of its own.
        is_paused = sa.exists().where(
            tables.pause.c.host == tables.account.c.host,
            tables.pause.c.account == tables.account.c.account,
            tables.pause.c.resumed_at == 0.0,
        )
        account = tables.account.c
        return account.bucket_tat, account.paused_until, self._now.label("now"), is_paused.label("is_paused")

    @cached_property
    def _now(self) -> sa.ColumnElement[float]:
        if self._here():
            return sa.bindparam("here", type_=sa.Float(53))
        return self._database.now()

    def _sleep(self, seconds: float, stop: Stop) -> None:
        clock = self._clock
        began = clock.monotonic()
        clock.sleep(seconds, stop)
        with self._counting:
            self.waited_s += clock.monotonic() - began


def _later(column: sa.Column[float], epoch: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    return sa.case((column > epoch, column), else_=epoch)
