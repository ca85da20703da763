"""What happens to many orders for the same reason is one line of the log, with their number and the first."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_kk.delivery.log import OrderLog
from tests.delivery.world import AbsencePolicy, World

LOG = logging.getLogger(__name__)


@pytest.fixture(autouse=True)
def everything_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")


def test_one_order_has_its_own_line_and_many_share_one(caplog: pytest.LogCaptureFixture) -> None:
    noted = OrderLog(LOG)
    noted.error("{orders} {are} held: {reason}", "B-1", "conflict")
    for n in range(199):
        noted.warning("KK rejected {orders}: {reason}", f"A-{n}", "sold out")
    noted.warning("KK rejected {orders}: {reason}", "C-1", "no such country")
    noted.info("{orders} {are} resent", "D-1")
    noted.info("{orders} {are} resent", "D-2")

    noted.flush()
    noted.flush()

    first = ", ".join(f"A-{n}" for n in range(20))
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("ERROR", "Order B-1 is held: conflict"),
        ("WARNING", f"KK rejected 199 orders ({first} and 179 more): sold out"),
        ("WARNING", "KK rejected order C-1: no such country"),
        ("INFO", "2 orders (D-1, D-2) are resent"),
    ]


def test_a_reason_for_each_of_many_orders_is_no_line_for_each(caplog: pytest.LogCaptureFixture) -> None:
    noted = OrderLog(LOG)
    for n in range(500):
        noted.warning("KK rejected {orders}: {reason}", f"A-{n}", f"reason {n}")

    noted.flush()

    assert len(caplog.messages) == 21
    assert caplog.messages[-1].startswith("KK rejected 480 orders (A-20, A-21, ")
    assert caplog.messages[-1].endswith("and 460 more): other reasons")


def test_a_long_run_logs_what_it_has_noted_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    noted = OrderLog(LOG)
    for second in range(150):
        noted.warning("KK rejected {orders}", f"A-{second}")
        noted.tick(float(second))

    assert [message.split(" (")[0] for message in caplog.messages] == [
        "KK rejected 61 orders",
        "KK rejected 60 orders",
    ]


def test_a_list_that_cannot_be_read_is_one_warning_for_all_that_are_in_doubt(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [f"A-{n}" for n in range(12)]
    for key in keys[::3]:
        world.kk.meets(key, "lost_request")
    world.sync(*keys, waits=False)
    assert caplog.text.count("The outcome of 4 orders (A-0, A-3, A-6, A-9) is unknown: something ") == 1

    caplog.clear()
    world.clock.sleep(3_600)
    world.sync(*keys, policy=AbsencePolicy("hold"))

    held = (
        "4 orders (A-0, A-3, A-6, A-9) are held: not in KK's list (on_absence='hold'). See "
        "`kk ledger show`, then run `kk ledger resolve`"
    )
    assert caplog.messages.count(held) == 1


def test_orders_that_are_not_asked_for_again_yet_are_one_line(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    keys = [f"A-{n}" for n in range(9)]
    for key in keys:
        world.kk.meets(key, "refused")
    world.sync(*keys)
    assert caplog.text.count("KK rejected ") == 1
    assert "KK rejected 9 orders (A-0, A-1, A-2, " in caplog.text

    caplog.clear()
    world.sync(*keys)

    (line,) = [message for message in caplog.messages if message.startswith("KK rejected before")]
    assert line.startswith("KK rejected before, so not sent yet: 9 orders (A-0 (retry after 20")
