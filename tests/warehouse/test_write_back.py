"""Promises of writing results back."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_kk.warehouse import write_back as module
from airflow_provider_kk.warehouse.sql import DIALECTS, OTHER, Name, Statement, style_of
from airflow_provider_kk.warehouse.write_back import Append, Result, Update, WriteBack, WriteBackError
from tests.warehouse.conftest import Warehouse

LOG = logging.getLogger(__name__)
AT = datetime(2024, 2, 29, 12, 30, 15, 250_000, tzinfo=timezone(timedelta(hours=2)))
UPDATED = {"table": "orders", "key": "order_no", "ids": "kk_ids", "state": "kk_state"}


def result(number: str, *ids: str, state: str = "created", message: str | None = None) -> Result:
    return Result(number, state, ids, message, AT)


def appended(warehouse: Warehouse, table: str = "kk_results") -> list[tuple[Any, ...]]:
    return warehouse.rows(
        f"SELECT custom_order_number, state, kk_order_ids, message FROM {table} ORDER BY 1, 2"
    )


def create_results(warehouse: Warehouse, extra: str = "") -> None:
    texts = (
        "custom_order_number VARCHAR(40), state VARCHAR(16), kk_order_ids VARCHAR(99), message VARCHAR(1000)"
    )
    warehouse.execute(f"CREATE TABLE kk_results ({texts}, at TIMESTAMP(6){extra})")


def create_orders(warehouse: Warehouse, key: str = "VARCHAR(40)", ids: str = "VARCHAR(99)") -> None:
    warehouse.execute(f"CREATE TABLE orders (order_no {key}, kk_ids {ids}, kk_state VARCHAR(16))")


def test_results_are_appended_as_rows(warehouse: Warehouse) -> None:
    create_results(warehouse)
    write_back = WriteBack.parse("kk_results")
    write_back.prepare(warehouse.hook)

    written = write_back.write(
        warehouse.hook,
        [result("A", "1", "2"), result("B", state="rejected", message='sold out: it\'s "50%"\n;--')],
        LOG,
    )

    assert written == 2
    assert appended(warehouse) == [
        ("A", "created", "1,2", None),
        ("B", "rejected", None, 'sold out: it\'s "50%"\n;--'),
    ]


def test_a_repeated_write_appends_nothing_new(warehouse: Warehouse) -> None:
    create_results(warehouse)
    write_back = WriteBack.parse("kk_results")
    write_back.write(warehouse.hook, [result("A", state="in_doubt"), result("B", "2")], LOG)
    later = [replace(result("A", "1"), at=AT + timedelta(minutes=1)), result("B", "2")]
    write_back.write(warehouse.hook, later, LOG)
    write_back.write(warehouse.hook, later, LOG)

    assert appended(warehouse) == [
        ("A", "created", "1", None),
        ("A", "in_doubt", None, None),
        ("B", "created", "2", None),
    ]


def test_the_time_is_utc_in_columns_of_time_and_of_text(warehouse: Warehouse) -> None:
    create_results(warehouse)

    WriteBack.parse("kk_results").write(warehouse.hook, [result("A")], LOG)

    ((at,),) = warehouse.rows("SELECT at FROM kk_results")
    assert str(at).startswith("2024-02-29 10:30:15.25")


@pytest.mark.parametrize("count", [0, 1, 198, 199, 200, 2_500])
def test_many_results_are_a_few_statements(snowflake_warehouse: Warehouse, count: int) -> None:
    create_results(snowflake_warehouse)
    snowflake_warehouse.hook.statements.clear()

    written = WriteBack.parse("kk_results").write(
        snowflake_warehouse.hook, (result(f"A-{index}") for index in range(count)), LOG
    )

    inserts = [sql for sql in snowflake_warehouse.hook.statements if sql.startswith("INSERT")]
    assert (written, len(inserts)) == (count, -(-count // 1_000))
    assert snowflake_warehouse.rows("SELECT count(*) FROM kk_results")[0][0] == count


def test_batches_fit_the_parameter_limits_of_row_stores(
    sqlite_warehouse: Warehouse, postgres_warehouse: Warehouse, mysql_warehouse: Warehouse
) -> None:
    for warehouse in (sqlite_warehouse, postgres_warehouse, mysql_warehouse):
        WriteBack.parse("kk_results").write(
            warehouse.hook, (result(f"A-{index}") for index in range(1_000)), LOG
        )
        assert warehouse.rows("SELECT count(*) FROM kk_results") == [(1_000,)]
    for name in ("sqlite", "postgres", "mysql", "mssql"):
        assert DIALECTS[name].rows_per_statement * 5 < 999


@pytest.mark.parametrize("argument", ["kk_results", UPDATED])
def test_a_batch_costs_two_statements(
    warehouse: Warehouse, argument: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_results(warehouse)
    create_orders(warehouse)
    numbers = [f"A-{index}" for index in range(2_000)]
    warehouse.execute("INSERT INTO orders (order_no) VALUES " + ", ".join(f"('{one}')" for one in numbers))
    executed: list[str] = []
    execute = module._execute
    monkeypatch.setattr(
        module, "_execute", lambda cursor, sql, *more: (executed.append(sql), execute(cursor, sql, *more))
    )

    assert WriteBack.parse(argument).write(warehouse.hook, map(result, numbers, numbers), LOG) == 2_000

    batches = -(-2_000 // DIALECTS[warehouse.hook.conn_type].rows_per_statement)
    assert len([sql for sql in executed if sql.startswith(("SELECT", "INSERT", "UPDATE"))]) == 2 * batches + 1
    table, ids = ("kk_results", "kk_order_ids") if argument == "kk_results" else ("orders", "kk_ids")
    assert sorted(warehouse.rows(f"SELECT {ids} FROM {table}")) == sorted((one,) for one in numbers)


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mysql"])
def test_a_missing_table_is_made_where_that_is_usual(kind: str, request: pytest.FixtureRequest) -> None:
    warehouse = request.getfixturevalue(f"{kind}_warehouse")
    write_back = WriteBack.parse("kk_results")

    write_back.prepare(warehouse.hook)
    write_back.prepare(warehouse.hook)

    assert appended(warehouse) == []


@pytest.mark.parametrize(
    ("kind", "ddl"),
    [
        (
            "snowflake",
            r'CREATE TABLE "KK_RESULTS" \("CUSTOM_ORDER_NUMBER" VARCHAR\(40\), .*"AT" TIMESTAMP_TZ\)',
        ),
        ("bigquery", r"CREATE TABLE `kk_results` \(`custom_order_number` STRING, .*`at` TIMESTAMP\)"),
    ],
)
def test_elsewhere_a_missing_table_is_told_with_its_ddl(
    kind: str, ddl: str, request: pytest.FixtureRequest
) -> None:
    warehouse = request.getfixturevalue(f"{kind}_warehouse")

    with pytest.raises(WriteBackError, match=ddl):
        WriteBack.parse("kk_results").prepare(warehouse.hook)


def test_a_table_with_other_columns_is_told_before_anything_is_sent(warehouse: Warehouse) -> None:
    warehouse.execute("CREATE TABLE kk_results (custom_order_number VARCHAR(40), status VARCHAR(16))")
    create_orders(warehouse)

    with pytest.raises(WriteBackError, match=r"(?s)cannot be appended to kk_results.*CREATE TABLE"):
        WriteBack.parse("kk_results").prepare(warehouse.hook)
    with pytest.raises(WriteBackError, match="orders cannot be updated"):
        WriteBack.parse({**UPDATED, "state": "nothing"}).prepare(warehouse.hook)


def test_many_tasks_may_make_the_table_at_once(postgres_warehouse: Warehouse) -> None:
    def prepare() -> None:
        try:
            barrier.wait()
            WriteBack.parse("kk_results").prepare(postgres_warehouse.hook)
        except Exception as error:
            failures.append(error)

    failures: list[Exception] = []
    barrier = threading.Barrier(8)
    threads = [threading.Thread(target=prepare) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []


def test_results_update_the_orders_own_rows(warehouse: Warehouse) -> None:
    create_orders(warehouse)
    warehouse.execute(
        "INSERT INTO orders (order_no, kk_state) VALUES ('A', '-'), ('A', '-'), ('B', '-'), ('C', '-')"
    )
    write_back = WriteBack.parse(UPDATED)
    write_back.prepare(warehouse.hook)

    for _ in range(2):
        written = write_back.write(
            warehouse.hook, [result("A", "1", "2"), result("B", state="rejected")], LOG
        )

    assert written == 2
    assert warehouse.rows("SELECT * FROM orders ORDER BY 1") == [
        ("A", "1,2", "created"),
        ("A", "1,2", "created"),
        ("B", None, "rejected"),
        ("C", None, "-"),
    ]


def test_an_update_never_empties_ids(warehouse: Warehouse) -> None:
    create_orders(warehouse)
    warehouse.execute("INSERT INTO orders VALUES ('A', '1', 'created')")

    WriteBack.parse(UPDATED).write(warehouse.hook, [result("A", state="in_doubt")], LOG)

    assert warehouse.rows("SELECT * FROM orders") == [("A", "1", "in_doubt")]


def test_orders_without_a_row_are_counted_in_a_warning(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    create_orders(warehouse)
    warehouse.execute("INSERT INTO orders VALUES ('A', NULL, NULL)")

    WriteBack.parse(UPDATED).write(
        warehouse.hook, [result("A", "1"), result("B", "2"), result("C", "3")], LOG
    )

    assert (
        "results of 2 of 3 orders are not written: no row of orders has their number in order_no, letter by "
        "letter (blanks around it count): B, C" in caplog.text
    )
    assert "Wrote the results of 1 orders" in caplog.text


def test_integer_keys_and_ids_are_updated(warehouse: Warehouse) -> None:
    row_store = warehouse.hook.conn_type in ("sqlite", "postgres", "mysql")
    create_orders(warehouse, "BIGINT", "BIGINT" if row_store else "VARCHAR(99)")
    warehouse.execute("INSERT INTO orders VALUES (1001, NULL, NULL)")

    WriteBack.parse(UPDATED).write(warehouse.hook, [result("1001", "77")], LOG)

    assert [(str(ids), state) for _, ids, state in warehouse.rows("SELECT * FROM orders")] == [
        ("77", "created")
    ]


@pytest.mark.parametrize("numbers", [("A-1", "a-1"), ("a-1", "A-1"), ("A-1", "Á-1"), ("A-1", "B-1")])
@pytest.mark.parametrize(
    ("kind", "collation"),
    [
        ("sqlite", "COLLATE NOCASE"),
        ("mysql", "CHARACTER SET latin1 COLLATE latin1_swedish_ci"),
        ("mysql", "CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci"),
    ],
)
def test_a_number_in_other_letters_is_another_orders(
    kind: str,
    collation: str,
    numbers: tuple[str, str],
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It would get this one's ids, and no query for rows without ids would select it any more."""
    warehouse = request.getfixturevalue(f"{kind}_warehouse")
    create_orders(warehouse, f"VARCHAR(40) {collation}")
    one, other = numbers
    for number in numbers:
        warehouse.execute("INSERT INTO orders (order_no) VALUES ?", (number,))

    WriteBack.parse(UPDATED).write(warehouse.hook, [result(one, "1")], LOG)
    first = set(warehouse.rows("SELECT * FROM orders"))
    WriteBack.parse(UPDATED).write(warehouse.hook, [result(one, "1"), result(other, state="rejected")], LOG)

    assert first == {(one, "1", "created"), (other, None, None)}
    assert set(warehouse.rows("SELECT * FROM orders")) == {
        (one, "1", "created"),
        (other, None, "rejected"),
    }
    assert "not written" not in caplog.text


@pytest.mark.parametrize(
    ("kind", "key", "order_no"),
    [
        ("sqlite", "VARCHAR(40) COLLATE NOCASE", "o.order_no"),
        ("mysql", "VARCHAR(40) CHARACTER SET latin1", "CAST(o.order_no AS BINARY)"),
        ("mysql", "VARCHAR(40) CHARACTER SET utf8mb4", "CAST(o.order_no AS BINARY)"),
    ],
)
def test_what_is_appended_hides_no_order_in_other_letters_from_the_query_of_the_docs(
    kind: str, key: str, order_no: str, request: pytest.FixtureRequest
) -> None:
    warehouse = request.getfixturevalue(f"{kind}_warehouse")
    create_orders(warehouse, key)
    warehouse.execute("INSERT INTO orders (order_no) VALUES ('A-1'), ('a-1')")

    WriteBack.parse("kk_results").write(warehouse.hook, [result("A-1", "1")], LOG)

    made = f"SELECT 1 FROM kk_results r WHERE r.custom_order_number = {order_no} AND r.state = 'created'"
    assert warehouse.rows(f"SELECT order_no FROM orders o WHERE NOT EXISTS ({made})") == [("a-1",)]


def test_an_order_without_a_row_of_its_own_is_counted_though_another_folds_to_it(
    mysql_warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    create_orders(mysql_warehouse)
    mysql_warehouse.execute("INSERT INTO orders VALUES ('a-1', NULL, NULL)")

    WriteBack.parse(UPDATED).write(mysql_warehouse.hook, [result("A-1", "1")], LOG)

    assert mysql_warehouse.rows("SELECT * FROM orders") == [("a-1", None, None)]
    assert "results of 1 of 1 orders are not written: no row of orders has their number" in caplog.text


def test_where_a_collation_cannot_be_put_aside_what_it_takes_for_the_same_is_not_written(
    postgres_warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    postgres_warehouse.execute(
        "CREATE COLLATION folding (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    )
    create_orders(postgres_warehouse, "VARCHAR(40) COLLATE folding")
    postgres_warehouse.execute("INSERT INTO orders (order_no) VALUES ('A-1'), ('a-1'), ('b-1'), ('C-1')")
    results = [result(number, number) for number in ("A-1", "a-1", "B-1", "C-1", "D-1")]

    WriteBack.parse(UPDATED).write(postgres_warehouse.hook, results, LOG)

    assert postgres_warehouse.rows("SELECT * FROM orders WHERE kk_state IS NOT NULL") == [
        ("C-1", "C-1", "created")
    ]
    assert "3 of 5 orders are not written: by the collation of order_no another order's row of" in caplog.text
    assert "orders has their number, too: A-1, B-1, a-1" in caplog.text
    assert "1 of 5 orders are not written: no row of orders has their number" in caplog.text


@pytest.mark.parametrize(
    ("kind", "explain", "by_index"),
    [("mysql", "EXPLAIN", "'range', 'PRIMARY'"), ("sqlite", "EXPLAIN QUERY PLAN", "SEARCH orders USING")],
)
def test_keys_are_found_by_their_index(
    kind: str,
    explain: str,
    by_index: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    warehouse = request.getfixturevalue(f"{kind}_warehouse")
    create_orders(warehouse, "VARCHAR(40) PRIMARY KEY")
    numbers = [f"A-{index}" for index in range(1_000)]
    warehouse.execute("INSERT INTO orders (order_no) VALUES " + ", ".join(f"('{one}')" for one in numbers))
    plans: list[str] = []

    def execute(cursor: Any, sql: str, parameters: Any) -> None:
        if "A-1" in parameters:
            cursor.execute(f"{explain} {sql}", parameters)
            plans.append(str(cursor.fetchall()))
        cursor.execute(*((sql, parameters) if parameters else (sql,)))

    monkeypatch.setattr(module, "_execute", execute)
    WriteBack.parse(UPDATED).write(warehouse.hook, map(result, numbers[:5]), LOG)

    assert len(plans) == 2
    assert all(by_index in plan for plan in plans)


@pytest.mark.parametrize("key", ["INTEGER ZEROFILL", "DECIMAL(20, 2)", "DOUBLE", "CHAR(40)", "VARBINARY(40)"])
def test_keys_of_any_type_are_updated_on_mysql(mysql_warehouse: Warehouse, key: str) -> None:
    create_orders(mysql_warehouse, key)
    mysql_warehouse.execute("INSERT INTO orders (order_no) VALUES (1001), (1002)")

    WriteBack.parse(UPDATED).write(mysql_warehouse.hook, [result("1001", "77")], LOG)

    assert mysql_warehouse.rows("SELECT kk_ids, kk_state FROM orders ORDER BY order_no") == [
        ("77", "created"),
        (None, None),
    ]


@pytest.mark.parametrize("key", ["INTEGER", "REAL", "NUMERIC", "TEXT", ""])
def test_keys_of_any_type_are_updated_on_sqlite(sqlite_warehouse: Warehouse, key: str) -> None:
    create_orders(sqlite_warehouse, key)
    sqlite_warehouse.execute("INSERT INTO orders (order_no) VALUES ('1001'), ('1002')")

    WriteBack.parse(UPDATED).write(sqlite_warehouse.hook, [result("1001", "77")], LOG)

    assert sqlite_warehouse.rows("SELECT kk_ids, kk_state FROM orders ORDER BY order_no") == [
        ("77", "created"),
        (None, None),
    ]


def test_nothing_of_a_refused_batch_is_written_and_no_row_is_shown(postgres_warehouse: Warehouse) -> None:
    postgres_warehouse.execute(
        "CREATE TABLE orders (order_no text, name text, kk_ids text, kk_state text CHECK (kk_state <> '-'))"
    )
    postgres_warehouse.execute("INSERT INTO orders VALUES ('A', 'Ada Secret'), ('B', 'Ada Secret')")

    with pytest.raises(WriteBackError, match="CheckViolation") as caught:
        WriteBack.parse(UPDATED).write(
            postgres_warehouse.hook, [result("A", "1"), result("B", state="-")], LOG
        )

    assert postgres_warehouse.rows("SELECT kk_ids FROM orders") == [(None,), (None,)]
    assert "Ada" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_what_a_trigger_says_of_a_row_is_not_shown(postgres_warehouse: Warehouse) -> None:
    postgres_warehouse.execute("CREATE TABLE orders (order_no text, name text, kk_ids text, kk_state text)")
    postgres_warehouse.execute("INSERT INTO orders VALUES ('A', 'Ada Secret')")
    postgres_warehouse.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'not of %', NEW.name; END $$"
    )
    postgres_warehouse.execute(
        "CREATE TRIGGER refused BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION refuse()"
    )

    with pytest.raises(WriteBackError, match=r"RaiseException \(P0001\): the text is hidden") as caught:
        WriteBack.parse(UPDATED).write(postgres_warehouse.hook, [result("A", "1")], LOG)

    assert "Ada" not in str(caught.value)


def test_no_transaction_is_open_while_results_are_taken(sqlite_warehouse: Warehouse) -> None:
    """They may come from a ledger in the same file."""

    def results() -> Iterator[Result]:
        for index in range(400):
            with sqlite_warehouse.hook.get_conn() as ledger:
                ledger.execute("CREATE TABLE IF NOT EXISTS ledger (n)")
                ledger.execute("INSERT INTO ledger VALUES (1)")
            yield result(f"A-{index}")

    assert WriteBack.parse("kk_results").write(sqlite_warehouse.hook, results(), LOG) == 400


def test_a_warehouse_without_transactions_tells_the_first_error(bigquery_warehouse: Warehouse) -> None:
    create_results(bigquery_warehouse, ", CHECK (state <> 'held')")

    with pytest.raises(WriteBackError, match="CHECK constraint failed"):
        WriteBack.parse("kk_results").write(bigquery_warehouse.hook, [result("A", state="held")], LOG)


class _Unread(sqlite3.Cursor):
    """Like MySQL's own connector: it closes only after all rows of a query were fetched."""

    unread = False

    def execute(self, *arguments: Any) -> _Unread:
        super().execute(*arguments)
        self.unread = arguments[0].startswith("SELECT")
        return self

    def fetchall(self) -> list[Any]:
        self.unread = False
        return super().fetchall()

    def close(self) -> None:
        assert not self.unread
        super().close()


class _Connection(sqlite3.Connection):
    def cursor(self, *_arguments: Any) -> Any:
        return super().cursor(_Unread)


def test_every_query_is_read_to_its_end(sqlite_warehouse: Warehouse, tmp_path: Path) -> None:
    create_orders(sqlite_warehouse)
    sqlite_warehouse.execute("INSERT INTO orders VALUES ('A', NULL, NULL)")
    sqlite_warehouse.hook.get_conn = lambda: sqlite3.connect(tmp_path / "warehouse.db", factory=_Connection)
    for argument in ("kk_results", UPDATED):
        write_back = WriteBack.parse(argument)
        write_back.prepare(sqlite_warehouse.hook)
        assert write_back.write(sqlite_warehouse.hook, [result("A", "1")], LOG) == 1


def test_long_messages_are_cut(sqlite_warehouse: Warehouse) -> None:
    WriteBack.parse("kk_results").write(sqlite_warehouse.hook, [result("A", message="x" * 10_000)], LOG)

    assert sqlite_warehouse.rows("SELECT length(message) FROM kk_results") == [(1_000,)]


def test_names_that_are_reserved_words_work(warehouse: Warehouse) -> None:
    opening, closing = DIALECTS[warehouse.hook.conn_type].quotes
    fold = str.upper if warehouse.hook.conn_type == "snowflake" else str
    table, key, ids, state = (
        f"{opening}{fold(name)}{closing}" for name in ("order", "group", "from", "select")
    )
    warehouse.execute(f"CREATE TABLE {table} ({key} VARCHAR(9), {ids} VARCHAR(9), {state} VARCHAR(9))")
    warehouse.execute(f"INSERT INTO {table} VALUES ('A', NULL, NULL)")

    WriteBack.parse({"table": "order", "key": "group", "ids": "from", "state": "select"}).write(
        warehouse.hook, [result("A", "1")], LOG
    )

    assert warehouse.rows(f"SELECT * FROM {table}") == [("A", "1", "created")]


@pytest.mark.parametrize(
    ("name", "conn_type", "sql"),
    [
        ("Sales.Orders", "postgres", '"sales"."orders"'),
        ("Sales.Orders", "snowflake", '"SALES"."ORDERS"'),
        ('sales."Orders 2"', "snowflake", '"SALES"."Orders 2"'),
        ("Sales.Orders", "mysql", "`Sales`.`Orders`"),
        ("Sales.Orders", "mssql", "[Sales].[Orders]"),
        ("my-project-1.sales.orders", "gcpbigquery", "`my-project-1`.`sales`.`orders`"),
        ("Sales.Orders", "unheard_of", "Sales.Orders"),
    ],
)
def test_a_plain_name_means_what_the_warehouse_makes_of_it(name: str, conn_type: str, sql: str) -> None:
    assert Name.parse(name, "table", max_parts=3).sql(DIALECTS.get(conn_type, OTHER)) == sql


@pytest.mark.parametrize(
    "name",
    [
        "", " ", ".", "a.", ".a", "a..b", "a b", "a;b", "a--b", "a-b", "p-.d.t", "p--q.d.t", "a'", 'a"b',
        '"a"b', '"a""b"', "`a`", "a.b.c.d", "1a", "é", "a\n; drop", "a/*", '"a;b"', "%s", "a%b", None, 3,
    ],
)  # fmt: skip
def test_what_is_no_plain_name_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="write_back"):
        WriteBack.parse(name)
    with pytest.raises(ValueError, match="write_back's key"):
        WriteBack.parse({**UPDATED, "key": name})


def test_one_error_names_every_name_that_is_not_plain() -> None:
    with pytest.raises(ValueError, match=r"write_back's table .*; write_back's state must"):
        WriteBack.parse({**UPDATED, "table": "orders; DROP TABLE orders", "state": "state = 1 --"})


@pytest.mark.parametrize(
    "argument",
    [
        {},
        {"table": "t"},
        {**UPDATED, "message": "m"},
        ["t"],
        {k: UPDATED[k] for k in ("table", "key", "ids")},
    ],
)
def test_any_other_shape_is_refused_with_both_that_work(argument: object) -> None:
    with pytest.raises(ValueError, match=r'"schema.table".*"table": \.\.\., "key"'):
        WriteBack.parse(argument)


def test_both_shapes_are_known() -> None:
    assert WriteBack.parse(" sales.kk_results ") == Append(Name(("sales", "kk_results")))
    assert isinstance(WriteBack.parse(UPDATED), Update)


@pytest.mark.parametrize(
    ("style", "sql", "parameters"),
    [
        ("qmark", "(?, ?)", ("x", None)),
        ("format", "(%s, %s)", ("x", None)),
        ("pyformat", "(%s, %s)", ("x", None)),
        ("numeric", "(:1, :2)", ("x", None)),
        ("named", "(:p1, :p2)", {"p1": "x", "p2": None}),
        ("names", "(%(p1)s, %(p2)s)", {"p1": "x", "p2": None}),
    ],
)
def test_parameters_are_written_in_the_drivers_style(style: str, sql: str, parameters: Any) -> None:
    statement = Statement(style)

    assert (statement.values(("x", None)), statement.parameters) == (sql, parameters)


def test_the_drivers_style_goes_before_airflows_guess() -> None:
    guess: Any = SimpleNamespace(conn_type="odbc", placeholder="?")

    assert style_of(guess, sqlite3.connect(":memory:")) == "qmark"
    assert style_of(guess, object()) == "qmark"
    assert style_of(SimpleNamespace(conn_type="x"), object()) == "format"  # type: ignore[arg-type]
    assert AT.astimezone(UTC).hour == 10
