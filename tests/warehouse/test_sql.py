"""Promises of names and parameters in statements to any warehouse."""

from __future__ import annotations

import sqlite3
from datetime import UTC
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_kk.warehouse.sql import DIALECTS, OTHER, Name, Statement, dialect_of, style_of
from airflow_provider_kk.warehouse.write_back import Append, WriteBack
from tests.warehouse.results import AT, UPDATED


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


def by_jdbc(quote: str, *, stores: str) -> Any:
    """A connection of JayDeBeApi to a warehouse that stores names without quotes so."""
    meta = SimpleNamespace(
        getIdentifierQuoteString=lambda: quote,
        storesUpperCaseIdentifiers=lambda: stores == "upper",
        storesLowerCaseIdentifiers=lambda: stores == "lower",
    )
    return SimpleNamespace(jconn=SimpleNamespace(getMetaData=lambda: meta))


def by_odbc(quote: str, case: int) -> Any:
    return SimpleNamespace(getinfo={29: quote, 28: case}.__getitem__)


@pytest.mark.parametrize(
    ("connection", "table", "at"),
    [
        pytest.param(by_jdbc('"', stores="upper"), '"RESULTS"', '"AT"', id="HSQLDB, Derby"),
        pytest.param(by_jdbc('"', stores="lower"), '"results"', '"at"', id="PostgreSQL"),
        pytest.param(by_jdbc("`", stores="mixed"), "`Results`", "`at`", id="MariaDB"),
        pytest.param(by_jdbc(" ", stores="mixed"), "Results", "at", id="no quotes"),
        pytest.param(by_odbc('"', 1), '"RESULTS"', '"AT"', id="ODBC upper"),
        pytest.param(by_odbc('"', 2), '"results"', '"at"', id="ODBC lower"),
        pytest.param(by_odbc('"', 4), '"Results"', '"at"', id="ODBC mixed"),
        pytest.param(object(), "Results", "at", id="no way to ask"),
    ],
)
def test_an_unknown_warehouse_is_asked_how_it_quotes_names(connection: Any, table: str, at: str) -> None:
    hook: Any = SimpleNamespace(conn_type="any")

    ddl = Append(Name(("Results",))).ddl(dialect_of(hook, connection))

    assert ddl.startswith(f"CREATE TABLE {table} (")
    assert ddl.endswith(f", {at} {OTHER.types[2]})")


def test_duckdb_quotes_its_reserved_words() -> None:
    hook: Any = SimpleNamespace(conn_type="duckdb")

    assert Append(Name(("Results",))).ddl(dialect_of(hook)) == (
        'CREATE TABLE "Results" ("custom_order_number" VARCHAR(40), "state" VARCHAR(40), '
        '"kk_order_ids" VARCHAR(4000), "message" VARCHAR(4000), "at" TIMESTAMP)'
    )


@pytest.mark.parametrize(
    "name",
    [
        "", " ", ".", "a.", ".a", "a..b", "a b", "a;b", "a--b", "a-b", "p-.d.t", "p--q.d.t", "a'", 'a"b',
        '"a"b', '"a""b"', "`a`", "a.b.c.d", "1a", "é", "a\n; drop", "a/*", '"a;b"', "%s", "a%b", None, 3,
    ],
)  # fmt: skip
def test_a_name_that_is_not_plain_is_an_error(name: Any) -> None:
    with pytest.raises(ValueError, match="write_back"):
        WriteBack.parse(name)
    with pytest.raises(ValueError, match="write_back's key"):
        WriteBack.parse({**UPDATED, "key": name})


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
