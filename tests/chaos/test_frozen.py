"""A worker that stands still at the worst moment: what is safe then, and how long it must last to do harm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.airflow.support import REPOSITORY
from tests.delivery.world import Order, World

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

TIMEOUT_S = 2.0


def test_half_a_request_that_was_frozen_is_never_completed(sandbox: SandboxServer) -> None:
    """Its deadline is looked at again before the body, else some bodies would be faster than the timer."""
    numbers = [f"F-{n}" for n in range(20)]
    sandbox.control.set(rate_limit=False)
    command = [sys.executable, "-m", "tests.chaos.frozen_posts", sandbox.url, sandbox.token, str(TIMEOUT_S)]
    with subprocess.Popen(
        [*command, *numbers], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as program:
        assert program.stdout
        pids = [int(program.stdout.readline()) for _ in numbers]
        # On a busy machine, some may miss their deadline before they send anything.
        while set(states := [state_of(pid) for pid in pids]) - {"T", "Z", ""}:
            time.sleep(0.02)
        assert "T" in states
        time.sleep(TIMEOUT_S)
        for pid, state in zip(pids, states, strict=True):
            if state == "T":
                os.kill(pid, signal.SIGCONT)
    assert sandbox.control.orders() == []


def state_of(pid: int) -> str:
    """`T`: stopped; `Z`, or nothing: ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


class KilledError(BaseException):
    """A worker's end, by which nothing is recorded."""


def one_freezes(world: World, seconds: float, *, killed: bool = False) -> None:
    """Let a worker freeze between its last check and its first byte, while others sync the same order."""
    begun = world.clock.now

    def freeze(_key: str) -> None:
        world.kk.on_post = None
        # The others go on for as long as it lasts: what they wait for may come before that, or not.
        if world.clock.now + 750 <= begun + seconds:
            world.sync("A")
        world.clock.now = begun + seconds
        if killed:
            world.kk.add(Order("A"))
            raise KilledError

    world.kk.on_post = freeze
    if killed:
        with pytest.raises(KilledError):
            world.sync("A")
    else:
        world.sync("A")


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World.in_folder(tmp_path)
    world.sync("known")
    world.clock.sleep(3600)
    return world


@pytest.mark.parametrize(("freeze_s", "list_lag_s"), [(200, 0), (200, 300), (440, 300), (740, 0)])
@pytest.mark.parametrize("killed", [False, True], ids=["lives on", "killed when it has sent"])
def test_a_freeze_shorter_than_the_settle_window_less_the_lists_lag_makes_no_duplicate(
    world: World, freeze_s: float, list_lag_s: float, killed: bool
) -> None:
    world.kk.list_lag_s = list_lag_s
    one_freezes(world, freeze_s, killed=killed)
    world.sync("A")
    assert world.kk.count("A") == 1
    assert world.entry("A").state.value == "created"


@pytest.mark.parametrize(("freeze_s", "list_lag_s"), [(460, 300), (740, 300)])
def test_a_longer_freeze_hides_the_order_of_a_crashed_worker_in_the_list(
    world: World, freeze_s: float, list_lag_s: float
) -> None:
    """What no client can close; `on_absence="hold"` would leave it to a human."""
    world.kk.list_lag_s = list_lag_s
    one_freezes(world, freeze_s, killed=True)
    world.sync("A")
    assert world.kk.count("A") == 2


def test_a_freeze_beyond_the_settle_window_makes_a_duplicate_that_is_held(world: World) -> None:
    """What no client can close: KK has both, and the ledger says so when the late answer is heard."""
    one_freezes(world, 760)
    entry = world.entry("A")
    assert world.kk.count("A") == 2
    assert entry.state.value == "held"
    assert len(entry.kk_order_ids) == 2
