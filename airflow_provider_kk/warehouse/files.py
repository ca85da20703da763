"""A file of orders as rows: CSV as spreadsheets write it, or one JSON object a line.

Cells of a CSV file stay the text that they are: 075001 keeps its zero and +33 its plus. No error repeats what
stands in a cell.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from decimal import Decimal
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, TextIO

from airflow_provider_kk.warehouse.spool import Spool

JSON_LINES = (".jsonl", ".ndjson")
"""What a file of JSON lines is called; every other file is read as CSV."""

_DELIMITERS = (",", ";", "\t", "|")
_MAX_COLUMNS = 1_000
_ROWS_AT_ONCE = 1_000
_ADDRESS = "address"
_MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}

Check = Callable[[Sequence[str]], object]


class FileError(ValueError):
    """The file cannot be read as orders; the text says where and what to do."""


def read_file(path: str, *, check: Check, delimiter: str | None = None, encoding: str | None = None) -> Spool:
    """All rows of a file; a row's place is its line in a spreadsheet, so the header of a CSV file is row 1.

    :param check: is called with the column names before a row is kept, and stops the reading by raising.
    :param delimiter: of a CSV file, else the one that makes most columns of its first line.
    :param encoding: else UTF-8, or UTF-16 when the file begins with its mark.
    :raises FileError: when there is no such file, or it is no such text.
    """
    with _opened(path, encoding) as file:
        if Path(path).suffix.lower() in JSON_LINES:
            return _read_json_lines(file, check)
        return _read_csv(file, check, delimiter)


@contextmanager
def _opened(path: str, encoding: str | None) -> Iterator[TextIO]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileError(
                f"{path} is a directory, a pipe or a device: save a file, since it is read more than once"
            )
        with open(path, "rb") as file:
            begin = file.read(4)
        if begin.startswith(b"PK\x03\x04"):
            raise FileError(f"{path} is a workbook or another zip file: save it as CSV (UTF-8)")
        encoding = _checked(encoding) if encoding else _MARKS.get(begin[:2], "utf-8-sig")
        with open(path, encoding=encoding, newline="") as file_of_text:
            yield file_of_text
    except UnicodeError:  # its text would hold what surrounds the byte
        fault = f"{path} is no text in {encoding}: save it as CSV (UTF-8), or give --encoding, e.g. cp1252"
    except OSError as error:
        fault = f"{path} cannot be read: {error.strerror or type(error).__name__}"
    else:
        return
    raise FileError(fault)


def _checked(encoding: str) -> str:
    try:
        io.TextIOWrapper(io.BytesIO(), encoding)
    except LookupError:
        raise FileError(f"there is no encoding {encoding!r} of texts") from None
    return encoding


# CSV -----------------------------------------------------------------------------------------------


def _read_csv(file: TextIO, check: Check, delimiter: str | None) -> Spool:
    lines = _text_lines(file)
    first = next(lines, "")
    rows = _csv_rows(chain([first], lines), delimiter or _delimiter_of(first))
    row_number, header = next(((row_number, row) for row_number, row in rows if any(row)), (0, []))
    if not header:
        raise FileError("the file is empty: its first line must name the columns")
    names = [name.strip().lstrip("\ufeff") for name in header]
    _check_names(names, check)
    return _spooled(
        names, (_row(row_number, cells, len(names)) for row_number, cells in rows), first=row_number + 1
    )


def _delimiter_of(header: str) -> str:
    return max(_DELIMITERS, key=lambda one: len(next(csv.reader([header], delimiter=one), [])))


def _row(row_number: int, cells: list[str], width: int) -> list[str | None] | None:
    """The cells of a row as one for each column; None when all are empty."""
    if any(cells[width:]):
        raise FileError(
            f"row {row_number} has {len(cells)} cells, the first line names {width} columns: put a cell that "
            "holds the delimiter into quotes, or name the delimiter"
        )
    # Spreadsheets leave out empty cells at the end of a row.
    row = [*(cell.strip() or None for cell in cells[:width]), *[None] * (width - len(cells))]
    return row if any(row) else None


def _csv_rows(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    row_number = 0
    try:
        for cells in reader:
            row_number += 1
            yield row_number, cells
    except csv.Error as error:
        raise FileError(f"row {row_number + 1} is no CSV: {error}. Look at its quotes") from None


def _text_lines(file: TextIO) -> Iterator[str]:
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise FileError(f"line {number} is no text: save the file as CSV (UTF-8)")
        yield line


# JSON lines ----------------------------------------------------------------------------------------


def _read_json_lines(file: TextIO, check: Check) -> Spool:
    """Two passes: the columns are whatever any line names."""
    names = list(dict.fromkeys(name for line in _objects(file) for name in line or ()))
    _check_names(names, check)
    file.seek(0)
    rows = (None if line is None else [line.get(name) for name in names] for line in _objects(file))
    return _spooled(names, rows)


def _objects(file: TextIO) -> Iterator[dict[str, Any] | None]:
    """Each line's fields, those of its address among them; None for an empty line."""
    for number, text in enumerate(_text_lines(file), 1):
        yield _fields(text, number) if text.strip() else None


def _fields(text: str, number: int) -> dict[str, Any]:
    try:
        data = json.loads(text, parse_float=Decimal)
    except (ValueError, RecursionError, ArithmeticError):
        raise FileError(f"line {number} is no JSON: write one order as a JSON object on each line") from None
    if not isinstance(data, dict):
        raise FileError(f"line {number} is no JSON object: write one order as a JSON object on each line")
    address = data.get(_ADDRESS)
    if not isinstance(address, Mapping):
        return data
    rest = {name: value for name, value in data.items() if name != _ADDRESS}
    if twice := rest.keys() & address.keys():
        raise FileError(f"line {number} has {', '.join(sorted(twice))} both in its address and beside it")
    return rest | dict(address)


def _check_names(names: Sequence[str], check: Check) -> None:
    if len(names) > _MAX_COLUMNS:
        raise FileError(f"the file names {len(names):,} columns; at most {_MAX_COLUMNS:,} can be read")
    check(names)


def _spooled(names: Sequence[str], rows: Iterator[Sequence[object] | None], first: int = 1) -> Spool:
    """The rows in a private file; a place without a row is left out."""
    spool = Spool(names, first)
    try:
        while batch := list(islice(rows, _ROWS_AT_ONCE)):
            for is_empty, group in groupby(batch, key=lambda row: row is None):
                if is_empty:
                    spool.skip(len(list(group)))
                else:
                    spool.add(row for row in group if row is not None)
    except BaseException:
        spool.close()
        raise
    return spool
