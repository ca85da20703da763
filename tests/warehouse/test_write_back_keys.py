"""Promises of finding the orders' own rows: each by its number, exactly, along an index."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_kk.warehouse import write_back as module
from airflow_provider_kk.warehouse.write_back import WriteBack
from tests.warehouse.conftest import Warehouse
from tests.warehouse.results import LOG, UPDATED, create_orders, result


def test_integer_keys_and_ids_are_updated(each_warehouse: Warehouse) -> None:
    row_store = each_warehouse.hook.conn_type in ("sqlite", "postgres", "mysql")
    create_orders(each_warehouse, "BIGINT", "BIGINT" if row_store else "VARCHAR(99)")
    each_warehouse.execute("INSERT INTO orders VALUES (1001, NULL, NULL)")

    WriteBack.parse(UPDATED).write(each_warehouse.hook, [result("1001", "77")], LOG)

    assert [(str(ids), state) for _, ids, state in each_warehouse.rows("SELECT * FROM orders")] == [
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
    assert "results of order A-1 are not written: no row of orders has exactly this number" in caplog.text


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
    collation = "by the collation of order_no, a row of another order in orders has the same number"
    assert f"results of 3 orders (A-1, B-1, a-1) are not written: {collation}" in caplog.text
    assert "results of order D-1 are not written: no row of orders has exactly this number" in caplog.text


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
