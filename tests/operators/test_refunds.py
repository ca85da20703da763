"""RefundOrderOperator: a refund is asked for exactly once, whatever is lost, killed, retried or cleared."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, AirflowFailException, TaskDeferred

from airflow_provider_kk.cli.main import main
from airflow_provider_kk.operators.orders import CreateOrderOperator
from airflow_provider_kk.operators.refunds import RefundOrderOperator
from airflow_provider_kk.sandbox.faults import FAULTS
from airflow_provider_kk.triggers.kk import RefundTrigger, SleepTrigger
from tests.operators.shop import ADDRESS, PRIVATE, attempt

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect, Printed
    from tests.operators.shop import Try, Warehouse

CN, US = "FWXW00290_WHT_M", "USTS00015_BLK_M"
#: A doubt is settled after 1.8 s.
HASTY = {"timeout_s": 0.5, "lease_s": 1, "settle_window_s": 0.3}
#: The options that keep a fault short.
SHORT: dict[str, dict[str, Any]] = {
    "stall_before_commit": {"seconds": 1.5},
    "stall_after_commit": {"seconds": 1.5},
    "late_commit": {"seconds": 0.2},
    "rate_limit": {"retry_after_s": 0.1},
}


def operator(**arguments: Any) -> RefundOrderOperator:
    return RefundOrderOperator(
        **{"task_id": "refund", "ledger_conn_id": "warehouse", "deferrable": False, **arguments}
    )


def refund(run_id: str = "manual__1", try_number: int = 1, **arguments: Any) -> Try:
    return attempt(operator(**arguments), run_id=run_id, try_number=try_number)


def asked(sandbox: SandboxServer) -> list[dict[str, Any]]:
    """The POSTs of refunds."""
    return [
        one
        for one in sandbox.control.requests()
        if one["method"] == "POST" and one["path"].endswith("/refund")
    ]


def refunds(sandbox: SandboxServer) -> int:
    found: int = sandbox.control.counts()["refunds"]
    return found


def states(warehouse: Warehouse) -> dict[str, str]:
    return dict(warehouse.execute("SELECT refund_key, state FROM kk_refund"))


def never(key: str) -> None:
    """A human says that KK does not have it."""
    words = ["--never-created", "--why", "looked at KK's site", "--ledger-conn-id", "warehouse"]
    assert main(["ledger", "resolve", "--refunds", key, *words]) == 0


@pytest.fixture
def one(connect: Connect, warehouse: Warehouse, sandbox: SandboxServer) -> str:
    (kk_order_id,) = sandbox.control.place({CN: 3}, number="A-1", age_s=60, recipient="Zebulon Quist")
    return kk_order_id


@pytest.fixture
def split(connect: Connect, warehouse: Warehouse, sandbox: SandboxServer) -> list[str]:
    """The kkOrderIds of an order in two parts: 3 of CN, 2 of US."""
    items = [{"sku": CN, "quantity": 3}, {"sku": US, "quantity": 2}]
    create = CreateOrderOperator(
        task_id="create", custom_order_number="S-1", address=ADDRESS, items=items, ledger_conn_id="warehouse"
    )
    done = attempt(create)
    assert done.error is None
    return sorted(done.xcoms["kkOrderIds"])


# Asking --------------------------------------------------------------------------------------------


def test_a_whole_order_is_refunded_once_by_whatever_task_and_run(one: str, sandbox: SandboxServer) -> None:
    first = refund(kk_order_id=one)
    again = refund(kk_order_id=one, try_number=2)
    elsewhere = refund(kk_order_id=one, task_id="another", run_id="manual__2")

    assert first.error is None
    assert first.value == again.value == elsewhere.value
    assert [(row["kk_order_id"], row["refund_status"]) for row in first.value] == [(one, None)]
    assert (len(asked(sandbox)), refunds(sandbox)) == (1, 1)


@pytest.mark.parametrize("is_mapped", [False, True])
def test_lines_that_are_none_are_no_refund_of_the_whole_order(
    one: str, sandbox: SandboxServer, is_mapped: bool
) -> None:
    given: dict[str, Any] = {"task_id": "refund", "ledger_conn_id": "warehouse", "kk_order_id": one}
    with DAG("shop", schedule=None):
        if is_mapped:
            task = RefundOrderOperator.partial(**given).expand(lines=[None]).unmap({"lines": None})
        else:
            task = RefundOrderOperator(**given, lines=None)

    done = attempt(task)

    assert isinstance(done.error, AirflowFailException)
    assert "lines" in str(done.error)
    assert asked(sandbox) == []


def test_lines_are_refunded_once_by_each_run(one: str, sandbox: SandboxServer) -> None:
    lines = [{"sku": CN.lower(), "quantity": "1"}]

    first = refund(kk_order_id=one, lines=lines)
    cleared = refund(kk_order_id=one, lines=json.dumps([{"sku": CN, "quantity": 1}]))
    next_run = refund(kk_order_id=one, lines=lines, run_id="manual__2")

    assert first.error is cleared.error is next_run.error is None
    assert first.value == cleared.value != next_run.value
    assert refunds(sandbox) == 2


def test_all_splits_of_an_order_number_are_refunded(split: list[str], sandbox: SandboxServer) -> None:
    done = refund(custom_order_number="S-1")

    assert sorted(row["kk_order_id"] for row in done.value) == split
    assert refunds(sandbox) == 2


def test_lines_go_to_the_splits_that_have_them(split: list[str], sandbox: SandboxServer) -> None:
    done = refund(custom_order_number="S-1", lines=[{"sku": US, "quantity": 2}])

    (row,) = done.value
    at_kk = {one["id"]: one["goods"] for one in sandbox.control.orders()}
    assert at_kk[row["kk_order_id"]] == {US: 2}
    assert refunds(sandbox) == 1


def test_more_or_other_lines_than_were_ordered_are_all_named(
    split: list[str], sandbox: SandboxServer
) -> None:
    lines = [{"sku": CN, "quantity": 4}, {"sku": US, "quantity": 2}, {"sku": "NO_SUCH", "quantity": 1}]

    done = refund(custom_order_number="S-1", lines=lines)

    assert isinstance(done.error, AirflowFailException)
    assert f"{CN}: 4 to refund, 3 ordered" in str(done.error)
    assert "NO_SUCH: 1 to refund, 0 ordered" in str(done.error)
    assert asked(sandbox) == []


def test_lines_refunded_by_other_runs_are_not_refunded_twice(one: str, sandbox: SandboxServer) -> None:
    assert refund(kk_order_id=one, lines=[{"sku": CN, "quantity": 2}]).error is None

    more = refund(kk_order_id=one, lines=[{"sku": CN, "quantity": 2}], run_id="manual__2")

    assert isinstance(more.error, AirflowFailException)
    assert "2 to refund, 3 ordered, 2 refunded before" in str(more.error)
    assert refunds(sandbox) == 1


def test_other_lines_after_a_clear_are_no_second_refund(one: str, sandbox: SandboxServer) -> None:
    assert refund(kk_order_id=one, lines=[{"sku": CN, "quantity": 2}]).error is None

    for quantity in (1, 3):
        changed = refund(kk_order_id=one, lines=[{"sku": CN, "quantity": quantity}])
        assert isinstance(changed.error, AirflowFailException)

    assert len(asked(sandbox)) == 1


@pytest.mark.parametrize(
    "lines", [None, "", "None", [], "[]", {}, [{"sku": CN}], [{"sku": CN, "quantity": 0}]]
)
def test_lines_rendered_to_none_never_refund_the_whole_order(
    one: str, sandbox: SandboxServer, lines: Any
) -> None:
    task = operator(kk_order_id=one, lines="{{ a template }}")
    task.lines = lines

    done = attempt(task)

    assert isinstance(done.error, AirflowFailException)
    assert "lines" in str(done.error)
    assert asked(sandbox) == []


def test_a_shipped_order_fails_with_kks_message(one: str, sandbox: SandboxServer) -> None:
    sandbox.control.move(one, "shipped")

    done = refund(kk_order_id=one)
    again = refund(kk_order_id=one, try_number=2)

    for error in (done.error, again.error):
        assert isinstance(error, AirflowFailException)
        assert "can no longer be refunded" in str(error)
    assert len(asked(sandbox)) == 1


def test_a_refund_requested_by_hand_comes_first(one: str, connect: Connect, sandbox: SandboxServer) -> None:
    from airflow_provider_kk.hooks.kk import KKHook

    KKHook().refund_order(one, "by hand")

    done = refund(kk_order_id=one)

    assert isinstance(done.error, AirflowException)
    assert not isinstance(done.error, AirflowFailException)
    assert refunds(sandbox) == 1


def test_an_order_that_the_ledger_does_not_have_is_not_refunded(one: str) -> None:
    assert isinstance(refund(custom_order_number="S-9").error, AirflowFailException)
    assert isinstance(refund(kk_order_id=" ").error, AirflowFailException)
    assert isinstance(refund(kk_order_id="123", ledger_conn_id=None).error, AirflowFailException)
    assert "is empty" in str(refund(kk_order_id="123", ledger_conn_id="").error)


def test_an_order_that_kk_does_not_list_is_named_with_what_to_check(one: str) -> None:
    done = refund(kk_order_id="A-1")

    assert type(done.error) is AirflowException
    assert "KK does not list A-1. " in str(done.error)
    assert "check that this is KK's id and not your order number" in str(done.error)


def test_a_refund_with_a_lost_ledger_reconciles_before_it_is_resent(
    one: str, warehouse: Warehouse, sandbox: SandboxServer
) -> None:
    first = refund(kk_order_id=one)
    warehouse.execute("DELETE FROM kk_refund")

    again = refund(kk_order_id=one)

    assert again.error is None
    assert again.value == first.value
    assert len(asked(sandbox)) == 1


def test_refunds_are_no_orders(
    split: list[str], warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refund(custom_order_number="S-1").error is None

    assert warehouse.execute("SELECT custom_order_number FROM kk_order") == [("S-1",)]
    assert set(states(warehouse).values()) == {"created"}
    assert main(["audit", "--since", "1h", "--ledger-conn-id", "warehouse"]) == 0, capsys.readouterr()


def test_no_customer_is_named(
    one: str, sandbox: SandboxServer, warehouse: Warehouse, printed: Printed
) -> None:
    sandbox.control.arm(
        "code_in_envelope", times=1, path="/refund", message="no refund for Zebulon Quist, Secret Remark"
    )

    done = refund(kk_order_id=one, remark="Secret Remark")

    said = f"{done.error}\n{printed()}\n{warehouse.execute('SELECT * FROM kk_refund')}"
    assert "no refund for" in said
    assert not any(word in said for word in (*PRIVATE, "Secret Remark"))


# Lost and killed -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "duplicate_by_proxy"])
@pytest.mark.parametrize("lag_s", [0.0, 0.2])
def test_a_refund_post_lost_in_every_way_is_reconciled_to_exactly_one(
    one: str,
    connect: Connect,
    warehouse: Warehouse,
    sandbox: SandboxServer,
    capsys: pytest.CaptureFixture[str],
    fault: str,
    lag_s: float,
) -> None:
    connect(**HASTY)
    sandbox.control.set(list_lag_s=lag_s)
    sandbox.control.arm(fault, times=1, path="/refund", **SHORT.get(fault, {}))
    words = 0

    for number in range(1, 9):
        done = refund(kk_order_id=one, try_number=number)
        assert refunds(sandbox) <= 1
        if done.error is None:
            break
        # None when a busy machine could not even read KK's order within the short timeout.
        assert len(states(warehouse)) <= 1
        state = next(iter(states(warehouse).values()), None)
        if state == "held":
            assert isinstance(done.error, AirflowFailException)
            assert (refunds(sandbox), FAULTS[fault].orders) == (0, "none")
            never(f"{one}-whole")
            words += 1
        elif state == "rejected":
            assert isinstance(done.error, AirflowFailException)
            lift = ["--why", "again", "--ledger-conn-id", "warehouse"]
            assert main(["ledger", "retry", "--refunds", f"{one}-whole", *lift]) == 0
            assert "the next try of its task sends it" in capsys.readouterr().out
            time.sleep(0.5)

    assert done.error is None, done.error
    assert refunds(sandbox) == 1
    assert words <= 1
    # Sent again only when a human has said so, or when KK has proven not to have acted.
    if FAULTS[fault].orders != "none":
        assert len(asked(sandbox)) == 1


def test_a_duplicate_refund_by_kks_own_proxy_is_detected_and_held(
    one: str, warehouse: Warehouse, sandbox: SandboxServer
) -> None:
    sandbox.control.arm("duplicate_by_proxy", times=1, path="/refund")

    done = refund(kk_order_id=one, wait=True, poll_interval=0.1)

    assert isinstance(done.error, AirflowFailException)
    assert "KK has this refund 2 times" in str(done.error)
    assert (len(asked(sandbox)), refunds(sandbox)) == (1, 2)
    assert states(warehouse) == {f"{one}-whole": "held"}


@pytest.mark.parametrize(
    ("point", "sent"),
    [
        ("before the intent", True),
        ("before the POST", False),
        ("in flight", True),
        ("after the answer", True),
        ("after the record", True),
    ],
)
def test_crash_of_a_task_leaves_exactly_one_refund(
    one: str, connect: Connect, warehouse: Warehouse, sandbox: SandboxServer, point: str, sent: bool
) -> None:
    connect(timeout_s=1, lease_s=2, settle_window_s=0.5)
    if point == "in flight":
        sandbox.control.arm("stall_after_commit", times=1, path="/refund", seconds=30)
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.operators.refund_child", one, point], env=os.environ.copy()
    )
    if point == "in flight":
        until = time.monotonic() + 600
        while not asked(sandbox) and time.monotonic() < until:
            time.sleep(0.02)
        child.kill()
    assert child.wait(600) == -signal.SIGKILL

    done = refund(kk_order_id=one, try_number=2)
    if not sent:
        assert isinstance(done.error, AirflowFailException)
        assert "held" in str(done.error)
        never(f"{one}-whole")
        done = refund(kk_order_id=one, try_number=3)

    assert done.error is None
    assert (len(asked(sandbox)), refunds(sandbox)) == (1, 1)


# Waiting -------------------------------------------------------------------------------------------


def test_it_waits_for_the_decision(one: str, sandbox: SandboxServer) -> None:
    sandbox.control.set(refund_after_s=1)

    done = refund(kk_order_id=one, wait=True, poll_interval=0.2)

    assert [row["refund_status"] for row in done.value] == ["refund_successfully"]


def test_a_decision_against_it_fails(one: str, sandbox: SandboxServer) -> None:
    assert refund(kk_order_id=one).error is None
    sandbox.control.advance(7200)

    # Nothing is left of it by now.
    against = refund(kk_order_id=one, lines=[{"sku": CN, "quantity": 1}], wait=True)

    assert isinstance(against.error, AirflowFailException)


def test_a_deferred_wait_only_reads_and_comes_back_to_the_task(one: str, sandbox: SandboxServer) -> None:
    task = operator(kk_order_id=one, wait=True, deferrable=True, poll_interval=0.5)
    deferred = attempt(task).error
    assert isinstance(deferred, TaskDeferred)
    trigger = deferred.trigger
    assert isinstance(trigger, RefundTrigger)
    assert type(trigger)(**trigger.serialize()[1]).serialize() == trigger.serialize()

    sandbox.control.advance(7200)
    event = _event_of(trigger)
    done = attempt(task, method="execute")

    assert event == {"state": "decided"}
    assert [row["refund_status"] for row in done.value] == ["refund_successfully"]
    assert len(asked(sandbox)) == 1


def test_a_refund_in_doubt_waits_without_a_slot(one: str, connect: Connect, sandbox: SandboxServer) -> None:
    sandbox.control.arm("drop_after_commit", times=1, path="/refund")

    deferred = attempt(operator(kk_order_id=one, deferrable=True)).error

    assert isinstance(deferred, TaskDeferred)
    assert isinstance(deferred.trigger, SleepTrigger)


def test_kk_has_to_decide_in_time(one: str) -> None:
    done = refund(kk_order_id=one, wait=True, poll_interval=0.1, wait_timeout=0.5)

    assert isinstance(done.error, AirflowFailException)
    assert "did not decide on these refunds within 0.5 s" in str(done.error)


def test_refund_waits_are_bounded_after_a_clock_that_was_ahead_is_set_right(
    one: str, connect: Connect, sandbox: SandboxServer, warehouse: Warehouse
) -> None:
    connect(**HASTY)
    sandbox.control.arm("drop_after_commit", times=1, path="/refund")
    stopped = operator(kk_order_id=one, wait=True, wait_timeout=3_600, deferrable=True)
    stopped._sleep = _fail  # type: ignore[method-assign, assignment]
    attempt(stopped)
    assert states(warehouse) == {f"{one}-whole": "in_doubt"}
    warehouse.execute("UPDATE kk_refund SET settle_after = settle_after + 86400")

    task = operator(kk_order_id=one, wait=True, wait_timeout=3_600, deferrable=True)
    deferred = attempt(task).error
    assert isinstance(deferred, TaskDeferred)
    assert isinstance(deferred.trigger, RefundTrigger)  # its outcome is known, and KK has to decide

    warehouse.execute("UPDATE kk_refund SET created_at = created_at + 86400")
    deferred = attempt(task).error
    assert isinstance(deferred, TaskDeferred)
    assert deferred.trigger.deadline <= time.time() + 3_600


def test_refund_of_a_number_is_not_postponed_for_as_long_as_a_clock_was_ahead(
    split: list[str], sandbox: SandboxServer, warehouse: Warehouse
) -> None:
    # The order was sent an hour ago, and a part of it will never be listed.
    warehouse.execute("UPDATE kk_order_attempt SET intent_at = intent_at - 3600")
    goods = json.dumps({CN: 3, US: 2, "NEVER_LISTED": 1})
    warehouse.execute(f"UPDATE kk_order SET goods = '{goods}', settle_after = settle_after + 86400")

    done = refund(custom_order_number="S-1")

    assert done.error is None
    assert sorted(row["kk_order_id"] for row in done.value) == split


def _fail(*_arguments: Any) -> None:
    raise AirflowException("stopped while it waits")


def _event_of(trigger: RefundTrigger) -> dict[str, Any]:
    async def first() -> dict[str, Any]:
        async for event in trigger.run():
            payload: dict[str, Any] = event.payload
            return payload
        raise AssertionError("it ended without an event")

    return asyncio.run(first())
