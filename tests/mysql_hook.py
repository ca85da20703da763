"""As much of Airflow's MySqlHook as the provider uses, on PyMySQL: its own wants a C compiler."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.sql.hooks.sql import DbApiHook
from sqlalchemy.engine import make_url


class PyMySqlHook(DbApiHook):
    conn_name_attr = "mysql_conn_id"
    default_conn_name = "mysql_default"
    conn_type = "mysql"
    hook_name = "MySQL"

    def get_conn(self) -> Any:
        import pymysql

        conn = self.get_connection(self.get_conn_id())
        return pymysql.connect(
            host=conn.host, port=conn.port, user=conn.login, database=conn.schema, charset="utf8mb4"
        )

    def get_uri(self) -> str:
        conn = self.get_connection(self.get_conn_id())
        return f"mysql+pymysql://{conn.login}@{conn.host}:{conn.port}/{conn.schema}"


def mysql_connection(url: str, database: str | None = None) -> dict[str, Any]:
    """An Airflow connection to the server of a URL."""
    server = make_url(url)
    place = {"host": server.host, "port": server.port, "login": server.username}
    return {"conn_type": "mysql", **place, "schema": database or server.database}
