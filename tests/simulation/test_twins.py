"""What stands in for the database and the board in a simulation answers as they do."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_kk.delivery.ledger import AnyLedger, Ledger
from airflow_provider_kk.delivery.model import (
    AttemptResult,
    Claim,
    Content,
    Job,
    ListedOrder,
    Origin,
    Record,
    Timing,
)
from airflow_provider_kk.delivery.recover import adopt_unknown, rename
from airflow_provider_kk.delivery.resolution import order_again, resolve
from airflow_provider_kk.delivery.run_queue import QueuedOrder, RunQueue, RunResult, RunStatus
from airflow_provider_kk.delivery.sql.database import pool_arguments
from airflow_provider_kk.delivery.sql.storage import sql_ledger
from airflow_provider_kk.delivery.states import Event
from airflow_provider_kk.sync.sync_counts import SyncRuns
from tests.delivery.world import START, VirtualClock
from tests.simulation.memory import HEAL_A_NEW_ACCOUNT_S, Database, MemoryStorage, Tables
from tests.simulation.memory_run_queue import MemoryBoard

KEYS = ["A", "a", "7", "007"]
EVENTS = (Event.CREATED, Event.REJECTED, Event.NOT_SENT, Event.UNKNOWN)
TERMS = Timing(30, 120, 600)
STEP = st.one_of(
    st.tuples(st.just("begin"), st.sampled_from(KEYS), st.booleans()),
    st.tuples(st.just("record"), st.integers(0, 9), st.sampled_from(EVENTS)),
    st.tuples(st.just("recover"), st.sampled_from(KEYS), st.booleans()),
    st.tuples(st.just("hold"), st.sampled_from(KEYS), st.sampled_from((Event.CONFLICT, Event.GIVEN_UP))),
    st.tuples(st.just("wait"), st.sampled_from(KEYS), st.just(None)),
    st.tuples(st.just("invalid"), st.sampled_from(KEYS), st.just(None)),
    st.tuples(st.just("resolve"), st.sampled_from(KEYS), st.booleans()),
    st.tuples(st.just("again"), st.sampled_from(KEYS), st.just(None)),
    st.tuples(st.just("rename"), st.sampled_from(KEYS), st.sampled_from(KEYS)),
    st.tuples(st.just("sync"), st.sampled_from(("run 1", "run 2")), st.sampled_from(("done", "failed"))),
    st.tuples(st.just("sleep"), st.sampled_from((10, 400, 1_000)), st.just(None)),
)


class _Numbered:
    """Both twins get the same tokens."""

    def __init__(self) -> None:
        self._numbers = itertools.count()

    def __call__(self) -> str:
        return f"{next(self._numbers):032d}"


def job(key: str) -> Job:
    return Job(key, Content(f"1:{key}", {"SHIRT_M": 2, "HAT": 1}, "FR"), send=lambda check: [], redact=str)


class Actor:
    """Does one thing after another to a ledger; what each returns is compared."""

    def __init__(self, ledger: AnyLedger, clock: VirtualClock) -> None:
        self.ledger, self.clock = ledger, clock
        self._claims: list[Claim] = []

    def act(self, step: tuple[str, Any, Any]) -> object:
        name, first, second = step
        try:
            return getattr(self, name)(first, second)
        except ValueError as error:
            return str(error)

    def _seen(self, key: str) -> Record | None:
        return self.ledger.look_up([key]).get(key)

    def begin(self, key: str, knows: bool) -> object:
        seen = self._seen(key) if knows else None
        claim = self.ledger.claim(job(key), seen, origin=Origin("d", "r"), sync_id="s")
        self._claims += [claim] if claim else []
        return claim is not None

    def record(self, place: int, event: Event) -> object:
        if not self._claims:
            return None
        ids = (str(place),) if event is Event.CREATED else ()
        return self.ledger.record(
            self._claims[place % len(self._claims)], AttemptResult(event, ids, 20_001, "told")
        )

    def recover(self, key: str, is_integer: bool) -> object:
        return adopt_unknown(
            self.ledger, [ListedOrder(f"9{key}", key, is_integer, {"HAT": 1}, "FR", created_at=START)]
        )

    def hold(self, key: str, event: Event) -> object:
        seen = self._seen(key)
        return seen and self.ledger.hold(seen, event, "why", ["5"])

    def wait(self, key: str, _: None) -> object:
        seen = self._seen(key)
        return seen and self.ledger.wait_for_splits(seen, "why", ["6"], kk_skew_s=7.0)

    def invalid(self, key: str, _: None) -> object:
        return self.ledger.note_invalid(key, "digest", "why", sync_id="s")

    def resolve(self, key: str, was_created: bool) -> object:
        seen = self._seen(key)
        event = Event.RESOLVED_CREATED if was_created else Event.RESOLVED_NEVER_CREATED
        return seen and resolve(self.ledger, seen, event, ids=["5", "6"], who="ann", why="looked")

    def again(self, key: str, _: None) -> object:
        seen = self._seen(key)
        return seen and order_again(self.ledger, seen, ids=["4"], who="ann", why="asked")

    def rename(self, key: str, to: str) -> object:
        seen = self._seen(key)
        # Only what healing has found is renamed, before anybody has ordered it again.
        return rename(self.ledger, seen, to) if seen and seen.generation == 1 else None

    def sync(self, run_id: str, state: str) -> object:
        runs = SyncRuns(self.ledger)
        run = runs.begin(Origin("d", run_id, "t", -1, 1))
        runs.end(run, state, {"requests": 3})
        return run

    def sleep(self, seconds: float, _: None) -> None:
        self.clock.sleep(seconds)


def everything(ledger: AnyLedger) -> object:
    attempts = sorted(ledger.attempts(KEYS), key=lambda one: (one.key, one.generation, one.version))
    return [
        sorted(ledger.entries(), key=lambda entry: (entry.key, entry.generation)),
        attempts,
        ledger.look_up(KEYS),
        sorted(ledger.doubts(), key=lambda entry: (entry.settle_after, entry.key)),
        ledger.storage.sent_ids(KEYS),
        {entry.key for entry in ledger.storage.newest_sent(before=START + 1e6, limit=99)},
        sorted(entry.key for entry in ledger.storage.of_sync("s")),
        ledger.storage.is_of_another_key("5", "A"),
        ledger.storage.recovered_until(),
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, max_size=25))
def test_rows_in_memory_go_the_way_of_rows_in_a_database(tmp_path: Path, steps: list[Any]) -> None:
    clocks = (VirtualClock(), VirtualClock())
    path = tmp_path / "ledger.db"
    path.unlink(missing_ok=True)
    engine = sa.create_engine(f"sqlite:///{path}", **pool_arguments("sqlite", 2))
    in_database = sql_ledger(engine, "kk.test", "default", timing=TERMS, clock=clocks[0])
    in_database.new_version = _Numbered()
    in_database.storage.open("kk_default", settle_window_s=600)
    database = Database(Tables(START - HEAL_A_NEW_ACCOUNT_S), clocks[1])
    storage = MemoryStorage(database, pause=lambda where: None)
    in_memory = Ledger(storage, clocks[1], TERMS, new_version=_Numbered())
    actors = (Actor(in_database, clocks[0]), Actor(in_memory, clocks[1]))
    with contextlib.closing(in_database):
        for step in steps:
            first, second = (actor.act(step) for actor in actors)
            assert first == second, step
            assert everything(in_database) == everything(in_memory), step


@settings(max_examples=60, deadline=None)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 4), st.sampled_from(list(RunStatus)), st.booleans(), st.booleans()),
        max_size=20,
    )
)
def test_a_run_queue_in_memory_answers_as_one_in_a_file(
    changes: list[tuple[int, RunStatus, bool, bool]],
) -> None:
    boards = (RunQueue(), MemoryBoard())
    for run_queue in boards:
        run_queue.add(
            [QueuedOrder(place, f"K{place}", Content("f", {"HAT": 1}, "FR"), "p") for place in range(5)]
        )
        run_queue.add_finished(RunResult(5, None, RunStatus.INVALID, True, (), None, "bad", "N"))
    for place, status, is_new, moves_all in changes:
        for run_queue in boards:
            if moves_all:
                run_queue.set_all(status, RunStatus.NOT_SENT, "stopped")
            else:
                run_queue.set(place, status, is_new=is_new, ids=["1"], code=3, message="why")
    told = [
        [
            list(run_queue.finished()),
            [list(run_queue.finished(status, RunStatus.INVALID)) for status in RunStatus],
            dict(run_queue.counts()),
            [list(run_queue.batches(status)) for status in (RunStatus.PENDING, RunStatus.WAITING)],
            [run_queue.count_new(status) for status in RunStatus],
            [[tuple(one) for one in run_queue.examples(status)] for status in RunStatus],
            (run_queue.item("K1"), run_queue.item("N"), run_queue.has("K2"), run_queue.has("X")),
        ]
        for run_queue in boards
    ]
    assert told[0] == told[1]
