"""An order is checked once on its way from the warehouse, or from a DAG, to KK."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from airflow_provider_kk.api.api_versions import API_VERSIONS
from airflow_provider_kk.api.errors import InvalidOrderError
from airflow_provider_kk.api.models import Order, OrderAddress, OrderItem
from airflow_provider_kk.operators.orders import CreateOrderOperator
from airflow_provider_kk.sync.deliver import item_of, order_of
from tests.operators import shop
from tests.operators.conftest import Connect, connect, warehouse  # noqa: F401 - fixtures
from tests.operators.shop import Warehouse, attempt, each_is_there_once, nonzero, order, rows, sync

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer


class CountingValidator:
    """Pydantic's validator of a model, with a count of its calls."""

    def __init__(self, validator: Any) -> None:
        self._validator = validator
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("validate"):
            self.calls += 1
        return getattr(self._validator, name)


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> CountingValidator:
    """Counts how often pydantic checks an order, an address or a line by itself."""
    counter = CountingValidator(Order.__pydantic_validator__)
    monkeypatch.setattr(Order, "__pydantic_validator__", counter)
    for part in (OrderAddress, OrderItem):
        monkeypatch.setattr(part, "__pydantic_validator__", None)  # only within an order
    return counter


def test_sync_parses_each_order_once(
    sandbox: SandboxServer,
    connect: Connect,  # noqa: F811
    warehouse: Warehouse,  # noqa: F811
    parses: CountingValidator,
):
    warehouse.add(*rows(range(7)))

    done = attempt(sync())

    assert nonzero(done.value) == {"created": 7}
    assert parses.calls == 7
    each_is_there_once(sandbox, range(7))


def test_resend_after_lost_response_parses_no_order_again(
    sandbox: SandboxServer,
    connect: Connect,  # noqa: F811
    warehouse: Warehouse,  # noqa: F811
    parses: CountingValidator,
):
    connect(**shop.QUICK)
    sandbox.control.arm("drop_before_commit", times=1)
    warehouse.add(*rows(range(3)))

    done = attempt(sync())

    assert nonzero(done.value) == {"created": 3}
    assert parses.calls == 3
    each_is_there_once(sandbox, range(3))


@pytest.mark.parametrize(
    "given",
    [
        {"order": order(5)},
        {"order": order(5), "custom_order_number": shop.number(5)},
        {"order": order(5, custom_order_number=None)},
        {"address": shop.address(5), "items": order(5)["items"]},
    ],
    ids=["whole", "number given twice", "derived number", "fields"],
)
def test_create_order_parses_it_once(
    sandbox: SandboxServer,
    connect: Connect,  # noqa: F811
    warehouse: Warehouse,  # noqa: F811
    parses: CountingValidator,
    given: dict[str, Any],
):
    done = attempt(CreateOrderOperator(task_id="create", ledger_conn_id="warehouse", **given))

    assert done.error is None
    assert parses.calls == 1
    assert len(sandbox.control.orders()) >= 1


LINE = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=32).filter(
    str.strip
)
ORDERS = st.builds(
    lambda recipient, optional, quantities, remark: {
        "custom_order_number": "A-1",
        "address": {"country": "FR", "phone": "1", "recipient": recipient, "province": "P", **optional},
        "items": [{"sku": f"SKU-{n}", "quantity": quantity} for n, quantity in enumerate(quantities)],
        "remark": remark,
    },
    recipient=LINE,
    optional=st.dictionaries(st.sampled_from(["city", "street1", "zip", "vat"]), LINE),
    quantities=st.lists(st.integers(1, 10**16 - 1), min_size=1, max_size=3),
    remark=st.none() | LINE,
)


@given(ORDERS, st.sampled_from(sorted(API_VERSIONS)))
def test_queued_order_has_the_same_body_as_the_checked_one(data: dict[str, Any], version: str):
    try:
        checked = Order.parse(data)
    except InvalidOrderError:
        reject()  # Random text may look damaged.

    restored = order_of(item_of(1, checked).payload)

    assert restored == checked
    assert restored.private_values() == checked.private_values()
    bodies = [
        API_VERSIONS[version].create_body(one, "orderAddresses", "Shopify") for one in (restored, checked)
    ]
    assert bodies[0] == bodies[1]
