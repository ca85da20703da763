"""The ledger's rows in memory: the twin of `SqlStorage`, on which the same rules run in a simulation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

from airflow_provider_kk.delivery.clock import Clock
from airflow_provider_kk.delivery.model import Attempt, Claim, Origin, Pause, Record
from airflow_provider_kk.delivery.states import NOTHING_BOUGHT, State
from airflow_provider_kk.delivery.storage import KeyTakenError, RunRow, T
from tests.simulation.traces import Step

HEAL_A_NEW_ACCOUNT_S = 30 * 86_400.0


#: Key, generation, attempt and claim token.
Place = tuple[str, int, int, str]


class Tables:
    """What a database holds; `copy` is a backup of it."""

    def __init__(self, recovered_until: float) -> None:
        self.orders: dict[tuple[str, int], Record] = {}
        self.newest: dict[str, Record] = {}
        """The newest generation of each number."""
        self.traces: defaultdict[tuple[str, int], list[Step]] = defaultdict(list)
        """What each row has been, see `traces.py`."""
        self.attempts: dict[str, dict[Place, Attempt]] = {}
        """By order number, then by place."""
        self.runs: dict[str, tuple[Origin, RunRow]] = {}
        self.recovered_until = recovered_until
        self.pause: Pause | None = None

    def put(self, entry: Record) -> None:
        place = entry.key, entry.generation
        self.orders[place] = entry
        self.traces[place].append((entry.state, entry.attempt))
        newest = self.newest.get(entry.key)
        if newest is None or newest.generation <= entry.generation:
            self.newest[entry.key] = entry

    def drop(self, entry: Record) -> None:
        del self.orders[entry.key, entry.generation]
        if self.newest[entry.key].generation == entry.generation:
            del self.newest[entry.key]
            if older := self.orders.get((entry.key, entry.generation - 1)):
                self.newest[entry.key] = older

    def copy(self) -> Tables:
        other = Tables(self.recovered_until)
        other.orders, other.newest = dict(self.orders), dict(self.newest)
        other.traces.update({place: list(trace) for place, trace in self.traces.items()})
        other.attempts = {key: dict(attempts) for key, attempts in self.attempts.items()}
        other.runs = dict(self.runs)
        other.pause = self.pause
        return other


class MemoryStorage:
    """One worker's connection to the tables.

    :param pause: called before and after each transaction, where a database is waited for: others run then.
    :param commit_is_unsure: asked at each commit that may be repeated: whether its connection breaks then.
    """

    host, account, has_own_clock = "kk.test", "default", True

    def __init__(
        self,
        database: Database,
        *,
        pause: Callable[[str], None],
        commit_is_unsure: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._pause = pause
        self._commit_is_unsure = commit_is_unsure

    def close(self) -> None:
        return

    @property
    def _tables(self) -> Tables:
        return self._database.tables

    # Transactions ----------------------------------------------------------------------------------

    def persist(self, work: Callable[[MemoryTransaction], T]) -> T:
        done = self.transact(work)
        if self._commit_is_unsure():
            done = work(self._begun())
            self._pause("committed again")
        return done

    def transact(self, work: Callable[[MemoryTransaction], T]) -> T:
        self._pause("begin")
        done = work(self._begun())
        self._pause("committed")
        return done

    def _begun(self) -> MemoryTransaction:
        return MemoryTransaction(self._database)

    def now(self) -> float:
        return self._database.clock.wall()

    # Reading ---------------------------------------------------------------------------------------

    def look_up(self, keys: Sequence[str]) -> dict[str, Record]:
        newest = self._database.tables.newest
        return {key: newest[key] for key in keys if key in newest}

    def entries(
        self, *, states: Iterable[State] = (), key: str | None = None, limit: int | None = None
    ) -> list[Record]:
        states = set(states)
        found = [
            entry
            for entry in self._tables.orders.values()
            if (not states or entry.state in states) and key in (None, entry.key)
        ]
        return sorted(found, key=attrgetter("generation", "updated_at"))[:limit]

    def of_sync(self, sync_id: str) -> Iterator[Record]:
        yield from [entry for entry in self._tables.orders.values() if entry.sync_id == sync_id]

    def doubts(self, *, longest_lease_s: float) -> list[Record]:
        now, in_doubt, sending = self.now(), State.IN_DOUBT, State.SENDING
        found = [
            entry
            for entry in self._tables.orders.values()
            if (state := entry.state) is in_doubt
            or (state is sending and not now < entry.lease_until <= now + longest_lease_s)
        ]
        return sorted(found, key=_settle_after)

    def attempts(self, keys: Sequence[str]) -> list[Attempt]:
        found = [one for key in keys for one in self._tables.attempts.get(key, {}).values()]
        return sorted(found, key=_in_turn)

    def sent_ids(self, keys: Sequence[str]) -> dict[str, set[str]]:
        orders = self._tables.orders
        ids: dict[str, set[str]] = {}
        for key in keys:
            generation = 1
            while (entry := orders.get((key, generation))) is not None:
                if entry.state is State.CREATED and entry.attempt > 0:
                    ids.setdefault(key, set()).update(entry.kk_order_ids)
                generation += 1
        return ids

    def newest_sent(self, *, before: float, limit: int) -> list[Record]:
        created = State.CREATED
        found = [
            entry
            for entry in self._tables.orders.values()
            if entry.state is created
            and entry.created_at < before
            and entry.attempt > 0
            and entry.kk_order_ids
        ]
        return sorted(found, key=_created_at, reverse=True)[:limit]

    def is_of_another_key(self, kk_order_id: str, key: str) -> bool:
        return any(
            kk_order_id in entry.kk_order_ids and entry.key != key for entry in self._tables.orders.values()
        )

    # The account, the syncs ------------------------------------------------------------------------

    def recovered_until(self) -> float:
        return self._tables.recovered_until

    def set_recovered_until(self, epoch: float) -> None:
        self._pause("begin")
        self._tables.recovered_until = max(self._tables.recovered_until, epoch)

    def pause(self) -> Pause | None:
        return self._tables.pause

    def newest_run(self, origin: Origin) -> RunRow | None:
        found = [run for task, run in self._tables.runs.values() if _is_task(task, origin)]
        return max(found, key=lambda run: run.started_at) if found else None

    def add_run(self, run: RunRow, origin: Origin) -> None:
        self._pause("begin")
        self._tables.runs[run.sync_id] = (origin, run)

    def change_run(self, sync_id: str, values: Mapping[str, Any]) -> None:
        self._pause("begin")
        if sync_id in self._tables.runs:
            origin, run = self._tables.runs[sync_id]
            self._tables.runs[sync_id] = (origin, _changed(run, values))


class Database:
    """Tables that can be replaced by a backup under everybody's feet, and their clock.

    `on_claim` is called with each attempt that is added, and `on_unknown_answer` with one that is missing
    when its answer is recorded.
    """

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self.tables, self.clock = tables, clock
        self.on_claim: Callable[[Place], object] = lambda place: None
        self.on_unknown_answer: Callable[[Place], object] = lambda place: None


class MemoryTransaction:
    """A `Transaction`: nobody else runs until it ends; what is refused has changed nothing yet."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tables = database.tables
        self.now = database.clock.wall()

    def later(self, first: float, second: float) -> float:
        return max(first, second)

    def earlier(self, first: float, second: float) -> float:
        return min(first, second)

    def read(self, key: str, generation: int) -> Record | None:
        return self._tables.orders.get((key, generation))

    lock = read

    def add(self, key: str, generation: int, values: Mapping[str, Any]) -> Record:
        if (key, generation) in self._tables.orders:
            raise KeyTakenError
        entry = Record(key=key, generation=generation, **values)
        self._tables.put(entry)
        return entry

    def change(self, expected: Record, values: Mapping[str, Any]) -> Record | None:
        now = self._tables.orders.get((expected.key, expected.generation))
        if (
            now is None
            or now.state is not expected.state
            or now.attempt != expected.attempt
            or now.version != expected.version
        ):
            return None
        return self.overwrite(now, values)

    def overwrite(self, locked: Record, values: Mapping[str, Any]) -> Record:
        new: Record = _changed(locked, values)
        if new.key != locked.key:
            if (new.key, new.generation) in self._tables.orders:
                raise KeyTakenError
            self._tables.drop(locked)
            traces = self._tables.traces
            traces[new.key, new.generation] = traces.pop((locked.key, locked.generation))
        self._tables.put(new)
        return new

    def add_attempt(self, attempt: Attempt) -> None:
        place = (attempt.key, attempt.generation, attempt.attempt, attempt.version)
        self._tables.attempts.setdefault(attempt.key, {})[place] = attempt
        self._database.on_claim(place)

    def answer_attempt(self, claim: Claim, values: Mapping[str, Any]) -> bool:
        place = (claim.job.key, claim.generation, claim.attempt, claim.version)
        attempts = self._tables.attempts.get(claim.job.key, {})
        if place not in attempts:
            self._database.on_unknown_answer(place)
            return False
        attempts[place] = _changed(attempts[place], values)
        return True

    def attempts(self, key: str, generation: int) -> list[Attempt]:
        found = [one for one in self._tables.attempts.get(key, {}).values() if one.generation == generation]
        return sorted(found, key=_in_turn)

    def lock_account(self) -> None:
        return

    def count_bought(self, settle_after: float) -> tuple[int, float]:
        times = [
            one.settle_after
            for attempts in self._tables.attempts.values()
            for one in attempts.values()
            if one.settle_after > settle_after and one.outcome not in NOTHING_BOUGHT
        ]
        return len(times), min(times, default=0.0)


_in_turn = attrgetter("generation", "attempt", "intent_at")
_settle_after = attrgetter("settle_after")
_created_at = attrgetter("created_at")


def _is_task(one: Origin, other: Origin) -> bool:
    return (one.dag_id, one.run_id, one.task_id, one.map_index) == (
        other.dag_id,
        other.run_id,
        other.task_id,
        other.map_index,
    )


def _changed(old: Any, values: Mapping[str, Any]) -> Any:
    """Like `dataclasses.replace`, without its checks: this is what a simulation does most."""
    new = object.__new__(type(old))
    new.__dict__.update(old.__dict__)
    new.__dict__.update(values)
    return new
