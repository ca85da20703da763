"""Whatever POSTs and workers meet, and in whatever order: never two, and in the end one."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_kk.delivery.states import State
from tests.delivery.world import FAULTS, AbsencePolicy, Limits, Order, World

KEYS = ["A", "B", "007", "7", "E"]
ORDERS = [Order(key, {"SHIRT_M": 1, "SOCKS": 2}) for key in KEYS]
FAULT = st.sampled_from(sorted(FAULTS))


class Killed(BaseException):
    """The worker's process is gone."""


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    faults=st.fixed_dictionaries({key: st.lists(FAULT, max_size=3) for key in KEYS}),
    kills=st.sets(st.integers(0, 12), max_size=4),
    lag_s=st.sampled_from([0.0, 120.0, 300.0]),
    is_split=st.booleans(),
    pauses=st.lists(st.sampled_from([0.0, 60.0, 800.0, 2_000.0]), min_size=8, max_size=8),
    waits=st.lists(st.booleans(), min_size=8, max_size=8),
)
def test_any_fault_ends_in_no_duplicate_and_no_loss(
    faults: dict[str, list[str]],
    kills: set[int],
    lag_s: float,
    is_split: bool,
    pauses: list[float],
    waits: list[bool],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World.in_folder(Path(folder))
        world.sync("known")
        world.clock.sleep(3_600)
        world.kk.list_lag_s, world.kk.split = lag_s, is_split
        for key, plan in faults.items():
            world.kk.meets(key, *plan)

        def maybe_die(_key: str) -> None:
            if len(world.kk.posts) in kills:
                raise Killed

        world.kk.on_post = maybe_die
        policy = AbsencePolicy(max_resends=9)
        for pause_s, wait in zip(pauses, waits, strict=True):
            with contextlib.suppress(Killed):
                world.sync(*ORDERS, policy=policy, waits=wait, limits=Limits(1))
            assert all(world.kk.count(key) <= 1 for key in KEYS), world.kk.posts
            world.clock.sleep(pause_s)

        world.kk.on_post = None
        for _ in range(6):
            world.clock.sleep(86_400 / 4)
            world.sync(*ORDERS, policy=policy)
        stuck = {key for key in KEYS if world.entry(key).state is not State.CREATED}
        assert all(world.entry(key).state is State.HELD for key in stuck)
        for key in set(KEYS) - stuck:
            assert world.kk.count(key) == 1
            listed = {one.id for one in world.kk.orders if one.key == key}
            assert set(world.entry(key).kk_order_ids) == listed
