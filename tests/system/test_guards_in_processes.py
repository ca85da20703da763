"""The daily cap and the pause in real processes: `kk send` and `kk pause`, each in a home of its own.

`make test-system` runs eight processes and 200 orders, the suite a small share of that.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.operators.shop import SKUS

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

#: `kk pause` says so, `docs/howto-stop.md` too.
_PAUSED_WITHIN_S = 5.0
_KK = "import sys; from airflow_provider_kk.cli.main import main; sys.exit(main())"
_QUICK: dict[str, Any] = {
    **{"timeout_s": 3, "lease_s": 6, "settle_window_s": 1, "account": "shop"},
    **{"rate_limit_burst": 10_000, "rate_limit_per_second": 1_000},
}


@dataclass
class Machines:
    """Processes with homes of their own, one ledger, and a file of orders."""

    folder: Path
    sandbox: SandboxServer
    ledger: dict[str, Any]
    running: list[subprocess.Popen[str]] = field(default_factory=list)
    homes: int = 0

    def write_orders(self, number: int) -> None:
        rows = (f"A-{n},FR,0102030405,Sample,Here,{SKUS[0]},1\n" for n in range(number))
        header = "custom_order_number,country,phone,recipient,province,sku,quantity\n"
        self.file.write_text(header + "".join(rows))

    @property
    def file(self) -> Path:
        return self.folder / "orders.csv"

    def start(self, *words: str, **extra: Any) -> subprocess.Popen[str]:
        """Start `kk` on a machine of its own."""
        self.homes += 1
        home = self.folder / f"home-{self.homes}"
        home.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        kk = {"conn_type": "kk", "host": self.sandbox.url, "password": self.sandbox.token}
        environment |= {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW_CONN_KK_DEFAULT": json.dumps(
                {**kk, "extra": {**_QUICK, "ledger_conn_id": "ledger", **extra}}
            ),
            "AIRFLOW_CONN_LEDGER": json.dumps(self.ledger),
        }
        log = (home / "log").open("w")
        process = subprocess.Popen(
            [sys.executable, "-c", _KK, *words], env=environment, stdout=log, stderr=log, text=True, cwd=home
        )
        log.close()
        self.running.append(process)
        return process

    def run(self, *words: str, **extra: Any) -> int:
        """Run `kk` to its end; the exit status."""
        return self.start(*words, **extra).wait()

    def send(self, **extra: Any) -> subprocess.Popen[str]:
        return self.start("send", str(self.file), "--yes", **extra)

    def send_the_rest(self) -> None:
        """Send without a cap until all is done; what was killed is settled first."""
        for _ in range(8):
            if self.send().wait() == 0:
                return
            time.sleep(2)
        raise AssertionError(self.log())

    def log(self) -> str:
        """What the last process said."""
        return (self.folder / f"home-{self.homes}" / "log").read_text()

    def at_kk(self) -> list[str]:
        return [one["number"] for one in self.sandbox.control.orders()]

    def posted_at(self) -> list[float]:
        """When each order arrived at KK, on this machine's clock."""
        requests = self.sandbox.control.requests()
        return [one["at"] for one in requests if one["method"] == "POST" and one["number"]]

    def await_orders(self, number: int) -> None:
        """Wait until KK has so many, or every process has ended."""
        while len(self.at_kk()) < number and any(one.poll() is None for one in self.running):
            time.sleep(0.02)


@pytest.fixture
def machines(
    request: pytest.FixtureRequest, tmp_path: Path, sandbox: SandboxServer, database: str
) -> Iterator[Machines]:
    """Machines whose ledger is in a file, or on a server."""
    ledger: dict[str, Any] = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    if database == "postgresql":
        from urllib.parse import urlsplit

        url = urlsplit(request.getfixturevalue("postgres_url"))
        ledger = {"conn_type": "postgres", "host": url.hostname, "port": url.port}
        ledger |= {"login": url.username, "schema": url.path[1:]}
    sandbox.control.set(rate_limit=False)
    made = Machines(tmp_path, sandbox, ledger)
    yield made
    for process in made.running:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("database", "workers", "orders", "cap", "kills"),
    [
        pytest.param("postgresql", 3, 30, 12, 1, id="quick"),
        pytest.param("postgresql", 8, 200, 50, 4, id="postgresql", marks=pytest.mark.system),
        pytest.param("sqlite", 8, 200, 50, 4, id="sqlite", marks=pytest.mark.system),
    ],
)
def test_daily_cap_is_kept_by_workers_that_are_killed(
    machines: Machines, workers: int, orders: int, cap: int, kills: int
) -> None:
    machines.write_orders(orders)
    # So slow that all take part, and that a kill finds orders on their way.
    machines.sandbox.control.set(latency_s=0.5)
    capped = {"max_orders_per_day": cap, "rate_limit_burst": 4, "rate_limit_per_second": 3}
    running = [machines.send(**capped) for _ in range(workers)]
    for kill in range(kills):
        machines.await_orders((kill + 1) * cap // (kills + 2))
        running[kill].send_signal(signal.SIGKILL)
        if kill % 2:  # its task is tried again
            running.append(machines.send(**capped))
    for process in running:
        process.wait()
    assert machines.send(**capped).wait() == 1, machines.log()  # the rest is postponed
    numbers = machines.at_kk()

    assert len(numbers) == len(set(numbers)) <= cap
    print(f"\n{len(numbers)} of at most {cap} orders at KK after {kills} kills")
    # What was killed on its way keeps its share.
    assert len(numbers) > cap // 2, machines.log()

    machines.sandbox.control.set(latency_s=0.0)
    machines.send_the_rest()
    assert sorted(machines.at_kk()) == sorted(f"A-{n}" for n in range(orders))


@pytest.mark.parametrize(
    ("database", "orders"),
    [
        pytest.param("sqlite", 30, id="quick"),
        pytest.param("postgresql", 200, id="postgresql", marks=pytest.mark.system),
        pytest.param("sqlite", 200, id="sqlite", marks=pytest.mark.system),
    ],
)
def test_pause_stops_two_processes_within_seconds_and_resume_sends_each_order_once(
    machines: Machines, orders: int
) -> None:
    machines.write_orders(orders)
    machines.sandbox.control.set(latency_s=0.05)
    # As slow as KK's real limit, so that most orders are still to be sent.
    rate = {"rate_limit_burst": 8, "rate_limit_per_second": 2}
    both = [machines.send(**rate) for _ in range(2)]
    machines.await_orders(7)
    assert machines.run("pause", "--why", "wrong query", **rate) == 0
    paused_at = time.time()
    statuses = [process.wait() for process in both]
    ended_at = time.time()
    late_s = max(machines.posted_at()) - paused_at

    print(
        f"\nthe last of {len(machines.at_kk())} orders arrived {late_s:+.2f} s after `kk pause` returned, "
        f"the syncs ended {ended_at - paused_at:.1f} s after it"
    )
    assert late_s < _PAUSED_WITHIN_S
    assert statuses == [1, 1]
    assert len(machines.at_kk()) < orders

    assert machines.run("resume", "--why", "query fixed") == 0
    machines.send_the_rest()
    assert sorted(machines.at_kk()) == sorted(f"A-{n}" for n in range(orders))
