"""Links from a task to its order at KK and to what the ledger knows of it.

Airflow 3 asks for them once, in the worker when the task is over; Airflow 2.11 whenever somebody looks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_kk.plugins.urls import HAS_PAGES, root

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

#: XComs of a task: the order number, and where people see its order at KK.
ORDER_NUMBER, ORDER_URL = "customOrderNumber", "kkOrderUrl"


class OrderAtKKLink(BaseOperatorLink):
    """To the order at KK, where the connection's extra `order_url` says how its pages are addressed."""

    name = "Order at KK"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return what the task has pushed; empty when it has pushed nothing."""
        return _pushed(ORDER_URL, ti_key)


class OrderInLedgerLink(BaseOperatorLink):
    """To what the ledger knows of the task's order, on the Orders page."""

    name = "Order in the ledger"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page of the order number, else of the kkOrderId; empty without either."""
        task: Any = operator
        number = _pushed(ORDER_NUMBER, ti_key) or _text(getattr(task, "custom_order_number", None))
        kk_order_id = _text(getattr(task, "kk_order_id", None))
        if number:
            return f"{root()}/order?{urlencode({'number': number, 'kk_conn_id': task.kk_conn_id})}"
        if kk_order_id:
            return f"{root()}/orders?{urlencode({'q': kk_order_id, 'kk_conn_id': task.kk_conn_id})}"
        return ""


class RunInLedgerLink(BaseOperatorLink):
    """To the orders that the ledger has of the task's run, on the Orders page."""

    name = "Orders in the ledger"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page of the run."""
        query = urlencode({"kk_conn_id": getattr(operator, "kk_conn_id", "")})
        return f"{root()}/runs/{quote(ti_key.dag_id, safe='')}/{quote(ti_key.run_id, safe='')}?{query}"


#: The Orders page is in Airflow from 3.1 on: before, there is nothing to link to.
IN_LEDGER = (OrderInLedgerLink(),) if HAS_PAGES else ()
RUN_IN_LEDGER = (RunInLedgerLink(),) if HAS_PAGES else ()


def _pushed(key: str, ti_key: TaskInstanceKey) -> str:
    from airflow.providers.common.compat.sdk import XCom

    return _text(XCom.get_value(key=key, ti_key=ti_key))


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
