"""Promises of what is told of a database driver's error."""

from __future__ import annotations

import sqlite3
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_kk.delivery.sql.driver_errors import is_of_statement, redact_db_error

SQL = "SELECT so.recipient, phone::bigint AS phone FROM Shop.so WHERE number > 1000000"
MARKED = ("Quist", "Zebulon", "33 1", "331", "00 00", "Secret", "Licornes")


class DriverError(Exception):
    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args)
        vars(self).update(attributes)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            DriverError(
                'invalid input syntax for type bigint: "+33 1 00 00 00 00"\nCONTEXT:  Zebulon Quist',
                pgcode="22P02",
            ),
            "DriverError (22P02): invalid input syntax for type bigint: ***",
        ),
        (
            DriverError(
                'invalid input syntax for type json\nDETAIL:  Token "Zebulon" is invalid.\nCONTEXT:  Quist',
                sqlstate="22P02",
            ),
            "DriverError (22P02): invalid input syntax for type json",
        ),
        (
            DriverError("Could not decode to UTF-8 column 'recipient' with text 'Zebulon 'the' Quist"),
            "DriverError: Could not decode to UTF-8 column 'recipient' with text ***",
        ),
        (
            DriverError("Could not decode to UTF-8 column 'street1' with text '17 Secret'"),
            "DriverError: Could not decode to UTF-8 column 'street1' with text ***",
        ),
        (
            DriverError(1366, "Incorrect integer value: 'Zebulon's' for column 'phone' at row 1"),
            "DriverError: Incorrect integer value:***",
        ),
        (DriverError("400 Bad int64 value: +33 1 00 Quist"), "DriverError: 400 Bad int64 value:***"),
        (
            DriverError("100038 (22018): 01b2: Numeric value '+33100' is not recognized", sqlstate="22018"),
            "DriverError 100038 (22018): 01b2: Numeric value ***",
        ),
        (DriverError("int64 overflow: 33100000000 * 1000000"), "DriverError: int64 overflow: *** * 1000000"),
        (DriverError("Zebulon Quist cannot be served", sqlstate="P0001"), None),
        (DriverError("Zebulon Quist cannot be served", sqlstate="45000"), None),
        (
            DriverError('syntax error in tsquery: "Zebulon Quist"', sqlstate="42601"),
            "DriverError (42601): syntax error in tsquery: ***",
        ),
        (
            DriverError("22018", "[22018] [Server]Conversion failed when converting 'Zebulon' (245)"),
            "DriverError (22018): [22018] [Server]Conversion failed when converting ***",
        ),
        (DriverError("the value Zebulon Quist is odd"), "DriverError: the value ***"),
        (DriverError("no `Zebulon Quist` here"), "DriverError: no ***"),
        (DriverError('("Zebulon", "Quist") is not unique'), "DriverError: (***"),
        (
            DriverError({"S": "ERROR", "C": "22P02", "M": 'invalid: "331"', "D": "Zebulon Quist"}),
            "DriverError (22P02): invalid: ***",
        ),
        (
            DriverError("100038 (22018): 01b2c3d4-0001-2345-0000-123456789012: Bad\nNumeric 'Zebulon'"),
            "DriverError 100038 (22018): Bad",
        ),
    ],
)
def test_no_value_of_a_row_is_shown(error: Exception, says: str | None) -> None:
    told = redact_db_error(error, SQL, "recipient", "street1")

    assert [word for word in MARKED if word in told] == []
    assert told.startswith("DriverError")
    if says is not None:
        assert told == says


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            DriverError(
                "column so.recipient does not exist\nLINE 1: SELECT so.recipient\n               ^\n"
                'HINT:  Perhaps you meant to reference the column "so.recipients".',
                pgcode="42703",
            ),
            "(42703): column so.recipient does not exist "
            'HINT:  Perhaps you meant to reference the column "so.recipients".',
        ),
        (
            DriverError('relation "so" does not exist', sqlstate="42P01"),
            '(42P01): relation "so" does not exist',
        ),
        (DriverError("no such column: foo"), "no such column: foo"),
        (DriverError('near "FROM": syntax error'), 'near "FROM": syntax error'),
        (
            DriverError(
                "000904 (42000): SQL compilation error: error line 1 at 7\ninvalid identifier 'PHONE'",
                sqlstate="42000",
            ),
            "error line 1 at 7 invalid identifier 'PHONE'",
        ),
        (
            DriverError(
                "002003 (42S02): 01b2c3d4-0001-2345-0000-123456789012: SQL compilation error:\n"
                "Object 'DB.SHOP.SO' does not exist or not authorized."
            ),
            "DriverError 002003 (42S02): SQL compilation error: "
            "Object 'DB.SHOP.SO' does not exist or not authorized.",
        ),
        (
            DriverError("002043 (02000): None: SQL compilation error:\nObject 'SO' does not exist."),
            "DriverError 002043 (02000): SQL compilation error: Object 'SO' does not exist.",
        ),
        (
            DriverError({"S": "ERROR", "C": "42P01", "M": 'relation "so" does not exist', "R": "parserOpen"}),
            'DriverError (42P01): relation "so" does not exist',
        ),
        (
            DriverError("Object 'DB.SHOP.SO' does not exist or not authorized."),
            "Object 'DB.SHOP.SO' does not exist or not authorized.",
        ),
        (DriverError(1054, "Unknown column 'phone' in 'SELECT'"), "Unknown column 'phone' in 'SELECT'"),
        (DriverError("value too long for type character"), "value too long for type character"),
        (DriverError("can't reach the server"), "can't reach the server"),
        (DriverError('whole: "text"', message="Unrecognized name: foo at [1:8]"), "name: foo at [1:8]"),
        (
            DriverError({"S": "ERROR", "C": "42703", "M": 'column "so" does not exist', "D": "Zebulon"}),
            '(42703): column "so" does not exist',
        ),
        (DriverError(), "DriverError"),
    ],
)
def test_the_error_says_what_is_wrong_with_the_statement(error: Exception, says: str) -> None:
    assert redact_db_error(error, SQL).endswith(says)


@pytest.mark.parametrize(
    ("error", "is_at_fault"),
    [
        (DriverError('column "nix" does not exist', pgcode="42703"), True),
        (DriverError("002003 (42S02): Object does not exist", sqlstate="42S02"), True),
        (DriverError(1054, "Unknown column 'nix' in 'field list'"), True),
        (DriverError({"S": "ERROR", "C": "42703", "M": 'column "nix" does not exist'}), True),
        (DriverError(SimpleNamespace(getSQLState=lambda: "42S22")), True),
        (DriverError(SimpleNamespace(getSQLState=lambda: "08006")), False),
        (sqlite3.OperationalError("no such column: nix"), True),
        (DriverError("002003 (42S02): SQL compilation error:\nObject 'X' does not exist"), True),
        (DriverError("002043 (02000): None: SQL compilation error:\nObject does not exist."), True),
        (DriverError("250001 (08001): Failed to connect to DB"), False),
        (DriverError({"S": "ERROR", "C": "42P01", "M": "no relation"}), True),
        (DriverError({"S": "FATAL", "C": "57P01", "M": "terminating connection"}), False),
        (type("CatalogException", (DriverError,), {})("Table with name nix does not exist!"), True),
        (sqlite3.OperationalError("database is locked"), False),
        (DriverError("canceling statement due to lock timeout", sqlstate="55P03"), False),
        (DriverError(2013, "Lost connection to server during query"), False),
        (DriverError("no such column: nix"), False),
    ],
)
def test_a_faulty_statement_is_distinguished_from_a_transient_error(
    error: Exception, is_at_fault: bool
) -> None:
    assert is_of_statement(error) is is_at_fault
