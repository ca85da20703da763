"""Promises of writing results back."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kk.warehouse import write_back as module
from airflow_provider_kk.warehouse.sql import DIALECTS, Name
from airflow_provider_kk.warehouse.write_back import Append, Result, Update, WriteBack, WriteBackError
from tests.mariadb import locked
from tests.warehouse.conftest import Warehouse
from tests.warehouse.results import AT, LOG, UPDATED, appended, create_orders, create_results, result


def test_results_are_appended_as_rows(each_warehouse: Warehouse) -> None:
    create_results(each_warehouse)
    write_back = WriteBack.parse("kk_results")
    write_back.prepare(each_warehouse.hook)

    written = write_back.write(
        each_warehouse.hook,
        [result("A", "1", "2"), result("B", state="rejected", message='sold out: it\'s "50%"\n;--')],
        LOG,
    )

    assert written == 2
    assert appended(each_warehouse) == [
        ("A", "created", "1,2", None),
        ("B", "rejected", None, 'sold out: it\'s "50%"\n;--'),
    ]


def test_a_repeated_write_appends_nothing_new(each_warehouse: Warehouse) -> None:
    create_results(each_warehouse)
    write_back = WriteBack.parse("kk_results")
    write_back.write(each_warehouse.hook, [result("A", state="in_doubt"), result("B", "2")], LOG)
    later = [replace(result("A", "1"), at=AT + timedelta(minutes=1)), result("B", "2")]
    write_back.write(each_warehouse.hook, later, LOG)
    write_back.write(each_warehouse.hook, later, LOG)

    assert appended(each_warehouse) == [
        ("A", "created", "1", None),
        ("A", "in_doubt", None, None),
        ("B", "created", "2", None),
    ]


def test_the_time_is_utc_in_columns_of_time_and_of_text(each_warehouse: Warehouse) -> None:
    create_results(each_warehouse)

    WriteBack.parse("kk_results").write(each_warehouse.hook, [result("A")], LOG)

    ((at,),) = each_warehouse.rows("SELECT at FROM kk_results")
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
    each_warehouse: Warehouse, argument: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_results(each_warehouse)
    create_orders(each_warehouse)
    numbers = [f"A-{index}" for index in range(2_000)]
    each_warehouse.execute(
        "INSERT INTO orders (order_no) VALUES " + ", ".join(f"('{one}')" for one in numbers)
    )
    executed: list[str] = []
    execute = module._execute
    monkeypatch.setattr(
        module, "_execute", lambda cursor, sql, *more: (executed.append(sql), execute(cursor, sql, *more))
    )

    assert WriteBack.parse(argument).write(each_warehouse.hook, map(result, numbers, numbers), LOG) == 2_000

    batches = -(-2_000 // DIALECTS[each_warehouse.hook.conn_type].rows_per_statement)
    assert len([sql for sql in executed if sql.startswith(("SELECT", "INSERT", "UPDATE"))]) == 2 * batches + 1
    table, ids = ("kk_results", "kk_order_ids") if argument == "kk_results" else ("orders", "kk_ids")
    assert sorted(each_warehouse.rows(f"SELECT {ids} FROM {table}")) == sorted((one,) for one in numbers)


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
def test_elsewhere_a_missing_table_is_an_error_with_its_ddl(
    kind: str, ddl: str, request: pytest.FixtureRequest
) -> None:
    warehouse = request.getfixturevalue(f"{kind}_warehouse")

    with pytest.raises(WriteBackError, match=ddl):
        WriteBack.parse("kk_results").prepare(warehouse.hook)


def test_a_table_with_other_columns_fails_before_anything_is_sent(each_warehouse: Warehouse) -> None:
    each_warehouse.execute("CREATE TABLE kk_results (custom_order_number VARCHAR(40), status VARCHAR(16))")
    create_orders(each_warehouse)

    with pytest.raises(WriteBackError, match=r"(?s)cannot be appended to kk_results.*CREATE TABLE"):
        WriteBack.parse("kk_results").prepare(each_warehouse.hook)
    with pytest.raises(WriteBackError, match="orders cannot be updated"):
        WriteBack.parse({**UPDATED, "state": "nothing"}).prepare(each_warehouse.hook)


def test_a_missing_table_is_permanent_and_folded_names_get_advice(postgres_warehouse: Warehouse) -> None:
    postgres_warehouse.execute('CREATE TABLE "Orders" ("OrderNo" bigint, ids text, state text)')
    places = {"key": '"OrderNo"', "ids": "ids", "state": "state"}

    with pytest.raises(WriteBackError, match=r"""read as orders.*double quotes: '"Orders"'""") as folded:
        WriteBack.parse({**places, "table": "Orders"}).prepare(postgres_warehouse.hook)
    with pytest.raises(WriteBackError, match=r"does not exist$"):
        WriteBack.parse({**places, "table": '"Oders"'}).prepare(postgres_warehouse.hook)

    assert not folded.value.is_retryable
    WriteBack.parse({**places, "table": '"Orders"'}).prepare(postgres_warehouse.hook)


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


def test_results_update_the_orders_own_rows(each_warehouse: Warehouse) -> None:
    create_orders(each_warehouse)
    each_warehouse.execute(
        "INSERT INTO orders (order_no, kk_state) VALUES ('A', '-'), ('A', '-'), ('B', '-'), ('C', '-')"
    )
    write_back = WriteBack.parse(UPDATED)
    write_back.prepare(each_warehouse.hook)

    for _ in range(2):
        written = write_back.write(
            each_warehouse.hook, [result("A", "1", "2"), result("B", state="rejected")], LOG
        )

    assert written == 2
    assert each_warehouse.rows("SELECT * FROM orders ORDER BY 1") == [
        ("A", "1,2", "created"),
        ("A", "1,2", "created"),
        ("B", None, "rejected"),
        ("C", None, "-"),
    ]


def test_an_update_never_empties_ids(each_warehouse: Warehouse) -> None:
    create_orders(each_warehouse)
    each_warehouse.execute("INSERT INTO orders VALUES ('A', '1', 'created')")

    WriteBack.parse(UPDATED).write(each_warehouse.hook, [result("A", state="in_doubt")], LOG)

    assert each_warehouse.rows("SELECT * FROM orders") == [("A", "1", "in_doubt")]


def test_orders_without_a_row_are_counted_in_a_warning(
    each_warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    create_orders(each_warehouse)
    each_warehouse.execute("INSERT INTO orders VALUES ('A', NULL, NULL)")

    WriteBack.parse(UPDATED).write(
        each_warehouse.hook, [result("A", "1"), result("B", "2"), result("C", "3")], LOG
    )

    assert (
        "results of 2 orders (B, C) are not written: no row of orders has exactly this number in order_no. "
        "Check for blanks around it" in caplog.text
    )
    assert "Wrote the results of 1 order to" in caplog.text


def test_orders_without_a_row_in_several_batches_are_one_warning(
    sqlite_warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    create_orders(sqlite_warehouse)
    results = [result(f"A-{n}", str(n)) for n in range(1_000)]

    WriteBack.parse(UPDATED).write(sqlite_warehouse.hook, results, LOG)

    (warning,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert warning.startswith("The results of 1000 orders (A-0, A-1, A-2, ")
    assert "A-19 and 980 more) are not written: no row of orders has exactly this number in" in warning


def test_nothing_of_a_failed_batch_is_written_and_no_row_is_shown(postgres_warehouse: Warehouse) -> None:
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


def test_a_triggers_message_about_a_row_is_not_shown(postgres_warehouse: Warehouse) -> None:
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


def test_a_warehouse_without_transactions_raises_the_first_error(bigquery_warehouse: Warehouse) -> None:
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


def test_names_that_are_reserved_words_work(each_warehouse: Warehouse) -> None:
    opening, closing = DIALECTS[each_warehouse.hook.conn_type].quotes
    fold = str.upper if each_warehouse.hook.conn_type == "snowflake" else str
    table, key, ids, state = (
        f"{opening}{fold(name)}{closing}" for name in ("order", "group", "from", "select")
    )
    each_warehouse.execute(f"CREATE TABLE {table} ({key} VARCHAR(9), {ids} VARCHAR(9), {state} VARCHAR(9))")
    each_warehouse.execute(f"INSERT INTO {table} VALUES ('A', NULL, NULL)")

    WriteBack.parse({"table": "order", "key": "group", "ids": "from", "state": "select"}).write(
        each_warehouse.hook, [result("A", "1")], LOG
    )

    assert each_warehouse.rows(f"SELECT * FROM {table}") == [("A", "1", "created")]


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
def test_any_other_shape_is_an_error_that_names_both_that_work(argument: object) -> None:
    with pytest.raises(ValueError, match=r'"schema.table".*"table": \.\.\., "key"'):
        WriteBack.parse(argument)


def test_both_shapes_are_known() -> None:
    assert WriteBack.parse(" sales.kk_results ") == Append(Name(("sales", "kk_results")))
    assert isinstance(WriteBack.parse(UPDATED), Update)


@pytest.mark.parametrize("given", ["kk_results", UPDATED])
def test_a_lock_that_somebody_else_had_fails_no_write_back(
    given: Any, mysql_warehouse: Warehouse, mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shop writes its orders' rows, too, and so may another sync, in another order."""
    create_orders(mysql_warehouse)
    mysql_warehouse.execute("INSERT INTO orders (order_no) VALUES ?", ("A",), ("B",))
    create_results(mysql_warehouse)
    with locked(mariadb_url, monkeypatch, "warehouse.orders", "warehouse.kk_results") as pauses:
        WriteBack.parse(given).write(mysql_warehouse.hook, [result("A", "1"), result("B", "2")], LOG)

    assert len(pauses) == 1
    told = mysql_warehouse.rows("SELECT COUNT(*) FROM kk_results") + mysql_warehouse.rows(
        "SELECT COUNT(kk_ids) FROM orders"
    )
    assert told == ([(2,), (0,)] if given == "kk_results" else [(0,), (2,)])
