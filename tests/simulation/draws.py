"""What a seed makes of a world: how its KK behaves, how its processes fare, what is ordered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from airflow_provider_kk.delivery.reconcile import AbsencePolicy
from tests.simulation.hub import START
from tests.simulation.kk import Manners, Order

KEYS = ("A", "B", "007", "7", "C-1", "c-1", "12345678901", *"DEFGHIJKLMNOPQRSTUVWXYZ")
GOODS: tuple[dict[str, int], ...] = ({"SHIRT_M": 1}, {"SHIRT_M": 2, "SOCKS": 1}, {"SOCKS": 3})


@dataclass(frozen=True)
class Habits:
    """How the processes of a world fare."""

    tries: int
    syncs: int
    waits: bool
    in_flight: int
    policy: AbsencePolicy
    unsure_commits: float
    restores: bool
    orphans: float
    hands: int
    """How often a human lends a hand meanwhile."""
    clock_jumps: bool
    workers_skew_s: float
    max_orders_per_day: int | None
    pauses: int
    """How often a person stops all sending for a while."""
    failovers: int = 0
    """How often a standby takes over that lacks the ledger's last commits, while workers run."""


def draw_manners(random: Random, *, restores: bool, clocks_are_off: bool) -> Manners:
    lag_s = random.choice((0.0, 120.0, 300.0))
    is_beyond = random.random() < 0.08
    total = random.choice(("number", "number", "missing"))
    hides_from = START + 3_600.0 + random.random() * 2_000.0
    return Manners(
        faults=random.choice((0.0, 0.3, 0.6)),
        lag_s=lag_s,
        # Where the list does not say how many there are, a page must hold all of two seconds.
        total=total,
        page_cap=random.choice((250, 250, 250, 250, 100, 100, 4, 2))
        if total == "number"
        else random.choice((250, 100)),
        sort_by_update=random.random() < 0.3,
        integers=random.random() < 0.3,
        # Orders without a number cannot be told without a ledger.
        forgets_numbers=0.0 if restores else random.choice((0.0, 0.0, 0.0, 0.0, 0.1)),
        split=random.random() < 0.4,
        names_all_ids=random.random() < 0.8,
        list_errors=random.choice((0.0, 0.0, 0.1)),
        # Rows that are missing without a trace are not to be found by anybody.
        hides=random.choice(("", "", "", "all", "half" if total == "number" else "all")),
        hides_from=hides_from,
        hides_until=hides_from + random.random() * 1_500.0,
        hides_requests=random.choice((0, random.randint(1, 6))),
        skew_s=random.choice((0.0, -90.0, 90.0, -3_600.0, 3_600.0)) if clocks_are_off else 0.0,
        freeze_before_first_byte_s=2_500.0 if is_beyond else random.choice((0.0, 0.0, 0.0, 100.0, 250.0)),
        is_beyond=is_beyond,
    )


def draw_habits(random: Random, *, restores: bool, clocks_are_off: bool) -> Habits:
    return Habits(
        tries=random.choice((1, 2, 4)),
        syncs=random.choice((1, 2, 2, 3)),
        waits=random.random() < 0.6,
        in_flight=random.choice((1, 2, 4)),
        policy=AbsencePolicy(random.choice(("resend", "resend", "resend", "hold")), random.choice((1, 2, 9))),
        unsure_commits=random.choice((0.0, 0.0, 0.1)),
        restores=restores,
        orphans=random.choice((0.0, 0.3)),
        # What a human has said since the backup is lost with it.
        hands=0 if restores else random.choice((0, 0, 3)),
        # What was sent since a backup is read from its last stamp on, by KK's clock.
        clock_jumps=not restores and clocks_are_off and random.random() < 0.4,
        workers_skew_s=random.choice((0.0, 0.0, -3_600.0, 240.0, 3_600.0)) if clocks_are_off else 0.0,
        # A restored backup has forgotten what was sent, and that somebody has paused.
        max_orders_per_day=None if restores else random.choice((None, None, None, 4, 12)),
        pauses=0 if restores else random.choice((0, 0, 0, 2)),
    )


def add_failovers(random: Random, manners: Manners, habits: Habits) -> Habits:
    """Have a standby take over; leave out what is lost with the last commits, and is not about sending."""
    # Orders without a number cannot be identified without a ledger.
    manners.forgets_numbers = 0.0
    # A resolution, a pause or a part of the cap that is lost has to be repeated.
    return replace(
        habits,
        hands=0,
        pauses=0,
        clock_jumps=False,
        max_orders_per_day=None,
        failovers=random.choice((1, 1, 2)),
    )


def draw_orders(random: Random, numbers: Sequence[str]) -> Sequence[Order]:
    keys = random.sample(numbers, random.randint(18, len(numbers)))
    return [Order(key, random.choice(GOODS), random.choice(("FR", "US")), f"1:{key}") for key in keys]
