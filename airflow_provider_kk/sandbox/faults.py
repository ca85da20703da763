"""The faults of one request as data, and those that are armed."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class FaultKind:
    """One way to fail.

    Attributes:
        effect: the caller's result; see `kk.suffer`.
        orders: the orders at KK afterwards: `none`, `all`, `later`, `some` (of a split) or `twice`.
        options: options of `arm` with their defaults; of a list, one value is drawn for each request.
        mixed: part of `random_faults`: a correct caller recovers from it.
    """

    effect: str
    orders: str
    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)
    mixed: bool = True


#: body: html, json or envelope
_STATUS = {"status": 500, "body": "html"}
_LONG = {"seconds": 60.0}
_MOVED = {"status": 302, "location": None}

FAULTS: dict[str, FaultKind] = {
    "drop_before_commit": FaultKind("drop", "none", "connection closed without an answer"),
    "drop_after_commit": FaultKind("drop", "all", "connection closed without an answer"),
    "reset_before_commit": FaultKind("reset", "none", "connection reset (RST)"),
    "reset_after_commit": FaultKind("reset", "all", "connection reset (RST)"),
    "status_before_commit": FaultKind("status", "none", "HTTP 5xx", _STATUS),
    "status_after_commit": FaultKind("status", "all", "HTTP 5xx", _STATUS),
    "html_200_after_commit": FaultKind("html_200", "all", "HTTP 200 with a web page"),
    "garbage_json": FaultKind("garbage", "all", "HTTP 200 with broken JSON"),
    "cut_body_after_commit": FaultKind("cut_body", "all", "half of the body, then it closes"),
    "cut_headers_after_commit": FaultKind("cut_headers", "all", "half of the headers, then the end"),
    "stall_before_commit": FaultKind("stall", "none", "silence, then it closes", _LONG),
    "stall_after_commit": FaultKind("stall", "all", "silence, then it closes", _LONG),
    "drip": FaultKind("drip", "all", "the right answer, a byte at a time", {"interval_s": 0.5}),
    "rate_limit": FaultKind("rate_limit", "none", "HTTP 429", {"retry_after_s": None}),
    "redirect_307": FaultKind("redirect", "none", "sends the POST elsewhere", _MOVED | {"status": 307}),
    "redirect_302": FaultKind("redirect", "none", "becomes a GET of a list", _MOVED),
    "late_commit": FaultKind("drop", "later", "connection closed; committed later", _LONG),
    "half_split": FaultKind(
        "refuse", "some", "commits half a split, then rejects",
        {"code": 40010, "message": "split failed", "status": None}, mixed=False,
    ),
    "duplicate_by_proxy": FaultKind("answer", "twice", "commits twice, answers once", mixed=False),
    "auth": FaultKind("auth", "none", "as with a wrong token", mixed=False),
    "code_in_envelope": FaultKind(
        "refuse", "none", "KK rejects",
        {"code": 40009, "message": "order refused", "status": None}, mixed=False,
    ),
}  # fmt: skip

#: The options of `random_faults`, which all take little time.
QUICK = {
    "seconds": 0.2,
    "interval_s": 0.0005,
    "status": [500, 502, 503, 504],
    "body": ["html", "json", "envelope"],
}


@dataclass(frozen=True)
class InjectedFault:
    """The fault of one request."""

    name: str
    kind: FaultKind
    options: Mapping[str, Any]


@dataclass
class Arm:
    """An armed fault: one of `names`, for `times` matching requests, each with `probability`."""

    names: tuple[str, ...]
    times: int | None
    probability: float | None
    method: str | None
    path: str | None
    number: str | None
    options: Mapping[str, Any]
    random: random.Random

    def strikes(self, method: str, path: str, number: str | None) -> bool:
        """Return whether a request matches and is drawn."""
        return (
            self.method in (None, method)
            and (self.path is None or self.path in path)
            and self.number in (None, number)
            and (self.probability is None or self.random.random() < self.probability)
        )


class Armory:
    """The armed faults, the oldest first. A request gets at most one of them."""

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._seed = seed
        self._arms: dict[int, Arm] = {}
        self._last_id = 0
        self.hits: Counter[str] = Counter()

    def arm(
        self,
        names: str | Iterable[str],
        *,
        times: int | None = None,
        probability: float | None = None,
        method: str | None = "POST",
        path: str | None = None,
        number: str | None = None,
        seed: int | None = None,
        **options: Any,
    ) -> int:
        """Arm a fault, or several of which one is drawn for each request; return an id for `disarm`.

        Raises ValueError for an unknown fault or option.

        Args:
            names: one or more names of `FAULTS`.
            times: the number of requests; None: all that match until `disarm`.
            probability: the probability for each matching request; None: certain.
            method: of the requests, None for any.
            path: a part of the path.
            number: the order number.
            seed: the seed of the draws, which are the same in each sandbox.
            options: options of the kind, see `FAULTS`; of a list, one value is drawn for each request.
        """
        kinds = (names,) if isinstance(names, str) else tuple(names)
        _check(kinds, options)
        with self._lock:
            self._last_id += 1
            draws = random.Random(f"{self._seed}:{self._last_id}" if seed is None else seed)  # noqa: S311 - repeatable
            self._arms[self._last_id] = Arm(kinds, times, probability, method, path, number, options, draws)
            return self._last_id

    def disarm(self, arm_id: int | None = None) -> None:
        """Disarm one fault, or all."""
        with self._lock:
            for known in [arm_id] if arm_id is not None else list(self._arms):
                self._arms.pop(known, None)

    def strike(self, method: str, path: str, number: str | None) -> InjectedFault | None:
        """Return the fault of this request, if any."""
        with self._lock:
            for arm_id, arm in self._arms.items():
                if arm.strikes(method, path, number):
                    if arm.times is not None:
                        arm.times -= 1
                        if arm.times <= 0:
                            del self._arms[arm_id]
                    fault = _draw(arm)
                    self.hits[fault.name] += 1
                    return fault
        return None


def mixed_kinds() -> list[str]:
    """Return the kinds that `random_faults` draws from."""
    return [name for name, kind in FAULTS.items() if kind.mixed]


def _draw(arm: Arm) -> InjectedFault:
    name = arm.random.choice(arm.names)
    kind = FAULTS[name]
    # Each of several kinds takes only its own options, and a redirect keeps its status.
    given = {key: value for key, value in arm.options.items() if key in kind.options}
    if len(arm.names) > 1 and kind.effect == "redirect":
        given.pop("status", None)
    options = {
        key: arm.random.choice(value) if isinstance(value, list) else value
        for key, value in {**kind.options, **given}.items()
    }
    return InjectedFault(name, kind, options)


def _check(names: tuple[str, ...], options: Mapping[str, Any]) -> None:
    unknown = [name for name in names if name not in FAULTS]
    if unknown or not names:
        raise ValueError(f"there is no fault {', '.join(unknown)!r}. Use one of: {', '.join(FAULTS)}")
    possible = {option for name in names for option in FAULTS[name].options}
    for option in options:
        if option not in possible:
            raise ValueError(
                f"{', '.join(names)} has no option {option!r}. Use one of: {', '.join(sorted(possible))}"
            )
