"""CreateOrderOperator: one order of a DAG's own making, created once, whatever is retried or lost."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowException, AirflowFailException

from airflow_provider_kk.api.models import Order, OrderAddress, OrderItem
from airflow_provider_kk.operators.orders import CreateOrderOperator
from tests.operators import shop
from tests.operators.shop import (
    PRIVATE,
    QUICK,
    Try,
    Warehouse,
    attempt,
    each_is_there_once,
    ids_at_kk,
    order,
    posts,
)

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect, Printed

pytestmark = pytest.mark.usefixtures("connect", "warehouse")

ITEMS = [{"sku": "FWXW00290_WHT_M", "quantity": 3}]
#: The shop's order 5 with the names that KK's own pages have.
IN_KK_NAMES = {
    "customOrderId": shop.number(5),
    "orderAddresses": shop.address(5),
    "orderItemsList": shop.order(5)["items"],
}


def create(ledger_conn_id: str | None = "warehouse", **arguments: Any) -> CreateOrderOperator:
    return CreateOrderOperator(task_id="create", ledger_conn_id=ledger_conn_id, **arguments)


def rendered(task: CreateOrderOperator, context: Mapping[str, Any]) -> CreateOrderOperator:
    task.render_template_fields(context)
    return task


def stop_after_post(sandbox: SandboxServer, task: CreateOrderOperator) -> Try:
    """A try that is told to stop as soon as its POST has reached KK."""
    before = posts(sandbox)

    def stop() -> None:
        while posts(sandbox) == before:
            time.sleep(0.01)
        task.on_kill()

    stopper = threading.Thread(target=stop)
    stopper.start()
    done = attempt(task)
    stopper.join()
    return done


@pytest.mark.parametrize(
    "given",
    [
        order(5),
        json.dumps(order(5)),
        IN_KK_NAMES,
        json.dumps(IN_KK_NAMES),
        Order(
            custom_order_number=shop.number(5),
            address=OrderAddress(**shop.address(5)),
            items=[OrderItem(sku=sku, quantity=quantity) for sku, quantity in shop.goods(5).items()],
        ),
    ],
    ids=["mapping", "json", "mapping in KK's names", "json in KK's names", "literal"],
)
def test_an_order_may_be_given_in_any_form(sandbox: SandboxServer, given: Any):
    done = attempt(create(order=given))

    ids = ids_at_kk(sandbox)[shop.number(5)]
    assert done.error is None
    # KK splits this one by warehouse.
    assert len(ids) == 2
    assert done.value == ids[0]
    assert done.xcoms == {"customOrderNumber": shop.number(5), "kkOrderId": ids[0], "kkOrderIds": ids}
    each_is_there_once(sandbox, [5])


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_templates_yield_text_and_text_is_enough(sandbox: SandboxServer, connect: Connect, version: str):
    connect(api_version=version)
    params = {"address": shop.address(1), "sku": "FWXW00290_WHT_M", "quantity": 3, "no": "T-1"}
    task = create(
        address="{{ params.address | tojson }}",
        items=[{"sku": "{{ params.sku }}", "quantity": "{{ params.quantity }}"}],
        remark="for {{ ds }}",
        custom_order_number="{{ params.no }}",
        sale_platform="{{ 'Shop' }}",
    )

    done = attempt(rendered(task, {"params": params, "ds": "2026-05-01"}))

    assert done.error is None
    (found,) = sandbox.control.orders()
    assert (found["number"], found["goods"]) == ("T-1", {"FWXW00290_WHT_M": 3})
    assert (found["remark"], found["sale_platform"]) == ("for 2026-05-01", "Shop")
    assert found["address"]["recipient"] == shop.address(1)["recipient"]


def test_a_shipping_speed_reaches_kk_under_v1_orders(sandbox: SandboxServer, connect: Connect):
    connect(api_version="v1-orders")

    assert attempt(create(order=order(0, channel_type="express"))).error is None

    assert [one["channel_type"] for one in sandbox.control.orders()] == ["Express"]


def test_a_shipping_speed_that_the_api_version_does_not_document_is_not_sent(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect
):
    connect(api_version="v1-orders")

    done = attempt(create(order=order(1, channel_type="Expedited")))

    assert isinstance(done.error, AirflowFailException)
    assert "channel_type: must be Standard or Express in API version v1-orders" in str(done.error)
    assert posts(sandbox) == 0
    assert not warehouse.execute("SELECT name FROM sqlite_master WHERE name = 'kk_order'")


def test_json_text_with_tojson_carries_quotes_and_umlauts(sandbox: SandboxServer):
    address = shop.address(1) | {"recipient": 'Zoë O\'Quist <"Z">'}
    task = create(
        order='{"address": {{ a | tojson }}, "items": {{ i | tojson }}, "custom_order_number": "J-1"}'
    )

    done = attempt(rendered(task, {"a": address, "i": ITEMS}))

    assert done.error is None
    assert sandbox.control.orders()[0]["address"]["recipient"] == 'Zoë O\'Quist <"Z">'


@pytest.mark.parametrize(
    "template",
    ["{{ whole }}", '{"address": {{ address }}, "items": {{ items | tojson }}}'],
    ids=["the whole order", "a part of it"],
)
def test_a_python_repr_in_json_text_fails_with_what_to_write_instead(sandbox: SandboxServer, template: str):
    task = create(order=template)

    done = attempt(
        rendered(task, {"whole": order(1), "address": shop.address(1) | {"vat": None}, "items": ITEMS})
    )

    assert isinstance(done.error, AirflowFailException)
    for hint in (".output", "| tojson", "model_dump()"):
        assert hint in str(done.error)
    assert not any(word in str(done.error) for word in PRIVATE)
    assert posts(sandbox) == 0


@pytest.mark.parametrize("quantity", ["3.5", True, 0, "", "three"])
def test_a_quantity_that_is_no_whole_number_fails_before_anything_is_sent(
    sandbox: SandboxServer, quantity: Any
):
    done = attempt(create(address=shop.address(1), items=[{"sku": "FWXW00290_WHT_M", "quantity": quantity}]))

    assert isinstance(done.error, AirflowFailException)
    assert "items[0].quantity" in str(done.error)
    assert posts(sandbox) == 0


def test_every_fault_is_reported_at_once_without_personal_data(sandbox: SandboxServer):
    done = attempt(
        create(order=order(1, address=shop.address(1) | {"country": "Congo", "zip": "x" * 33}) | {"iems": 1})
    )

    assert isinstance(done.error, AirflowFailException)
    for part in ("address.country", "CG", "address.zip", "iems"):
        assert part in str(done.error)
    assert not any(word in str(done.error) for word in PRIVATE)
    assert posts(sandbox) == 0


def test_a_required_field_that_a_template_rendered_to_none_is_a_fault(sandbox: SandboxServer):
    task = create(address=shop.address(1) | {"province": "{{ province }}"}, items=ITEMS)

    done = attempt(rendered(task, {"province": None}))

    assert isinstance(done.error, AirflowFailException)
    assert "address.province: is the text 'None'" in str(done.error)
    assert posts(sandbox) == 0


def test_optional_fields_that_templates_rendered_to_none_are_blank_and_logged(
    sandbox: SandboxServer, printed: Printed
):
    task = create(
        address=shop.address(1) | {"street2": "{{ nothing }}", "country": "France"},
        items=ITEMS,
        remark="{{ nothing }}",
        sale_platform="{{ nothing }}",
    )

    done = attempt(rendered(task, {"nothing": None}))

    assert done.error is None
    (found,) = sandbox.control.orders()
    assert "None" not in json.dumps(found["address"])
    assert found["address"]["country"] == "FR"
    assert "None" not in (found["remark"], found["sale_platform"])
    log = printed()
    for notice in ("address.street2: the text 'None'", "remark: the text 'None'", "'France' is read as FR"):
        assert notice in log


def test_order_and_single_fields_do_not_mix():
    done = attempt(create(order=order(1), remark="hello"))

    assert isinstance(done.error, AirflowFailException)
    assert "remark is set in addition to order" in str(done.error)


def test_a_number_beside_the_order_must_be_the_same():
    done = attempt(create(order=order(1), custom_order_number="OTHER"))

    assert isinstance(done.error, AirflowFailException)
    assert "custom_order_number differs" in str(done.error)


def test_a_derived_number_is_stable_over_tries_and_differs_by_run_task_and_map_index(sandbox: SandboxServer):
    def run(**where: Any) -> str:
        done = attempt(create(address=shop.address(1), items=ITEMS), **where)
        assert done.error is None
        return str(done.value)

    first = run(run_id="monday")
    assert run(run_id="monday", try_number=2) == first
    assert run(run_id="monday", try_number=7) == first
    others = {
        run(run_id="tuesday"),
        run(run_id="monday", map_index=0),
        run(run_id="monday", map_index=1),
    }

    assert len(others - {first}) == 3
    assert posts(sandbox) == 4
    assert len(ids_at_kk(sandbox)) == 4


def test_a_lost_response_is_adopted_not_resent(sandbox: SandboxServer, connect: Connect):
    connect(**QUICK)
    sandbox.control.arm("drop_after_commit", times=1)

    done = attempt(create(order=order(3)))

    assert done.error is None
    assert done.xcoms["kkOrderIds"] == ids_at_kk(sandbox)[shop.number(3)]
    assert posts(sandbox) == 1


def test_a_stopped_try_leaves_its_order_to_the_retry(sandbox: SandboxServer, connect: Connect):
    connect(**QUICK)
    sandbox.control.arm("drop_after_commit", times=1)

    stopped = stop_after_post(sandbox, create(order=order(3)))
    retried = attempt(create(order=order(3)), try_number=2)
    cleared = attempt(create(order=order(3)), try_number=3)

    assert isinstance(stopped.error, AirflowException)
    assert not isinstance(stopped.error, AirflowFailException)
    assert "in doubt" in str(stopped.error)
    assert retried.error is None
    assert cleared.value == retried.value == ids_at_kk(sandbox)[shop.number(3)][0]
    assert posts(sandbox) == 1


def test_a_rejected_order_fails_without_a_retry(sandbox: SandboxServer):
    done = attempt(create(order=order(1, items=[{"sku": "NO_SUCH_SKU", "quantity": 1}])))

    assert isinstance(done.error, AirflowFailException)
    assert "rejected (code" in str(done.error)
    assert "kk ledger show S-0001" in str(done.error)
    assert done.xcoms == {"customOrderNumber": "S-0001"}


def test_a_wrong_token_is_retried_with_the_reason(sandbox: SandboxServer):
    sandbox.control.arm("auth", method=None)

    done = attempt(create(order=order(1)))

    assert isinstance(done.error, AirflowException)
    assert not isinstance(done.error, AirflowFailException)
    assert "token" in str(done.error)
    assert posts(sandbox) == 0


def test_a_number_used_for_another_order_fails_unless_on_changed_allows_it(sandbox: SandboxServer):
    first = attempt(create(order=order(1)), run_id="first")
    other = order(1, items=ITEMS)

    loud = attempt(create(order=other), run_id="second")
    quiet = attempt(create(order=other, on_changed="ignore"), run_id="third")

    assert isinstance(loud.error, AirflowFailException)
    assert "changed" in str(loud.error)
    assert quiet.value == first.value
    assert posts(sandbox) == 1


def test_without_a_ledger_it_warns_and_recovers_what_an_earlier_try_sent(
    sandbox: SandboxServer, connect: Connect, printed: Printed
):
    connect(**QUICK)
    sandbox.control.set(list_lag_s=0.7)
    sandbox.control.arm("drop_after_commit", times=1)

    stopped = stop_after_post(sandbox, create(None, order=order(3)))
    begin = time.monotonic()
    retried = attempt(create(None, order=order(3)), try_number=2)

    assert "No ledger is set. If the task is killed or cleared" in printed()
    assert isinstance(stopped.error, AirflowException)
    assert retried.error is None
    assert retried.xcoms["kkOrderIds"] == ids_at_kk(sandbox)[shop.number(3)]
    assert time.monotonic() - begin >= QUICK["settle_window_s"]
    assert posts(sandbox) == 1


def test_without_a_ledger_a_first_try_does_not_wait(sandbox: SandboxServer, connect: Connect):
    connect(settle_window_s=600)
    begin = time.monotonic()

    done = attempt(create(None, order=order(3)))

    assert done.error is None
    assert time.monotonic() - begin < 300
    each_is_there_once(sandbox, [3])


def test_the_connections_own_ledger_is_used(
    sandbox: SandboxServer, connect: Connect, warehouse: Warehouse, printed: Printed
):
    connect(ledger_conn_id="warehouse")

    assert attempt(create(None, order=order(3))).error is None

    assert "No ledger is set" not in printed()
    assert shop.ids_in_ledger(warehouse.path) == ids_at_kk(sandbox)


def test_waiting_for_kks_list_gives_the_slot_back_when_deferrable(
    sandbox: SandboxServer, connect: Connect, warehouse: Warehouse
):
    from airflow.providers.common.compat.sdk import TaskDeferred

    connect(timeout_s=20, lease_s=40, settle_window_s=1)
    sandbox.control.arm("drop_after_commit", times=1)
    task = create(order=order(3), deferrable=True)

    deferred = attempt(task)

    assert isinstance(deferred.error, TaskDeferred)
    path, arguments = deferred.error.trigger.serialize()
    assert path == "airflow_provider_kk.triggers.kk.SleepTrigger"
    # Primitives only, and an absolute time: a restarted triggerer does not start over.
    assert arguments == json.loads(json.dumps(arguments))
    assert 0 < arguments["until"] - time.time() < 62
    assert 60 < arguments["longest_s"] < 64
    warehouse.end_settle_windows()
    resumed = attempt(task, method=deferred.error.method_name)
    assert resumed.error is None
    assert resumed.xcoms["kkOrderIds"] == ids_at_kk(sandbox)[shop.number(3)]
    assert posts(sandbox) == 1


@pytest.mark.parametrize("nothing", ["None", "", "nan", "null"])
def test_a_number_rendered_to_none_orders_nothing(sandbox: SandboxServer, nothing: str):
    done = attempt(create(order=order(1), custom_order_number=nothing))

    assert isinstance(done.error, AirflowFailException)
    assert "custom_order_number" in str(done.error)
    assert posts(sandbox) == 0


def test_a_number_that_an_upstream_task_left_out_is_not_derived(sandbox: SandboxServer):
    task = create(address=shop.address(1), items=ITEMS, custom_order_number="{{ number }}")
    task.custom_order_number = None  # as Airflow renders an XComArg of None, or a native template

    done = attempt(task)

    assert isinstance(done.error, AirflowFailException)
    assert "custom_order_number rendered to None" in str(done.error)
    assert posts(sandbox) == 0


@pytest.mark.parametrize("number", [None, shop.number(1)])
@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_number_that_is_none_is_not_derived(sandbox: SandboxServer, number: str | None, is_mapped: bool):
    given: dict[str, Any] = {"task_id": "create", "ledger_conn_id": "warehouse", "address": shop.address(1)}
    with DAG("shop", schedule=None):
        if is_mapped:
            mapped = CreateOrderOperator.partial(**given, items=ITEMS).expand(custom_order_number=[number])
            task = mapped.unmap({"custom_order_number": number})
        else:
            task = CreateOrderOperator(**given, items=ITEMS, custom_order_number=number)

    done = attempt(task, map_index=0 if is_mapped else -1)

    if number is None:
        assert isinstance(done.error, AirflowFailException)
        assert "custom_order_number rendered to None" in str(done.error)
    assert set(ids_at_kk(sandbox)) == {number} - {None}


def test_mapped_orders_that_have_no_numbers_get_derived_ones(sandbox: SandboxServer):
    with DAG("shop", schedule=None):
        mapped = CreateOrderOperator.partial(
            task_id="create", ledger_conn_id="warehouse", address=shop.address(1)
        ).expand(items=[ITEMS])

    assert attempt(mapped.unmap({"items": ITEMS}), map_index=0).error is None
    (number,) = ids_at_kk(sandbox)
    assert number.startswith("af-")


@pytest.mark.parametrize("nothing", ["", " ", "None", None])
def test_a_ledger_rendered_to_none_is_an_error(sandbox: SandboxServer, nothing: str | None):
    task = create(order=order(1), ledger_conn_id="{{ ledger }}")
    task.ledger_conn_id = nothing

    done = attempt(task)

    assert isinstance(done.error, AirflowFailException)
    assert "ledger_conn_id is empty" in str(done.error)
    assert posts(sandbox) == 0


def test_an_order_that_an_upstream_task_did_not_return_is_reported_as_such(sandbox: SandboxServer):
    task = create(order="{{ order }}")
    task.order = None

    done = attempt(task)

    assert isinstance(done.error, AirflowFailException)
    assert "order rendered to None. Check that the upstream task returned a value" in str(done.error)
    assert posts(sandbox) == 0


class _NoEvents(dict[Any, Any]):
    def __missing__(self, key: Any) -> Any:
        raise RuntimeError("this Airflow has other events")


@pytest.mark.parametrize(("events", "fault"), [(_NoEvents(), "RuntimeError"), (None, "TypeError")])
def test_an_asset_event_that_fails_does_not_fail_the_task_whose_order_exists(
    sandbox: SandboxServer, printed: Printed, events: Any, fault: str
):
    done = attempt(create(order=order(3)), outlet_events=events)

    assert done.error is None
    each_is_there_once(sandbox, [3])
    assert f"the asset event for the account's orders could not be emitted ({fault})" in printed()
