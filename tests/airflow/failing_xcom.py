"""An XCom backend that refuses a value once for each task of the DAG `failed_xcom_push`."""

from __future__ import annotations

import os
import pathlib
from typing import Any

try:
    from airflow.sdk.bases.xcom import BaseXCom
except ImportError:
    from airflow.models.xcom import BaseXCom


class FailingXCom(BaseXCom):
    @staticmethod
    def serialize_value(value: Any, *, task_id: Any = None, dag_id: Any = None, **where: Any) -> Any:
        failed = pathlib.Path(os.environ["AROUND_FOLDER"]) / f"xcom_of_{task_id}_failed"
        if dag_id == "failed_xcom_push" and not failed.exists():
            failed.touch()
            raise OSError("the XCom store is gone")
        return BaseXCom.serialize_value(value, task_id=task_id, dag_id=dag_id, **where)
