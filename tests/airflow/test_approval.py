"""The example DAG that asks people before much is bought, on a real Airflow."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.airflow.support import AIRFLOW_VERSION, EXAMPLE_DAGS
from tests.airflow.test_examples import fill
from tests.operators.shop import PRIVATE, SKUS, each_is_there_once, nonzero, number

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop

ANSWERING = Path(__file__).with_name("answering_process.py")
APPROVAL = EXAMPLE_DAGS / "kk_approval.py"
CHANGE_TABLE = f"""
    from airflow.providers.common.compat.sdk import BaseHook
    hook = BaseHook.get_connection("warehouse").get_hook()
    hook.run("UPDATE shop_order_line SET quantity = 9 WHERE order_no = '{number(1)}'")
"""
needs_answers = pytest.mark.skipif(AIRFLOW_VERSION < (3, 3), reason="dag.test() waits for no answer before")


@pytest.mark.range
def test_file_holds_its_dag_where_airflow_can_ask():
    assert ("dag" in runpy.run_path(str(APPROVAL))) == (AIRFLOW_VERSION >= (3, 1))


@pytest.mark.range
@pytest.mark.skipif(AIRFLOW_VERSION < (3, 1), reason="Airflow asks people since 3.1")
def test_approval_has_a_timeout_without_a_default_answer():
    approve = runpy.run_path(str(APPROVAL))["dag"].get_task("approve")
    timeout = getattr(approve, "response_timeout", None) or approve.execution_timeout
    assert (timeout, approve.defaults, approve.retries) == (timedelta(hours=12), None, 0)


def with_threshold(orders: int) -> str:
    return APPROVAL.read_text().replace("ASK_ABOVE_ORDERS = 50", f"ASK_ABOVE_ORDERS = {orders}")


@needs_answers
@pytest.mark.parametrize("answer", ["Approve", "Reject"])
def test_large_plan_is_sent_as_approved_or_not_at_all(shop: Shop, tmp_path: Path, answer: str):
    fill(shop, range(4))
    (tmp_path / "passwords.json").write_text(json.dumps({"ann": "sesame"}))
    shop.home.env |= {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "ann:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(tmp_path / "passwords.json"),
        "AIRFLOW__API_AUTH__JWT_SECRET": "secret" * 12,
    }
    # The table changes when the plan is made, before anybody can answer.
    changing = with_threshold(3).replace(
        '    """Describe the plan in Markdown; no customer\'s data is in it."""\n', f"{CHANGE_TABLE}\n"
    )
    assert "UPDATE shop_order_line" in changing

    answers = {"4 orders": [answer, {}]}
    run = shop.home.start_dag(changing)
    answering = subprocess.run(
        [
            sys.executable,
            str(ANSWERING),
            "kk_approval",
            json.dumps(answers),
            "ann",
            "sesame",
        ],
        env=shop.home.environment(EXAMPLE_DAGS),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert answering.returncode == 0, answering.stdout + answering.stderr + run.log()
    (body,) = json.loads(answering.stdout.rpartition("BODIES ")[2]).values()
    result = run.wait()

    assert result.state == "success", result.log
    for part in ("- Orders to send: 4 of 4 selected", "USD", f"| `{SKUS[0]}` |", "| `FR` | 4 |", "`1:"):
        assert part in body
    assert not [word for word in PRIVATE if word in body]
    if answer == "Reject":
        assert result.tasks["sync_orders"] == "skipped", result.log
        assert shop.sandbox.control.counts()["creates"] == 0
        return
    assert nonzero(result.xcoms["sync_orders"]["return_value"]) == {"created": 3, "postponed": 1}
    each_is_there_once(shop.sandbox, [0, 2, 3])


@needs_answers
def test_small_plan_is_sent_without_asking(shop: Shop):
    fill(shop, range(4))

    result = shop.run(with_threshold(4))

    assert result.state == "success", result.log
    assert (result.tasks["approve"], result.tasks["question"]) == ("skipped", "skipped"), result.log
    assert nonzero(result.xcoms["sync_orders"]["return_value"]) == {"created": 4}
    each_is_there_once(shop.sandbox, range(4))


@pytest.mark.range
@pytest.mark.skipif(AIRFLOW_VERSION < (3, 1), reason="Airflow asks people since 3.1")
def test_approval_that_nobody_gives_in_time_sends_nothing(shop: Shop):
    fill(shop, range(4))
    # dag.test() waits for ever, so the task fails at once as it does when its time is up.
    timed_out = with_threshold(3).replace("approve = ApprovalOperator(", "approve = TimedOut(")
    timed_out = timed_out.replace("    with DAG(", f"{TIMED_OUT}\n    with DAG(")

    result = shop.run(timed_out)

    assert result.state == "failed", result.log
    assert (result.tasks["approve"], result.tasks["sync_orders"]) == ("failed", "upstream_failed"), result.log
    assert shop.sandbox.control.counts()["creates"] == 0


TIMED_OUT = """
    class TimedOut(ApprovalOperator):
        def execute(self, context):
            self.execute_complete(context, {"error": "", "error_type": "timeout"})
"""
