"""QuoteShippingOperator: KK's offers as plain data, and no order for them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_kk.operators.shipping import QuoteShippingOperator
from tests.operators.shop import SKUS, Warehouse, attempt

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect

pytestmark = pytest.mark.usefixtures("connect")

DRESS, TOP, _ = SKUS
GOODS = [{"sku": DRESS, "quantity": 2}, {"sku": TOP, "quantity": "1"}]
STANDARD = {
    "channel_code": "KKSTD",
    "channel_name": "KK Standard",
    "channel_type": "Standard",
    "estimated_freight": "5.69",
    "currency_code": "USD",
    "delivery_time": "6~10 Business Days",
}


def quote(**arguments: Any) -> QuoteShippingOperator:
    return QuoteShippingOperator(**{"task_id": "quote", "items": GOODS, "country": "FR", **arguments})


@pytest.mark.parametrize("version", ["v1", "v1-orders", "v2"])
@pytest.mark.parametrize("items", [GOODS, json.dumps(GOODS)])
def test_offers_are_plain_data_with_exact_freight(
    sandbox: SandboxServer, connect: Connect, version: str, items: Any
):
    connect(api_version=version)

    offers = attempt(quote(items=items, country="fr")).value

    assert json.loads(json.dumps(offers)) == offers
    assert offers[0] == STANDARD
    assert [(one["channel_type"], one["estimated_freight"]) for one in offers] == [
        ("Standard", "5.69"), ("Express", "11.79"), ("Expedited", "22.19")
    ]  # fmt: skip
    assert sandbox.control.counts()["creates"] == 0


def test_an_order_that_kk_splits_is_quoted_by_channel_type():
    offers = attempt(quote(split=True)).value

    unknown = dict.fromkeys(("channel_code", "channel_name", "delivery_time"))
    assert offers[0] == {**STANDARD, **unknown, "estimated_freight": "8.83"}


@pytest.mark.parametrize(
    ("arguments", "faults"),
    [
        ({"country": "Congo"}, ["country: "]),
        ({"country": "", "items": [{"sku": "", "quantity": 0}]}, ["items[0].sku: is required", "country: "]),
        ({"items": [{"sku": DRESS, "quantity": "0"}]}, ["items[0].quantity: must be at least 1"]),
        ({"items": "[]"}, ["items: must have at least one line"]),
        ({"items": None}, ["items: is required"]),
    ],
)
def test_every_fault_is_named_before_any_request(
    sandbox: SandboxServer, arguments: dict[str, Any], faults: list[str]
):
    failed = attempt(quote(**arguments)).error

    assert isinstance(failed, AirflowFailException)
    assert all(fault in str(failed) for fault in faults), str(failed)
    assert sandbox.control.requests() == []


def test_a_rejected_quote_is_not_retried_an_unreadable_one_is(sandbox: SandboxServer):
    unknown = attempt(quote(items=[{"sku": "NO_SUCH", "quantity": 1}])).error
    assert isinstance(unknown, AirflowFailException)
    assert "NO_SUCH" in str(unknown)

    for fault in ("status_before_commit", "drop_before_commit", "html_200_after_commit", "auth"):
        sandbox.control.arm(fault, times=1)
        failed = attempt(quote()).error
        assert isinstance(failed, AirflowException), fault
        assert not isinstance(failed, AirflowFailException), fault


def test_quotes_count_in_the_rate_limit_of_the_account(warehouse: Warehouse, sandbox: SandboxServer):
    attempt(quote(ledger_conn_id="warehouse"))
    before = warehouse.execute("SELECT bucket_tat FROM kk_account")[0][0]
    attempt(quote(ledger_conn_id="warehouse"))
    after = warehouse.execute("SELECT bucket_tat FROM kk_account")[0][0]
    assert (after > before, len(sandbox.control.requests())) == (True, 2)
