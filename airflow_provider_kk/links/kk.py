"""Links from a task to its order at KK and to its orders in the ledger.

Airflow 3 creates them once, in the worker at the end of the task. Airflow 2.11 creates them at each view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from airflow.providers.common.compat.sdk import BaseOperatorLink

from airflow_provider_kk.plugins.urls import HAS_PAGES, root

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

#: XComs of a task: the order number, and the address of its order's page at KK.
ORDER_NUMBER, ORDER_URL = "customOrderNumber", "kkOrderUrl"


class OrderAtKKLink(BaseOperatorLink):
    """Link to the order's page at KK, if the connection's extra `order_url` has the address of such pages."""

    name = "Order at KK"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address that the task pushed; empty if it pushed none."""
        return _pushed(ORDER_URL, ti_key)


class OrderInLedgerLink(BaseOperatorLink):
    """Link to the task's order on the Orders page."""

    name = "Order in the ledger"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page of the order number, else of the kkOrderId; empty if the task has neither."""
        task: Any = operator
        number = _pushed(ORDER_NUMBER, ti_key) or _text(getattr(task, "custom_order_number", None))
        kk_order_id = _text(getattr(task, "kk_order_id", None))
        if number:
            return f"{root()}/order?{urlencode({'number': number, 'kk_conn_id': task.kk_conn_id})}"
        if kk_order_id:
            return f"{root()}/orders?{urlencode({'q': kk_order_id, 'kk_conn_id': task.kk_conn_id})}"
        return ""


class RunInLedgerLink(BaseOperatorLink):
    """Link to the orders of the task's run on the Orders page."""

    name = "Orders in the ledger"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page of the run."""
        query = urlencode({"kk_conn_id": getattr(operator, "kk_conn_id", "")})
        return f"{root()}/runs/{quote(ti_key.dag_id, safe='')}/{quote(ti_key.run_id, safe='')}?{query}"


#: Airflow has the Orders page from 3.1 on; older versions get no such links.
IN_LEDGER = (OrderInLedgerLink(),) if HAS_PAGES else ()
RUN_IN_LEDGER = (RunInLedgerLink(),) if HAS_PAGES else ()


def _pushed(key: str, ti_key: TaskInstanceKey) -> str:
    from airflow.providers.common.compat.sdk import XCom

    return _text(XCom.get_value(key=key, ti_key=ti_key))


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
