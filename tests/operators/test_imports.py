"""Airflow imports operators whenever it parses a DAG file: that must stay cheap."""

from __future__ import annotations

import subprocess
import sys

import pytest

SDK = "from airflow.providers.common.compat.sdk import BaseHook, BaseOperator, DAG, conf\n"
OURS = (
    "from airflow_provider_kk.operators.orders import CreateOrderOperator, SyncOrdersOperator\n"
    "from airflow_provider_kk.operators.refunds import RefundOrderOperator\n"
    "from airflow_provider_kk.operators.shipping import QuoteShippingOperator\n"
    "from airflow_provider_kk.operators.status import SyncOrderStatusOperator\n"
)
SLOW = ("requests", "urllib3", "sqlalchemy", "pandas", "numpy", "flask", "aiohttp", "httpx", "wtforms")


def modules_after(code: str) -> set[str]:
    """The names of all modules that a fresh Python has loaded."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}import sys; print('MODULES', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    return set(done.stdout.rpartition("MODULES")[2].split())


@pytest.fixture(scope="module")
def added() -> set[str]:
    """What a DAG file loads more because it imports our operators."""
    return modules_after(SDK + OURS) - modules_after(SDK)


def test_importing_operators_loads_no_slow_library(added: set[str]):
    assert {name for name in added if name.partition(".")[0] in SLOW} == set()


def test_importing_operators_loads_little_of_our_own(added: set[str]):
    own = {name for name in added if name.startswith("airflow_provider_kk.")}

    for module in ("orders", "refunds", "shipping", "status"):
        assert f"airflow_provider_kk.operators.{module}" in own
    assert not any(name.split(".")[1] in ("delivery", "warehouse", "sandbox", "cli") for name in own)
    assert len(added) < 40, sorted(added)
