"""The processing of one request to KK: token, rate limit, fault, call, answer."""

from __future__ import annotations

import hmac
import json
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from flask import Response, request

from airflow_provider_kk.sandbox import life
from airflow_provider_kk.sandbox.faults import Armory, InjectedFault
from airflow_provider_kk.sandbox.json_values import Rejected, envelope
from airflow_provider_kk.sandbox.order_calls import CALLS, FORMS, Ask, number_in
from airflow_provider_kk.sandbox.settings import Settings
from airflow_provider_kk.sandbox.store import SandboxStore

#: The key of the WSGI environment with the list of faults that break the request's connection.
BREAKS = "kk_sandbox.breaks"
#: The most requests that the log keeps.
KEPT = 50_000


class LeakyBucket:
    """KK's rate limit: it holds `burst` requests and leaks `per_second`. Further requests are rejected."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._level = 0.0
        self._at: float | None = None

    def take(self, now: float, burst: int, per_second: float) -> bool:
        """Add one request, and return whether it is within the limit."""
        with self._lock:
            leaked = per_second * max(0.0, now - self._at) if self._at is not None else 0.0
            self._level = max(0.0, self._level - leaked)
            self._at = now
            if self._level + 1 > burst:
                return False
            self._level += 1
            return True


@dataclass
class Entry:
    """One request. It is logged as soon as the whole request has arrived, with the outcome `pending`.

    Attributes:
        at: epoch seconds of the sandbox's clock.
        outcome: `created`, `ok`, `refused`, `unauthorized`, `rate_limited`, `late`, `struck` (a fault before
            the commit) or `pending`.
        status: HTTP status of the answer; of a broken connection, the one that was prepared.
        fault: the kind of the injected fault.
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
    """The last requests, and counts of all requests, without tokens, addresses and query values."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self.counts: Counter[str] = Counter()

    def begin(self, entry: Entry) -> None:
        """Log a request that has arrived."""
        with self._lock:
            self._entries.append(entry)
        self.count("requests", entry.method)

    def end(self, entry: Entry, outcome: str, status: int) -> None:
        """Log the answer to a request."""
        entry.outcome, entry.status = outcome, status
        self.count(outcome)

    def count(self, *names: str) -> None:
        """Increase counters."""
        with self._lock:
            self.counts.update(names)

    def entries(self) -> list[dict[str, Any]]:
        """Return the kept requests, the oldest first."""
        with self._lock:
            return [asdict(entry) for entry in self._entries]


class KK:
    """The state of one sandbox, and the processing of its requests.

    Later events (payment, late commits, refunds, the bucket) use the clock `now`, which `advance` moves, so a
    test can pass hours at once. Only stalls and latency take real seconds.
    """

    def __init__(
        self, store: SandboxStore, settings: Settings, clock: Callable[[], float], token: str, seed: int
    ) -> None:
        self.store = store
        self.settings = settings
        self.armory = Armory(seed)
        self.bucket = LeakyBucket()
        self.log = RequestLog()
        self.stopped = threading.Event()
        self._clock = clock
        self._offset_s: float = store.fact("clock_offset")
        self._token = token
        self._seed = seed

    def now(self) -> float:
        """Return the epoch seconds of the sandbox's clock."""
        return self._clock() + self._offset_s

    def answer(self, rule: str, **args: str) -> Response:
        """Answer one request; a broken connection is stored as its effect."""
        body = request.get_json(silent=True)
        entry = Entry(self.now(), request.method, request.path, number_in(body))
        self.log.begin(entry)
        if request.method == "POST" and rule in FORMS:
            self.log.count("creates")
        if self.settings.latency_s:
            self.stopped.wait(self.settings.latency_s)
        ask = Ask(self.store, self.settings, rule, args, request.args, body, entry.at)
        outcome, answer = self._gate() or self._struck(entry, ask)
        self.log.end(entry, outcome, answer.status_code)
        return answer

    def catch_up(self) -> float:
        """Process all events that are due by the clock, and return the time."""
        now = self.now()
        due = "SELECT * FROM late_call WHERE due_at <= ? ORDER BY due_at, id"
        for late in self.store.rows(due, (now,)):
            with self.store.transaction() as db:
                if db.execute("DELETE FROM late_call WHERE id = ?", (late["id"],)).rowcount == 1:
                    args, body = json.loads(late["ask"])
                    ask = Ask(self.store, self.settings, late["endpoint"], args, {}, body, late["due_at"])
                    with suppress(Rejected):
                        self._call("POST", ask)
        life.pay_what_is_due(self.store, self.settings, now)
        life.decide_what_is_due(self.store, self.settings, now)
        life.travel_what_is_due(self.store, self.settings, now)
        return now

    def change_settings(self, **changes: Any) -> dict[str, Any]:
        """Change settings, see `Settings.change`, and return all of them."""
        self.settings.change(**changes)
        return asdict(self.settings)

    def advance(self, seconds: float) -> float:
        """Move the clock, also for the next start on the same file, and return its time."""
        self._offset_s += seconds
        self.store.set_fact("clock_offset", self._offset_s)
        return self.catch_up()

    def reset(self) -> None:
        """Delete orders, faults and the log. Settings and the clock stay."""
        self.store.reset()
        self.store.set_fact("clock_offset", self._offset_s)
        self.armory = Armory(self._seed)
        self.bucket = LeakyBucket()
        self.log = RequestLog()

    def _gate(self) -> tuple[str, Response] | None:
        given, settings = request.headers.get("Authorization", ""), self.settings
        if not hmac.compare_digest(given.encode(), f"Bearer {self._token}".encode()):
            return "unauthorized", unauthorized(settings.unauthorized)
        if settings.rate_limit and not self.bucket.take(
            self.now(), settings.rate_burst, settings.rate_per_second
        ):
            return "rate_limited", rate_limited(settings.retry_after_s)
        return None

    def _struck(self, entry: Entry, ask: Ask) -> tuple[str, Response]:
        fault = self.armory.strike(entry.method, entry.path, entry.number)
        if fault is None:
            return self._run(entry, ask)
        entry.fault = fault.name
        match fault.kind.orders:
            case "none":
                outcome, answer = "struck", as_json({})
            case "later":
                self._defer(ask, fault.options["seconds"])
                outcome, answer = "late", as_json({})
            case orders:
                ask.parts = -1 if orders == "some" else None
                outcome, answer = self._run(entry, ask)
                if orders == "twice":
                    self._run(entry, ask)
        return outcome, suffer(fault, answer, self.settings)

    def _run(self, entry: Entry, ask: Ask) -> tuple[str, Response]:
        ask.now, ask.made = self.catch_up(), []
        try:
            data = self._call(entry.method, ask)
        except Rejected as rejection:
            status = self.settings.rejection_status
            return "refused", rejected(rejection.code, rejection.message, status)
        entry.kk_order_ids += map(str, ask.made)
        return "created" if ask.made else "ok", as_json(envelope(data))

    def _call(self, method: str, ask: Ask) -> Any:
        data = CALLS[method, ask.path](ask)
        if ask.made:
            self.log.count("commits")
        return data

    def _defer(self, ask: Ask, seconds: float) -> None:
        with self.store.transaction() as db:
            db.execute(
                "INSERT INTO late_call (due_at, endpoint, ask) VALUES (?, ?, ?)",
                (self.now() + seconds, ask.path, json.dumps([ask.args, ask.body])),
            )


PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"


def suffer(fault: InjectedFault, answer: Response, settings: Settings) -> Response:
    """Return the answer to a request with a fault; `answer` is the answer without it."""
    options = fault.options
    match fault.kind.effect:
        case "status":
            return _server_error(options["status"], options["body"])
        case "html_200":
            return html(200, "Please wait")
        case "garbage":
            return Response('{"code": 10000, "message": "succ', 200, mimetype="application/json")
        case "rate_limit":
            return rate_limited(options["retry_after_s"])
        case "redirect":
            location = options["location"] or request.full_path.rstrip("?")
            return Response("", options["status"], {"Location": location})
        case "auth":
            return unauthorized(settings.unauthorized)
        case "refuse":
            status = options["status"] or settings.rejection_status
            return rejected(options["code"], options["message"], status)
        case "answer":
            return answer
        case _:
            request.environ[BREAKS].append(fault)
            return answer


def as_json(data: Any, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(json.dumps(data), status, mimetype="application/json")


def rejected(code: int, message: str, status: int) -> Response:
    """Return an envelope with another code than success."""
    return as_json(envelope(None, code, message), status)


def html(status: int, title: str) -> Response:
    """Return a web page such as proxies and web servers send."""
    return Response(PAGE.format(title), status, mimetype="text/html")


def _server_error(status: int, body: str) -> Response:
    """Return a 5xx answer in one of the forms of gateways, frameworks and KK itself."""
    if body == "html":
        return html(status, f"{status} Server Error")
    if body == "json":
        return as_json({"timestamp": 1700000000000, "status": status, "error": "Server Error"}, status)
    return rejected(status, "system error", status)


def rate_limited(retry_after_s: float | None) -> Response:
    """Return HTTP 429; without `Retry-After` for None or a negative time."""
    answer = rejected(429, "Too Many Requests", 429)
    if retry_after_s is not None and retry_after_s >= 0:
        answer.headers["Retry-After"] = f"{retry_after_s:g}"
    return answer


def unauthorized(form: str) -> Response:
    """Return the answer to a wrong token in a form of `Settings.unauthorized`."""
    match form:
        case "empty":
            return Response("", 401)
        case "html":
            return html(401, "401 Unauthorized")
        case _:
            return rejected(401, "Unauthorized", 200 if form == "envelope_200" else 401)
