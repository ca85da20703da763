"""OrderSensor: what it waits for, what it does not wait for any more, and how it waits in each mode."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    TaskDeferred,
)

from airflow_provider_kk.delivery.listing import Splits
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.operators.orders import CreateOrderOperator
from airflow_provider_kk.sensors.orders import GOALS, OrderSensor
from airflow_provider_kk.triggers.kk import OrderTrigger
from tests.operators.shop import ADDRESS, attempt

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect, Printed
    from tests.operators.shop import Try, Warehouse

CN, US = "FWXW00290_WHT_M", "USTS00015_BLK_M"


def wait(**arguments: Any) -> Try:
    """One task that looks a few times within a second."""
    operator = OrderSensor(task_id="wait", **{"poke_interval": 0.05, "timeout": 0.3, **arguments})
    return attempt(operator)


def resumed(operator: OrderSensor, **event: Any) -> Any:
    return operator.resume({}, {"deadline": time.time() + 60, **event})


@pytest.fixture
def one(connect: Connect, sandbox: SandboxServer) -> str:
    (kk_order_id,) = sandbox.control.place({CN: 1}, number="A-1")
    return kk_order_id


@pytest.fixture
def split(connect: Connect, warehouse: Warehouse, sandbox: SandboxServer) -> list[str]:
    """An order in two parts, of which the answer named one."""
    sandbox.control.set(answer="first")
    items = [{"sku": CN, "quantity": 1}, {"sku": US, "quantity": 2}]
    operator = CreateOrderOperator(
        task_id="create", custom_order_number="S-1", address=ADDRESS, items=items, ledger_conn_id="warehouse"
    )
    done = attempt(operator)
    assert done.error is None
    assert len(done.xcoms["kkOrderIds"]) == 1
    return [order["id"] for order in sandbox.control.orders()]


@pytest.mark.parametrize("version", ["v1", "v1-orders", "v2"])
@pytest.mark.parametrize("until", GOALS)
def test_it_ends_when_the_order_is_there_and_returns_it(
    one: str, connect: Connect, sandbox: SandboxServer, until: str, version: str
) -> None:
    connect(api_version=version)
    assert isinstance(wait(kk_order_id=one, until=until).error, AirflowSensorTimeout)
    if until == "refunded":
        sandbox.control.move(one, "paid")
        refund(sandbox, one)
        sandbox.control.advance(4000)
    else:
        sandbox.control.move(one, until)

    done = wait(kk_order_id=one, until=until)
    assert done.error is None
    (order,) = done.value
    assert (order["kk_order_id"], order["custom_order_number"], order["status"]) == (one, "A-1", until)
    assert [package["tracking_code"] for package in order["packages"]] == (
        [f"YT{one}1"] if until in ("shipped", "delivered") else []
    )


def refund(sandbox: SandboxServer, kk_order_id: str) -> None:
    from airflow_provider_kk.api.client import KKClient

    with KKClient(sandbox.url, sandbox.token) as client:
        client.refund_order(kk_order_id, "changed my mind")


@pytest.mark.parametrize(
    ("state", "until", "reason"),
    [
        ("cancel", "shipped", "cancelled"),
        ("abnormal", "paid", "abnormal"),
        ("cancel", "refunded", "never paid"),
        ("shipped", "refunded", "shipped"),
    ],
)
@pytest.mark.parametrize("deferrable", [True, False])
def test_it_fails_at_once_when_it_can_no_longer_happen(
    one: str, sandbox: SandboxServer, state: str, until: str, reason: str, deferrable: bool
) -> None:
    sandbox.control.move(one, state)
    done = wait(kk_order_id=one, until=until, timeout=100, deferrable=deferrable)
    assert isinstance(done.error, AirflowFailException)
    assert reason in str(done.error)
    assert one in str(done.error)


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_soft_failure_skips_in_every_mode(one: str, sandbox: SandboxServer, deferrable: bool) -> None:
    sandbox.control.move(one, "cancel")
    done = wait(kk_order_id=one, soft_fail=True, deferrable=deferrable)
    assert isinstance(done.error, AirflowSkipException)


def test_all_splits_are_waited_for_including_those_that_no_response_named(
    split: list[str], sandbox: SandboxServer, printed: Printed
) -> None:
    ledger = {"custom_order_number": "S-1", "ledger_conn_id": "warehouse"}
    sandbox.control.move(split[0], "shipped")

    assert isinstance(wait(**ledger).error, AirflowSensorTimeout)
    assert [order["kk_order_id"] for order in wait(**ledger, any_split=True).value] == split
    sandbox.control.move(split[1], "delivered")
    assert [order["status"] for order in wait(**ledger).value] == ["shipped", "delivered"]
    assert ADDRESS["recipient"] not in printed()


def test_a_split_that_kk_does_not_list_yet_is_waited_for(split: list[str], sandbox: SandboxServer) -> None:
    sandbox.control.move(split[0], "shipped")
    sandbox.control.move(split[1], "shipped")
    sandbox.control.set(list_lag_s=300)

    ledger = {"custom_order_number": "S-1", "ledger_conn_id": "warehouse"}
    assert isinstance(wait(**ledger).error, AirflowSensorTimeout)
    sandbox.control.advance(301)
    assert wait(**ledger).error is None


def test_one_dead_split_ends_the_wait_for_all_and_not_the_wait_for_any(
    split: list[str], sandbox: SandboxServer
) -> None:
    ledger = {"custom_order_number": "S-1", "ledger_conn_id": "warehouse"}
    sandbox.control.move(split[0], "cancel")

    assert split[0] in str(wait(**ledger).error)
    assert isinstance(wait(**ledger, any_split=True).error, AirflowSensorTimeout)
    sandbox.control.move(split[1], "cancel")
    assert isinstance(wait(**ledger, any_split=True).error, AirflowFailException)


def test_the_wait_for_any_goes_on_while_another_split_may_turn_up(
    one: str, connect: Connect, warehouse: Warehouse, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def splits_of(number: str, ledger: Any, client: Any) -> Splits:
        return Splits(State.CREATED, (one,), client.get_orders([one]), are_all=False)

    monkeypatch.setattr("airflow_provider_kk.delivery.listing.splits_of", splits_of)
    sandbox.control.move(one, "cancel")
    ledger = {"custom_order_number": "S-1", "ledger_conn_id": "warehouse"}
    assert isinstance(wait(**ledger, any_split=True).error, AirflowSensorTimeout)
    assert isinstance(wait(**ledger).error, AirflowFailException)


def test_a_number_that_is_not_created_yet_is_waited_for(
    connect: Connect, warehouse: Warehouse, sandbox: SandboxServer, printed: Printed
) -> None:
    done = wait(custom_order_number="S-9", ledger_conn_id="warehouse")
    assert isinstance(done.error, AirflowSensorTimeout)
    assert "not created yet" in printed()

    deferred = wait(custom_order_number="S-9", ledger_conn_id="warehouse", deferrable=True, timeout=600).error
    assert isinstance(deferred, TaskDeferred)
    assert isinstance(deferred.trigger, OrderTrigger)
    assert deferred.trigger.kk_order_ids == []


def test_a_number_without_a_ledger_cannot_be_waited_for(connect: Connect) -> None:
    done = wait(custom_order_number="S-1")
    assert isinstance(done.error, AirflowFailException)
    assert "ledger_conn_id" in str(done.error)


def test_an_unreadable_kk_is_polled_again(one: str, sandbox: SandboxServer, printed: Printed) -> None:
    sandbox.control.move(one, "shipped")
    sandbox.control.arm("status_before_commit", method="GET", times=2)
    assert wait(kk_order_id=one, timeout=20).error is None
    assert "reads it again at the next poke" in printed()


def test_a_rejected_token_fails_the_task(one: str, sandbox: SandboxServer) -> None:
    sandbox.control.arm("auth", method="GET")
    done = wait(kk_order_id=one, timeout=100)
    assert type(done.error) is AirflowException
    assert "token" in str(done.error)


def test_a_deferred_sensor_hands_the_trigger_primitives_and_an_absolute_deadline(
    split: list[str], sandbox: SandboxServer
) -> None:
    began = time.time()
    arguments = {"custom_order_number": "S-1", "ledger_conn_id": "warehouse", "until": "delivered"}
    deferred = wait(**arguments, deferrable=True, timeout=100, poke_interval=7).error
    assert isinstance(deferred, TaskDeferred)
    assert isinstance(deferred.trigger, OrderTrigger)

    name, given = deferred.trigger.serialize()
    assert name == f"{OrderTrigger.__module__}.OrderTrigger"
    assert json.loads(json.dumps(given)) == given
    assert 99 < given.pop("deadline") - began < 110
    assert given == {
        "kk_conn_id": "kk_default",
        "ledger_conn_id": "warehouse",
        "kk_order_ids": split,
        "until": "delivered",
        "any_split": False,
        "poll_s": 7,
    }


def test_what_the_trigger_saw_is_what_the_task_does(one: str, sandbox: SandboxServer) -> None:
    sensor = OrderSensor(task_id="wait", kk_order_id=one, deferrable=True)
    assert resumed(sensor, state="reached", orders=[{"kk_order_id": one}]) == [{"kk_order_id": one}]
    with pytest.raises(AirflowFailException, match="cancelled"):
        resumed(sensor, state="failed", reason="it is cancelled")
    with pytest.raises(AirflowException, match="token"):
        resumed(sensor, state="error", reason="the token is wrong")
    with pytest.raises(AirflowSensorTimeout):
        resumed(sensor, state="timeout", deadline=time.time())
    sandbox.control.move(one, "shipped")
    assert resumed(sensor, state="timeout", deadline=time.time())[0]["status"] == "shipped"


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("asked_for", ["9999999999999", "A-1"])
def test_an_order_that_kk_does_not_list_is_named_with_what_to_check(
    one: str, printed: Printed, asked_for: str, deferrable: bool
) -> None:
    done = wait(kk_order_id=asked_for, deferrable=deferrable)
    if deferrable:
        assert isinstance(done.error, TaskDeferred)
        sensor = OrderSensor(task_id="wait", kk_order_id=asked_for, deferrable=True)
        with pytest.raises(AirflowSensorTimeout) as caught:
            resumed(sensor, state="timeout", deadline=time.time())
        error = str(caught.value)
    else:
        assert isinstance(done.error, AirflowSensorTimeout)
        error = str(done.error)

    expected = f"KK does not list {asked_for}. KK may list a new order some minutes late."
    assert expected in error
    assert "your order number" in error
    assert "host and token" in error
    assert expected in printed().replace("\n", " ")


def test_an_order_that_kk_lists_is_not_called_missing(one: str, printed: Printed) -> None:
    error = str(wait(kk_order_id=one).error)
    assert f"Waiting for shipped: {one} is " in error
    assert "does not list" not in error + printed()


@pytest.mark.parametrize("nothing", ["", "None", None])
@pytest.mark.parametrize("name", ["kk_order_id", "custom_order_number"])
def test_an_argument_that_rendered_to_nothing_fails_at_once(
    one: str, warehouse: Warehouse, name: str, nothing: str | None
) -> None:
    given: dict[str, Any] = {name: "{{ template }}"}
    sensor = OrderSensor(task_id="wait", ledger_conn_id="warehouse", timeout=100, **given)
    setattr(sensor, name, nothing)

    done = attempt(sensor)

    assert type(done.error) is AirflowFailException
    assert f"{name} rendered to " in str(done.error)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"kk_order_id": "1", "custom_order_number": "2"}, {"kk_order_id": "1", "until": "lost"}],
)
def test_invalid_arguments_fail_while_the_dag_is_parsed(arguments: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"either|until"):
        OrderSensor(task_id="wait", **arguments)  # type: ignore[arg-type]
