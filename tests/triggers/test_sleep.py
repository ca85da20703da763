"""A deferred wait ends when it should, whatever the triggerer's clock says."""

from __future__ import annotations

import asyncio
import time

import pytest

from airflow_provider_kk.triggers.kk import SleepTrigger


def slept_s(trigger: SleepTrigger, monkeypatch: pytest.MonkeyPatch) -> float:
    """How long a trigger asks to sleep."""
    asked: list[float] = []

    async def sleep(seconds: float) -> None:
        asked.append(seconds)

    monkeypatch.setattr("airflow_provider_kk.triggers.kk.asyncio.sleep", sleep)

    async def fire() -> None:
        async for _event in trigger.run():
            return

    asyncio.run(fire())
    (seconds,) = asked
    return seconds


@pytest.mark.parametrize(("ahead_s", "least", "most"), [(60, 50, 60), (9_000, 750, 750), (-60, 0, 0)])
def test_deferral_is_bounded_where_the_triggerers_clock_is_behind(
    ahead_s: float, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = slept_s(SleepTrigger(time.time() + ahead_s, 750), monkeypatch)
    assert least <= seconds <= most


def test_trigger_is_made_again_with_all_of_its_arguments() -> None:
    _path, arguments = SleepTrigger(1_800_000_000.0, 750.0).serialize()
    assert SleepTrigger(**arguments).serialize()[1] == arguments
