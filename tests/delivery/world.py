"""A KK, a clock and a ledger in one process, for tests of the protocol without a network."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from airflow_provider_kk.api.errors import KKError, KKNotSentError, KKRejectedError, KKUnknownOutcomeError
from airflow_provider_kk.delivery.attempt import Limits
from airflow_provider_kk.delivery.clock import Stop
from airflow_provider_kk.delivery.dispatcher import Dispatcher
from airflow_provider_kk.delivery.model import (
    BeforeSend,
    Content,
    InconclusiveError,
    Job,
    ListedOrder,
    Origin,
    Record,
    Timing,
    fingerprint_with,
)
from airflow_provider_kk.delivery.reconcile import AbsencePolicy
from airflow_provider_kk.delivery.run_queue import QueuedOrder, RunQueue, RunStatus
from airflow_provider_kk.delivery.sql.database import pool_arguments
from airflow_provider_kk.delivery.sql.storage import SqlLedger, sql_ledger
from airflow_provider_kk.sync.sync_counts import Summary, SyncRuns, summarise

START = 1_800_000_000.0
LOG = logging.getLogger("tests.delivery")
ORIGIN = Origin("dag", "run", "task", -1, 1)


class VirtualClock:
    """Time that passes only when somebody sleeps, or when a test says so."""

    def __init__(self) -> None:
        self.now = START
        self.slept_s = 0.0
        """How much time has passed, however the clock was set meanwhile."""

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, stop: object = None) -> None:
        self.now += seconds
        self.slept_s += seconds


@dataclass
class Order:
    """What a test orders."""

    key: str
    goods: Mapping[str, int] = field(default_factory=lambda: {"SHIRT_M": 1})
    country: str = "FR"

    def fingerprint(self) -> str:
        return fingerprint_with(self.payload(), self.goods)

    def content(self) -> Content:
        return Content(self.fingerprint(), self.goods, self.country)

    def payload(self) -> str:
        return json.dumps({"number": self.key, "address": {"country": self.country}})


def key_in(payload: str) -> str:
    key: str = json.loads(payload)["number"]
    return key


#: What a POST meets. Each is (KK has it afterwards, what the caller sees).
FAULTS: dict[str, tuple[bool, type[KKError] | None]] = {
    "fine": (True, None),
    "lost_answer": (True, KKUnknownOutcomeError),
    "lost_request": (False, KKUnknownOutcomeError),
    "refused": (False, KKRejectedError),
    "never_left": (False, KKNotSentError),
}


class FakeKK:
    """Creates whatever it is told, as often as it is told; lists it after a lag."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.orders: list[ListedOrder] = []
        self.posts: list[str] = []
        self.created: list[str] = []
        self.list_lag_s = 0.0
        self.list_error: Exception | None = None
        self.plan: dict[str, list[str]] = {}
        self.split = False
        self.clock_skew_s: float | None = 0.0
        self.on_post: Callable[[str], object] | None = None
        self._lock = threading.Lock()
        self._next_id = 1_000
        #: By id: how much time had passed when it was created.
        self._created_s: dict[str, float] = {}

    @property
    def now(self) -> float:
        """KK's own clock."""
        return self.clock.now + (self.clock_skew_s or 0.0)

    def meets(self, key: str, *faults: str) -> None:
        """Let the next POSTs of a key meet these faults, one each; afterwards all is fine."""
        self.plan[key] = list(faults)

    def add(self, order: Order, *, at: float | None = None, key: str | None = "") -> list[str]:
        """Let KK have an order."""
        self.created.append(order.key)
        parts = [{sku: n} for sku, n in order.goods.items()] if self.split else [dict(order.goods)]
        ids = []
        with self._lock:
            for goods in parts:
                self._next_id += 1
                ids.append(str(self._next_id))
                ago_s = 0.0 if at is None else self.now - at
                self._created_s[ids[-1]] = self.clock.slept_s - ago_s
                self.orders.append(
                    ListedOrder(
                        ids[-1],
                        order.key if key == "" else key,
                        goods=goods,
                        country=order.country,
                        created_at=self.now if at is None else at,
                    )
                )
        return ids

    def post(self, order: Order, before_send: BeforeSend) -> list[str]:
        try:
            before_send(30.0)
        except Exception as error:
            raise KKNotSentError(str(error)) from error
        self.posts.append(order.key)
        if self.on_post:
            self.on_post(order.key)
        faults = self.plan.get(order.key) or ["fine"]
        arrives, fault = FAULTS[faults.pop(0)]
        ids = self.add(order) if arrives else []
        if fault is KKRejectedError:
            raise KKRejectedError("refused", code=20001, kk_message="sold out")
        if fault is not None:
            raise fault("something happened")
        return ids

    def find(self, since: float, until: float) -> Iterator[list[ListedOrder]]:
        if self.list_error is not None:
            raise self.list_error
        listed_s = self.clock.slept_s - self.list_lag_s
        with self._lock:
            yield [
                one
                for one in self.orders
                if since <= (one.created_at or 0) <= until and self._created_s.get(one.id, 0.0) <= listed_s
            ]

    def count(self, key: str) -> int:
        """How often KK has created this number; each time may be a split of several KK orders."""
        return self.created.count(key)


class Free:
    """A throttle that never waits."""

    def acquire(self, stop: object = None, *, to_send: bool = False) -> None:
        return

    def min_duration_s(self, requests: int) -> float:
        return 0.0

    def release(self, held_s: float) -> None:
        return

    def back_off(self, retry_after_s: float | None) -> None:
        return


class World:
    """A ledger in a file, a KK and a clock; runs as many syncs on them as a test likes."""

    def __init__(self, url: str) -> None:
        self.clock = VirtualClock()
        self.kk = FakeKK(self.clock)
        self.url = url
        self.ledger = self.open_ledger()
        self._runs = 0

    @classmethod
    def in_folder(cls, folder: Path) -> World:
        return cls(f"sqlite:///{folder / 'ledger.db'}")

    def open_ledger(self) -> SqlLedger:
        kind = self.url.partition(":")[0].partition("+")[0]
        engine = sa.create_engine(self.url, **pool_arguments(kind, 4))
        ledger = sql_ledger(engine, "kk.test", "default", timing=Timing(30, 120, 600), clock=self.clock)
        ledger.storage.open("kk_default", settle_window_s=600)
        # A database server's clock is virtual here, too.
        database: Any = ledger.storage.database
        database.time_here = self.clock.wall
        return ledger

    def job(self, order: Order) -> Job:
        return Job(
            key=order.key,
            content=order.content(),
            send=lambda before_send: self.kk.post(order, before_send),
            redact=lambda text: text,
        )

    def sync(
        self,
        *orders: Order | str,
        run_id: str | None = None,
        policy: AbsencePolicy | None = None,
        limits: Limits | None = None,
        waits: bool = True,
        ledger: SqlLedger | None = None,
        stock: Any = None,
    ) -> Summary:
        """Run one sync over these orders and wait for what is in doubt."""
        self._runs += 1
        ledger = ledger or self.ledger
        asked = [Order(order) if isinstance(order, str) else order for order in orders]
        by_key = {order.key: order for order in asked}
        run_queue = RunQueue()
        run_queue.add(QueuedOrder(place, o.key, o.content(), o.payload()) for place, o in enumerate(asked))
        runs = SyncRuns(ledger)
        origin = Origin("dag", run_id or f"run {self._runs}", "sync", -1, 1)
        run = runs.begin(origin)
        stream = Dispatcher(
            ledger=ledger,
            order_list=self.kk,
            throttle=Free(),
            run_queue=run_queue,
            make_job=lambda payload: self.job(by_key[key_in(payload)]),
            probe=lambda: None,
            log=LOG,
            origin=origin,
            sync_id=run.sync_id,
            stop=Stop(),
            policy=policy or AbsencePolicy(),
            limits=limits or Limits(max_in_flight=1),
            stock=stock,
        )
        try:
            stream.run()
            looks = 0
            while waits and not stream.cannot_list and (wait_s := stream.wait_s()) is not None:
                looks += 1
                assert looks < 100, f"never settled: {self.ledger.entries()}"
                self.clock.sleep(wait_s)
                stream.reconcile_waiting()
        finally:
            stream.stop_waiting()
            stream.close()
        self.messages = {one.key: one.message for one in run_queue.finished()}
        self.news = {one.key for one in run_queue.finished() if one.is_new}
        summary = summarise(run_queue, run, runs)
        is_done = not (summary.in_doubt or summary.not_sent)
        runs.end(run, "done" if is_done else "failed", {})
        return summary

    def entry(self, key: str) -> Record:
        return self.ledger.look_up([key])[key]


def stream_over(
    world: World,
    *orders: Order,
    stop: Stop | None = None,
    throttle: Any = None,
    make_job: Callable[[str], Any] | None = None,
    in_flight: int = 1,
    ledger: SqlLedger | None = None,
    run_id: str | None = None,
) -> tuple[Dispatcher, RunQueue, SyncRuns, Any]:
    """A stream over some orders that is not run yet, its board, and its run."""
    by_key = {order.key: order for order in orders}

    def job_of(key: str) -> Job:
        return world.job(by_key[key])

    ledger = ledger or world.ledger
    origin = replace(ORIGIN, run_id=run_id or ORIGIN.run_id)
    run_queue, runs = RunQueue(), SyncRuns(ledger)
    run_queue.add(QueuedOrder(n, o.key, o.content(), o.payload()) for n, o in enumerate(orders))
    run = runs.begin(origin)
    stream = Dispatcher(
        ledger=ledger,
        order_list=world.kk,
        throttle=throttle or Free(),
        run_queue=run_queue,
        make_job=lambda payload: (make_job or job_of)(key_in(payload)),
        probe=lambda: None,
        log=LOG,
        origin=origin,
        sync_id=run.sync_id,
        stop=stop or Stop(),
        limits=Limits(in_flight),
    )
    return stream, run_queue, runs, run


def list_integers(world: World) -> None:
    """Let KK list numbers that look like integers as such."""
    listed = world.kk.find

    def find(since: float, until: float) -> Iterator[list[ListedOrder]]:
        for part in listed(since, until):
            yield [
                replace(one, key=str(int(one.key)), key_is_integer=True)
                if one.key is not None and one.key.isdigit()
                else one
                for one in part
            ]

    world.kk.find = find  # type: ignore[method-assign]


def counts(summary: Summary) -> dict[str, int]:
    """The counts of a summary that are not zero."""
    values = {
        status.value: getattr(summary, status.value) for status in RunStatus if hasattr(summary, status.value)
    }
    assert summary.selected == sum(values.values())
    return {name: number for name, number in values.items() if number}


__all__ = ["AbsencePolicy", "InconclusiveError", "Limits", "Order", "World", "counts"]
