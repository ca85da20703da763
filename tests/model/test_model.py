"""The model of delivery keeps its promises within the smallest bounds, and not without its safeguards."""

from __future__ import annotations

import os

import pytest

from tests.model import spin
from tests.model.checks import INEXPRESSIBLE, MUTANTS, QUICK, Mutant

# Where changes are judged, nothing may go untested in silence.
pytestmark = pytest.mark.skipif(
    not spin.is_installed() and not os.environ.get("CI"), reason="spin or gcc is missing: see `make model`"
)

_QUICK = ("no lease", "no compare-and-set", "submit, then persist")


def test_every_schedule_of_the_model_keeps_the_promises() -> None:
    result = spin.search(QUICK)
    assert result.schedule == ()
    assert result.states > 10_000


@pytest.mark.parametrize(
    "mutant", [one for one in MUTANTS if one.name in _QUICK], ids=lambda mutant: mutant.name
)
def test_a_mutant_of_the_model_breaks_a_promise_by_a_readable_schedule(mutant: Mutant) -> None:
    schedule = spin.search(mutant.check, shortest=True).schedule
    assert any(step.endswith("POSTs") for step in schedule)
    assert schedule[-1].startswith("BROKEN: an order is sent")


def test_a_search_that_leaves_states_out_is_an_error() -> None:
    with pytest.raises(spin.SpinError, match="not all states"):
        spin.search(QUICK, depth=100)


def test_no_mutant_is_both_expressed_and_inexpressible() -> None:
    names = [one.name for one in MUTANTS]
    assert len(set(names)) == len(names)
    assert not INEXPRESSIBLE.keys() & set(names)
