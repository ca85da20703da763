"""Waiting in the triggerer: hundreds of triggers share their requests, within the account's rate."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_kk.sandbox.server import SandboxServer
from airflow_provider_kk.triggers.kk import OrderTrigger
from tests.operators.shop import kk_connection

if TYPE_CHECKING:
    from tests.operators.conftest import Connect
    from tests.operators.shop import Warehouse

CN = "FWXW00290_WHT_M"


def trigger(*kk_order_ids: str, **arguments: Any) -> OrderTrigger:
    given = {
        "kk_conn_id": "kk_default",
        "ledger_conn_id": "warehouse",
        "kk_order_ids": list(kk_order_ids),
        "until": "shipped",
        "any_split": False,
        "poll_s": 0.5,
        "deadline": time.time() + 60,
        **arguments,
    }
    return OrderTrigger(**given)


async def event_of(one: OrderTrigger) -> dict[str, Any]:
    async for event in one.run():
        payload: dict[str, Any] = event.payload
        return payload
    raise AssertionError("it ended without an event")


def place(sandbox: SandboxServer, count: int) -> list[str]:
    return [sandbox.control.place({CN: 1}, number=f"A-{n}")[0] for n in range(count)]


def test_it_fires_when_the_order_is_there(
    connect: Connect, warehouse: Warehouse, sandbox: SandboxServer
) -> None:
    (one,) = place(sandbox, 1)

    async def story() -> dict[str, Any]:
        waiting = asyncio.create_task(event_of(trigger(one)))
        await asyncio.sleep(1)
        assert not waiting.done()
        await asyncio.to_thread(sandbox.control.move, one, "shipped")
        return await waiting

    event = asyncio.run(story())
    assert (event["state"], event["orders"][0]["status"]) == ("reached", "shipped")


@pytest.mark.parametrize(
    ("state", "until", "expected"), [("cancel", "shipped", "cancelled"), ("abnormal", "paid", "abnormal")]
)
def test_it_fires_at_once_when_that_can_no_longer_happen(
    connect: Connect, warehouse: Warehouse, sandbox: SandboxServer, state: str, until: str, expected: str
) -> None:
    (one,) = place(sandbox, 1)
    sandbox.control.move(one, state)
    event = asyncio.run(event_of(trigger(one, until=until)))
    assert event["state"] == "failed"
    assert expected in event["reason"]


def test_its_deadline_is_absolute_so_a_restart_does_not_start_over(
    connect: Connect, warehouse: Warehouse, sandbox: SandboxServer
) -> None:
    (one,) = place(sandbox, 1)
    before = trigger(one, deadline=time.time() + 1)
    _, given = before.serialize()
    again = OrderTrigger(**given)

    assert asyncio.run(event_of(again)) == {"state": "timeout", "deadline": given["deadline"]}
    assert time.time() >= given["deadline"]
    assert asyncio.run(event_of(trigger(one, deadline=time.time() - 5)))["state"] == "timeout"
    assert asyncio.run(event_of(trigger()))["state"] == "again"


def test_transient_errors_are_waited_out_and_permanent_ones_reported(
    connect: Connect, warehouse: Warehouse, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = place(sandbox, 1)
    sandbox.control.move(one, "shipped")
    sandbox.control.arm("status_before_commit", method="GET", times=2)
    assert asyncio.run(event_of(trigger(one)))["state"] == "reached"

    sandbox.control.arm("auth", method="GET")
    event = asyncio.run(event_of(trigger(one)))
    assert (event["state"], sandbox.token in event["reason"]) == ("error", False)


def test_a_slow_kk_does_not_hold_the_event_loop_up(
    connect: Connect, warehouse: Warehouse, sandbox: SandboxServer
) -> None:
    (one,) = place(sandbox, 1)
    sandbox.control.set(latency_s=4.0)

    async def story() -> float:
        waiting = asyncio.create_task(event_of(trigger(one, deadline=time.time() + 5)))
        longest, last = 0.0, time.monotonic()
        while not waiting.done():
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        return longest

    assert asyncio.run(story()) < 3.5


def test_a_cancelled_trigger_leaves_the_others_alone(
    connect: Connect, warehouse: Warehouse, sandbox: SandboxServer
) -> None:
    first, second = place(sandbox, 2)
    sandbox.control.move(second, "shipped")

    async def story() -> dict[str, Any]:
        tasks = [asyncio.create_task(event_of(trigger(kk_id))) for kk_id in (first, second)]
        await asyncio.sleep(0.05)
        tasks[0].cancel()
        return await tasks[1]

    assert asyncio.run(story())["state"] == "reached"


SPEED = 40
"""Seconds of the sandbox in one of this machine's."""


def test_300_triggers_wait_for_ten_minutes_within_the_rate_limit(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In KK's time: a look a minute, KK's own bucket of 120 requests that leaks 2 a second."""
    began = time.time()
    with SandboxServer(clock=lambda: began + (time.time() - began) * SPEED, pay_after_s=0) as sandbox:
        ids = place(sandbox, 300)
        connection = kk_connection(sandbox, rate_limit_burst=120, rate_limit_per_second=2 * SPEED)
        monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(connection))

        async def story() -> tuple[list[dict[str, Any]], float]:
            triggers = [trigger(kk_id, poll_s=60 / SPEED, deadline=time.time() + 600) for kk_id in ids]
            started = time.time()
            waiting = [asyncio.create_task(event_of(one)) for one in triggers]
            # Every other one is shipped within the first minutes, a few at a time.
            for start in range(0, 300, 60):
                await asyncio.sleep(60 / SPEED)
                for kk_id in ids[start : start + 60 : 2]:
                    await asyncio.to_thread(sandbox.control.move, kk_id, "shipped")
            # The others wait on until ten minutes are over, or longer where those take long to be seen.
            for some in asyncio.as_completed(waiting[::2]):
                await some
            await asyncio.sleep(max(0.0, started + 600 / SPEED - time.time()))
            for one in triggers:
                one.deadline = time.time()
            return await asyncio.gather(*waiting), (time.time() - started) * SPEED / 60

        events, looks = asyncio.run(story())
        states = [event["state"] for event in events]
        counts = sandbox.control.counts()

    assert (states.count("reached"), states.count("timeout")) == (150, 150)
    assert counts["rate_limited"] == 0
    # 50 orders in a request: 6 requests for each of the looks at first, 3 in the end.
    assert 10 < counts["GET"] <= 6 * (looks + 1), counts
