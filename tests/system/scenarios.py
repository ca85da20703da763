"""What is done to a run on several machines, and the report of what came of it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil

from tests.operators.shop import goods, ids_at_kk, number, rows
from tests.system.guard import kill_sessions, processes_of
from tests.system.stack import BURST, IS_AIRFLOW_3, PER_SECOND, REPOSITORY, Stack

ORDERS, PARTS = 240, 4
#: So many, where the retries of orphans shall find something left to send.
MANY_ORDERS = 400
#: The answers of these orders (counted within a run) are lost, with the order made or not.
LOST_ANSWERS = {21: "drop_after_commit", 90: "reset_after_commit", 171: "drop_after_commit",
                54: "drop_before_commit", 133: "reset_before_commit"}  # fmt: skip
#: For workers: their tasks log errors only.
QUIET = {"AIRFLOW__LOGGING__NAMESPACE_LEVELS": "airflow.task=ERROR"}
#: For workers: Redis delivers a message again that has not been acknowledged for 5 s, and looks every 2 s.
IMPATIENT = {
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": "5",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__UNACKED_RESTORE_INTERVAL": "2",
    "AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__UNACKED_RESTORE_THROTTLE": "1",
}
RUN_LIMIT_S = 240.0
#: How a task's own process calls itself, on Airflow 3 and 2.
_TASK_TITLES = ("airflow worker --", "airflow task runner:")


@dataclass
class Report:
    """What came of one run. Times are seconds."""

    name: str
    killed: str = "nothing"
    orders: int = 0
    creates: int = 0
    commits: int = 0
    requests: int = 0
    duplicates: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Orders that are not `created` with KK's ids in the ledger and, last, in the write-back."""
    rate_limited: int = 0
    seconds: float = 0.0
    limit_s: float = 0.0
    """What that many requests take at KK's limit."""
    state: str = ""
    tries: dict[int, int] = field(default_factory=dict)
    """Of each partition."""
    overlap_s: dict[int, float] = field(default_factory=dict)
    """By partition: from the retry's first POST to the last one of the try before it."""
    orphans_s: list[float] = field(default_factory=list)
    """How long each task process went on after its worker was killed."""
    retries_s: list[float] = field(default_factory=list)
    """How long after that each retry began."""
    connections: int = 0
    """To the ledger's and warehouse's database, at most."""
    redeliveries: int = 0
    """Messages that came again."""
    rival_posts: int = 0
    """Those of a second execution of the same try."""
    paused: Report | None = None
    """The run that was paused, before the one that sent the rest."""
    postponed: int = 0
    """How many orders the paused run left to the next one."""
    late_s: float = 0.0
    """From the end of `kk pause` to the last order's arrival at KK before `kk resume`."""
    notes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Each order at KK once, known as such, and none refused for the rate."""
        faults = (self.duplicates, self.lost, self.wrong, self.rate_limited, self.commits - self.orders)
        return self.state == "success" and not any(faults)

    def text(self) -> str:
        """Lines to print."""
        tries = ", ".join(f"{part}: {tries}" for part, tries in sorted(self.tries.items()))
        lines = [
            f"{self.name}: run {self.state}, {'holds' if self.holds else 'DOES NOT HOLD'}",
            f"  killed: {self.killed}",
            f"  orders {self.orders}, creates {self.creates}, committed {self.commits}, "
            f"duplicates {len(self.duplicates)}, lost {len(self.lost)}, "
            f"wrong in ledger or write-back {len(self.wrong)}, 429s {self.rate_limited}",
            f"  {self.seconds:.1f} s for {self.requests} requests, {self.limit_s:.1f} s at the limit: "
            f"{self.limit_s / self.seconds:.1%} of the theoretical rate",
            f"  tries by partition: {tries}; at most {self.connections} connections to the ledger's database",
        ]
        if self.orphans_s:
            overlap = ", ".join(
                f"{part}: {seconds:.1f} s" for part, seconds in sorted(self.overlap_s.items())
            )
            alive = ", ".join(f"{seconds:.1f} s" for seconds in self.orphans_s)
            retried = ", ".join(f"{seconds:.1f} s" for seconds in self.retries_s)
            lines += [
                f"  orphans ran on for {alive}; their retries began after {retried}",
                f"  both tries sent side by side, by partition: {overlap or 'never'}",
            ]
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def run_all(stack: Stack) -> list[Report]:
    """Every scenario, one after the other; each report is printed as it comes."""
    reports = []
    for scenario in (undisturbed, paused, tree_killed, main_killed, redelivered):
        reports.append(scenario(stack))
        print(reports[-1].text(), flush=True)
    return reports


# Scenarios ---------------------------------------------------------------------------------------


def undisturbed(stack: Stack) -> Report:
    """Four tasks on two machines share one rate limit."""
    two_workers(stack)
    run = Run(stack, "calm", lost_answers={})
    run.begin()
    run.wait()
    return run.report("Nothing breaks")


def paused(stack: Stack) -> Report:
    """`kk pause` elsewhere stops four tasks on two machines; after `kk resume` a run sends the rest."""
    two_workers(stack)
    run = Run(stack, "pause", lost_answers={})
    run.begin()
    run.wait_for_creates(ORDERS // 6)
    stack.run_kk("pause", "--why", "wrong query")
    paused_at = time.time()
    try:
        run.wait()
        arrived, first = run.arrivals(), run.report("Paused by `kk pause`")
    finally:
        stack.run_kk("resume", "--why", "query fixed")
    [(postponed,)] = stack.ask("shop", _POSTPONED, run.run_id)
    run.run_id = "resume"
    run.begin()
    run.wait()
    report = run.report("Paused by `kk pause`, then resumed")
    report.paused, report.postponed, report.late_s = first, postponed, max(arrived) - paused_at
    report.notes = [
        f"the paused run ended as {first.state} and left {postponed} orders to the next one",
        f"the last of its {first.commits} orders arrived {report.late_s:+.2f} s after `kk pause` returned",
    ]
    return report


def tree_killed(stack: Stack) -> Report:
    """A machine is lost: a worker with all that it has started."""
    two_workers(stack)
    run = Run(stack, "tree")
    run.begin()
    run.wait_for_creates(ORDERS // 3)
    victim, tasks = busiest(stack)
    kill_sessions([stack.workers.pop(victim).pid])
    stack.worker()
    run.wait()
    report = run.report("A worker's whole tree killed with -9")
    report.killed = f"{victim} with {len(tasks)} tasks, after {ORDERS // 3} creates"
    return report


def main_killed(stack: Stack) -> Report:
    """A worker's main process is killed: its tasks run on as orphans while their retries run elsewhere.

    On Airflow 3 a task without its supervisor ends at its next log line, before its retry begins. So these
    workers log errors only.
    """
    stack.end_workers()
    two_workers(stack, **QUIET)
    # Without doubts a retry has little to read before it begins to send.
    run = Run(stack, "main", MANY_ORDERS, lost_answers={})
    run.begin()
    run.wait_for_creates(BURST)
    victim, tasks = busiest(stack)
    main = stack.workers.pop(victim)
    main.kill()
    killed = "main process"
    if not IS_AIRFLOW_3:
        # There a task's supervisor outlives the worker, so that nothing is retried: it is killed, too.
        for process in processes_of([main.pid]):
            if process not in tasks:
                process.kill()
        killed = "main process and its tasks' supervisors"
    run.watch(tasks)
    stack.worker(**QUIET)
    run.wait()
    report = run.report("A worker's main process killed with -9")
    report.killed = f"the {killed} of {victim}, whose {len(tasks)} tasks ran on, after {BURST} creates"
    return report


def redelivered(stack: Stack) -> Report:
    """Redis delivers messages of running tasks again; one try is executed twice past Airflow, too."""
    stack.end_workers()
    two_workers(stack, **IMPATIENT)
    run = Run(stack, "again")
    gate = stack.folder / "the rival may begin"
    command = (sys.executable, "-m", "tests.system.rival", run.batch, "0", str(gate))
    rival = stack.start_process("rival", *command, cwd=REPOSITORY, PYTHONSAFEPATH="")
    stack.wait_until(lambda: "waiting" in stack.log("rival"), "the rival waits", RUN_LIMIT_S)
    run.begin()
    run.wait_for_part(0)  # else the rival, which has no Airflow to start, could send all of it
    gate.touch()
    run.wait()
    rival.wait(RUN_LIMIT_S)
    report = run.report("The same try started twice")
    logs = "".join(stack.log(name) for name in stack.workers)
    report.redeliveries, report.rival_posts = _redeliveries(logs), _rival(stack)["posts"]
    logs += "".join(file.read_text() for file in (stack.folder / "logs").rglob("attempt=*.log"))
    refused = {text: count for text in _REFUSALS if (count := logs.count(text))}
    report.notes = [
        f"Redis delivered {report.redeliveries} messages again; Airflow said: {refused or 'nothing'}",
        f"a second execution of try 1 of partition 0, past Airflow, made {report.rival_posts} of its POSTs",
    ]
    return report


def two_workers(stack: Stack, **settings: str) -> None:
    """Have two workers ready."""
    while len(stack.workers) < 2:
        stack.worker(**settings)
    stack.wait_for_workers()


def busiest(stack: Stack) -> tuple[str, list[psutil.Process]]:
    """The worker with most task processes, and those."""
    found = {name: task_processes(process.pid) for name, process in stack.workers.items()}
    name = max(found, key=lambda name: len(found[name]))
    assert found[name], f"no worker has a task\n{stack.log_ends()}"
    return name, found[name]


def task_processes(session: int) -> list[psutil.Process]:
    return [one for one in processes_of([session]) if " ".join(one.cmdline()).startswith(_TASK_TITLES)]


# A run -------------------------------------------------------------------------------------------


class Run:
    """A run of the DAG over orders of its own, which are put into the warehouse at once.

    With another `run_id`, a further run begins over the same orders.
    """

    def __init__(
        self, stack: Stack, batch: str, orders: int = ORDERS, lost_answers: Mapping[int, str] = LOST_ANSWERS
    ) -> None:
        self.stack, self.batch, self.run_id = stack, batch, batch
        self.connections = 0
        self.control = stack.kk.control
        [(self.first,)] = stack.ask("shop", "SELECT count(DISTINCT custom_order_number) FROM order_line")
        self.numbers = {number(n): n for n in range(self.first, self.first + orders)}
        self.before = Counter(self._counts())
        self._watched: dict[psutil.Process, float] = {}
        self._watched_since = 0.0  # epoch seconds
        lines = [(batch, n % PARTS, *row) for n in self.numbers.values() for row in rows([n])]
        stack.add_orders(lines)
        for position, fault in lost_answers.items():
            self.control.arm(fault, times=1, number=number(self.first + position))

    def begin(self) -> None:
        """Start it."""
        conf = json.dumps({"batch": self.batch})
        self.stack.airflow("dags", "trigger", "shop", "--run-id", self.run_id, "--conf", conf)

    def wait_for_creates(self, count: int) -> None:
        """Wait until KK got so many create calls."""
        what = f"KK got {count} orders of {self.batch}"
        self.stack.wait_until(lambda: self._new("creates") >= count, what, RUN_LIMIT_S, every_s=0.1)

    def wait_for_part(self, part: int) -> None:
        """Wait until KK got an order of this partition."""
        own = {name for name, n in self.numbers.items() if n % PARTS == part}
        self.stack.wait_until(
            lambda: any(one["number"] in own for one in self.control.requests()),
            f"KK got an order of partition {part}",
            RUN_LIMIT_S,
            every_s=0.1,
        )

    def watch(self, processes: list[psutil.Process]) -> None:
        """Take note of how long these run from now on."""
        self._watched, self._watched_since = dict.fromkeys(processes, 0.0), time.time()

    def wait(self) -> None:
        """Wait for the run's end."""
        self.stack.wait_until(self._has_ended, f"the run {self.run_id} has ended", RUN_LIMIT_S)
        self.stack.wait_until(lambda: not self._look(), "its orphans have ended", RUN_LIMIT_S)

    def arrivals(self) -> list[float]:
        """When its orders arrived at KK, epoch seconds."""
        return [one["at"] for one in self.control.requests() if one["number"] in self.numbers]

    def report(self, name: str) -> Report:
        """What came of it."""
        requests = [one for one in self.control.requests() if one["at"] >= self._first_post()]
        last = max(self.arrivals())
        requests = [one for one in requests if one["at"] <= last]
        overlap_s = self._overlap_s()
        tries = self.stack.ask("airflow", _TRIES, self.run_id)
        return Report(
            name,
            orders=len(self.numbers),
            creates=self._new("creates"),
            commits=self._new("commits"),
            requests=len(requests),
            duplicates=[one for one in self.control.duplicates() if one in self.numbers],
            lost=self._lost(),
            wrong=self._wrong(),
            rate_limited=self._new("rate_limited"),
            seconds=last - self._first_post(),
            limit_s=max(0.0, (len(requests) - BURST) / PER_SECOND),
            state=self._state(),
            tries={part: tried for part, tried, _ in tries},
            overlap_s={part: seconds for part, seconds in overlap_s.items() if seconds > 0},
            orphans_s=list(self._watched.values()),
            connections=self.connections,
            retries_s=[float(began) - self._watched_since for _, tried, began in tries if tried > 1],
        )

    def _counts(self) -> dict[str, int]:
        return {name: count for name, count in self.control.counts().items() if isinstance(count, int)}

    def _new(self, name: str) -> int:
        return self._counts()[name] - self.before[name]

    def _state(self) -> str:
        sql = "SELECT state FROM dag_run WHERE run_id = %s"
        return str(self.stack.ask("airflow", sql, self.run_id)[0][0])

    def _has_ended(self) -> bool:
        self._look()
        [(connections,)] = self.stack.ask("postgres", _CONNECTIONS)
        self.connections = max(self.connections, connections)
        return self._state() in ("success", "failed")

    def _look(self) -> bool:
        """Whether any of the watched still runs."""
        running = [process for process in self._watched if process.is_running()]
        running = [process for process in running if process.status() != psutil.STATUS_ZOMBIE]
        for process in running:
            self._watched[process] = time.time() - self._watched_since
        return bool(running)

    def _first_post(self) -> float:
        return min(self.arrivals())

    def _overlap_s(self) -> dict[int, float]:
        """By partition: how long both tries sent; negative when one came after the other."""
        spans: dict[int, dict[int, tuple[float, float]]] = {}
        for part, tried, first, last in self.stack.ask("shop", _SPANS, self.batch):
            spans.setdefault(part, {})[tried] = (first, last)
        return {part: tries[1][1] - tries[2][0] for part, tries in spans.items() if {1, 2} <= tries.keys()}

    def _lost(self) -> list[str]:
        found: dict[str, Counter[str]] = {}
        for one in self.control.orders():
            found.setdefault(one["number"], Counter()).update(one["goods"])
        return [name for name, n in self.numbers.items() if found.get(name) != Counter(goods(n))]

    def _wrong(self) -> list[str]:
        at_kk = ids_at_kk(self.stack.kk)
        ledger = dict(self.stack.ask("shop", "SELECT custom_order_number, kk_order_ids FROM kk_order"
                                             " WHERE state = 'created'"))  # fmt: skip
        told = {name: ids for name, state, ids in self.stack.ask("shop", _TOLD) if state == "created"}
        return [
            name
            for name in self.numbers
            if sorted(json.loads(ledger.get(name, "[]"))) != at_kk.get(name)
            or sorted(told.get(name, "").split(",")) != at_kk.get(name)
        ]


_CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'"
_TRIES = """SELECT map_index, try_number, extract(epoch FROM start_date) FROM task_instance
             WHERE run_id = %s AND map_index >= 0"""
_POSTPONED = "SELECT sum((summary::json ->> 'postponed')::integer) FROM kk_sync_run WHERE run_id = %s"
_TOLD = """SELECT DISTINCT ON (custom_order_number) custom_order_number, state, kk_order_ids
             FROM outcome ORDER BY custom_order_number, at DESC"""
_SPANS = """SELECT part, try_number, min(intent_at), max(intent_at)
              FROM kk_order_attempt
              JOIN (SELECT DISTINCT custom_order_number, part FROM order_line WHERE batch = %s) line
             USING (custom_order_number)
             GROUP BY part, try_number"""


# Redelivery --------------------------------------------------------------------------------------


def _redeliveries(logs: str) -> int:
    """How often a worker received what one of them had received before."""
    received = Counter(re.findall(r"Task execute_\w+\[(\S+)\] received", logs))
    return sum(count - 1 for count in received.values())


#: How Airflow 3, and 2, say that a task is not started a second time.
_REFUSALS = ("Task already running elsewhere", "Task is not able to be run")


def _rival(stack: Stack) -> dict[str, Any]:
    line = next((line for line in stack.log("rival").splitlines() if line.startswith("rival ")), None)
    assert line, stack.log("rival")
    return dict(json.loads(line.removeprefix("rival ")))
