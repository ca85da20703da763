"""plan_only says what would happen: the same as what then happens, without a request and without a trace."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.operators import shop
from tests.operators.shop import QUICK, Warehouse, attempt, nonzero, number, rows, sync

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect, Printed

pytestmark = pytest.mark.usefixtures("connect")
BAD = ("S-BAD", *shop.ADDRESS.values(), "FWXW00290_WHT_M", 0)
UNNUMBERED = (None, *shop.ADDRESS.values(), "FWXW00290_WHT_M", "two")


def plan() -> dict[str, Any]:
    planned = attempt(sync(plan_only=True), run_id="plan")
    assert planned.error is None
    found: dict[str, Any] = planned.value
    return found


def ledger_of(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [line for line in db.iterdump() if 'INTO "kk_' in line]


@pytest.mark.parametrize(
    ("version", "express", "expedited"),
    [("v1", None, None), ("v1-orders", "Express", "invalid"), ("v2", "Express", "Expedited")],
)
def test_a_plan_and_a_sync_know_the_shipping_speeds_of_the_api_version(
    sandbox: SandboxServer,
    warehouse: Warehouse,
    connect: Connect,
    version: str,
    express: str | None,
    expedited: str | None,
) -> None:
    connect(api_version=version)
    warehouse.add(*rows([1, 2]))
    speed = f"CASE custom_order_number WHEN '{number(1)}' THEN 'Express' ELSE 'expedited' END AS speed"
    selected = {"sql": f"SELECT {speed}, * FROM order_line", "columns": {"channel_type": "speed"}}

    planned = attempt(sync(plan_only=True, **selected), run_id="plan").value
    done = attempt(sync(**selected), run_id="sync").summary

    invalid = expedited == "invalid"
    assert planned["rejections"] == done["rejections"]
    assert [one["message"] for one in done["rejections"]] == [
        "channel_type: must be Standard or Express in API version v1-orders (column speed)"
    ] * invalid
    speeds = {one["number"]: one["channel_type"] for one in sandbox.control.orders()}
    assert speeds == {number(1): express} | ({} if invalid else {number(2): expedited})


def test_a_plan_counts_what_then_happens(sandbox: SandboxServer, warehouse: Warehouse) -> None:
    warehouse.add(*rows(range(5)), BAD)

    planned = plan()
    done = attempt(sync(), run_id="sync").summary

    assert nonzero(planned) == {"postponed": 5, "invalid": 1}
    assert nonzero(done) == {"created": 5, "invalid": 1}
    assert planned["rejections"] == done["rejections"]
    assert 5 < planned["requests"] <= done["requests"]


def test_a_plan_reports_what_would_become_of_each_known_order(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect, printed: Printed
) -> None:
    connect(**QUICK)
    warehouse.add(*rows(range(6)))
    sandbox.control.arm("code_in_envelope", number="S-0001", code=40_010)
    sandbox.control.arm("drop_before_commit", number="S-0002")
    attempt(sync(on_absence="hold"), run_id="sync")
    warehouse.execute("UPDATE order_line SET quantity = quantity + 1 WHERE custom_order_number = 'S-0003'")
    printed()

    planned = plan()

    assert nonzero(planned) == {"already_created": 3, "changed": 1, "rejected": 1, "held": 1}
    told = printed()
    assert "Order S-0001 (row 2) is rejected (code 40010)" in told.replace("\n", " ")
    assert "Order S-0003 (row 7) is changed: its goods differ" in told
    assert "Order S-0002 (row 4) is held: not in KK's list" in told


def test_a_plan_logs_the_faults_that_the_sync_logs(
    warehouse: Warehouse, sandbox: SandboxServer, printed: Printed
) -> None:
    warehouse.add(*rows([0]), BAD, UNNUMBERED)

    plan()
    planned = [line for line in printed().splitlines() if "is invalid" in line]
    attempt(sync(), run_id="sync")
    done = [line for line in printed().splitlines() if "is invalid" in line]

    faults = [line.partition("Order ")[2] for line in planned]
    assert len(faults) == 2
    assert all(any(fault in line for line in done) for fault in faults)
    assert "without a number (row 3) is invalid: custom_order_number" in faults[1]


def test_a_plan_and_a_sync_name_orders_with_duplicate_rows(
    warehouse: Warehouse, sandbox: SandboxServer, printed: Printed
) -> None:
    warehouse.add(*rows([0, 1, 1, 2]))

    plan()
    assert nonzero(attempt(sync(), run_id="sync").summary) == {"created": 2, "invalid": 1}
    kept = attempt(sync(duplicate_rows="keep"), run_id="keep").summary
    assert nonzero(kept) == {"already_created": 2, "created": 1}

    logged = printed().replace("\n", " ")
    assert logged.count("Order S-0001 is valid, with a warning: items: has a SKU on several lines") == 1


def test_a_plan_sends_no_request_and_leaves_the_ledger_as_it_is(
    sandbox: SandboxServer, warehouse: Warehouse
) -> None:
    warehouse.add(*rows(range(3)))
    attempt(sync(), run_id="sync")
    warehouse.add(*rows(range(3, 6)), BAD)
    before = ledger_of(warehouse.path), sandbox.control.counts()["requests"]

    assert nonzero(plan()) == {"already_created": 3, "postponed": 3, "invalid": 1}

    assert (ledger_of(warehouse.path), sandbox.control.counts()["requests"]) == before
    assert before[0]


@pytest.mark.parametrize("check_stock", [False, True])
def test_a_plan_makes_no_ledger_and_changes_nothing_in_the_warehouse(
    sandbox: SandboxServer, warehouse: Warehouse, printed: Printed, check_stock: bool
) -> None:
    warehouse.add(*rows(range(3)))
    before = warehouse.execute("SELECT * FROM sqlite_master")

    planned = attempt(sync(plan_only=True, check_stock=check_stock), run_id="plan").value
    refused = attempt(sync(plan_only=True, sql="DROP TABLE order_line"), run_id="plan").error

    assert nonzero(planned) == {"postponed": 3}
    assert "Connection 'warehouse' has no ledger yet" in printed()
    assert "readonly" in str(refused)
    assert warehouse.execute("SELECT * FROM sqlite_master") == before
    assert nonzero(attempt(sync(), run_id="sync").summary) == {"created": 3}


def test_a_plan_estimates_the_time_at_kks_rate_limit(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect
) -> None:
    connect(rate_limit_burst=12, rate_limit_per_second=0.5)
    warehouse.add(*rows(range(30)))

    planned = plan()

    # Two requests of the burst are left free, and KK's list is read first.
    assert (planned["requests"], planned["seconds"]) == (31, (31 - 10) / 0.5)


def test_a_plan_would_send_a_rejected_order_that_was_fixed(
    sandbox: SandboxServer, warehouse: Warehouse
) -> None:
    warehouse.add(("S-1", *shop.ADDRESS.values(), "NO_SUCH_SKU", 1))
    assert nonzero(attempt(sync(), run_id="sync").summary) == {"rejected": 1}
    assert nonzero(plan()) == {"rejected": 1}

    warehouse.execute("UPDATE order_line SET sku = 'FWXW00290_WHT_M'")

    assert nonzero(plan()) == {"postponed": 1}
