"""One request to KK from its arrival to its answer: who asks, how often, what goes wrong, what is done."""

from __future__ import annotations

import hmac
import json
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from flask import Response, request

from airflow_provider_kk.sandbox import life, wire
from airflow_provider_kk.sandbox.calls import CALLS, FORMS, Ask, number_in
from airflow_provider_kk.sandbox.faults import Armory, InjectedFault
from airflow_provider_kk.sandbox.protocol import Rejected, SandboxClock, envelope
from airflow_provider_kk.sandbox.settings import Settings
from airflow_provider_kk.sandbox.store import SandboxStore


class KK:
    """All that one sandbox holds, and the way of a request through it."""

    def __init__(
        self, store: SandboxStore, settings: Settings, clock: SandboxClock, token: str, seed: int = 0
    ) -> None:
        self.store = store
        self.settings = settings
        self.clock = clock
        self.armory = Armory(seed)
        self.bucket = LeakyBucket()
        self.log = RequestLog()
        self.stopped = threading.Event()
        self._token = token
        self._seed = seed
        self.change_settings()

    def answer(self, rule: str, **args: str) -> Response:
        """Answer one request; a broken connection is noted as its effect."""
        body = _body()
        number = number_in(body)
        entry = self.log.begin(Entry(self.clock.now(), request.method, request.path, number))
        if request.method == "POST" and rule in FORMS:
            self.log.count("creates")
        if self.settings.latency_s:
            self.stopped.wait(self.settings.latency_s)
        outcome, answer = self._gate() or self._struck(entry, rule, args, body, number)
        self.log.end(entry, outcome, answer.status_code)
        return answer

    def catch_up(self) -> float:
        """Do what the clock has made due; gives the time."""
        now = self.clock.now()
        due = "SELECT * FROM late_call WHERE due_at <= ? ORDER BY due_at, id"
        for late in self.store.rows(due, (now,)):
            with self.store.transaction() as db:
                if db.execute("DELETE FROM late_call WHERE id = ?", (late["id"],)).rowcount == 1:
                    self._commit_late(late["endpoint"], json.loads(late["ask"]), late["due_at"])
        life.pay_what_is_due(self.store, self.settings, now)
        life.decide_what_is_due(self.store, self.settings, now)
        life.travel_what_is_due(self.store, self.settings, now)
        return now

    def change_settings(self, **changes: Any) -> None:
        """Change settings, see `Settings.change`."""
        self.settings.change(**changes)
        if self.settings.update_lag_s:
            self.store.keep_past()

    def advance(self, seconds: float) -> None:
        """Move the clock, also for the next start on the same file."""
        self.clock.advance(seconds)
        self.store.set_fact("clock_offset", self.clock.offset_s)

    def reset(self) -> None:
        """As freshly started: no orders, faults or log. Settings and the clock stay."""
        self.store.reset()
        self.store.set_fact("clock_offset", self.clock.offset_s)
        self.armory = Armory(self._seed)
        self.bucket.empty()
        self.log.clear()

    def _gate(self) -> tuple[str, Response] | None:
        given = request.headers.get("Authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return "unauthorized", wire.unauthorized(self.settings)
        settings = self.settings
        if settings.rate_limit and not self.bucket.take(
            self.clock.now(), settings.rate_burst, settings.rate_per_second
        ):
            return "rate_limited", wire.rate_limited(settings.retry_after_s)
        return None

    def _struck(
        self, entry: Entry, rule: str, args: dict[str, str], body: Any, number: str | None
    ) -> tuple[str, Response]:
        fault = self.armory.strike(request.method, request.path, number)
        if fault is None:
            return self._run(entry, rule, args, body)
        entry.fault = fault.name
        if fault.kind.when == "before":
            return "struck", wire.suffer(fault, wire.as_json({}), self.settings, self.stopped)
        outcome, answer = (
            self._run(entry, rule, args, body)
            if fault.kind.when == "after"
            else self._inside(fault, entry, rule, args, body)
        )
        return outcome, wire.suffer(fault, answer, self.settings, self.stopped)

    def _inside(
        self, fault: InjectedFault, entry: Entry, rule: str, args: dict[str, str], body: Any
    ) -> tuple[str, Response]:
        match fault.name:
            case "late_commit":
                self._defer(rule, args, body, fault.options["seconds"])
                return "late", wire.as_json({})
            case "half_split":
                return self._run(entry, rule, args, body, parts=-1)
            case _:
                first = self._run(entry, rule, args, body)
                self._run(entry, rule, args, body)
                return first

    def _run(
        self, entry: Entry, rule: str, args: dict[str, str], body: Any, parts: int | None = None
    ) -> tuple[str, Response]:
        ask = self._ask(rule, args, body, self.catch_up(), parts)
        try:
            data = CALLS[request.method, rule](ask)
        except Rejected as refusal:
            status = refusal.http_status or self.settings.rejection_status
            return "refused", wire.rejected(refusal.code, refusal.message, status)
        entry.kk_order_ids += [str(order_id) for order_id in ask.made]
        if ask.made:
            self.log.count("commits")
        return "created" if ask.made else "ok", wire.as_json(envelope(data))

    def _ask(self, rule: str, args: dict[str, str], body: Any, now: float, parts: int | None = None) -> Ask:
        return Ask(self.store, self.settings, rule, request.args, body, now, args, parts)

    def _defer(self, rule: str, args: dict[str, str], body: Any, seconds: float) -> None:
        with self.store.transaction() as db:
            db.execute(
                "INSERT INTO late_call (due_at, endpoint, ask) VALUES (?, ?, ?)",
                (self.clock.now() + seconds, rule, json.dumps({"args": args, "body": body})),
            )

    def _commit_late(self, rule: str, asked: dict[str, Any], at: float) -> None:
        ask = Ask(self.store, self.settings, rule, {}, asked["body"], at, asked["args"])
        try:
            CALLS["POST", rule](ask)
        except Rejected:
            return
        if ask.made:
            self.log.count("commits")


def endpoint(kk: KK, rule: str) -> Callable[..., Response]:
    """Flask's view of one path of KK's."""

    def view(**args: str) -> Response:
        return kk.answer(rule, **args)

    return view


def _body() -> Any:
    if request.method != "POST" or "json" not in request.headers.get("Content-Type", ""):
        return None
    try:
        return json.loads(request.get_data())
    except ValueError:
        return None


class LeakyBucket:
    """Holds `burst` requests and leaks `per_second`; what would spill over is refused."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._level = 0.0
        self._at: float | None = None

    def take(self, now: float, burst: int, per_second: float) -> bool:
        """Whether one more request fits in."""
        with self._lock:
            leaked = per_second * max(0.0, now - self._at) if self._at is not None else 0.0
            self._level = max(0.0, self._level - leaked)
            self._at = now
            if self._level + 1 > burst:
                return False
            self._level += 1
            return True

    def empty(self) -> None:
        """As if nothing had been asked yet."""
        with self._lock:
            self._level, self._at = 0.0, None


KEPT = 50_000


@dataclass
class Entry:
    """One request. It is there as soon as the request has come whole, with the outcome `pending`.

    Attributes:
        at: epoch seconds of the sandbox's clock.
        outcome: `created`, `ok`, `refused`, `unauthorized`, `rate_limited`, `late`, `struck` (a fault before
            the commit) or `pending`.
        status: HTTP status of the answer; of a broken connection, what it would have been.
        fault: the kind that struck it.
        kk_order_ids: the orders that it made.
    """

    at: float
    method: str
    path: str
    number: str | None
    outcome: str = "pending"
    status: int | None = None
    fault: str | None = None
    kk_order_ids: list[str] = field(default_factory=list)


class RequestLog:
    """The last requests, and counts of all of them. No tokens, no addresses, no query values."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def begin(self, entry: Entry) -> Entry:
        """A request has come."""
        with self._lock:
            self._entries.append(entry)
            self.counts["requests"] += 1
            self.counts[entry.method] += 1
        return entry

    def end(self, entry: Entry, outcome: str, status: int) -> None:
        """It has been answered."""
        with self._lock:
            entry.outcome, entry.status = outcome, status
            self.counts[outcome] += 1

    def count(self, name: str) -> None:
        """Count something else."""
        with self._lock:
            self.counts[name] += 1

    def entries(self) -> list[dict[str, Any]]:
        """The kept requests, the oldest first."""
        with self._lock:
            return [asdict(entry) for entry in self._entries]

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._entries: deque[Entry] = deque(maxlen=KEPT)
            self.counts: Counter[str] = Counter()
