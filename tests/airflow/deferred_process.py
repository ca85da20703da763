"""The process that lets tasks be deferred to triggers without running them, and tells what became of them.

Arguments: `defer` DAG_FILE (the triggers' arguments, a JSON list, on stdin), or `states`
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import pendulum
from airflow.utils.session import create_session


def main() -> None:
    if sys.argv[1] == "defer":
        defer(sys.argv[2], json.load(sys.stdin))
    else:
        print("STATES", json.dumps(states()))


def defer(dag_file: str, triggers: list[dict[str, Any]]) -> None:
    """Run the DAG's tasks, named t0, t1, ..., up to where each has deferred to a trigger."""
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.trigger import Trigger
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    from airflow_provider_kk.triggers.orders import OrderTrigger

    bag = DagBag(dag_file)
    (dag_id,) = bag.dags
    with create_session() as session:
        session.add(DagBundleModel(name="dags-folder"))
    sync_bag_to_db(bag, "dags-folder", None)
    with create_session() as session:
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
        session.flush()
        for task in session.query(TaskInstance).all():
            row = Trigger.from_object(OrderTrigger(**triggers[int(task.task_id[1:])]))
            session.add(row)
            session.flush()
            task.trigger_id, task.state, task.next_method, task.next_kwargs = row.id, "deferred", "resume", {}


def states() -> dict[str, int]:
    from airflow.models.taskinstance import TaskInstance

    with create_session() as session:
        return Counter(state for (state,) in session.query(TaskInstance.state))


if __name__ == "__main__":
    main()
