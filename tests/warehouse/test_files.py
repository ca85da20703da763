"""Promises of reading a file of orders."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kk.warehouse.files import FileError, read_file
from airflow_provider_kk.warehouse.map import parse_orders
from airflow_provider_kk.warehouse.spool import RowKey
from tests.operators.shop import ADDRESS, PRIVATE

HEAD = ("custom_order_number", *ADDRESS, "sku", "quantity")
LINE = ("007", *ADDRESS.values(), "SKU-1", "2")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.csv"


def text_of(*rows: Sequence[str], delimiter: str = ",", end: str = "\n") -> str:
    return "".join(delimiter.join(row) + end for row in (HEAD, *rows))


def read(path: Path, **options: Any) -> list[tuple[int, list[Any]]]:
    """The places and cells of all rows."""
    with read_file(str(path), check=lambda names: None, **options) as spool:
        width = range(len(spool.names))
        return [
            (row.position, list(row.cells))
            for _, group in spool.groups(RowKey("each row", (), lambda _: None), width)
            for row in group
        ]


def fault_of(path: Path, **options: Any) -> str:
    with pytest.raises(FileError) as raised:
        read(path, **options)
    assert not any(word in str(raised.value) for word in PRIVATE)
    assert raised.value.__cause__ is None
    return str(raised.value)


# CSV -----------------------------------------------------------------------------------------------


def test_a_pipe_fails_before_anything_is_read_from_it(path: Path) -> None:
    os.mkfifo(path)
    pipe = os.open(path, os.O_RDWR)  # so that nobody waits for the other end
    os.write(pipe, text_of(LINE).encode())

    assert "a pipe or a device" in fault_of(path)

    assert os.read(pipe, 10_000).decode() == text_of(LINE)
    os.close(pipe)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read_as_it_is(
    path: Path, delimiter: str, encoding: str, end: str
) -> None:
    row = ("007", "Zoë Ångström", *LINE[2:])
    path.write_text(text_of(row, delimiter=delimiter, end=end), encoding=encoding, newline="")

    assert read(path) == [(2, list(row))]


def test_cells_stay_the_text_that_they_are(path: Path) -> None:
    path.write_text(text_of(LINE))

    with read_file(str(path), check=lambda names: None) as spool:
        (candidate,) = parse_orders(spool)

    assert candidate.order is not None
    assert candidate.number == "007"
    assert candidate.order.address.model_dump(include=set(ADDRESS)) == ADDRESS


def test_empty_cells_are_absent(path: Path) -> None:
    path.write_text("a,b,c\n1,,\n2, ,3\n")

    assert read(path) == [(2, ["1", None, None]), (3, ["2", None, "3"])]


def test_a_row_has_the_number_that_a_spreadsheet_gives_it(path: Path) -> None:
    path.write_text('\na,b\n1,"two\nlines"\n\n,,\n4,x\n')

    assert read(path) == [(3, ["1", "two\nlines"]), (6, ["4", "x"])]


def test_quotes_hold_delimiters_and_quotes(path: Path) -> None:
    path.write_text('a,b\n"1,5","say ""hi"""\n')

    assert read(path) == [(2, ["1,5", 'say "hi"'])]


def test_the_delimiter_and_the_encoding_can_be_named(path: Path) -> None:
    path.write_text("a;b,c\n1;é,3\n", encoding="cp1252")

    assert read(path, delimiter=",", encoding="cp1252") == [(2, ["1;é", "3"])]


def test_columns_are_checked_before_a_row_is_read(path: Path) -> None:
    path.write_text("a,b\n" + '"broken\n' * 3)
    seen = []

    def check(names: Sequence[str]) -> None:
        seen.extend(names)
        raise LookupError

    with pytest.raises(LookupError):
        read_file(str(path), check=check)
    assert seen == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"PK\x03\x04 a workbook", "workbook"),
        (b"a,b\n1,\x00\n", "line 2 is not text"),
        ("a,b\n1,Zebulon é\n".encode("cp1252"), "is not UTF-8"),
        (b"a,b\n1,2\n3,Zebulon,4\n", "row 3 has 3 cells, but the header has 2 columns"),
        (b"a,b\n1,2\nZebulon\n", "row 3 has 1 cells, but the header has 2 columns"),
        (b'a,b\n1,2\n3,"Zebulon" Quist\n', "row 3 is not valid CSV"),
        (b'a,b\n1,"Zebulon\n', "row 2 is not valid CSV"),
        (",".join(map(str, range(1_001))).encode(), "1,001 columns"),
    ],
)
def test_a_file_without_orders_is_reported_without_its_content(path: Path, content: bytes, says: str) -> None:
    path.write_bytes(content)

    assert says in fault_of(path)


def test_a_file_that_cannot_be_opened_is_reported(path: Path) -> None:
    assert "No such file" in fault_of(path)
    assert "directory" in fault_of(path.parent)
    path.write_text("a\n1\n")
    assert "--encoding 'latin-99' does not exist" in fault_of(path, encoding="latin-99")
    assert "--encoding 'hex' does not exist" in fault_of(path, encoding="hex")


# JSON lines ----------------------------------------------------------------------------------------


def test_json_lines_are_orders_flat_or_with_an_address(path: Path) -> None:
    path = path.with_suffix(".jsonl")
    flat = {"custom_order_number": "1", **ADDRESS, "items": [{"sku": "A", "quantity": 1}]}
    nested = {"custom_order_number": 2, "remark": "x", "address": ADDRESS, "items": flat["items"]}
    path.write_text(f"{json.dumps(flat)}\n\n{json.dumps(nested)}\n")

    with read_file(str(path), check=lambda names: None) as spool:
        first, second = parse_orders(spool)

    assert first.order is not None
    assert second.order is not None
    assert (first.order.address, first.order.items) == (second.order.address, second.order.items)
    assert (first.number, first.position, second.number, second.position) == ("1", 1, "2", 3)


def test_numbers_of_json_lines_are_exact(path: Path) -> None:
    path = path.with_suffix(".ndjson")
    path.write_text('{"a": 1.10, "b": true}\n{}\n')

    assert read(path) == [(1, [Decimal("1.10"), True]), (2, [None, None])]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"a": 1}\n{"a": Zebulon}\n', "line 2 is not JSON"),
        ('["Zebulon"]\n', "line 1 is not a JSON object"),
        ('{"zip": "1", "address": {"zip": "2"}}\n', "line 1 has zip both in its address and beside it"),
    ],
)
def test_a_line_that_is_no_order_is_reported_without_its_content(path: Path, content: str, says: str) -> None:
    path = path.with_suffix(".jsonl")
    path.write_text(content)

    assert says in fault_of(path)
