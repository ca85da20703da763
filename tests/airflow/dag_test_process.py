"""The process that `support.run_dag` starts: runs one DAG with `dag.test()`, writes what came of it.

Arguments: DAG_FILE, DAG_ID (empty: the file's only DAG), RESULT_FILE, OPTIONS (JSON)
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import airflow
from airflow.utils.session import create_session

IS_AIRFLOW_3 = airflow.__version__.startswith("3.")


def main(arguments: list[str]) -> None:
    dag_file, dag_id, result_file, options = arguments
    dag = load_dag(Path(dag_file), dag_id)
    Path(result_file).write_text(json.dumps(run(dag, json.loads(options)), default=str))


def load_dag(dag_file: Path, dag_id: str) -> Any:
    if find_spec("airflow.dag_processing.dagbag"):
        from airflow.dag_processing.dagbag import DagBag
    else:
        from airflow.models.dagbag import DagBag
    bag = DagBag(dag_folder=str(dag_file))
    if bag.import_errors:
        raise SystemExit("\n".join(bag.import_errors.values()))
    found = sorted(bag.dags)
    if not dag_id and len(found) != 1:
        raise SystemExit(f"{dag_file} holds {found}: name one")
    return bag.dags[dag_id or found[0]]


def run(dag: Any, options: dict[str, Any]) -> dict[str, Any]:
    if not IS_AIRFLOW_3:
        # Replacing a run of the same date needs all tables that refer to it.
        import airflow.providers.fab.auth_manager.models  # noqa: F401
    logical_date = options["logical_date"] and datetime.fromisoformat(options["logical_date"])
    names = ("logical_date", "run_after") if IS_AIRFLOW_3 else ("execution_date",)
    dates = dict.fromkeys(names, logical_date) if logical_date else {}
    run_id = dag.test(run_conf=options["conf"], **dates).run_id
    with create_session() as session:
        return {
            "run_id": run_id,
            "state": read_state(session, dag.dag_id, run_id),
            "tasks": read_tasks(session, dag.dag_id, run_id),
            "xcoms": read_xcoms(session, dag.dag_id, run_id),
        }


def read_state(session: Any, dag_id: str, run_id: str) -> str:
    from airflow.models.dagrun import DagRun

    return str(session.query(DagRun.state).filter_by(dag_id=dag_id, run_id=run_id).scalar())


def read_tasks(session: Any, dag_id: str, run_id: str) -> dict[str, str]:
    from airflow.models.taskinstance import TaskInstance

    rows = session.query(TaskInstance).filter_by(dag_id=dag_id, run_id=run_id)
    return {name_of(row.task_id, row.map_index): str(row.state) for row in rows}


def read_xcoms(session: Any, dag_id: str, run_id: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in xcom_rows(session).filter_by(dag_id=dag_id, run_id=run_id):
        found.setdefault(name_of(row.task_id, row.map_index), {})[row.key] = value_of(row)
    return found


def xcom_rows(session: Any) -> Any:
    if IS_AIRFLOW_3:
        from airflow.models.xcom import XComModel as Model
    else:
        from airflow.models.xcom import BaseXCom as Model
    return session.query(Model)


def value_of(row: Any) -> Any:
    if not IS_AIRFLOW_3:
        return row.value
    from airflow.sdk.bases.xcom import BaseXCom

    return BaseXCom.deserialize_value(row)


def name_of(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id}[{map_index}]"


if __name__ == "__main__":
    main(sys.argv[1:])
