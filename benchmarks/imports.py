"""What a DAG file costs that only names the operators: Airflow parses it again and again."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from benchmarks.places import REPOSITORY
from benchmarks.table import Row

OURS = "airflow_provider_kk.operators.orders"
THEIRS = "airflow.providers.http.operators.http"
_CODE = """
import json, sys, time
import airflow.providers.common.compat.sdk as sdk
sdk.BaseOperator, sdk.BaseHook, sdk.AirflowException
before, cpu = set(sys.modules), time.process_time()
__import__(sys.argv[1])
print(json.dumps([len(set(sys.modules) - before), time.process_time() - cpu]))
"""


def rows(*, is_long: bool) -> Iterator[Row]:
    (modules, cpu_s), (their_modules, their_cpu_s) = _import(OURS), _import(THEIRS)
    yield Row(
        "modules that importing the operators loads, beyond Airflow's SDK",
        f"{modules}",
        f"`python -c 'import {THEIRS}'`",
        f"{their_modules}",
        f"{their_modules / modules:.1f} times fewer",
    )
    yield Row(
        "CPU of that import, the best of three",
        f"{cpu_s * 1000:.0f} ms",
        f"`python -c 'import {THEIRS}'`",
        f"{their_cpu_s * 1000:.0f} ms",
        f"{their_cpu_s / cpu_s:.1f} times less",
    )


def _import(module: str) -> tuple[int, float]:
    found: list[Any] = []
    for _ in range(3):
        command = [sys.executable, "-c", _CODE, module]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return min(number for number, _cpu_s in found), min(cpu_s for _number, cpu_s in found)
