"""Held orders from a DAG: what `kk ledger resolve` asks and tells, a task gets and gives as plain data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_kk.operators.held import held_orders, resolve_order
from tests.cli.conftest import SKU, hold, record, refuse, state

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sandbox.server import SandboxServer


def resolve(number: str, resolution: Any, **arguments: Any) -> str:
    resolved_by = {"who": "ann", "why": "looked at KK's site"}
    return resolve_order(number, resolution=resolution, **resolved_by | arguments)


def test_held_orders_are_listed_as_plain_data_longest_held_first(ledger: SqlLedger) -> None:
    for number in ("A-2", "A-1", "A-3"):
        hold(ledger, number)
    refuse(ledger, "A-4")

    found = held_orders(limit=2)

    assert [one["custom_order_number"] for one in found] == ["A-2", "A-1"]
    assert found[0].pop("since").endswith("UTC")
    assert found[0].pop("version")
    assert found[0] == {
        "custom_order_number": "A-2",
        "generation": 1,
        "goods": {SKU: 1},
        "country": "FR",
        "kk_order_ids": [],
        "why": "not in KK's list",
    }


def test_order_again_happens_once_however_often_it_is_retried(
    ledger: SqlLedger, sandbox: SandboxServer
) -> None:
    hold(ledger, "A-1")
    there = sandbox.control.place({SKU: 5}, number="A-1")

    with pytest.raises(
        AirflowFailException, match=f"are 1 x {SKU}, but those of these KK orders are 5 x {SKU}"
    ):
        resolve("A-1", "order_again", kk_order_ids=there, generation=1)
    assert state(ledger, "A-1") == "held"
    version = held_orders()[0]["version"]
    for _ in range(2):
        resolve(
            "A-1", "order_again", kk_order_ids=there, generation=1, version=version, accept_other_goods=True
        )

    old, new = ledger.generations("A-1")
    assert (old.state.value, old.kk_order_ids) == ("created", tuple(there))
    assert (new.state.value, new.resolved_by) == ("not_sent", "ann: looked at KK's site")
    with pytest.raises(AirflowFailException, match="ordered again meanwhile, as generation 2"):
        resolve("A-1", "order_again", generation=1, why="another reason")


@pytest.mark.parametrize("resolution", ["created", "never_created", "order_again"])
def test_a_resolution_of_an_outdated_version_is_rejected(
    ledger: SqlLedger, sandbox: SandboxServer, resolution: str
) -> None:
    hold(ledger, "A-1")
    (shown,) = held_orders()
    resolve("A-1", "never_created", who="bob")
    there = sandbox.control.place({SKU: 1}, number="A-1")
    record(ledger, "A-1", "created", ids=tuple(there))
    seen = {"generation": shown["generation"], "version": shown["version"]}

    with pytest.raises(AirflowFailException, match="it changed meanwhile, and is created now"):
        resolve("A-1", resolution, kk_order_ids="999", accept_other_goods=True, **seen)

    assert [one.state.value for one in ledger.generations("A-1")] == ["created"]


def test_a_resolution_that_was_accepted_is_accepted_by_a_retry_too(
    ledger: SqlLedger, sandbox: SandboxServer
) -> None:
    hold(ledger, "A-1")
    hold(ledger, "A-2")
    (kk_order_id,) = sandbox.control.place({SKU: 1}, number="A-1")
    seen = {
        one["custom_order_number"]: {"generation": one["generation"], "version": one["version"]}
        for one in held_orders()
    }
    for _ in range(2):
        resolve("A-1", "created", kk_order_ids=f" {kk_order_id},", **seen["A-1"])
        resolve("A-2", "never_created", **seen["A-2"])
    assert (state(ledger, "A-1"), state(ledger, "A-2")) == ("created", "not_sent")


@pytest.mark.parametrize(
    ("number", "resolution", "arguments", "told"),
    [
        ("A-1", "created", {}, "enter at least one kkOrderId"),
        ("A-1", "created", {"kk_order_ids": ["999"]}, "KK lists no order '999'"),
        ("A-1", "created", {"kk_order_ids": "see mail"}, "are not kkOrderIds"),
        ("A-1", "never_created", {"why": " "}, "set who and why"),
        ("A-1", "lost", {}, "must be one of created, never_created, order_again"),
        ("A-2", "never_created", {}, "nothing to resolve"),
        ("A-3", "never_created", {}, "not in the ledger"),
    ],
)
def test_a_rejected_resolution_fails_permanently_with_the_reason(
    number: str, resolution: str, arguments: dict[str, Any], told: str, ledger: SqlLedger
) -> None:
    hold(ledger, "A-1")
    record(ledger, "A-2", "created", ids=("1",))
    with pytest.raises(AirflowFailException, match=told):
        resolve(number, resolution, **arguments)
    assert state(ledger, "A-1") == "held"


def test_an_order_that_kk_lists_by_now_is_not_resent(ledger: SqlLedger, sandbox: SandboxServer) -> None:
    hold(ledger, "A-1")
    (late,) = sandbox.control.place({SKU: 1}, number="A-1", age_s=60)
    with pytest.raises(AirflowFailException, match=f"A-1 is not resolved: KK lists {late} for it by now"):
        resolve("A-1", "never_created")
    assert state(ledger, "A-1") == "held"


def test_a_resolution_is_retryable_while_kk_is_unreachable(ledger: SqlLedger, sandbox: SandboxServer) -> None:
    hold(ledger, "A-1")
    record(ledger, "A-2", "created", ids=("1",))
    sandbox.control.arm("auth", method=None)
    for number, resolution in (("A-1", "created"), ("A-2", "order_again")):
        with pytest.raises(AirflowException, match="cannot be read") as raised:
            resolve(number, resolution, kk_order_ids=["1"])
        assert not isinstance(raised.value, AirflowFailException)
    assert [state(ledger, number) for number in ("A-1", "A-2")] == ["held", "created"]
