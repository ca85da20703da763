"""Read the value of a field from its source: a column, a path into a JSON column, a template or a constant.

A source is text, so that a DAG, a serialised DAG and the command line write it in the same way. No error
repeats the value of a cell.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import Any

from airflow_provider_kk.api.clean_text import CellError, check_part
from airflow_provider_kk.warehouse.cells import as_text, from_bytes

Reader = Callable[[Any], Any]
"""Takes a row's cells, one element of a list, or a value, and returns a value, which may be None."""

#: Fields that are another one without one of their parts.
_WHOLE = frozenset({"custom_order_number", "sku", "line_id"})
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[^{}]+|(.)", re.DOTALL)
_STEPS = re.compile(r"(?:\.[^.\[\]]+|\[\d+\])+")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")


class SourceError(ValueError):
    """The text is no source; the message has the reason."""


def constant_of(source: str) -> str | None:
    """Return the text of a constant, or None when the source is not one."""
    return source[2:-1] if len(source) > 2 and source.startswith("='") and source.endswith("'") else None


def parse_source(source: str) -> tuple[list[tuple[str, str]], str]:
    """Return each reference with the text before it, and the text after the last one, or a constant's.

    In a template such as `"{first_name} {last_name}"`, `{{` and `}}` are braces.

    :raises SourceError: a constant without quotes, braces that do not match, or no column named.
    """
    if source.startswith("='"):
        constant = constant_of(source) or ""
        if not constant.strip():
            raise SourceError("must be a constant such as ='text', with both quotes")
        return [], constant
    if not _is_template(source):
        return [("", source)], ""
    parts: list[tuple[str, str]] = []
    text = ""
    for token in _TOKEN.finditer(source):
        if token[0] in ("{{", "}}"):
            text += token[0][0]
        elif token[1] is not None:
            if not token[1].strip():
                raise SourceError("has {} without the name of a column")
            parts.append((text, token[1].strip()))
            text = ""
        elif token[2]:
            raise SourceError("has a brace without its pair: write {{ or }} for a brace itself")
        else:
            text += token[0]
    if not parts:
        raise SourceError("names no column in braces. Write a fixed text as ='...'")
    return parts, text


def references(source: str) -> list[str]:
    """Return the columns and paths that a source names."""
    return [reference for _, reference in parse_source(source)[0]]


def _is_template(source: str) -> bool:
    return "{" in source or "}" in source


class Binder:
    """Finds the columns that sources name, and collects which ones are read.

    `indexes` are the columns to read, in the order in which `complete` and the readers expect their cells.
    Sources that were bound first read the first of them, and need no others.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._theirs = [name.strip().lower() for name in names]
        self.indexes: list[int] = []
        self._json: list[int] = []

    def find(self, reference: str) -> tuple[int, tuple[str | int, ...]] | None:
        """Return the column of a reference and the path into it; the longest column name wins."""
        for name, steps in _splits(reference):
            if name.lower() in self._theirs:
                return self._theirs.index(name.lower()), steps
        # A file's reader puts the fields of an object called address beside the order's.
        return self.find(reference[8:]) if reference.lower().startswith("address.") else None

    def has(self, source: str) -> bool:
        """Return whether all columns of a source are there."""
        return self.is_column(source) or all(self.find(one) for one in references(source))

    def is_column(self, source: str) -> bool:
        """Return whether a source is a column's name as a whole, whatever signs that name has."""
        return source.lower() in self._theirs

    def bind(self, source: str, field: str = "", others: Mapping[str, Reader] | None = None) -> Reader:
        """Return what reads a field's source of which all columns are there; `others` are readers by name."""
        if self.is_column(source):
            return self._reference(source)
        return _bind(source, field, lambda name: (others or {}).get(name.lower()) or self._reference(name))

    def complete(self, cells: Sequence[Any]) -> Sequence[Any]:
        """Add to a row's cells, or to the first of them, the content of JSON columns, each read once."""
        if not self._json:
            return cells
        there = [place for place in reversed(self._json) if place < len(cells)]
        return (*cells, *(_json_of(cells[place]) for place in there))

    def _reference(self, reference: str) -> Reader:
        found = self.find(reference)
        if found is None:
            raise SourceError(f"names no column: {reference}")
        index, steps = found
        place = _place(self.indexes, index)
        if not steps:
            return itemgetter(place)
        from_the_end = -1 - _place(self._json, place)
        return lambda cells: _walk(cells[from_the_end], steps)


def bind_element(source: str, field: str) -> Reader:
    """Return what reads a field's source inside one element of a list, where names are the element's keys."""
    return _bind(source, field, _element_reference)


def first_filled(readers: Sequence[Reader], cells: Any, reading: Reader) -> Any:
    """Return what `reading` makes of a value that is not blank then, or of the last one.

    :raises CellError: as a reader or `reading` does.
    """
    value = None
    for read in readers:
        value = reading(read(cells))
        if not is_blank(value):
            break
    return value


def is_blank(value: Any) -> bool:
    """Return whether a value as it came stands for nothing."""
    return value is None or (isinstance(value, str) and not value.strip())


class RepeatedKeyError(CellError):
    """An object in JSON has this key twice: which of its values is meant cannot be known."""

    def __init__(self, key: str) -> None:
        super().__init__("is JSON with a key twice in one object")
        self.key = key


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return found


JSON = json.JSONDecoder(parse_float=Decimal, object_pairs_hook=_object)
"""Reads JSON with exact numbers; raises RepeatedKeyError, or one of `JSON_ERRORS`."""
JSON_ERRORS = (ValueError, RecursionError, ArithmeticError)


def read_json(cell: Any) -> Any:
    """Return the content of a cell of JSON text; what a driver has read already is returned as it is.

    :raises CellError: it is no JSON, or an object has a key twice.
    """
    if isinstance(cell, bytes):
        cell = from_bytes(cell)
    if not isinstance(cell, str):
        return cell
    try:
        return JSON.decode(cell) if cell.strip() else None
    except CellError:
        raise
    except JSON_ERRORS:
        pass
    raise CellError("is not valid JSON")


def _bind(source: str, field: str, reference: Callable[[str], Reader]) -> Reader:
    named, tail = parse_source(source)
    parts = [(text, reference(name)) for text, name in named]
    if not parts:
        return lambda _: tail
    return partial(_fill, parts, tail, field) if _is_template(source) else parts[0][1]


def _fill(parts: Sequence[tuple[str, Reader]], tail: str, field: str, cells: Any) -> str | None:
    """Fill a template; a blank part leaves no gap: the text that joins it to the others goes with it.

    :raises CellError: a part is damaged, or blank in a number or a SKU, which would be another one then.
    """
    values = [as_text(read(cells), field) for _, read in parts]
    filled = ""
    for number, ((text, _), value) in enumerate(zip(parts, values, strict=True)):
        if value is not None:
            check_part(value, field)
            filled += (text if filled or number == 0 else "") + value
    if not filled:
        return None
    if None in values and field in _WHOLE:
        raise CellError("has a blank part in its template, which would make another value: fill the part")
    return filled + tail if values[-1] is not None else filled


def _splits(reference: str) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """Yield each way to take a reference as a column's name and a path, the longest name first."""
    yield reference.strip(), ()
    for place in reversed([match.start() for match in re.finditer(r"[.\[]", reference)]):
        if place and _STEPS.fullmatch(reference, place):
            yield reference[:place].strip(), _steps(reference[place:])


def _steps(path: str) -> tuple[str | int, ...]:
    return tuple(step[1].strip() if step[1] is not None else int(step[2]) for step in _STEP.finditer(path))


def _element_reference(reference: str) -> Reader:
    steps = _steps(f".{reference}")

    def read(element: Mapping[str, Any]) -> Any:
        return element[reference] if reference in element else _walk(element, steps)

    return read


def _walk(value: Any, steps: Sequence[str | int]) -> Any:
    """Follow a path; None where something on it is not there.

    :raises CellError: it leads into a text or a number, or into a list without the index of an element.
    """
    if isinstance(value, CellError):
        raise value
    for step in steps:
        if value is None:
            return None
        if isinstance(value, Mapping):
            value = _of_key(value, str(step))
        elif not isinstance(value, list):
            raise CellError(f"is not a JSON object with the key {step}")
        elif isinstance(step, int) or step.isdecimal():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            raise CellError(f"is a list, so {step} needs an element, such as [0].{step}")
    return value


def _of_key(value: Mapping[str, Any], key: str) -> Any:
    if key in value:
        return value[key]
    # As with columns, upper and lower case are the same, unless that names two keys.
    found = [name for name in value if str(name).lower() == key.lower()]
    return value[found[0]] if len(found) == 1 else None


def _json_of(cell: Any) -> Any:
    """Return a JSON column's content; an error is kept and raised when the column is read."""
    try:
        return read_json(cell)
    except CellError as error:
        return error


def _place(known: list[int], one: int) -> int:
    if one not in known:
        known.append(one)
    return known.index(one)
