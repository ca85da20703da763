"""A small fixed share of `python -m tests.chaos.kills`, which says more about what is done here."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.chaos.kills import describe, run, table
from tests.chaos.plans import KINDS, LAGS_S
from tests.chaos.worker import Tally
from tests.postgres import find_binaries


def keeps_every_promise(tally: Tally) -> None:
    assert not tally.failures, "\n".join(describe(failure) for failure in tally.failures)
    assert (tally.doubled, tally.lost, tally.stuck, tally.wrong) == (0, 0, 0, 0), table(tally)


@pytest.fixture(scope="module")
def killed() -> Tally:
    if not shutil.which("cc"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no C compiler to kill at system calls")
    return run(count=200, seed=1)


@pytest.mark.timeout(3_600)
def test_crash_at_any_system_call_leaves_each_order_at_kk_once(killed: Tally) -> None:
    """Also when it is killed again, meets any fault, is stopped for long, or has a twin."""
    keeps_every_promise(killed)
    assert sum(killed.kills.values()) >= 200


@pytest.mark.timeout(3_600)
def test_crashes_hit_every_relevant_system_call_in_every_kind_of_trial(killed: Tally) -> None:
    assert {call.split()[0] for call in killed.kills} >= {
        "connect", "setsockopt", "send", "recv", "create", "pwrite", "fdatasync", "unlink",
    }  # fmt: skip
    assert {call.split()[1] for call in killed.kills} == {"before", "after"}
    assert set(killed.trials_by_kind) == set(KINDS) - {"postgres"}
    assert set(killed.kills_by_lag) == {f"{lag_s:.0f} s" for lag_s in LAGS_S}
    assert len(killed.struck) >= 8, killed.struck  # of 21: fewer or more by how threads take turns
    assert killed.stops
    assert find_binaries() is None or killed.kills_by_ledger["postgres"]


@pytest.mark.timeout(3_600)
def test_a_duplicate_that_no_client_can_prevent_is_held(killed: Tally) -> None:
    """A worker stopped between its last check and its last byte, for longer than the settle window."""
    assert (
        killed.beyond["trials"] == killed.beyond["doubled"] == killed.beyond["doubled and held for a human"]
    )


@pytest.mark.timeout(3_600)
def test_crash_points_are_python_functions_without_a_compiler() -> None:
    tally = run(count=20, seed=2, compiler=False, postgres=False)

    keeps_every_promise(tally)
    assert "no C compiler" in tally.points
    assert sum(tally.kills.values()) >= 20


@pytest.mark.nightly  # by default: mutants of the simulation, and tests/sync/test_ledger_history.py
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(
    ("safeguard", "seed", "trial", "promise"),
    [
        ("no_cap", 5, 4, "at most 6 a day"),
        ("no_pause", 1, 13, "POSTs while all was paused"),
        ("no_time_of_outcome", 1, 4, "the history breaks outcome"),
    ],
)
def test_guard_that_is_off_is_missed(safeguard: str, seed: int, trial: int, promise: str) -> None:
    patch = f"tests.chaos.broken_guards:{safeguard}"

    tally = run(count=1, seed=seed, trial=trial, postgres=False, patch=patch)

    (failure,) = tally.failures
    assert any(promise in broken for broken in failure["broken"]), failure["broken"]
