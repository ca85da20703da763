"""The ledger behind PgBouncer's transaction pooling, where no two transactions need share a session."""

from __future__ import annotations

import getpass
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from airflow_provider_kk.operators.orders import SyncOrdersOperator
from tests.operators.shop import SELECT, Warehouse, attempt, each_is_there_once, kk_connection, nonzero, rows
from tests.postgres import free_port

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

pytestmark = pytest.mark.system


@pytest.fixture
def pgbouncer(postgres_url: str) -> Iterator[int]:
    """The port of a PgBouncer that has three connections to PostgreSQL for all its clients."""
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.fail("PgBouncer is needed: scripts/install-test-packages system")
    folder, port = Path(tempfile.mkdtemp(prefix="pgbouncer-")), free_port()
    # It refuses to run as root.
    user = "postgres" if getpass.getuser() == "root" else None
    if user:
        shutil.chown(folder, user)
    (folder / "ini").write_text(
        f"""
        [databases]
        postgres = host=127.0.0.1 port={urlsplit(postgres_url).port} user=postgres
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = transaction
        default_pool_size = 3
        """.replace("        ", "")
    )
    with subprocess.Popen([program, "-q", folder / "ini"], user=user, cwd=folder) as process:
        try:
            time.sleep(1)
            yield port
        finally:
            process.kill()
            shutil.rmtree(folder)


def prepare_thread() -> None:
    """Airflow 2 looks in each thread for who calls an operator, and prepares only the one that imports it."""
    with suppress(ImportError):
        from airflow.models.baseoperator import ExecutorSafeguard

        ExecutorSafeguard._sentinel.callers = {}


def test_syncs_share_three_sessions_and_send_each_order_once(
    pgbouncer: int, sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    warehouse = Warehouse(tmp_path / "warehouse.db")
    warehouse.add(*rows(range(150)))
    sandbox.control.set(rate_limit=False)
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(warehouse.connection))
    monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(kk_connection(sandbox)))
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", f"postgres://postgres@127.0.0.1:{pgbouncer}/postgres")

    def sync(run: int) -> dict[str, int]:
        one = SyncOrdersOperator(
            task_id="sync", warehouse_conn_id="warehouse", sql=SELECT, ledger_conn_id="ledger"
        )
        done = attempt(one, run_id=f"run {run}")
        if done.error is not None:
            raise done.error
        return nonzero(done.summary)

    with ThreadPoolExecutor(3, initializer=prepare_thread) as pool:
        counts = list(pool.map(sync, range(3)))

    assert sum(one.get("created", 0) for one in counts) == 150, counts
    each_is_there_once(sandbox, range(150))
