"""What a long run says while it lasts."""

from __future__ import annotations

from typing import Any

from airflow_provider_kk.delivery.model import Content
from airflow_provider_kk.delivery.run_queue import Progress, QueuedOrder, RunQueue, RunStatus
from tests.delivery.world import VirtualClock


def test_the_time_left_is_never_less_than_kks_rate_allows() -> None:
    said: list[str] = []

    class Told:
        def info(self, msg: Any, /, *args: Any) -> None:
            said.append(msg % args)

        warning = error = info

    clock, run_queue = VirtualClock(), RunQueue()
    progress = Progress(Told(), clock, lambda requests: requests / 2)
    run_queue.add([QueuedOrder(n, f"A-{n}", Content(), "{}") for n in range(300)])
    progress.start(300)
    for n in range(120):  # all at once: the burst
        run_queue.set(n, RunStatus.CREATED)
    clock.sleep(6, None)
    progress.tick(run_queue)

    assert "120 of 300 orders done, 20.0 a second" in said[-1]
    assert said[-1].endswith("1 min 30 s left")
