"""Promises of reading by redshift_connector, which has no cursors on the server of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_kk.warehouse.query_rows import ReadError, read_rows
from tests.warehouses.redshift_proxy import redshift_proxy

pytestmark = pytest.mark.warehouses


@pytest.fixture
def hook(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from airflow.providers.amazon.aws.hooks.redshift_sql import RedshiftSQLHook

    port = urlsplit(postgres_url).port
    assert port
    with redshift_proxy(port) as port:
        url = f"redshift://postgres:any@127.0.0.1:{port}/postgres?__extra__=%7B%22ssl%22%3A+false%7D"
        monkeypatch.setenv("AIRFLOW_CONN_REDSHIFT_DEFAULT", url)
        yield RedshiftSQLHook()


def test_rows_stay_on_the_server(hook: Any) -> None:
    with read_rows(hook, "SELECT name FROM pg_cursors WHERE name <> ''") as spool:
        assert list(spool.column(0)) == ["kk_rows"]


@pytest.mark.parametrize("count", [0, 1, 999, 1_000, 1_001, 2_500])
def test_all_rows_arrive(hook: Any, count: int) -> None:
    sql = "SELECT i AS number, 'x' AS sku FROM generate_series(1, %s) i /* 1; */ ORDER BY i;"

    with read_rows(hook, sql, [count]) as spool:
        assert spool.names == ("number", "sku")
        assert list(spool.column(0)) == list(range(1, count + 1))


def test_a_wrong_statement_is_refused_by_its_own_fault(hook: Any) -> None:
    with pytest.raises(ReadError, match=r'\(42703\): column "nowhere" does not exist') as raised:
        read_rows(hook, "SELECT nowhere FROM pg_class")
    assert raised.value.is_for_good


def test_what_cannot_be_declared_is_read_all_the_same(hook: Any) -> None:
    with read_rows(hook, "SHOW server_encoding") as spool:
        assert list(spool.column(0)) == ["UTF8"]
