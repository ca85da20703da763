"""The process that lets tasks be deferred to triggers without running them, and tells what became of them.

Arguments: `defer` DAG_FILE (the triggers' arguments, a JSON list, on stdin), or `states`
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import airflow
import pendulum
from airflow.utils.session import create_session


def main() -> None:
    if sys.argv[1] == "defer":
        defer(sys.argv[2], json.load(sys.stdin))
    else:
        print("STATES", json.dumps(states()))


def defer(dag_file: str, triggers: list[dict[str, Any]]) -> None:
    """Let the DAG's tasks, named t0, t1, ..., each wait for a trigger, as if it had run up to there."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger

    from airflow_provider_kk.triggers.kk import OrderTrigger

    # On 2.11 this ends the session that it finds.
    rows = [Trigger.from_object(OrderTrigger(**one)) for one in triggers]
    with create_session() as session:
        (create_run_on_2 if airflow.__version__.startswith("2.") else create_run)(dag_file, session)
        session.flush()
        for task in session.query(TaskInstance).all():
            row = rows[int(task.task_id[1:])]
            session.add(row)
            session.flush()
            task.trigger_id, task.state, task.next_method, task.next_kwargs = row.id, "deferred", "resume", {}


def create_run(dag_file: str, session: Any) -> None:
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    bag = DagBag(dag_file)
    (dag_id,) = bag.dags
    session.add(DagBundleModel(name="dags-folder"))
    session.commit()
    sync_bag_to_db(bag, "dags-folder", None)
    now = pendulum.now("UTC")
    SerializedDagModel.get_dag(dag_id, session=session).create_dagrun(
        run_id="run",
        logical_date=now,
        data_interval=(now, now),
        run_after=now,
        run_type=DagRunType.MANUAL,
        triggered_by=DagRunTriggeredByType.TEST,
        state="running",
        start_date=now,
        session=session,
    )


def create_run_on_2(dag_file: str, session: Any) -> None:
    from airflow.models.dagbag import DagBag
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunType

    bag = DagBag(dag_file, include_examples=False)
    bag.sync_to_db()
    (dag,) = bag.dags.values()
    now = pendulum.now("UTC")
    dag.create_dagrun(
        run_id="run",
        execution_date=now,
        data_interval=(now, now),
        run_type=DagRunType.MANUAL,
        state=DagRunState.RUNNING,
        start_date=now,
        session=session,
    )


def states() -> dict[str, int]:
    from airflow.models.taskinstance import TaskInstance

    with create_session() as session:
        return Counter(state for (state,) in session.query(TaskInstance.state))


if __name__ == "__main__":
    main()
