"""A machine whose clock, which is the ledger's too, is wrong for a time: no order is sent twice for it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kk.api.errors import KKRejectedError
from airflow_provider_kk.delivery.attempt import attempt
from airflow_provider_kk.delivery.ledger import Ledger
from airflow_provider_kk.delivery.listing import kk_skew_s
from airflow_provider_kk.delivery.model import BeforeSend
from airflow_provider_kk.delivery.resolution import require_window_over
from tests.delivery.world import ORIGIN, Order, World, stream_over


@pytest.fixture
def here(tmp_path: Path) -> World:
    """A world with a SQLite ledger and an order that it knows."""
    world = World.in_folder(tmp_path)
    world.ledger.storage.has_own_clock = False
    world.sync("known")
    world.clock.sleep(7200)
    world.kk.list_lag_s = 300.0
    return world


def set_clock(world: World, by_s: float) -> None:
    """Set the machine's clock; KK's goes on."""
    world.clock.now += by_s
    world.kk.clock_skew_s = (world.kk.clock_skew_s or 0.0) - by_s


def test_window_is_not_over_while_kks_clock_says_so(here: World) -> None:
    here.kk.meets("A", "lost_answer")
    here.sync("A", waits=False)
    here.clock.sleep(60)
    set_clock(here, 3600)
    entry = here.entry("A")
    require_window_over(here.ledger, entry)
    with pytest.raises(ValueError, match="KK may still list"):
        require_window_over(here.ledger, entry, kk_skew_s(here.kk))


def test_intent_of_a_task_that_skips_recovery_knows_kks_clock(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_clock(here, -3600)
    here.sync("known")
    here.clock.sleep(10)
    skew_s, here.kk.clock_skew_s = here.kk.clock_skew_s, None  # a new client has not asked KK yet
    find = here.kk.find

    def asks(*arguments: Any) -> Any:
        here.kk.clock_skew_s = skew_s
        return find(*arguments)

    here.kk.find = asks  # type: ignore[method-assign]
    stream, *_ = stream_over(here, Order("A"))
    stream.recover_max_age_s = 60.0

    def killed(self: Ledger[Any], claim: object, answer: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "record", killed)
        with pytest.raises(KeyboardInterrupt):
            stream.run()
    set_clock(here, 3600)
    here.clock.sleep(30)
    here.sync("A")
    assert here.kk.count("A") == 1


def test_rejection_keeps_its_window_when_the_clock_is_set_back_meanwhile(here: World) -> None:
    def post(order: Order, before_send: BeforeSend) -> list[str]:
        before_send(30.0)
        set_clock(here, -3600)
        raise KKRejectedError("refused", code=20001, kk_message="half of it is made")

    here.kk.post = post  # type: ignore[method-assign]
    job, skew_s = here.job(Order("A")), partial(kk_skew_s, here.kk)
    done = attempt(job, None, here.ledger, origin=ORIGIN, sync_id="s", kk_skew_s=skew_s)
    assert done is not None
    assert done[0].settle_after >= here.kk.now + here.ledger.timing.settle_window_s
