"""A warehouse's orders on several machines: each is at KK once, whoever is killed or started twice."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.postgres import find_binaries

if TYPE_CHECKING:
    from tests.system.scenarios import Report
    from tests.system.stack import Stack

# Each scenario ends by its own limits; this is for what nobody has thought of.
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    if find_binaries() is None or shutil.which("redis-server") is None:
        pytest.fail("PostgreSQL and Redis are needed: scripts/install-test-packages system")
    from tests.system.stack import running_stack

    with running_stack() as running:
        yield running
        running.end()
        assert running.running() == []


def each_once(report: Report) -> None:
    print(report.text())
    assert (report.state, report.commits) == ("success", report.orders)
    assert (report.duplicates, report.lost, report.wrong, report.rate_limited) == ([], [], [], 0)


def test_two_machines_share_one_rate_limit(stack: Stack):
    from tests.system.scenarios import undisturbed

    report = undisturbed(stack)

    each_once(report)
    assert report.creates == report.orders
    assert set(report.tries.values()) == {1}


def test_pause_elsewhere_stops_all_machines_and_after_resume_each_order_is_sent_once(stack: Stack):
    from tests.system.scenarios import paused

    report = paused(stack)

    each_once(report)
    assert report.paused is not None
    assert report.late_s < 5, "an order left after the pause"
    assert report.paused.state == "success"
    assert set(report.paused.tries.values()) == {1}
    assert report.postponed == report.orders - report.paused.commits > 0


def test_a_crashed_machine_loses_no_order_and_makes_no_duplicate(stack: Stack):
    from tests.system.scenarios import tree_killed

    report = tree_killed(stack)

    each_once(report)
    assert max(report.tries.values()) > 1, "nothing was retried"


def test_orphans_that_run_beside_their_retries_send_each_order_once(stack: Stack):
    from tests.system.scenarios import main_killed

    report = main_killed(stack)

    each_once(report)
    assert max(report.tries.values()) > 1, "nothing was retried"
    assert max(report.orphans_s) > min(report.retries_s), "no orphan ran beside a retry"


def test_a_try_that_is_started_twice_sends_each_order_once(stack: Stack):
    from tests.system.scenarios import redelivered

    report = redelivered(stack)

    each_once(report)
    assert report.redeliveries > 0, "no message came twice"
    assert 0 < report.rival_posts < report.orders / 4
