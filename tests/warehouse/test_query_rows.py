"""Promises of reading a warehouse."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from airflow_provider_kk.warehouse.mapping_arguments import ColumnsError
from airflow_provider_kk.warehouse.query_rows import ReadError, read_rows
from tests.warehouse.conftest import Warehouse

CREATE = "CREATE TABLE orders (custom_order_number VARCHAR(40), quantity INTEGER)"
LOG = logging.getLogger(__name__)


def contents(spool: Any) -> list[tuple[Any, ...]]:
    with spool:
        return list(zip(*(list(spool.column(index)) for index in range(len(spool.names))), strict=True))


def test_all_rows_arrive_under_lower_case_names(each_warehouse: Warehouse) -> None:
    each_warehouse.execute(CREATE)
    rows = [(f"A-{index:04}", str(index)) for index in range(2_500)]
    sql = "INSERT INTO orders VALUES " + ", ".join(f"('{number}', {quantity})" for number, quantity in rows)
    each_warehouse.execute(sql)

    spool = read_rows(
        each_warehouse.hook, "SELECT custom_order_number, quantity FROM orders ORDER BY 1", None, LOG
    )

    assert spool.names == ("custom_order_number", "quantity")
    assert spool.rows == 2_500
    assert contents(spool) == [(number, int(quantity)) for number, quantity in rows]


def test_an_empty_result_still_has_its_columns(each_warehouse: Warehouse) -> None:
    each_warehouse.execute(CREATE)

    spool = read_rows(each_warehouse.hook, "SELECT * FROM orders")

    assert (spool.rows, spool.names) == (0, ("custom_order_number", "quantity"))


def test_parameters_reach_the_driver_as_they_are_given(each_warehouse: Warehouse) -> None:
    each_warehouse.execute(CREATE)
    each_warehouse.execute("INSERT INTO orders VALUES ('A', 1), ('B', 2), ('50%', 3)")
    by_name = each_warehouse.hook.conn_type == "gcpbigquery"
    place = "%(number)s" if by_name else "?" if each_warehouse.hook.conn_type == "sqlite" else "%s"

    spool = read_rows(
        each_warehouse.hook,
        f"SELECT custom_order_number FROM orders WHERE custom_order_number = {place}",
        {"number": "B"} if by_name else ["B"],
    )

    assert contents(spool) == [("B",)]
    like = read_rows(
        each_warehouse.hook, "SELECT custom_order_number FROM orders WHERE custom_order_number LIKE '%\\%'"
    )
    assert like.names == ("custom_order_number",), "without parameters a % in the statement is a %"


CHANGES = [
    "DROP TABLE orders",
    "CREATE TABLE evil AS SELECT 1 AS n",
    "INSERT INTO orders VALUES ('B', 2)",
    "UPDATE orders SET quantity = 2",
]


def refuse_changes(warehouse: Warehouse, changes: list[str]) -> None:
    warehouse.execute(CREATE)
    warehouse.execute("INSERT INTO orders VALUES ('A', 1)")

    for sql in changes:
        with pytest.raises(ReadError):
            read_rows(warehouse.hook, sql, only_reads=True)

    assert contents(read_rows(warehouse.hook, "SELECT * FROM orders", only_reads=True)) == [("A", 1)]
    with pytest.raises(ReadError):
        read_rows(warehouse.hook, "SELECT * FROM evil", only_reads=True)
    warehouse.execute("DROP TABLE orders")


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mysql"])
def test_row_stores_are_read_in_a_read_only_transaction(kind: str, request: pytest.FixtureRequest) -> None:
    refuse_changes(request.getfixturevalue(f"{kind}_warehouse"), CHANGES)


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_both_drivers_of_postgresql_only_read(
    driver: str, postgres_url: str, postgres_warehouse: Warehouse
) -> None:
    connect = pytest.importorskip(driver).connect
    options = "-c search_path=warehouse"
    hook: Any = SimpleNamespace(
        get_conn=lambda: connect(postgres_url, options=options),
        get_autocommit=lambda _: False,
        conn_type="postgres",
        placeholder="%s",
    )
    refuse_changes(Warehouse(hook), CHANGES)


def test_sqlite_writes_no_other_file_and_no_setting_for_who_only_reads(
    sqlite_warehouse: Warehouse, tmp_path: Path
) -> None:
    other = tmp_path / "other.db"
    changes = [f"ATTACH '{other}' AS other", f"VACUUM INTO '{other}'", "PRAGMA user_version = 7"]

    refuse_changes(sqlite_warehouse, [*changes, "PRAGMA journal_mode = WAL", "PRAGMA query_only = OFF"])

    assert not other.exists()
    assert sqlite_warehouse.rows("PRAGMA user_version") == [(0,)]
    assert sqlite_warehouse.rows("PRAGMA journal_mode") == [("delete",)]


@pytest.mark.parametrize("parameters", [["B"], ("B",)])
def test_bigquery_parameters_need_names(bigquery_warehouse: Warehouse, parameters: Any) -> None:
    with pytest.raises(ColumnsError, match=r"pass a dict.*%\(name\)s"):
        read_rows(bigquery_warehouse.hook, "SELECT 1", parameters)


@pytest.mark.parametrize("sql", ["", "  \n"])
def test_an_empty_statement_is_an_error(sqlite_warehouse: Warehouse, sql: str) -> None:
    with pytest.raises(ColumnsError, match="sql is empty"):
        read_rows(sqlite_warehouse.hook, sql)


def test_a_statement_without_rows_is_an_error(each_warehouse: Warehouse) -> None:
    with pytest.raises(ColumnsError, match="must be one SELECT"):
        read_rows(each_warehouse.hook, CREATE)


def test_reading_commits_nothing(postgres_warehouse: Warehouse) -> None:
    postgres_warehouse.execute(CREATE)

    spool = read_rows(
        postgres_warehouse.hook, "INSERT INTO orders VALUES ('A', 1) RETURNING custom_order_number, quantity"
    )

    assert contents(spool) == [("A", 1)]
    assert postgres_warehouse.rows("SELECT * FROM orders") == []


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_a_connection_in_autocommit_commits_nothing_and_leaves_its_rows_on_the_server(
    driver: str, postgres_url: str, postgres_warehouse: Warehouse
) -> None:
    connect = pytest.importorskip(driver).connect

    class AutocommitHook(type(postgres_warehouse.hook)):  # type: ignore[misc]
        def get_conn(self) -> Any:
            connection = connect(postgres_url, options="-c search_path=warehouse")
            connection.autocommit = True
            return connection

    hook = AutocommitHook("postgres_warehouse")
    postgres_warehouse.execute(CREATE)

    inserted = read_rows(hook, "INSERT INTO orders VALUES ('A', 1) RETURNING custom_order_number")
    declared = read_rows(hook, "SELECT name FROM pg_cursors WHERE statement LIKE %s", ["%pg_cursors%"])

    assert contents(inserted) == [("A",)]
    assert contents(declared) == [("kk_rows",)]
    assert postgres_warehouse.rows("SELECT * FROM orders") == []


def test_jdbc_gives_columns_their_aliases_and_fetches_in_batches() -> None:
    labels = SimpleNamespace(
        getColumnCount=lambda: 2, getColumnLabel=lambda place: ("", "CUSTOM_ORDER_NUMBER", "SKU")[place]
    )
    fetched: list[int] = []
    java = SimpleNamespace(prepareStatement=lambda sql: SimpleNamespace(setFetchSize=fetched.append))

    class Cursor:
        description = (("ORDER_NO",), ("SKU",))
        _meta: Any = None

        def __init__(self, connection: Any) -> None:
            self.connection, self.rows = connection, [(f"A-{n}", "X") for n in range(2_500)]

        def execute(self, sql: str) -> None:
            self.connection.jconn.prepareStatement(sql)
            self._meta = labels

        def fetchone(self) -> Any:
            return self.rows.pop(0) if self.rows else None

        def close(self) -> None: ...

    class Connection:
        jconn = java

        def cursor(self) -> Any:
            return Cursor(self)

        def close(self) -> None: ...

    Connection.__module__ = "jaydebeapi"
    hook: Any = SimpleNamespace(get_conn=Connection, get_autocommit=lambda _: False)

    spool = read_rows(hook, "SELECT order_no AS custom_order_number, sku FROM orders")

    assert (spool.names, spool.rows) == (("custom_order_number", "sku"), 2_500)
    assert fetched == [1_000]


@pytest.mark.parametrize("kind", ["snowflake", "bigquery"])
def test_the_warehouse_is_closed_before_the_rows_are_used(kind: str, request: pytest.FixtureRequest) -> None:
    hook = request.getfixturevalue(f"{kind}_warehouse").hook

    read_rows(hook, "SELECT 1 AS one")

    assert hook.calls == ["cursor.close", "connection.close"]


@pytest.mark.parametrize("kind", ["snowflake", "bigquery"])
def test_the_warehouse_is_closed_when_the_statement_fails(kind: str, request: pytest.FixtureRequest) -> None:
    hook = request.getfixturevalue(f"{kind}_warehouse").hook

    with pytest.raises(ReadError, match="no such table: nowhere"):
        read_rows(hook, "SELECT * FROM nowhere")

    assert hook.calls == ["cursor.close", "connection.close"]


def told(raised: pytest.ExceptionInfo[BaseException]) -> str:
    """All that a log may show of it."""
    return "".join(traceback.format_exception(raised.value))


def test_a_text_that_sqlite_cannot_decode_is_not_shown(sqlite_warehouse: Warehouse) -> None:
    sqlite_warehouse.execute("CREATE TABLE orders AS SELECT 'A' AS number, 'Zebulon' AS recipient")
    sqlite_warehouse.execute("INSERT INTO orders SELECT 'B', CAST(X'5A6562756C6F6EFC' AS TEXT)")

    with pytest.raises(ReadError, match="column 'recipient' with text") as raised:
        read_rows(sqlite_warehouse.hook, "SELECT * FROM orders")

    assert "Zebulon" not in told(raised)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("phone::bigint", "invalid input syntax for type bigint"),
        ("recipient::json", "invalid input syntax for type json"),
        ("nowhere", 'column "nowhere" does not exist'),
        ("recipients", 'Perhaps you meant to reference the column "orders.recipient"'),
    ],
)
def test_a_postgres_error_is_described_without_showing_a_customer(
    postgres_warehouse: Warehouse, value: str, says: str
) -> None:
    postgres_warehouse.execute("CREATE TABLE orders (recipient TEXT, phone TEXT)")
    postgres_warehouse.execute("INSERT INTO orders VALUES ('Zebulon Quist', '+33 1 00 00 00 00')")

    with pytest.raises(ReadError, match=says) as raised:
        read_rows(postgres_warehouse.hook, f"SELECT {value} AS one FROM orders")

    assert [word for word in ("Zebulon", "33 1") if word in told(raised)] == []


def test_a_check_of_the_columns_stops_the_reading(snowflake_warehouse: Warehouse) -> None:
    def check(names: Any) -> None:
        raise ColumnsError(f"not {names}")

    with pytest.raises(ColumnsError, match=r"not \('one',\)"):
        read_rows(snowflake_warehouse.hook, "SELECT 1 AS one", check=check)

    assert snowflake_warehouse.hook.calls == ["cursor.close", "connection.close"]


def test_a_connection_that_does_not_close_loses_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Cursor:
        description = (("One",),)

        def __init__(self) -> None:
            self.batches = [[(1,)], []]

        def execute(self, sql: str) -> None: ...

        def fetchmany(self, size: int) -> list[tuple[int]]:
            return self.batches.pop(0)

        def close(self) -> None:
            raise OSError("already gone")

    connection: Any = SimpleNamespace(cursor=Cursor, close=Cursor().close)
    hook: Any = SimpleNamespace(get_conn=lambda: connection, get_autocommit=lambda _: False)

    assert contents(read_rows(hook, "SELECT 1")) == [(1,)]
    assert "did not close: OSError" in caplog.text


@pytest.mark.parametrize(
    ("sql", "streams"),
    [
        ("SELECT * FROM orders; -- all of them", True),
        ("/* why */ WITH o AS (SELECT 1) SELECT updated_at FROM o", True),
        ("WITH o AS (UPDATE orders SET quantity = 1 RETURNING *) SELECT * FROM o", False),
        ("SET search_path = x; SELECT 1", False),
        ("EXPLAIN SELECT 1", False),
    ],
)
def test_rows_of_a_mere_select_stay_on_the_postgres_server(
    postgres_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, sql: str, streams: bool
) -> None:
    from airflow_provider_kk.warehouse.query_rows import _open_cursor

    connection = postgres_warehouse.hook.get_conn()
    try:
        assert (getattr(_open_cursor(connection, sql), "name", None) == "kk_rows") is streams
    finally:
        connection.close()


TWO = [
    "SELECT 'A' AS number; SELECT 'B' AS number",
    "SELECT 'A' AS number; DELETE FROM orders;",
    "/* 1; */ SELECT 'A' AS number -- ;\n; SELECT 2",
    "SET x = 1; SELECT 'A' AS number",
]
ONE = [
    "SELECT 'A;B' AS number;",
    "SELECT 'A;B' AS number; -- all; of them\n",
    "SELECT 'A;B' AS number ;\n/* it's; */\n",
    "SELECT 'A;B' AS number WHERE 'x\\' = 'x\\' OR 'a;b' > '';",
]


@pytest.mark.parametrize("sql", TWO)
def test_two_statements_are_refused_before_anything_runs(each_warehouse: Warehouse, sql: str) -> None:
    each_warehouse.execute(CREATE)
    each_warehouse.execute("INSERT INTO orders VALUES ('A', 1)")

    with pytest.raises(ColumnsError, match="sql holds 2 statements: `sql` must be one SELECT"):
        read_rows(each_warehouse.hook, sql)

    assert each_warehouse.rows("SELECT * FROM orders") == [("A", 1)]


@pytest.mark.parametrize("sql", ONE)
def test_comments_and_semicolons_leave_it_one_statement(sqlite_warehouse: Warehouse, sql: str) -> None:
    assert contents(read_rows(sqlite_warehouse.hook, sql)) == [("A;B",)]


def test_a_comment_of_mysql_after_the_statement_is_none(mysql_warehouse: Warehouse) -> None:
    assert contents(read_rows(mysql_warehouse.hook, "SELECT 'A' AS number;\n# it's; done")) == [("A",)]


def test_further_rows_of_a_procedure_are_refused_and_its_end_is_no_result(mysql_warehouse: Warehouse) -> None:
    body = "BEGIN SELECT 'A' AS number; {} END"
    mysql_warehouse.execute(f"CREATE PROCEDURE one() {body.format('')}")
    mysql_warehouse.execute(f"CREATE PROCEDURE two() {body.format('DO 1; SELECT 2 AS number;')}")

    assert contents(read_rows(mysql_warehouse.hook, "CALL one()")) == [("A",)]
    with pytest.raises(ColumnsError, match="more than one result"):
        read_rows(mysql_warehouse.hook, "CALL two()")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pymysql", "MySQLdb"])
@pytest.mark.parametrize("like", ["LIKE '%hirt' AND 'B' =", "LIKE '%shirt' AND 'B' =", "LIKE '50%' OR 'B' ="])
def test_a_single_percent_beside_parameters_is_named_and_fails_for_good(
    driver: str, like: str, request: pytest.FixtureRequest
) -> None:
    hook = hook_of(driver, request)
    sql = "SELECT 'shirt' AS number FROM (SELECT 1 AS one) t WHERE 'shirt' {} %s"

    with pytest.raises(ReadError, match="write a literal % twice: LIKE '%%shirt'") as raised:
        read_rows(hook, sql.format(like), ["B"])

    assert raised.value.is_for_good
    assert contents(read_rows(hook, sql.format(like.replace("%", "%%")), ["B"])) == [("shirt",)]


@pytest.mark.parametrize("driver", ["sqlite", "psycopg", "psycopg2", "pymysql", "MySQLdb"])
def test_a_wrong_number_of_parameters_fails_for_good(driver: str, request: pytest.FixtureRequest) -> None:
    place = "?" if driver == "sqlite" else "%s"

    with pytest.raises(ReadError) as raised:
        read_rows(hook_of(driver, request), f"SELECT {place} AS one, {place} AS two", ["B"])

    assert raised.value.is_for_good
    assert "%%" not in str(raised.value)


def hook_of(driver: str, request: pytest.FixtureRequest) -> Any:
    """A hook whose connections are of this driver."""
    if driver in ("sqlite", "pymysql"):
        return request.getfixturevalue(f"{driver.replace('py', '')}_warehouse").hook
    if driver == "MySQLdb":
        server = make_url(request.getfixturevalue("mariadb_url"))
        arguments = {"host": server.host, "port": server.port, "user": server.username}
    else:
        arguments = {"conninfo" if driver == "psycopg" else "dsn": request.getfixturevalue("postgres_url")}
    connect = pytest.importorskip(driver).connect
    return SimpleNamespace(
        get_conn=lambda: connect(**arguments),
        get_autocommit=lambda _: False,
        conn_type="any",
        placeholder="%s",
    )


@pytest.mark.parametrize("kind", ["dictcursor", "namedtuplecursor"])
def test_connections_that_yield_other_rows_than_tuples_are_read(
    postgres_warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_POSTGRES_WAREHOUSE"]) | {"extra": {"cursor": kind}}
    monkeypatch.setenv("AIRFLOW_CONN_POSTGRES_WAREHOUSE", json.dumps(connection))
    postgres_warehouse.hook._connection = None

    spool = read_rows(postgres_warehouse.hook, "SELECT 'A' AS number, 2 AS quantity")

    assert contents(spool) == [("A", 2)]


def test_mysqlclient_leaves_rows_on_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_provider_kk.warehouse.query_rows import _open_cursor

    driver: Any = ModuleType("MySQLdb.cursors")
    driver.SSCursor, driver.Cursor = object(), object()
    monkeypatch.setitem(sys.modules, "MySQLdb.cursors", driver)

    class Connection:
        def cursor(self, cursorclass: object = None) -> object:
            return cursorclass

    Connection.__module__ = "MySQLdb.connections"

    assert _open_cursor(Connection(), "SELECT 1") is driver.SSCursor


def test_what_redshift_does_not_declare_is_run_as_it_is() -> None:
    class Cursor:
        description: Any = None

        def execute(self, sql: str, *parameters: Any) -> None:
            if sql.startswith("DECLARE"):
                raise RuntimeError("not supported")
            self.description, self.rows = (("one",),), [(1,)] if parameters else []

        def fetchmany(self, size: int) -> list[tuple[int]]:
            rows, self.rows = self.rows, []
            return rows

        def close(self) -> None: ...

    class Connection:
        autocommit = False
        cursor = Cursor
        undone = 0

        def rollback(self) -> None:
            self.undone += 1

        def close(self) -> None: ...

    Connection.__module__ = "redshift_connector.core"
    connection = Connection()
    hook: Any = SimpleNamespace(get_conn=lambda: connection, get_autocommit=lambda _: False)

    assert contents(read_rows(hook, "SELECT %s AS one", [1])) == [(1,)]
    assert connection.undone == 1
