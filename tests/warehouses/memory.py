"""How much memory each driver takes for many rows: `python -m tests.warehouses.memory [CASE ...]`.

Prints, for each, by how much a process that reads 500,000 rows has a higher peak than one that reads 1,000.
docs/sizing.md has the figures. Runs in the environment of `make test-warehouses`.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.mariadb import find_server, throwaway_mariadb
from tests.postgres import find_binaries, throwaway_postgres
from tests.warehouses.redshift_proxy import redshift_proxy

FEW, MANY = 1_000, 500_000
JARS = ",".join(f"/usr/share/java/{name}.jar" for name in ("h2", "postgresql", "mariadb-java-client"))
COLUMNS = (
    "CAST(n AS VARCHAR(40)) AS order_no, 'Sample Customer' AS recipient, '+33 1 00 00 00 00' AS phone, "
    "'1 Example Street' AS street1, 'Paris' AS city, 'Ile-de-France' AS province, '75001' AS zip, "
    "'FR' AS country, 'FWXW00290_WHT_M' AS sku, 1 AS quantity, n"
)
#: Where the numbers up to MANY come from.
SERIES = {
    "postgres": f"generate_series(1, {MANY}) AS s(n)",
    "duckdb": f"range(1, {MANY} + 1) AS s(n)",
    "sqlite": "(WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s "
    f"WHERE n < {MANY}) SELECT n FROM s)",
    "h2": f"(SELECT x AS n FROM system_range(1, {MANY})) AS s",
    "mysql": f"(SELECT seq AS n FROM seq_1_to_{MANY}) AS s",
}


def main() -> None:
    with ExitStack() as servers:
        cases = servers.enter_context(ledger_sources())
        filled = set()
        for name in sys.argv[1:] or cases:
            if (series := cases[name]["series"]) not in filled:
                child("fill", cases[name])
                filled.add(series)
            peaks = [peak(cases[name], count) for count in (FEW, MANY)]
            print(f"{name}: {peaks[1] - peaks[0]:+.0f} MiB ({peaks[0]:.0f} to {peaks[1]:.0f})", flush=True)


@contextmanager
def ledger_sources() -> Iterator[dict[str, dict[str, Any]]]:
    """The cases, each with its connection; those of one series share their rows."""
    binaries, server = find_binaries(), find_server()
    assert binaries
    assert server
    with (
        tempfile.TemporaryDirectory() as folder,
        throwaway_postgres(binaries) as postgres_url,
        redshift_proxy(urlsplit(postgres_url).port or 0) as redshift_port,
        throwaway_mariadb(server) as mariadb_url,
    ):
        port, mariadb_port = urlsplit(postgres_url).port, urlsplit(mariadb_url).port
        postgres = {
            "host": "127.0.0.1",
            "port": port,
            "login": "postgres",
            "schema": "postgres",
            "series": "postgres",
        }
        psql = {"conn_type": "odbc", **postgres, "hook_params": {"driver": "PostgreSQL Unicode"}}
        sqlite = {
            "conn_type": "odbc",
            "schema": f"{folder}/odbc.db",
            "hook_params": {"driver": "SQLite3"},
            "series": "sqlite",
        }
        by_jdbc = {"conn_type": "jdbc", "password": ""}
        cases: dict[str, dict[str, Any]] = {
            "SQLite": {"conn_type": "sqlite", "host": f"{folder}/odbc.db", "series": "sqlite"},
            "DuckDB": {"conn_type": "duckdb", "host": f"{folder}/shop.duckdb", "series": "duckdb"},
            "psycopg2": {"conn_type": "postgres", **postgres},
            "psycopg2 in autocommit": {"conn_type": "postgres", **postgres, "autocommit": True},
            "redshift_connector": {
                "conn_type": "redshift",
                **postgres,
                "port": redshift_port,
                "password": "any",
                "extra": {"ssl": False},
            },
            "ODBC, SQLite": sqlite,
            "ODBC, PostgreSQL": psql,
            "ODBC, PostgreSQL with UseDeclareFetch": {**psql, "extra": {"UseDeclareFetch": "1"}},
            "JDBC, H2": {
                **by_jdbc,
                "host": f"jdbc:h2:{folder}/shop",
                "login": "sa",
                "driver": "org.h2.Driver",
                "series": "h2",
            },
            "JDBC, PostgreSQL": {
                **by_jdbc,
                "host": f"jdbc:postgresql://127.0.0.1:{port}/postgres",
                "login": "postgres",
                "driver": "org.postgresql.Driver",
                "series": "postgres",
            },
            "JDBC, MariaDB": {
                **by_jdbc,
                "host": f"jdbc:mariadb://127.0.0.1:{mariadb_port}/test",
                "login": "root",
                "driver": "org.mariadb.jdbc.Driver",
                "series": "mysql",
            },
        }
        yield cases


def peak(case: dict[str, Any], count: int) -> float:
    return float(child("read", case, str(count)))


def child(*arguments: Any) -> str:
    words = [word if isinstance(word, str) else json.dumps(word) for word in arguments]
    command = [sys.executable, "-m", "tests.warehouses.memory", "--child", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.split()[-1]


def hook_of(case: dict[str, Any]) -> Any:
    from airflow.providers.common.compat.sdk import BaseHook

    parameters = case.get("hook_params") or {}
    if "driver" in case:
        parameters = {"driver_path": JARS, "driver_class": case["driver"]}
    own = ("hook_params", "driver", "series", "autocommit")
    connection = {key: value for key, value in case.items() if key not in own}
    os.environ["AIRFLOW_CONN_WAREHOUSE"] = json.dumps(connection)
    hook = BaseHook.get_connection("warehouse").get_hook(hook_params=parameters)
    if case.get("autocommit"):
        connect = hook.get_conn

        def get_conn() -> Any:
            connection = connect()
            hook.set_autocommit(connection, True)
            return connection

        hook.get_conn = get_conn
    return hook


def in_child(action: str, case: dict[str, Any], count: int = 0) -> None:
    from airflow_provider_kk.warehouse.query_rows import read_rows

    hook = hook_of(case)
    if action == "fill":
        with closing(hook.get_conn()) as connection, closing(connection.cursor()) as cursor:
            cursor.execute(f"CREATE TABLE orders AS SELECT {COLUMNS} FROM {SERIES[case['series']]}")
            if not hook.get_autocommit(connection):
                connection.commit()
        print("filled")
        return
    with read_rows(hook, f"SELECT * FROM orders WHERE n <= {count}") as spool:
        assert spool.rows == count
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        in_child(sys.argv[2], json.loads(sys.argv[3]), *map(int, sys.argv[4:]))
    else:
        os.environ["AIRFLOW_HOME"] = str(Path(tempfile.mkdtemp(prefix="airflow-home-")))
        main()
