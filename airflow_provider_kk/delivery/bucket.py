"""The account's leaky bucket as a ledger row, so that all workers together keep KK's rate."""

from __future__ import annotations

import random
from typing import Any

import sqlalchemy as sa

from airflow_provider_kk.api.throttle import MAX_BACK_OFF_S, StopSignal, ThrottleStopped, gcra
from airflow_provider_kk.delivery import tables
from airflow_provider_kk.delivery.clock import Stop
from airflow_provider_kk.delivery.sql_ledger import SqlLedger

#: Requests that are in the air when KK's clock and ours disagree: they cost their wait once.
HEADROOM = 2
_BACK_OFF_S = 30.0


class LedgerBucket:
    """A `Throttle` whose state is one number in the ledger, moved by compare-and-set.

    The number is GCRA's theoretical arrival time: the moment at which the bucket will have leaked
    empty. KK's documentation gives the bucket: 120 requests, leaking 2 a second, for each store and app.
    """

    def __init__(self, ledger: SqlLedger, *, burst: int, per_second: float) -> None:
        self._ledger = ledger
        self._burst = max(1, burst - HEADROOM)
        self._per_second = per_second
        self._row = (
            tables.account.c.host == ledger.host,
            tables.account.c.account == ledger.account,
        )
        self.waited_s = 0.0

    def acquire(self, stop: StopSignal | None = None) -> None:
        """Wait until one request may be sent.

        :raises ThrottleStopped: when `stop` is set meanwhile.
        """
        stop = stop or Stop()
        wait_s = self._book(stop)
        while wait_s > 0 and not stop.is_set():
            self._sleep(wait_s, stop)
            wait_s = self._pause_left_s()  # somebody may have met a 429 while this one slept
        if stop.is_set():
            raise ThrottleStopped

    def back_off(self, retry_after_s: float | None) -> None:
        """Pause all workers of the account: KK has answered 429, so others use it too."""
        pause_s = random.uniform(0.5, 1.0) * _BACK_OFF_S if retry_after_s is None else retry_after_s
        pause_s = min(pause_s, MAX_BACK_OFF_S)
        full_s = (self._burst - 1) / self._per_second
        now = self._ledger.database.now()
        with self._ledger.database.write() as db:
            db.execute(
                tables.account.update()
                .where(*self._row)
                .values(
                    paused_until=_later(tables.account.c.paused_until, now + pause_s),
                    bucket_tat=_later(tables.account.c.bucket_tat, now + pause_s + full_s),
                )
            )

    def _book(self, stop: StopSignal) -> float:
        """Book the next free moment; return how many seconds away it is."""
        while True:
            row = self._read()
            tat, wait_s = gcra(row.bucket_tat, row.now, self._burst, self._per_second)
            with self._ledger.database.write() as db:
                booked = db.execute(
                    tables.account.update()
                    .where(*self._row, tables.account.c.bucket_tat == row.bucket_tat)
                    .values(bucket_tat=tat)
                )
            if booked.rowcount == 1:
                return max(wait_s, float(row.paused_until - row.now))
            if stop.is_set():
                raise ThrottleStopped
            # Losing a race costs a moment, of random length so that the losers do not meet again.
            self._sleep(random.uniform(0.0005, 0.005), stop)

    def _pause_left_s(self) -> float:
        row = self._read()
        return float(row.paused_until - row.now)

    def _read(self) -> Any:
        database = self._ledger.database
        columns = (tables.account.c.bucket_tat, tables.account.c.paused_until, database.now().label("now"))
        with database.read() as db:
            return db.execute(sa.select(*columns).where(*self._row)).one()

    def _sleep(self, seconds: float, stop: StopSignal) -> None:
        self.waited_s += seconds
        self._ledger.clock.sleep(seconds, stop)


def _later(column: sa.Column[float], epoch: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    return sa.case((column > epoch, column), else_=epoch)
