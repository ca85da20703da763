"""What Airflow stores of a rendered order: goods and number, nothing of the customer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_kk.api.models import Order
from airflow_provider_kk.operators.masked_fields import Masked
from airflow_provider_kk.operators.orders import CreateOrderOperator
from airflow_provider_kk.operators.refunds import RefundOrderOperator
from tests.operators import shop
from tests.operators.shop import PRIVATE, attempt, posts

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

ORDER = shop.order(3, remark="for Zebulon", sale_platform="Shopify")
IN_KK_NAMES = {
    "customOrderId": shop.number(3),
    "orderAddresses": shop.address(3),
    "orderItemsList": ORDER["items"],
}


@pytest.mark.parametrize(
    "given",
    [ORDER, json.dumps(ORDER), Order.parse(ORDER), IN_KK_NAMES, json.dumps(IN_KK_NAMES)],
    ids=["mapping", "JSON text", "Order", "in KK's names", "JSON text in KK's names"],
)
def test_goods_and_number_are_seen_and_nothing_else(given: Any):
    seen = str(Masked(given))

    assert not any(word in seen for word in (*PRIVATE, "Paris", "75001"))
    shown = json.loads(seen)
    assert shop.number(3) in shown.values()
    assert ORDER["items"] in shown.values()
    assert {"***"} == set((shown.get("address") or shown["orderAddresses"]).values())


@pytest.mark.parametrize(
    "given",
    ["Zebulon Quist", str(ORDER), '"Zebulon"', 75001, 1.5, ["Zebulon"], {"lines": {"name": "Zebulon"}}],
)
def test_what_is_no_order_is_hidden_whole(given: Any):
    seen = str(Masked(given))

    assert "***" in seen
    assert not any(word in seen for word in ("Zebulon", "75001", "1.5"))


def create(**arguments: Any) -> CreateOrderOperator:
    return CreateOrderOperator(task_id="create", ledger_conn_id="warehouse", **arguments)


def stored(task: Any) -> str:
    """What Airflow can store of the task's template fields."""
    return str([str(getattr(task, name)) for name in task.template_fields])


def order_of(context: Any, jinja_env: Any) -> dict[str, Any]:
    return ORDER


def test_a_task_that_is_rendered_twice_still_has_its_order():
    task = create(order="{{ whole | tojson }}")

    for _ in range(2):
        task.render_template_fields({"whole": ORDER})

    assert isinstance(task.order, Masked)
    assert json.loads(task.order.value) == ORDER


@pytest.mark.parametrize(
    "arguments",
    [
        {"order": "{{ whole | tojson }}"},
        {"order": order_of},
        {"order": ORDER},
        {"order": Order.parse(ORDER)},
        {"address": {"recipient": "{{ whole.address.recipient }}"}, "items": "{{ whole['items'] }}"},
        {"remark": "for {{ whole.address.recipient }}"},
    ],
    ids=["template", "callable", "mapping", "Order", "nested templates", "remark"],
)
@pytest.mark.parametrize("is_mapped", [False, True])
def test_every_field_that_may_hold_customers_is_masked_by_rendering(
    arguments: dict[str, Any], is_mapped: bool
):
    context: dict[str, Any] = {"whole": ORDER}
    with DAG("shop", schedule=None):
        task = create(**arguments)
        if is_mapped:
            given = {"custom_order_number": "{{ whole.custom_order_number }}", **arguments}
            task = CreateOrderOperator.partial(task_id="mapped").expand(**{k: [v] for k, v in given.items()})
            task = task.unmap(given)

    task.render_template_fields(context)

    assert [word for word in PRIVATE if word in stored(task)] == []
    assert all(isinstance(getattr(task, name), Masked) for name in arguments)


def test_a_customer_who_writes_a_template_is_masked_and_not_rendered():
    task = create(order="{{ whole | tojson }}", remark="{{ remark }}")

    for _ in range(2):
        task.render_template_fields({"whole": ORDER, "remark": "{{ 6 * 7 }} Zebulon"})

    assert task.remark.value == "{{ 6 * 7 }} Zebulon"
    assert "Zebulon" not in stored(task)


def test_upstream_tasks_are_found_also_when_a_field_is_set_later():
    with DAG("shop", schedule=None):
        first, second = (CreateOrderOperator(task_id=name, order=ORDER) for name in ("first", "second"))
        task = create(address=first.output, items="{{ items }}")
        task.items = second.output

    assert task.upstream_task_ids == {"first", "second"}


def test_a_template_that_is_set_later_is_rendered():
    task = create(remark="{{ ds }}")
    task.remark = "for {{ ds }}"

    task.render_template_fields({"ds": "2026-05-01"})

    assert task.remark.value == "for 2026-05-01"


def test_a_refund_s_remark_is_masked():
    task = RefundOrderOperator(task_id="refund", kk_order_id="1001", remark="for {{ name }}")

    task.render_template_fields({"name": "Zebulon Quist"})

    assert "Zebulon" not in stored(task)
    assert "1001" in stored(task)


@pytest.mark.usefixtures("connect", "warehouse")
@pytest.mark.parametrize("name", ["order", "address", "items", "remark"])
def test_an_airflow_that_renders_in_another_way_fails_the_task_and_sends_nothing(
    sandbox: SandboxServer, name: str
):
    given = {"order": ORDER} if name == "order" else {"address": shop.address(3), "items": ORDER["items"]}
    task = create(**given)
    setattr(task, name, given.get(name, "Zebulon"))

    done = attempt(task, is_rendered=False)

    assert isinstance(done.error, AirflowFailException)
    assert f"{name} " in str(done.error).replace(",", " ")
    assert "rendered_task_instance_fields" in str(done.error)
    assert not any(word in str(done.error) for word in PRIVATE)
    assert posts(sandbox) == 0


def test_an_operator_that_replaces_a_field_that_is_masked_cannot_be_made():
    with pytest.raises(TypeError, match=r"Mine\.address .* in __init__"):
        type("Mine", (CreateOrderOperator,), {"address": None})
