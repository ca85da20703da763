"""The `items` column: all lines of an order in one cell."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from airflow_provider_kk.api.cell_text import CellError
from airflow_provider_kk.warehouse.cells import as_quantity, as_text, from_bytes
from airflow_provider_kk.warehouse.columns import LINE_FIELDS, ColumnsError

_EXPECTED = 'a list such as [{"sku": "FWXW00290_WHT_M", "quantity": 1}]'


def parse_items(cell: Any) -> list[Any] | None:
    """A decoded cell, a list or JSON text, as lines for `Order.parse`; blank is absent.

    Names of a line's fields count in upper or lower case, as columns do. Raises CellError if it is no list.
    """
    if isinstance(cell, bytes):
        cell = from_bytes(cell)
    if isinstance(cell, str):
        cell = _from_json(cell) if cell.strip() else None
    if cell is None:
        return None
    if not isinstance(cell, list):
        raise CellError(f"must be {_EXPECTED}, as JSON text or as a list")
    return [_line(line) for line in cell]


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
        return json.loads(source, parse_float=Decimal)
    except (ValueError, RecursionError, ArithmeticError):
        raise CellError(f"is no JSON that can be read: it must be {_EXPECTED}") from None


def _line(line: Any) -> Any:
    if not isinstance(line, Mapping):
        return line
    lowered = {str(name).lower(): value for name, value in line.items()}
    if len(lowered) < len(line):
        return line
    clean = {name: _value(name, value) for name, value in lowered.items()}
    return {name: value for name, value in clean.items() if value is not None or name not in LINE_FIELDS}


def _value(name: str, value: Any) -> Any:
    # What cannot be read here is left as it is: the order's own check then tells the line's number.
    try:
        if name == "sku":
            return as_text(value, name)
        return as_quantity(value) if name in LINE_FIELDS else value
    except CellError:
        return value
