"""Rows of JSON: a list of orders, or one order as an object on each line. Numbers stay exact."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TextIO

from airflow_provider_kk.warehouse.csv_rows import FileError, check_names, text_lines
from airflow_provider_kk.warehouse.field_sources import JSON, JSON_ERRORS, RepeatedKeyError
from airflow_provider_kk.warehouse.mapping_arguments import ADDRESS_FIELDS, Check, ColumnsError
from airflow_provider_kk.warehouse.spool import Spool

_ADDRESS = "address"
_CHUNK = 1 << 18
#: An order that takes more characters is none.
_MAX_ORDER = 1 << 25
_SPACE = re.compile(r"[ \t\r\n]*")
_PLAIN_NAME = re.compile(r"[^\W\d_][\w -]{0,39}")
_NO_LIST = "the file is not a list of orders: write [{...}, {...}]"
_NO_LINES = "write one order as a JSON object on each line"

Row = dict[str, Any]


def read_json_lines(file: TextIO, check: Check) -> Spool:
    """Read an order from each line; a row's position is its line."""
    return _spooled(lambda: _from_lines(file), check)


def read_json(file: TextIO, check: Check) -> Spool:
    """Read a list of orders, or the one list in an object; a row's position is its place in the list."""
    if _Window(file).peek() == "[":
        return _spooled(lambda: _from_array(file), check)
    file.seek(0)
    document = _decoded("".join(text_lines(file)), "the file", "write a list of orders, [{...}, {...}]")
    if not isinstance(document, dict):
        raise FileError(_NO_LIST)
    fault: ColumnsError | None = None
    found: list[Spool] = []
    for rows in filter(_is_list_of_objects, document.values()):
        try:
            found.append(_spooled(partial(_placed, rows), check))
        except ColumnsError as error:
            fault = fault or error
    if len(found) > 1:
        for spool in found:
            spool.close()
        raise FileError("the file has several lists of orders: write one list, [{...}, {...}]")
    if found:
        return found[0]
    try:
        return _spooled(lambda: _placed([document]), check)  # one order, whose lines are a list
    except ColumnsError as error:
        raise fault or error from None


def _placed(rows: Sequence[Row]) -> Iterator[Row]:
    return (_flat(row, f"order {place}") for place, row in enumerate(rows, 1))


def _spooled(rows: Callable[[], Iterable[Row | None]], check: Check) -> Spool:
    """Keep the rows in two passes: the columns are whatever any row names."""
    names = list(dict.fromkeys(name for row in rows() for name in row or ()))
    if not names:
        raise FileError("the file is empty: it has no order")
    check_names(names, check)
    cells = (None if row is None else [row.get(name) for name in names] for row in rows())
    return Spool.filled(names, cells)


def _from_lines(file: TextIO) -> Iterator[Row | None]:
    file.seek(0)
    for number, text in enumerate(text_lines(file), 1):
        if not text.strip():
            yield None
            continue
        row = _decoded(text, f"line {number}", _NO_LINES)
        if not isinstance(row, dict):
            raise FileError(
                f"line {number} is not a JSON object: {_NO_LINES}, or give --format json for a list of orders"
            )
        yield _flat(row, f"line {number}")


def _decoded(text: str, place: str, advice: str) -> Any:
    try:
        return JSON.decode(text)
    except RepeatedKeyError as error:
        fault = _repeated(place, error)
    except JSON_ERRORS:
        fault = f"{place} is not JSON: {advice}"
    raise FileError(fault)


def _repeated(place: str, error: RepeatedKeyError) -> str:
    key = repr(error.key) if _PLAIN_NAME.fullmatch(error.key) else "a key"
    return f"{place} has {key} twice in one JSON object: remove one of the two"


def _is_list_of_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) for one in value)


def _from_array(file: TextIO) -> Iterator[Row]:
    """Yield the objects of a list one by one, so that memory does not grow with their number."""
    text = _Window(file)
    text.skip("[")
    place = 0
    is_end = text.skip("]")
    while not is_end:
        place += 1
        order = f"order {place} of the list"
        if text.peek() != "{":
            raise FileError(f"{order} is not a JSON object: write a list of orders, [{{...}}]")
        yield _flat(text.decode(order), order)
        is_end = text.skip("]")
        if not is_end and not text.skip(","):
            raise FileError(f"after {order} the file is not JSON, or is cut off")
    if text.peek():
        raise FileError("the file continues after the list of orders: write one list")


class _Window:
    """The part of a file around the order that is being read."""

    def __init__(self, file: TextIO) -> None:
        file.seek(0)
        self._file = file
        self._text, self._at = "", 0
        self._read_on()
        self._text = self._text.lstrip("\ufeff")

    def peek(self) -> str:
        """Return the next character that is no white space; nothing at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._read_on():
                return ""

    def skip(self, character: str) -> bool:
        """Go behind the next character if it is this one."""
        is_next = self.peek() == character
        self._at += is_next
        return is_next

    def decode(self, place: str) -> Row:
        while True:
            try:
                row, self._at = JSON.raw_decode(self._text, self._at)
                return row  # type: ignore[no-any-return]
            except RepeatedKeyError as error:
                fault = _repeated(place, error)
            except JSON_ERRORS:
                # The object may go on beyond what has been read.
                if len(self._text) - self._at < _MAX_ORDER and self._read_on():
                    continue
                fault = f"{place} is not JSON, or the file is cut off there"
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
