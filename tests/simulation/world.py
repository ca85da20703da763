"""One world: some orders, a KK with its manners, and processes that send, die, freeze and race, by a seed.

    World(seed).run()

raises `Broken` when a promise is broken. The same seed gives the same world, to the last step.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from random import Random

from airflow_provider_kk.delivery.attempt import Limits
from airflow_provider_kk.delivery.clock import CLOCKS_AGREE_S, Stop
from airflow_provider_kk.delivery.dispatcher import Dispatcher
from airflow_provider_kk.delivery.ledger import Ledger
from airflow_provider_kk.delivery.listing import KKOrderList
from airflow_provider_kk.delivery.model import AttemptResult, Content, Job, Origin, Pause, Record, Timing
from airflow_provider_kk.delivery.resolution import order_again, resolve
from airflow_provider_kk.delivery.run_queue import QueuedOrder, RunStatus
from airflow_provider_kk.delivery.states import TO_RECONCILE, Event, State
from airflow_provider_kk.sync.sync_counts import SyncRuns, summarise
from tests.simulation.draws import KEYS, add_failovers, draw_habits, draw_manners, draw_orders
from tests.simulation.fakes import SILENT, DatabaseClock, HubClock, NoThrottle, TracedLog
from tests.simulation.fibers import Fibers
from tests.simulation.hub import START, Hub, Process
from tests.simulation.kk import KK, TIMEOUT_S, WINDOW_S, Order
from tests.simulation.memory import HEAL_A_NEW_ACCOUNT_S, Database, MemoryStorage, Tables
from tests.simulation.memory_run_queue import MemoryBoard
from tests.simulation.promises import ENDS, Promises

TERMS = Timing(TIMEOUT_S, 120.0, WINDOW_S)
KNOWN = Order("known", {"HAT": 1}, "FR", "known")
_LISTS_SETTLE_S = 1_200.0
_DAY_S = 86_400.0


class Broken(AssertionError):
    """A promise is broken."""


class World:
    """See the module."""

    def __init__(self, seed: int, *, traced: bool = False) -> None:
        self.seed = seed
        self.random = random = Random(seed)
        self.hub = Hub(random, kills=random.choice((0.0, 0.1, 0.3)), freezes=random.choice((0.0, 0.1, 0.4)))
        self.hub.trace = [] if traced else None
        restores = random.random() < 0.1
        clocks_are_off = random.random() < 0.5
        manners = draw_manners(random, restores=restores, clocks_are_off=clocks_are_off)
        self.habits = draw_habits(random, restores=restores, clocks_are_off=clocks_are_off)
        # Draws of its own: the other worlds stay as they are.
        self._failover_draws = Random(f"{seed} failover")
        if has_failovers := not restores and self._failover_draws.random() < 0.12:
            self.habits = add_failovers(self._failover_draws, manners, self.habits)
        # Two numbers that differ in zeros only cannot be told apart in a list of integers without a ledger.
        is_ambiguous = manners.integers and (restores or has_failovers)
        left_out = random.choice(("7", "007")) if is_ambiguous else ""
        self.orders = draw_orders(random, [key for key in KEYS if key != left_out])
        self._items = [
            QueuedOrder(place, order.key, _content(order), _payload(order))
            for place, order in enumerate(self.orders)
        ]
        if clocks_are_off:
            self.hub.database_skew_s = random.choice((0.0, -45.0, 45.0, -3_600.0, 3_600.0))
        self.hub.workers_skew_s = self.habits.workers_skew_s
        self.database = Database(Tables(START - HEAL_A_NEW_ACCOUNT_S), DatabaseClock(self.hub))
        self._tokens = itertools.count()
        self._unfinished = 0
        self.promises = Promises(
            seed,
            self.orders,
            manners,
            self.database,
            # Intents are told by the earliest clock, answers by the database's.
            # An unsure commit may have been recorded anew, long after it was.
            times_are_exact=not (
                self.habits.clock_jumps
                or self.habits.unsure_commits
                or self.hub.database_skew_s
                or self.hub.workers_skew_s
                or manners.skew_s
            ),
            rows_are_in_turn=not (self.habits.clock_jumps or self.habits.unsure_commits),
        )
        self.database.on_unknown_answer = self.promises.hear
        self.database.on_claim = lambda place: self.promises.claim(place, self.hub.began_at)
        self.kk = KK(self.hub, manners, self.promises.check_post)
        self._jobs = {_payload(order): self._job(order) for order in self.orders}
        self._unsure = 0.0
        self.summaries = 0
        self._begin()

    # What happens ----------------------------------------------------------------------------------

    def run(self) -> None:
        """Let the world go its way, then quiet down, and look at what has become of every order."""
        try:
            self._trouble()
            self._quiet()
            self.promises.check_end(self.kk)
        except Exception as error:
            self.promises.require(False, "%s: %s", type(error).__name__, error)
            raise Broken(self.promises.broken) from error
        if self.promises.broken:
            raise Broken(self.promises.broken)

    def _begin(self) -> None:
        """An order that the ledger has created an hour ago, so that KK's list can be checked."""
        order_id = self.kk.add(KNOWN.key, list(KNOWN.goods.items()), KNOWN.country)
        self.kk.creates[KNOWN.key] = 1
        ledger = self.ledger()
        claim = ledger.claim(self._job(KNOWN), None, origin=Origin(), sync_id="first")
        assert claim is not None
        ledger.record(claim, AttemptResult(Event.CREATED, (order_id,)))
        self.hub.now += 3_600.0

    def _trouble(self) -> None:
        random, hub, habits = self.random, self.hub, self.habits
        self._unsure = habits.unsure_commits
        begins = []
        for number in range(habits.syncs):
            begins.append(begin := hub.now + random.random() * random.choice((5.0, 200.0, 2_000.0)))
            hub.at(begin, lambda number=number: self._start(f"run{number}", 1, habits.tries))
        if self.kk.manners.sort_by_update or self.kk.manners.page_cap < 10:
            for _ in range(6):
                at = hub.now + random.random() * 3_000.0
                hub.at(at, self.kk.stir)
                hub.at(at + 1, lambda: self.kk.add(None, [("SCARF", 1)], "DE"))
        backup = None
        if habits.restores:
            hub.run(until=hub.now + random.random() * 1_000.0)
            backup = self.database.tables.copy()
        self._let_people_act()
        for _ in range(habits.failovers):
            self._let_a_standby_take_over(self._failover_draws.choice(begins))
        if habits.clock_jumps:
            for _ in range(2):
                hub.at(hub.now + random.random() * 3_000.0, self._set_a_clock)
        hub.run(until=hub.now + 6 * 3_600.0)
        if backup is not None:
            self._restore(backup)

    def _let_people_act(self) -> None:
        random, hub, habits = self.random, self.hub, self.habits
        for _ in range(habits.hands):
            hub.at(hub.now + random.random() * 4_000.0, self._lend_a_hand)
        if habits.hands:
            hub.meddle = self._lend_a_hand
        for _ in range(habits.pauses):
            begin = hub.now + random.random() * 1_500.0
            hub.at(begin, self._pause_sending)
            hub.at(begin + random.random() * 4_000.0, self._resume_sending)

    def _let_a_standby_take_over(self, begin: float) -> None:
        """Lose the commits of some seconds after a sync has begun, while workers run."""
        draws, hub = self._failover_draws, self.hub
        at = begin + draws.random() * draws.choice((5.0, 30.0, 300.0))
        lost_s = draws.random() * draws.choice((1.0, 10.0, 30.0))
        standby: list[Tables] = []

        def take_over() -> None:
            hub.note("a standby takes over, without the last seconds:", f"{lost_s:.1f}")
            self.promises.lose(standby[0], hub.now)
            self.database.tables = standby[0]

        hub.at(at, lambda: standby.append(self.database.tables.copy()))
        hub.at(at + lost_s, take_over)

    def _restore(self, backup: Tables) -> None:
        """An old backup is put in place while nothing runs, and what was under way has been listed."""
        self.hub.run()
        self.hub.note("the ledger is restored")
        self.promises.check_traces()  # those that the backup does not know
        self.database.tables = backup
        self.hub.now += _LISTS_SETTLE_S
        self.kk.manners.hides_from = self.hub.now - 1.0
        self.kk.manners.hides_until = self.hub.now + self.random.random() * 1_500.0
        self.promises.used_intents.clear()
        self._start("after restore", 1, 1)
        self.hub.run(until=self.hub.now + 7_200.0)

    def _pause_sending(self) -> None:
        if self.database.tables.pause is None:
            self.hub.note("sending is paused")
            self.database.tables.pause = Pause(self.hub.now, "human", "wrong query")
            self.promises.paused_at = self.hub.now

    def _resume_sending(self) -> None:
        self.hub.note("sending is allowed again")
        self.database.tables.pause = None
        self.promises.paused_at = None

    def _set_a_clock(self) -> None:
        """The workers' or the database's is set right or wrong (another server takes over), KK's right."""
        by_s = self.random.choice((-3_600.0, -240.0, 240.0, 3_600.0, 40_000.0))
        self.hub.note("a clock is set by", by_s)
        match self.random.choice(("workers", "database", "KK")):
            case "workers":
                self.hub.workers_skew_s = 0.0 if self.hub.workers_skew_s else by_s
            case "database":
                self.hub.database_skew_s = 0.0 if self.hub.database_skew_s else by_s
            # To where one of ours is, at least: that KK goes back behind all of them while a request is under
            # way, nobody can know.
            case _ if min(self.hub.workers_skew_s, self.hub.database_skew_s) <= 0:
                self.kk.manners.skew_s = 0.0

    def _lend_a_hand(self) -> None:
        """A human looks at an order: orders it again, or says what KK's site shows of it right now."""
        entries = [entry for entry in self._newest() if entry.key != KNOWN.key]
        if not entries:
            return
        refused = [entry for entry in entries if entry.state is State.REJECTED]
        entry = self.random.choice(refused if refused and self.random.random() < 0.7 else entries)
        ledger = self.ledger(pauses=False)
        try:
            if entry.state in (State.CREATED, State.REJECTED):
                if order_again(ledger, entry, ids=sorted(self._ids_at_kk(entry)), who="human", why="more"):
                    self.hub.note("ordered again:", entry.key)
                    self.promises.wanted[entry.key] = self.kk.creates.get(entry.key, 0) + 1
                    self.promises.spoken_of.add(entry.key)
            elif entry.state in (State.IN_DOUBT, State.SENDING, State.HELD) and not self._ids_at_kk(entry):
                self.hub.note("never created, says a human:", entry.key)
                if resolve(ledger, entry, Event.RESOLVED_NEVER_CREATED, who="human", why="not at KK"):
                    self.promises.spoken_of.add(entry.key)
        except ValueError as error:
            self.hub.note("told the human:", error)

    def _start(self, run_id: str, number: int, tries: int) -> None:
        """One try of a task; a lost heartbeat lets the next one begin while this one still runs."""
        has_next = number < tries
        if has_next and self.random.random() < self.habits.orphans:
            self._retry(run_id, number, tries)
            has_next = False

        def ended(done: bool = False) -> None:
            self._unfinished -= 1
            if has_next and not done:
                self._retry(run_id, number, tries)

        def work() -> None:
            try:
                done = self._task(process, run_id, number)
            except Exception as error:
                self.promises.require(False, "%s: %s", type(error).__name__, error)
                raise
            ended(done)

        process = Process(f"{run_id}.{number}", ended)
        self._unfinished += 1
        self.hub.spawn(process, work)

    def _retry(self, run_id: str, number: int, tries: int) -> None:
        delay_s = self.random.random() * self.random.choice((10.0, 300.0, 1_500.0))
        self.hub.at(self.hub.now + delay_s, lambda: self._start(run_id, number + 1, tries))

    # A task's try ----------------------------------------------------------------------------------

    def ledger(self, *, pauses: bool = True) -> Ledger[MemoryStorage]:
        storage = MemoryStorage(
            self.database,
            pause=self.hub.pause if pauses else lambda where: None,
            commit_is_unsure=lambda: self._unsure > 0 and self.random.random() < self._unsure,
        )
        return Ledger(
            storage,
            HubClock(self.hub),
            TERMS,
            max_orders_per_day=self.habits.max_orders_per_day,
            new_version=lambda: f"t{next(self._tokens)}",
        )

    def _task(self, process: Process, run_id: str, number: int, *, patient: bool = False) -> bool:
        """What the operator does; True when nothing is left to do."""
        ledger = self.ledger()
        run_queue = MemoryBoard()
        run_queue.add(self._items)
        runs = SyncRuns(ledger)
        origin = Origin("dag", run_id, "sync", -1, number)
        run = runs.begin(origin)
        order_list = KKOrderList(self.kk)  # type: ignore[arg-type]
        fibers = Fibers(self.hub, self.habits.in_flight)
        stream = Dispatcher(
            ledger=ledger,
            order_list=order_list,
            throttle=NoThrottle(ledger.storage.pause),
            run_queue=run_queue,  # type: ignore[arg-type]
            make_job=self._jobs.__getitem__,
            probe=lambda: None,
            log=TracedLog(self.hub) if self.hub.trace is not None else SILENT,
            origin=origin,
            sync_id=run.sync_id,
            stop=Stop(),
            policy=self.habits.policy,
            limits=Limits(self.habits.in_flight),
            executor=fibers,  # type: ignore[arg-type]
            wait_for_one=fibers.wait_for_one,  # type: ignore[arg-type]
        )
        try:
            stream.run()
            looks = 0
            while (patient or self.habits.waits) and not stream.cannot_list:
                wait_s = stream.wait_s()
                if wait_s is None:
                    break
                looks += 1
                if looks > 4_000:
                    raise TimeoutError(f"{run_id} waits for ever")
                if patient:
                    self._check_waits(run_queue)
                self.hub.sleep(wait_s)
                stream.reconcile_waiting()
        finally:
            stream.stop_waiting()
            stream.close()
        summary = summarise(run_queue, run, runs)  # type: ignore[arg-type]
        self.summaries += 1
        self.promises.check_summary(summary)
        done = not (summary.in_doubt or summary.not_sent)
        runs.end(run, "done" if done else "failed", {})
        return done

    def _job(self, order: Order) -> Job:
        kk = self.kk
        return Job(
            key=order.key,
            content=_content(order),
            send=lambda before_send: kk.post(order, before_send),
            redact=str,
        )

    # The end ---------------------------------------------------------------------------------------

    def _quiet(self) -> None:
        """Nothing goes wrong any more, all that was under way lands, and syncs run until nothing is left."""
        hub, manners = self.hub, self.kk.manners
        hub.kills = hub.freezes = 0.0
        hub.meddle = lambda: None
        hub.workers_skew_s = 0.0
        hub.run()
        self._resume_sending()
        self.promises.check_cap(self.kk, self.habits.max_orders_per_day)
        self.habits = replace(self.habits, max_orders_per_day=None)
        self.promises.require(self._unfinished == 0, "%s tasks never ended", self._unfinished)
        manners.faults = manners.list_errors = 0.0
        manners.hides = ""
        self._settle_all("quiet")
        for number in range(3):
            held = [entry for entry in self._newest() if entry.state is State.HELD]
            if not held:
                break
            for entry in held:
                self._resolve(entry)
            self._settle_all(f"resolved{number}.")

    def _settle_all(self, name: str) -> None:
        for number in range(1, 7):
            self.hub.now += _DAY_S / 4
            is_done = self._sync_alone(f"{name}{number}")
            if is_done and all(entry.state in ENDS for entry in self._newest()):
                return

    def _check_waits(self, run_queue: MemoryBoard) -> None:
        """No order waits for longer than it would if it were sent now, however far ahead a clock once was."""
        hub = self.hub
        latest = hub.now + max(hub.workers_skew_s, hub.database_skew_s, self.kk.manners.skew_s)
        longest = latest + TERMS.lease_s + TERMS.timeout_s + TERMS.settle_window_s + CLOCKS_AGREE_S
        for batch in run_queue.batches(RunStatus.WAITING):
            for item in batch:
                entry = self.database.tables.newest.get(item.key or "")
                is_bounded = entry is None or entry.state not in TO_RECONCILE or entry.settle_after <= longest
                self.promises.require(is_bounded, "%s waits too long: %s", item.key, entry)

    def _sync_alone(self, run_id: str) -> bool:
        process = Process(run_id)
        done: list[bool] = []
        self.hub.spawn(process, lambda: done.append(self._task(process, run_id, 1, patient=True)))
        self.hub.run()
        return done == [True]

    def _resolve(self, entry: Record) -> None:
        """A human looks at KK's site and says what is there, cancelling what is too many or but a part."""
        ledger = self.ledger(pauses=False)
        there = self._ids_at_kk(entry)
        if there:
            moved = resolve(
                ledger, entry, Event.RESOLVED_CREATED, ids=sorted(there), who="human", why="seen at KK"
            )
        else:
            moved = resolve(
                ledger,
                entry,
                Event.RESOLVED_NEVER_CREATED,
                ids=entry.kk_order_ids,
                who="human",
                why="not at KK",
            )
        self.promises.require(moved is not None, "%s cannot be resolved: %s", entry.key, entry)

    def _newest(self) -> list[Record]:
        return list(self.database.tables.newest.values())

    def _ids_at_kk(self, entry: Record) -> set[str]:
        """What KK has of this generation."""
        older = self.ledger(pauses=False).generations(entry.key)
        known = {one for other in older if other.generation < entry.generation for one in other.kk_order_ids}
        return {row.id for row in self.kk.of(entry.key)} - known


def _content(order: Order) -> Content:
    return Content(order.fingerprint, order.goods, order.country)


def _payload(order: Order) -> str:
    return json.dumps({"number": order.key, "address": {"country": order.country}})
