"""The arguments that map columns survive Airflow: parsing, serialisation, mapped tasks, a run."""

from __future__ import annotations

import copy
import json
import pickle
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_kk.operators.orders import Constant, SyncOrdersOperator
from airflow_provider_kk.warehouse.field_sources import constant_of
from tests.operators import shop
from tests.operators.shop import nonzero, rows, sync

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.shop import Warehouse

COLUMNS = {"recipient": "{first} {last}", "phone": Constant("+33 1 00 00 00 00")}


def serialized(dag: DAG) -> dict[str, Any]:
    """The DAG as the scheduler reads it, through JSON."""
    try:
        from airflow.serialization.serialized_objects import DagSerialization as Serialization
    except ImportError:  # before Airflow 3.2
        from airflow.serialization.serialized_objects import SerializedDAG as Serialization
    data: dict[str, Any] = json.loads(json.dumps(Serialization.to_dict(dag)))
    Serialization.from_dict(data)
    return data


@pytest.mark.parametrize("text", ["+33 1", "it's", "='x'", "{a}"])
@pytest.mark.parametrize(
    "kept",
    [
        copy.copy,
        copy.deepcopy,
        lambda one: pickle.loads(pickle.dumps(one)),  # noqa: S301 - our own
        lambda one: json.loads(json.dumps(one)),
    ],
)
def test_a_constant_is_the_same_after_it_was_copied_or_stored(text: str, kept: Any):
    constant = Constant(text)

    assert constant_of(kept(constant)) == constant_of(constant) == text
    assert kept(constant) == constant == f"='{text}'"


def test_a_dag_with_constants_serialises_also_for_mapped_tasks():
    with DAG("mapping", schedule=None, start_date=pendulum.datetime(2026, 1, 1)) as dag:
        given = {"sql": "SELECT 1", "warehouse_conn_id": "warehouse", "columns": COLUMNS}
        SyncOrdersOperator(task_id="one", **given, defaults={"province": "{city}"})
        SyncOrdersOperator.partial(task_id="many", **given).expand(parameters=[[1], [2]])

    assert "='+33 1 00 00 00 00'" in json.dumps(serialized(dag))


@pytest.mark.usefixtures("connect")
def test_a_task_fills_fields_from_constants_templates_and_defaults(
    sandbox: SandboxServer, warehouse: Warehouse
):
    warehouse.add(*rows(range(2)))
    columns = {"phone": Constant("+33 1"), "recipient": "{recipient} c/o {city}"}

    done = shop.attempt(sync(columns=columns, defaults={"remark": Constant("a gift")}))

    assert nonzero(done.summary) == {"created": 2}
