"""People decide on held orders inside Airflow, and what they say is done."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_kk.operators.orders import SyncOrdersOperator
from tests.airflow.support import AIRFLOW_VERSION, EXAMPLE_DAGS
from tests.operators.shop import QUICK, SELECT, each_is_there_once, goods, nonzero, number, rows

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop

ANSWERING = Path(__file__).with_name("answering_process.py")
#: An order in doubt is settled after seven seconds, the others are not in doubt.
TIMES = QUICK | {"timeout_s": 2, "lease_s": 4}
HELD_ORDERS = EXAMPLE_DAGS / "kk_held_orders.py"


@pytest.mark.range
def test_the_file_holds_its_dag_where_airflow_can_ask():
    assert ("dag" in runpy.run_path(str(HELD_ORDERS))) == (AIRFLOW_VERSION >= (3, 1))


@pytest.mark.range
@pytest.mark.skipif(AIRFLOW_VERSION < (3, 1), reason="Airflow asks people since 3.1")
def test_a_question_is_open_for_a_day():
    question = runpy.run_path(str(HELD_ORDERS))["dag"].get_task("decide.ask")
    timeout = getattr(question, "response_timeout", None) or question.execution_timeout
    assert timeout == timedelta(days=1)


def sync() -> SyncOrdersOperator:
    return SyncOrdersOperator(
        task_id="sync", sql=SELECT, warehouse_conn_id="warehouse", on_absence="hold", deferrable=False
    )


def states(shop: Shop) -> dict[str, tuple[str, str]]:
    """By order number, its state and whose word it was."""
    found = shop.warehouse.execute("SELECT custom_order_number, state, resolved_by FROM kk_order")
    return {key: (state, who) for key, state, who in found}


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 3), reason="dag.test() waits for no answer before")
def test_manual_resolution_of_held_orders_is_done_under_the_users_name(shop: Shop, tmp_path: Path):
    shop.connect(**TIMES)
    shop.warehouse.add(*rows(range(4)))
    for n in (1, 2, 3):
        shop.sandbox.control.arm("drop_before_commit", number=number(n), times=1)
    assert nonzero(shop.attempt(sync()).summary) == {"created": 1, "held": 3}
    late = shop.sandbox.control.place(goods(2), number=number(2), country="FR")
    shop.warehouse.execute(
        f"UPDATE kk_order SET message = 'absent {{{{ 1 + 1 }}}}' WHERE custom_order_number = '{number(1)}'"
    )
    answers = {
        number(1): ["KK never made it: send it", {"kk_order_ids": "", "why": "looked there"}],
        number(2): [
            "KK has it, under these kkOrderIds",
            {"kk_order_ids": ", ".join(late), "why": "came late"},
        ],
        number(3): ["KK has it, under these kkOrderIds", {"kk_order_ids": late[0], "why": "mistaken"}],
    }
    (tmp_path / "passwords.json").write_text(json.dumps({"ann": "sesame"}))
    shop.home.env |= {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ann:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(tmp_path / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "secret" * 12,
    }
    shop.home.connections["kk_default"]["extra"]["ledger_conn_id"] = "warehouse"

    run = shop.home.start_dag(HELD_ORDERS)
    answering = subprocess.run(
        [sys.executable, str(ANSWERING), "kk_held_orders", json.dumps(answers), "ann", "sesame"],
        env=shop.home.environment(EXAMPLE_DAGS),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert answering.returncode == 0, answering.stdout + answering.stderr + run.log()
    bodies = json.loads(answering.stdout.rpartition("BODIES ")[2])
    result = run.wait()

    assert "absent {{ 1 + 1 }}" in bodies[number(1)]  # what KK has said is no template
    assert result.state == "failed", result.log
    rejected = f"Order {number(3)} is not resolved: KK lists other order numbers for these ids: {late[0]}"
    assert rejected in result.log
    done = {pushed["return_value"] for key, pushed in result.xcoms.items() if "apply" in key}
    assert done == {
        "never created; the next sync that selects it sends it",
        f"created as {', '.join(late)}",
    }
    assert states(shop) == {
        number(0): ("created", ""),
        number(1): ("not_sent", "ann: looked there"),
        number(2): ("created", "ann: came late"),
        number(3): ("held", ""),
    }

    assert nonzero(shop.attempt(sync(), run_id="manual__2").summary) == {
        "created": 1,
        "already_created": 2,
        "held": 1,
    }
    each_is_there_once(shop.sandbox, range(3))
