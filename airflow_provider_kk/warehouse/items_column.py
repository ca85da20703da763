"""Read the `items` column: all lines of an order in one cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow_provider_kk.api.clean_text import CellError
from airflow_provider_kk.warehouse.cells import as_quantity, as_text, from_bytes
from airflow_provider_kk.warehouse.field_sources import parse_json
from airflow_provider_kk.warehouse.mapping_arguments import ITEMS, LINE_FIELDS, LINE_ID, ColumnsError
from airflow_provider_kk.warehouse.match_columns import FieldSource

_EXPECTED = 'a list such as [{"sku": "FWXW00290_WHT_M", "quantity": 1}]'


def parse_items(cell: Any, sources: Mapping[str, FieldSource]) -> list[Any] | None:
    """Return a decoded cell, a list or JSON text, as lines for `Order.parse`; blank is absent.

    :param sources: where a line's fields come from, so that all else in an element is left out; empty when
        its elements have our own names, in upper or lower case as with columns. A `line_id` is kept.
    :raises CellError: it is no list.
    """
    if isinstance(cell, bytes):
        cell = from_bytes(cell)
    if isinstance(cell, str):
        cell = _from_json(cell) if cell.strip() else None
    if cell is None:
        return None
    if not isinstance(cell, list):
        raise CellError(f"must be {_EXPECTED}, as JSON text or as a list")
    return [_line(line, sources) for line in cell]


def check_for_nameless_records(cells: Iterable[Any]) -> None:
    """Raise ColumnsError for BigQuery's arrays of structs, that Airflow's hook yields without field names."""
    first = next(filter(None, cells), None)
    if (
        isinstance(first, list)
        and first
        and all(isinstance(line, dict) and set(line) == {"v"} for line in first)
    ):
        raise ColumnsError(
            "items is a BigQuery array, whose fields arrive without their names: "
            "select TO_JSON_STRING(items) AS items"
        )


def _from_json(source: str) -> Any:
    try:
        return parse_json(source)
    except CellError as error:
        message = str(error)
    raise CellError(f"{message}: it must be {_EXPECTED}")


def _line(line: Any, sources: Mapping[str, FieldSource]) -> Any:
    if not isinstance(line, Mapping):
        return line
    if sources:
        found = {name.removeprefix(f"{ITEMS}."): _filled(source, line) for name, source in sources.items()}
    else:
        found = {str(name).lower(): value for name, value in line.items()}
        if len(found) < len(line):
            return line
    clean = {name: _value(name, value) for name, value in found.items()}
    return {
        name: value
        for name, value in clean.items()
        if value is not None or name not in (*LINE_FIELDS, LINE_ID)
    }


def _filled(source: FieldSource, line: Mapping[str, Any]) -> Any:
    """Return the first value that is filled. Nested data stays, and the order's check rejects it."""
    for read in (source.read, *source.defaults):
        try:
            value = read(line)
            if value is not None and not (isinstance(value, str) and not value.strip()):
                return value
        except CellError:
            return {}
    return None


def _value(name: str, value: Any) -> Any:
    # What cannot be read here is left as it is: the order's own check then names the line.
    try:
        if name in ("sku", LINE_ID):
            return as_text(value, name)
        return as_quantity(value) if name == "quantity" else value
    except CellError:
        return value
