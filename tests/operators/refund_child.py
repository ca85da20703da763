"""A process that asks for a refund and dies: python -m tests.operators.refund_child ID POINT."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from airflow_provider_kk.api.client import KKClient
from airflow_provider_kk.delivery.ledger import Ledger
from airflow_provider_kk.operators.refunds import RefundOrderOperator
from tests.operators.shop import attempt


def die(*_args: Any, **_kwargs: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str) -> None:
    ask = KKClient.refund_order
    if point == "before the intent":
        Ledger.claim = die  # type: ignore[method-assign, assignment]
    elif point == "before the POST":
        KKClient.refund_order = die  # type: ignore[method-assign, assignment]
    elif point == "after the answer":

        def ask_and_die(*args: Any, **kwargs: Any) -> None:
            ask(*args, **kwargs)
            die()

        KKClient.refund_order = ask_and_die  # type: ignore[method-assign, assignment]
    elif point == "after the record":
        Ledger.record = _then_die(Ledger.record)  # type: ignore[method-assign]


def _then_die(method: Any) -> Any:
    def call(*args: Any) -> None:
        method(*args)
        die()

    return call


if __name__ == "__main__":
    arm(sys.argv[2])
    attempt(RefundOrderOperator(task_id="refund", kk_order_id=sys.argv[1], ledger_conn_id="warehouse"))
