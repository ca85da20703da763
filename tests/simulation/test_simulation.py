"""Whatever happens to workers, answers, lists and the ledger: never two, never none, nothing stuck."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import MUTANTS, Mutant, hunt
from tests.simulation.run import simulate
from tests.simulation.world import Broken, World

#: Each safeguard that is off shows within so many worlds, unless it is rare.
_WORLDS = 600


def test_every_order_of_many_worlds_is_at_kk_once_or_held() -> None:
    report = simulate(0, 1_500)
    assert report.broken == []
    assert report.schedules > 10_000
    assert report.traces > report.schedules
    assert report.killed > 1_000
    assert report.frozen > 500


def test_a_seed_gives_the_same_world_to_the_last_step() -> None:
    traces = []
    for _ in range(2):
        world = World(4_711, traced=True)
        world.run()
        traces.append((world.hub.trace, world.database.tables.orders))
    assert traces[0] == traces[1]
    assert traces[0][0]


def test_a_broken_promise_names_its_seed() -> None:
    (mutant,) = [one for one in MUTANTS if one.name == "no compare-and-set"]
    caught = hunt(mutant, worlds=_WORLDS)
    seed = int(caught.promise.split()[1].strip(":"))
    with mutant.off(), pytest.raises(Broken, match=f"seed {seed}: "):
        World(seed).run()
    World(seed).run()


@pytest.mark.parametrize(
    "mutant", [one for one in MUTANTS if not one.is_rare], ids=lambda mutant: mutant.name
)
def test_a_safeguard_that_is_off_is_missed(mutant: Mutant) -> None:
    caught = hunt(mutant, worlds=_WORLDS)
    assert caught.promise, f"nothing has noticed it in {caught.worlds} worlds"
