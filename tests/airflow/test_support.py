"""The ground that other tests stand on: a DAG really runs, and a test learns all that came of it."""

from __future__ import annotations

import signal
import time

import pytest

from tests.airflow.support import AirflowHome

DAG = """
    import pendulum
    from airflow.providers.common.compat.sdk import DAG, task, get_current_context

    with DAG("numbers", start_date=pendulum.datetime(2024, 1, 1), schedule=None, catchup=False):

        @task
        def count(**context):
            context["ti"].xcom_push(key="name", value="café")
            return [1, 2, context["dag_run"].conf["third"]]

        @task
        def double(n):
            print(f"doubling {n}")
            if n > 100:
                raise ValueError("too large")
            return 2 * n

        double.expand(n=count())
"""


def test_a_dag_runs_to_its_end_and_returns_states_xcoms_and_log(airflow_home: AirflowHome):
    result = airflow_home.run_dag(DAG, conf={"third": 3})

    assert result.state == "success", result.log
    assert result.tasks == {
        "count": "success",
        "double[0]": "success",
        "double[1]": "success",
        "double[2]": "success",
    }
    assert result.xcoms["count"] == {"return_value": [1, 2, 3], "name": "café"}
    assert result.xcoms["double[2]"] == {"return_value": 6}
    assert "doubling 3" in result.log


def test_a_failed_task_is_a_state_not_a_crash(airflow_home: AirflowHome):
    result = airflow_home.run_dag(DAG, conf={"third": 300})

    assert result.state == "failed"
    assert result.tasks["double[2]"] == "failed"
    assert "too large" in result.log


def test_the_same_logical_date_is_the_same_run(airflow_home: AirflowHome):
    first = airflow_home.run_dag(DAG, conf={"third": 3}, logical_date="2024-05-01T00:00:00+00:00")
    second = airflow_home.run_dag(DAG, conf={"third": 3}, logical_date="2024-05-01T00:00:00+00:00")

    assert first.run_id == second.run_id
    assert second.state == "success"


def test_a_run_that_hangs_is_killed_in_time(airflow_home: AirflowHome):
    running = airflow_home.start_dag(
        DAG.replace('print(f"doubling {n}")', "import time; time.sleep(600)"), conf={"third": 3}
    )
    begin = time.monotonic()

    with pytest.raises(AssertionError, match="did not end within 1 s"):
        running.wait(timeout_s=1)
    assert running.process.returncode == -signal.SIGKILL
    assert time.monotonic() - begin < 300
