"""Orders a second with no limit in force, in DAG runs as of `airflow dags test`, and beside loops."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from airflow_provider_kk.sandbox.control import SandboxControl
from benchmarks.orders import PATH, body
from benchmarks.places import NO_LIMIT, TOKEN, databases, kk, run_child
from benchmarks.table import Row
from tests.airflow.support import AirflowHome
from tests.operators.shop import SELECT, SKUS, Warehouse, address

ORDERS = 600
#: A request takes 20 ms and an order's commits as long again: so many keep both cores busy.
IN_FLIGHT = 24
LATENCY_S = 0.02

_SYNC = """
    from airflow.providers.common.compat.sdk import DAG
    from airflow_provider_kk.operators.orders import SyncOrdersOperator

    with DAG("bench_sync", schedule=None):
        SyncOrdersOperator(
            task_id="sync",
            warehouse_conn_id="warehouse",
            ledger_conn_id="ledger",
            sql={sql!r},
            max_in_flight={in_flight},
        )
"""
_HTTP = """
    import json
    from airflow.providers.common.compat.sdk import DAG
    from airflow.providers.http.operators.http import HttpOperator

    BODIES = json.loads({bodies!r})
    with DAG("bench_http", schedule=None):
        HttpOperator.partial(
            task_id="post", http_conn_id="kk_http", endpoint={path!r}, method="POST",
            headers={{"Authorization": "Bearer {token}", "Content-Type": "application/json"}},
        ).expand(data=[json.dumps(body) for body in BODIES])
"""


def rows(*, is_long: bool) -> Iterator[Row]:
    with (
        kk(latency_s=LATENCY_S, rate_limit=False) as control,
        databases() as urls,
        tempfile.TemporaryDirectory() as folder,
    ):
        home = AirflowHome.create(Path(folder) / "home")
        ours = {kind: _sync(kind, url, home, control, Path(folder)) for kind, url in urls.items()}
        mapped = _mapped(home, control)
        loop = _peer(control, "loop", threads=1)
        threads = _peer(control, "threads", threads=IN_FLIGHT)
        sleeping = _peer(control, "sleep", threads=1, number=10, sleep_s=0.5)
    cpu = {kind: _cpu_of_thousand(kind) for kind in urls}
    peers = {
        "one requests.Session, a loop: `python -m benchmarks.peers`": loop,
        f"the same in {IN_FLIGHT} threads": threads,
        "the same loop with sleep(0.5)": sleeping,
        "HttpOperator mapped over the same orders, in a DAG run": mapped,
    }
    wanted = {0: "0.8 with PostgreSQL", 3: "20 times with PostgreSQL"}
    for kind, rate in ours.items():
        for place, (peer, their_rate) in enumerate(peers.items()):
            yield Row(
                f"orders a second in a DAG run, {IN_FLIGHT} in flight, ledger in {kind}, "
                f"{LATENCY_S * 1000:.0f} ms a request",
                f"{rate:.0f}",
                peer,
                f"{their_rate['rate']:.1f}",
                f"{rate / their_rate['rate']:.2f}",
                wanted.get(place, ""),
            )
    for kind, cpu_s in cpu.items():
        yield Row(
            f"CPU of a thousand orders, ledger in {kind}",
            f"{cpu_s:.1f} s",
            "one requests.Session, a loop: `python -m benchmarks.peers`",
            f"{loop['cpu_s']:.1f} s",
            f"{cpu_s / loop['cpu_s']:.1f}",
        )


def _sync(kind: str, url: str, home: AirflowHome, control: SandboxControl, folder: Path) -> float:
    warehouse = Warehouse(folder / f"{kind}-shop.db")
    warehouse.add(*((f"{kind}-{n}", *address(1).values(), SKUS[0], 1) for n in range(ORDERS)))
    extra = {
        "account": kind,
        "sale_platform": "bench",
        "rate_limit_burst": NO_LIMIT["rate_burst"],
        "rate_limit_per_second": NO_LIMIT["rate_per_second"],
    }
    home.connections |= {
        "kk_default": {"conn_type": "kk", "host": control.url, "password": TOKEN, "extra": extra},
        "warehouse": warehouse.connection,
        "ledger": url.replace("postgresql://", "postgres://")
        if kind == "postgresql"
        else {"conn_type": "sqlite", "host": url.removeprefix("sqlite:///")},
    }
    result = home.run_dag(_SYNC.format(sql=SELECT, in_flight=IN_FLIGHT), timeout_s=600)
    assert result.state == "success", result.log
    return _rate(control, f"{kind}-", ORDERS)


def _mapped(home: AirflowHome, control: SandboxControl) -> dict[str, float]:
    home.connections["kk_http"] = {"conn_type": "http", "host": control.url}
    bodies = json.dumps([body(f"mapped-{n}") for n in range(ORDERS)])
    result = home.run_dag(_HTTP.format(bodies=bodies, path=PATH, token=TOKEN), timeout_s=600)
    assert result.state == "success", result.log
    return {"rate": _rate(control, "mapped-", ORDERS)}


def _peer(
    control: SandboxControl, name: str, *, threads: int, number: int = ORDERS, sleep_s: float = 0.0
) -> dict[str, float]:
    numbers = [f"{name}-{n}" for n in range(number)]
    task = {"url": control.url, "numbers": numbers, "threads": threads, "sleep_s": sleep_s}
    told = run_child("peers", task)
    return {"rate": _rate(control, f"{name}-", number), "cpu_s": told["cpu_s"] * 1000 / number}


def _cpu_of_thousand(kind: str) -> float:
    """Return the CPU seconds of a thousand orders, without Airflow's own, on an empty ledger and KK."""
    with kk(latency_s=LATENCY_S, rate_limit=False) as control, databases() as urls:
        task: dict[str, Any] = {
            "url": control.url,
            "ledger": urls[kind],
            "burst": NO_LIMIT["rate_burst"],
            "per_second": NO_LIMIT["rate_per_second"],
            "in_flight": IN_FLIGHT,
            "numbers": [f"cpu-{n}" for n in range(ORDERS)],
        }
        return float(run_child("worker", task)["cpu_s"]) * 1000 / ORDERS


def _rate(control: SandboxControl, prefix: str, number: int) -> float:
    """Return orders a second between the first and the last POST, by KK's log: the same for everybody."""
    times = [entry["at"] for entry in control.requests() if (entry["number"] or "").startswith(prefix)]
    assert len(times) == number, f"{len(times)} POSTs for {number} orders"
    return float((number - 1) / (max(times) - min(times)))
