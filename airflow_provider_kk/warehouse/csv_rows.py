"""Rows of a CSV file, by the layout that it is found to have: delimiter, quoting and header line.

Cells stay the text that they are: 075001 keeps its zero and +33 its plus.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TextIO

from airflow_provider_kk.warehouse.mapping_arguments import Check, ColumnsError
from airflow_provider_kk.warehouse.spool import Spool

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
MAX_COLUMNS = 1_000
#: So many lines from the beginning are looked at for the header, and so many of them may be it.
_FIRST_LINES, _CANDIDATES = 60, 10
#: With fewer, a line is a title rather than the header of orders.
_FEWEST_COLUMNS = 5
_SEPARATOR_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_QUOTED_FIELD = re.compile(r'"(?:[^"]|"")*"')
#: No text has these: in another encoding than UTF-8 they prove that it is the wrong one.
_WRONG_ENCODING = re.compile("[\\x80-\\x9f\ufffd]")
_LINE_AS_TEXT = re.compile(
    r"\bsku\b.*\b(qty|quantity)\b|\b(qty|quantity)\b.*\bsku\b", re.IGNORECASE | re.DOTALL
)


class FileError(ValueError):
    """The file cannot be read as orders; the text describes where, and what to do."""


@dataclass(frozen=True)
class CsvLayout:
    """How a CSV file is written; None and `auto` are to be detected."""

    delimiter: str | None = None
    quoting: str = "auto"
    header_line: int | None = None


def read_csv(file: TextIO, check: Check, given: CsvLayout, log: Log) -> tuple[Spool, str, str]:
    """Read the rows below the header, and return them with two descriptions: of the layout, of the header.

    :raises FileError: when the file cannot be read with certainty.
    """
    first_lines = list(islice(text_lines(file), max(_FIRST_LINES, given.header_line or 0)))
    delimiter, header_line, found_names = _find_header(first_lines, check, given)
    layout = replace(given, delimiter=delimiter, header_line=header_line)
    if layout.quoting == "auto" and delimiter == "\t":
        file.seek(0)
        layout = replace(layout, quoting=_quoting_of_tabs(text_lines(file), header_line))
    file.seek(0)
    records = _records(file, layout, header_line)
    header = next((record.cells for record in records), [])
    if "".join(header).strip() == "":
        raise FileError("the file is empty: its first line must have the names of the columns")
    names = _names(header)
    if names != found_names:  # quotes that belong to the text
        check_names(names, check)
    first = header_line + 1
    rows = _without_headers(_checked_rows(records, header, names, log), names, first, log)
    spool = Spool.filled(names, rows, first)
    quoting = "no quoting" if layout.quoting == "none" else "double quotes"
    described = f"{_DELIMITERS.get(delimiter, repr(delimiter))}-separated"
    return spool, f"{described}, {quoting}", f"header in line {header_line}"


def text_lines(file: TextIO) -> Iterator[str]:
    """Yield the lines of a file with their ends, and stop at what is no text."""
    is_unicode = file.encoding.lower().startswith("utf")
    for number, line in enumerate(file, 1):
        if "\0" in line:
            raise FileError(f"line {number} is not text: save the file as CSV (UTF-8)")
        if not is_unicode and _WRONG_ENCODING.search(line):
            raise FileError(f"line {number} is not text in {file.encoding}: give another --encoding")
        yield line


def check_names(names: Sequence[str], check: Check) -> None:
    """Check the column names of a file."""
    if len(names) > MAX_COLUMNS:
        raise FileError(f"the header has {len(names):,} columns, but at most {MAX_COLUMNS:,} can be read")
    check(names)


# The header ----------------------------------------------------------------------------------------


def _find_header(lines: list[str], check: Check, given: CsvLayout) -> tuple[str, int, list[str]]:
    """Return the delimiter, the number of the line that names the columns, and their names.

    A line `sep=;`, empty lines and a title may stand above it: it is the first line whose names `check`
    accepts. Nothing as wide as an order is taken for a title.
    """
    separator = given.delimiter
    start = next((index for index, line in enumerate(lines) if line.strip("\ufeff \t\r\n;,|")), 0)
    if lines and (line := _SEPARATOR_LINE.fullmatch(lines[start].lstrip("\ufeff"))):
        separator, start = separator or line[1], start + 1
    places = range(start, len(lines)) if given.header_line is None else [given.header_line - 1]
    error: ColumnsError | None = None
    widest = len(lines)
    for place, delimiter, header in islice(_candidates(lines, places, separator, given.quoting), _CANDIDATES):
        names = _names(header)
        if place > widest:
            break
        try:
            check_names(names, check)
        except ColumnsError as fault:
            if len(list(filter(None, names))) >= _FEWEST_COLUMNS:
                widest = place
            if error is None:
                error = ColumnsError(_explained(str(fault), lines[place:], delimiter, place + 1, names))
            continue
        return delimiter, place + 1, names
    if error is not None:
        raise error
    raise FileError("the file is empty: its first line must have the names of the columns")


def _candidates(
    lines: list[str], places: Sequence[int], delimiter: str | None, quoting: str
) -> Iterator[tuple[int, str, list[str]]]:
    """Yield lines that may name columns, as cells by the delimiter that makes most, then by others."""
    single = None
    for place in places:
        if place >= len(lines) or not lines[place].strip():
            continue
        readings = [
            (place, one, _first_record(lines[place:], one, quoting))
            for one in ([delimiter] if delimiter else _DELIMITERS)
        ]
        readings.sort(key=lambda reading: len(reading[2]), reverse=True)
        single = single or readings[0]
        # A title stands in one cell, whatever delimiters a spreadsheet puts behind it.
        yield from (reading for reading in readings if sum(map(bool, map(str.strip, reading[2]))) > 1)
    if single is not None:
        yield single


def _first_record(lines: list[str], delimiter: str, quoting: str) -> list[str]:
    if quoting == "none":
        return "".join(lines[:1]).rstrip("\r\n").split(delimiter)
    try:
        return next(csv.reader(lines, delimiter=delimiter), [])
    except csv.Error:
        return []


def _names(header: Sequence[str]) -> list[str]:
    names = [name.strip().lstrip("\ufeff") for name in header]
    while names and not names[-1]:
        names.pop()
    return names


def _explained(fault: str, lines: list[str], delimiter: str, line: int, names: Sequence[str]) -> str:
    """Return what is wrong with the columns, and what the file was taken for."""
    cells = _first_record([one for one in lines[1:] if one.strip()], delimiter, "auto")
    for name, cell in zip(names, cells, strict=False):
        if _LINE_AS_TEXT.search(cell) and not cell.lstrip().startswith(("[", "{")):
            return (
                f"the column {name} has the lines of an order as text, with SKU and quantity in one cell. "
                "This needs SQL or a script that writes a row for each line, for example in Python: for "
                "quantity, sku in re.findall(r'Product Qty: (\\d+), Product SKU: ([^,|]+)', cell): "
                "writer.writerow({**row, 'sku': sku, 'quantity': quantity})"
            )
    if line == 1 and len(names) >= _FEWEST_COLUMNS:
        return fault
    taken = f"Line {line} was read as the header, with the delimiter {delimiter!r}"
    return f"{fault}. {taken}: --header-line and --delimiter change that"


# Quoting -------------------------------------------------------------------------------------------


def _quoting_of_tabs(lines: Iterator[str], header_line: int) -> str:
    """Return how a tab-separated file quotes.

    Many write their titles as they are: 12" of a poster is no quoting. It is quoting where every field that
    begins with a quote also ends with it.
    """
    quoted: set[int] = set()
    open_at: dict[int, int] = {}  # column -> line
    for number, line in enumerate(lines, 1):
        if '"' not in line or number < header_line:
            continue
        for column, field in enumerate(line.rstrip("\r\n").split("\t")):
            if field.startswith('"'):
                if _QUOTED_FIELD.fullmatch(field):
                    quoted.add(column)
                else:
                    open_at.setdefault(column, number)
    if not open_at:
        return "double"
    if quoted - open_at.keys():
        raise FileError(
            f"line {min(open_at.values())} has a cell that begins with a quote and does not end with one, "
            "while other columns are quoted: give --quoting double if such a cell spans lines, "
            "or --quoting none if quotes are part of the text"
        )
    return "none"


class _Record(NamedTuple):
    """The cells of one record, with its number as a spreadsheet counts rows."""

    number: int
    cells: list[str]
    is_cut_off: bool
    """Its last line has no end."""


def _records(file: TextIO, layout: CsvLayout, header_line: int) -> Iterator[_Record]:
    """Yield the records of a file from its header on."""
    lines = islice(text_lines(file), header_line - 1, None)
    if layout.quoting != "none":
        return _quoted_records(lines, layout, header_line)
    bare = ((line, line.rstrip("\r\n")) for line in lines)
    return (
        _Record(number, text.split(layout.delimiter) if text else [], text == line)
        for number, (line, text) in enumerate(bare, header_line)
    )


def _quoted_records(lines: Iterator[str], layout: CsvLayout, number: int) -> Iterator[_Record]:
    """Yield records by the rules of CSV, and stop where an open quote has taken rows into one cell."""
    delimiter, width = layout.delimiter or ",", 0
    taken: list[str] = []

    def noted() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line

    try:
        for cells in csv.reader(noted(), delimiter=delimiter, strict=True):
            are_rows = any(line.count(delimiter) + 1 >= width > 0 for line in taken[1:])
            if are_rows and layout.quoting == "auto":
                raise FileError(
                    f"row {number} spans {len(taken)} lines that look like rows of their own, by a quote "
                    "that is not closed: give --quoting none if quotes are part of the text, or --quoting "
                    "double if a cell spans these lines"
                )
            width = width or len(_names(cells))
            yield _Record(number, cells, is_cut_off=taken[-1][-1:] not in "\r\n")
            taken.clear()
            number += 1
    except csv.Error as error:
        raise FileError(
            f"row {number} is not valid CSV: {error}. Check its quotes. --quoting none reads quotes as part "
            "of the text"
        ) from None


# Rows ----------------------------------------------------------------------------------------------


def _checked_rows(
    records: Iterator[_Record], header: Sequence[str], names: Sequence[str], log: Log
) -> Iterator[list[str | None] | None]:
    """Yield the cells of each row, one for each name; None for an empty row.

    All rows must have the header's number of cells, or all the same surplus of empty ones.
    """
    width = len(names)
    expected, first, footer, is_after_gap = 0, 0, 0, False
    for number, cells, is_cut_off in records:
        row = [cell.strip() or None for cell in cells]
        if not any(row):
            is_after_gap = True
            yield None
            continue
        if footer or len(row) != (expected or len(header)):
            # What exports add below the orders, such as a count: it is short to the end of the file.
            is_short = len(row) * 2 <= width and not is_cut_off
            # A quote that is left in a cell may belong to a cell that went on over lines.
            if (footer or is_after_gap) and is_short and not any('"' in cell for cell in cells):
                footer = footer or number
                yield None
                continue
            if footer or expected or len(row) < width:
                raise _wrong_width(number, len(row), width, expected, first, footer)
        if not expected:
            expected, first = len(row), number
        if len(row) > width:
            # A delimiter inside a cell shifts others, in "Last, First" of all rows, too.
            is_shifted = expected > len(header) and any(cell.startswith((" ", '"')) for cell in cells[1:])
            if any(row[width:]) or is_shifted:
                raise _wrong_width(number, len(row), width, expected, first)
            del row[width:]
        is_after_gap = False
        yield row
    if footer:
        log.warning(
            "The rows from %d on, after an empty one, have too few cells for an order. They are left out as "
            "a footer",
            footer,
        )


def _without_headers(
    rows: Iterator[list[str | None] | None], names: Sequence[str], first: int, log: Log
) -> Iterator[list[str | None] | None]:
    """Leave out rows that repeat the header, as where one file was put below another."""
    known = frozenset(_folded(name) for name in names if name)
    named = next((index for index, name in enumerate(names) if name), 0)
    repeated: list[str] = []
    for number, row in enumerate(rows, first):
        # One column decides whether a row is worth a closer look.
        if row and _folded(row[named] or "") in known and _repeats_header(row, names, number):
            repeated.append(str(number))
            yield None
        else:
            yield row
    if repeated:
        log.warning("Rows that repeat the header are left out: %s", ", ".join(repeated))


def _repeats_header(row: Sequence[str | None], names: Sequence[str], number: int) -> bool:
    """Return whether a row names the columns once more.

    :raises FileError: it names them in another order, so the cells below it are in other columns.
    """
    found, named = [[_folded(cell or "") for cell in cells] for cells in (row, names)]
    if found == named:
        return True
    common = set(found) & set(named) - {""}
    if len(common) * 2 > len(set(named)):
        raise FileError(
            f"row {number} names the columns once more, and others or in another order: two files were put "
            "together. Read each of them by itself"
        )
    return False


def _folded(name: str) -> str:
    return name.lstrip("\ufeff").strip().casefold()


def _wrong_width(row: int, count: int, names: int, expected: int, first: int, footer: int = 0) -> FileError:
    if footer and count in (names, expected):
        return FileError(
            f"row {footer} has too few cells for an order, but row {row} below it has enough. If "
            "the file has several sheets or pages, save each as a file"
        )
    others = f", row {first} has {expected}" if expected and expected != names else ""
    return FileError(
        f"row {row} has {count} cells, but the header has {names} columns{others}: its cells may be in the "
        "wrong columns. Put cells that contain the delimiter in quotes, name each column, or give "
        "--delimiter or --quoting"
    )
