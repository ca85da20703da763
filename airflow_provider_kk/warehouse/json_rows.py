"""Rows of JSON: a list of orders, or one order as an object on each line. Numbers stay exact."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, TextIO

from airflow_provider_kk.warehouse.csv_rows import FileError, check_names, spooled, text_lines
from airflow_provider_kk.warehouse.mapping_arguments import ADDRESS_FIELDS, ColumnsError
from airflow_provider_kk.warehouse.spool import Spool

_ADDRESS = "address"
_CHUNK = 1 << 18
#: An order that takes more characters is none.
_MAX_ORDER = 1 << 25
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN_NAME = re.compile(r"[^\W\d_][\w -]{0,39}")

Check = Callable[[Sequence[str]], object]
Row = dict[str, Any]


class _RepeatedKey(Exception):
    """One object has a key twice: which of its values is meant cannot be known."""


def _object(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RepeatedKey(repr(twice) if _PLAIN_NAME.fullmatch(twice) else "a key")
    return found


_DECODER = json.JSONDecoder(parse_float=Decimal, object_pairs_hook=_object)


def read_json_lines(file: TextIO, check: Check) -> Spool:
    """Read an order from each line; a row's position is its line."""
    return _spooled(lambda: _from_lines(file), check)


def read_json(file: TextIO, check: Check) -> Spool:
    """Read a list of orders, or the one list in an object; a row's position is its place in the list."""
    if _first_character(file) == "[":
        return _spooled(lambda: _from_array(file), check)
    file.seek(0)
    document = _document("".join(text_lines(file)))
    lists = [rows for rows in document.values() if _is_list_of_objects(rows)]
    fault: ColumnsError | None = None
    found: list[Spool] = []
    for rows in [*lists, [document]]:
        if rows == [document] and found:
            break  # else it is one order, whose lines are a list
        try:
            found.append(_spooled(partial(_placed, rows), check))
        except ColumnsError as error:
            fault = fault or error
    if len(found) > 1:
        for spool in found:
            spool.close()
        raise FileError("the file has several lists of orders: write one list, [{...}, {...}]")
    if not found:
        raise fault or FileError("the file has no order")
    return found[0]


def _placed(rows: Sequence[Row]) -> Iterator[Row]:
    return (_flat(row, f"order {place}") for place, row in enumerate(rows, 1))


def _spooled(rows: Callable[[], Iterator[Row] | Iterator[Row | None]], check: Check) -> Spool:
    """Keep the rows in two passes: the columns are whatever any row names."""
    names = list(dict.fromkeys(name for row in rows() for name in row or ()))
    if not names:
        raise FileError("the file is empty: it has no order")
    check_names(names, check)
    return spooled(names, (None if row is None else [row.get(name) for name in names] for row in rows()))


def _from_lines(file: TextIO) -> Iterator[Row | None]:
    file.seek(0)
    for number, text in enumerate(text_lines(file), 1):
        if not text.strip():
            yield None
            continue
        row = _decoded(text, f"line {number}", "write one order as a JSON object on each line")
        if not isinstance(row, dict):
            raise FileError(
                f"line {number} is not a JSON object: write one order as a JSON object on each line, or give "
                "--format json for a list of orders"
            )
        yield _flat(row, f"line {number}")


def _decoded(text: str, place: str, advice: str) -> Any:
    try:
        return _DECODER.decode(text)
    except _RepeatedKey as key:
        fault = f"{place} has {key} twice in one JSON object: remove one of the two"
    except (ValueError, RecursionError, ArithmeticError):
        fault = f"{place} is not JSON: {advice}"
    raise FileError(fault)


def _document(text: str) -> Row:
    document = _decoded(text, "the file", "write a list of orders, [{...}, {...}]")
    if not isinstance(document, dict):
        raise FileError("the file is not a list of orders: write [{...}, {...}]")
    return document


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _first_character(file: TextIO) -> str:
    file.seek(0)
    while chunk := file.read(_CHUNK):
        if bare := chunk.lstrip("\ufeff \t\r\n"):
            return bare[0]
    return ""


def _from_array(file: TextIO) -> Iterator[Row | None]:
    """Yield the objects of a list one by one, so that memory does not grow with their number."""
    file.seek(0)
    text = _Window(file)
    text.expect("[")
    place = 0
    if text.take() == "]":
        text.expect_end()
        return
    text.back()
    while True:
        place += 1
        if text.take() != "{":
            raise FileError(
                f"order {place} of the list is not a JSON object: write a list of orders, [{{...}}]"
            )
        text.back()
        yield _flat(text.decode(f"order {place} of the list"), f"order {place} of the list")
        after = text.take()
        if after == "]":
            text.expect_end()
            return
        if after != ",":
            raise FileError(f"after order {place} of the list the file is not JSON, or is cut off")


class _Window:
    """The part of a file around the order that is being read."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0

    def take(self) -> str:
        """Return the next character that is no white space; nothing at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                self._at += 1
                return self._text[self._at - 1]
            if not self._read_on():
                return ""

    def back(self) -> None:
        self._at -= 1

    def expect(self, character: str) -> None:
        if self.take().lstrip("\ufeff") != character:
            raise FileError("the file is not a list of orders: write [{...}, {...}]")

    def expect_end(self) -> None:
        if self.take():
            raise FileError("the file continues after the list of orders: write one list")

    def decode(self, place: str) -> Row:
        while True:
            try:
                row, self._at = _DECODER.raw_decode(self._text, self._at)
            except _RepeatedKey as key:
                fault = f"{place} has {key} twice in one JSON object: remove one of the two"
                break
            except (ValueError, RecursionError, ArithmeticError):
                # The object may go on beyond what has been read.
                if len(self._text) - self._at < _MAX_ORDER and self._read_on():
                    continue
                fault = f"{place} is not JSON, or the file is cut off there"
                break
            return row  # type: ignore[no-any-return]
        raise FileError(fault)

    def _read_on(self) -> bool:
        """Read a piece as long as what is left, at least: an order is tried again only a few times."""
        rest = self._text[self._at :]
        more = self._file.read(max(_CHUNK, len(rest)))
        if "\0" in more:
            raise FileError("the file is not text: save it as UTF-8")
        self._text, self._at = rest + more, 0
        return bool(more)


def _flat(row: Row, place: str) -> Row:
    """Return the order's fields, those of its address among them."""
    address = row.get(_ADDRESS)
    if not isinstance(address, Mapping):
        return row
    inside = {name: value for name, value in address.items() if str(name).lower() in ADDRESS_FIELDS}
    rest = {name: value for name, value in row.items() if name != _ADDRESS or len(inside) < len(address)}
    if twice := rest.keys() & inside.keys():
        raise FileError(f"{place} has {', '.join(sorted(twice))} both in its address and beside it")
    return rest | inside
