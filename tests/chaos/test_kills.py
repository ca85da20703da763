"""A small fixed share of `python -m tests.chaos.kills`, which says more about what is done here."""

from __future__ import annotations

import pytest

from tests.chaos.kills import describe, run, table
from tests.chaos.worker import Tally


def kept_every_promise(tally: Tally) -> None:
    assert not tally.failures, "\n".join(describe(failure) for failure in tally.failures)
    assert (tally.doubled, tally.lost, tally.stuck, tally.wrong) == (0, 0, 0, 0), table(tally)


@pytest.mark.timeout(600)
def test_killed_at_any_system_call_each_order_is_still_at_kk_once() -> None:
    """Also when it is killed again, meets any fault, wakes up late, or has a twin."""
    tally = run(count=300, seed=1)

    kept_every_promise(tally)
    assert sum(tally.kills.values()) >= 300


@pytest.mark.timeout(600)
def test_without_a_compiler_functions_of_python_are_killed_instead() -> None:
    tally = run(count=20, seed=2, compiler=False, postgres=False)

    kept_every_promise(tally)
    assert "no C compiler" in tally.points
    assert sum(tally.kills.values()) >= 20
