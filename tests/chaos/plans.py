"""What a trial is about, drawn from its seed and number: which faults, which lag, which points."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_kk.sandbox.faults import FAULTS
from tests.chaos.killpoints import Point

LAGS_S = (0.0, 120.0, 300.0)
#: A late commit and the list's lag together stay within the settle window; what does not, nobody can close.
_LATE_S = (5.0, 60.0, 200.0)
#: kind of trial: how often, of each hundred.
KINDS = {
    "sync": 27,  # one order after the other in a sync of its own, killed
    "create": 23,  # the same with CreateOrderOperator
    "series": 27,  # all orders in one sync, which is killed again and again
    "fresh": 5,  # the same without a ledger at first
    "twins": 5,  # two tasks at once over the same rows, both killed
    "zombie": 5,  # a worker is stopped and wakes up after its lease
    "orphan": 4,  # a first try goes on while the retry has started
    "beyond": 1,  # a worker is stopped where nobody can help it: measured, and not counted
    "postgres": 3,
}
_MANY = [kind for kind, often in KINDS.items() for _ in range(often)]
_ORDERS = {
    "sync": 20,
    "create": 20,
    "series": 20,
    "fresh": 4,
    "twins": 10,
    "zombie": 8,
    "orphan": 8,
    "beyond": 1,
}

#: In these, no task is left standing still over a pause but by the trial itself.
_PAUSED = ("sync", "create", "series", "fresh", "twins")

#: How often a child calls what, when nobody kills it: kind of call to how often.
Profile = Mapping[str, int]


@dataclass(frozen=True)
class Plan:
    """A trial."""

    seed: int
    trial: int
    kind: str
    ledger: str
    lag_s: float
    max_resends: int
    in_flight: int
    write_back: bool
    faults: Mapping[int, Sequence[Mapping[str, Any]]]
    max_orders_per_day: int | None
    """Lower than the number of orders, order 0 included; lifted in the end."""
    pauses: bool
    """Whether another process now and then pauses all sending and resumes it later."""

    @property
    def numbers(self) -> list[int]:
        """The orders that are sent; order 0 is KK's from the beginning, unless the trial is `fresh`."""
        return sorted(self.faults)

    def fault_of(self, n: int) -> str:
        """The names of what KK does to an order, for the table."""
        return "+".join(fault["names"] for fault in self.faults[n]) or "none"


def plan(seed: int, trial: int, *, has_postgres: bool, kind: str | None = None) -> tuple[Plan, random.Random]:
    """The trial of this number, and the source of all that it draws later."""
    draw = random.Random(f"{seed}/{trial}")
    schedule = _MANY[:]
    random.Random(seed).shuffle(schedule)
    # One of each kind first, so that a short run has them all.
    kind = kind or [*KINDS, *schedule][trial if trial < len(KINDS) else len(KINDS) + trial % len(schedule)]
    ledger = draw.choice(("file", "warehouse"))
    if kind == "postgres":
        kind, ledger = (
            draw.choice(("sync", "create", "series", "twins")),
            "postgres" if has_postgres else "file",
        )
    numbers = range(1, 1 + _ORDERS[kind])
    names = list(FAULTS)
    return Plan(
        seed=seed,
        trial=trial,
        kind=kind,
        ledger=ledger,
        lag_s=LAGS_S[trial % len(LAGS_S)],
        # With the default of 1, an order that is killed before the send twice is left to a human.
        max_resends=1 if draw.random() < 0.2 else 9,
        in_flight=draw.choice((1, 1, 2, 3)),
        write_back=draw.random() < 0.3,
        # Each fault in its turn, so that none is left out.
        faults={n: _faults(draw, names[(trial * 7 + n) % len(names)], kind) for n in numbers},
        max_orders_per_day=_cap(draw, kind, len(numbers)),
        pauses=kind in _PAUSED and draw.random() < 0.2,
    ), draw


def _cap(draw: random.Random, kind: str, number: int) -> int | None:
    return draw.randint(max(1, number // 2), number) if kind != "beyond" and draw.random() < 0.2 else None


def _faults(draw: random.Random, name: str, kind: str) -> list[dict[str, Any]]:
    if kind == "beyond" or draw.random() < 0.4:
        return []
    second = [draw.choice(list(FAULTS))] if draw.random() < 0.2 else []
    return [{"names": one, "times": 1, **_options(draw, one)} for one in (name, *second)]


def _options(draw: random.Random, name: str) -> dict[str, Any]:
    quick = {
        "seconds": draw.choice(_LATE_S) if name == "late_commit" else 0.01,
        "interval_s": 0.0002,
        "status": draw.choice((500, 502, 503, 504)),
        "body": draw.choice(("html", "json", "envelope")),
    }
    possible = FAULTS[name].options
    if FAULTS[name].effect in ("redirect", "refuse"):
        possible = {}
    return {option: value for option, value in quick.items() if option in possible}


def point(draw: random.Random, profile: Profile, share: float = 1.0) -> Point:
    """Any call, or any call of a kind that is drawn first: else nearly all would be SQLite's writes.

    :param share: of the task's length; the rest of it is not struck.
    """
    after = draw.random() < 0.5
    if draw.random() < 0.3:
        kind, calls = "any", sum(profile.values())
    else:
        kind, calls = draw.choice([(kind, calls) for kind, calls in profile.items() if calls])
    return Point(kind, draw.randint(1, max(1, round(calls * share))), after)
