"""Read the rows of one order: its header, its lines, and which rows are no line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from airflow_provider_kk.api.clean_text import CellError
from airflow_provider_kk.api.errors import Fault
from airflow_provider_kk.warehouse.cells import as_quantity, as_text, canonical
from airflow_provider_kk.warehouse.field_sources import Reader, first_filled, is_blank, read_json
from airflow_provider_kk.warehouse.mapping_arguments import (
    ADDRESS_FIELDS,
    ITEMS,
    LINE_ID,
    NUMBER,
    ColumnsError,
)
from airflow_provider_kk.warehouse.match_columns import Columns, FieldSource
from airflow_provider_kk.warehouse.spool import SpooledRow

_TOTALS = frozenset(
    ("total", "totals", "grand total", "subtotal", "sum", "summe", "gesamt", "gesamtsumme", "somme", "totale")
)
"""The texts that a sheet's footer has in the place of a SKU."""
_READINGS: dict[str, Reader] = {
    "sku": partial(as_text, field="sku"),
    "quantity": as_quantity,
    LINE_ID: partial(as_text, field=LINE_ID),
}
"""How the fields of a line are read."""
_EXPECTED = 'a list such as [{"sku": "FWXW00290_WHT_M", "quantity": 1}]'


@dataclass(slots=True)
class SourceRow:
    """A row, with its columns' values for the order as a whole."""

    position: int
    cells: Sequence[Any]
    header: dict[str, str | None]
    #: Faults of header cells that cannot be read, without the order's number.
    faults: list[Fault]
    #: What was read differently from how it is written.
    notices: list[Fault]


class RowReader:
    """Reads the rows of a statement's result as its columns are mapped."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        self._header_reads = [(name, columns.fields[name].read) for name in columns.header]
        self._defaults = [name for name in columns.header if len(columns.fields[name].readers) > 1]
        self._line_readings = {name: one for name, one in _READINGS.items() if name in columns.fields}
        if columns.preset.has_decimal_point:
            self._line_readings["quantity"] = _without_zero_decimals

    def order_number(self, cells: tuple[Any, ...]) -> str | None:
        """Return the order number of a row, None when it has none that can be read."""
        completed = self._columns.binder.complete(cells)
        number: str | None = self._value(NUMBER, completed, _as_number, NUMBER, [])
        return number

    def number_fault(self, row: SourceRow) -> Fault:
        """Return why a row has no readable order number."""
        faults: list[Fault] = []
        if self._value(NUMBER, row.cells, partial(as_text, field=NUMBER), NUMBER, faults) is not None:
            return Fault(NUMBER, "is not valid Unicode text")
        return (faults or [Fault(NUMBER, "is required: it identifies the order")])[0]

    def read(self, spooled: Sequence[SpooledRow]) -> list[SourceRow]:
        """Read the header of each row; rows that repeat the cells of the row above share what was read."""
        width = self._columns.header_width
        rows: list[SourceRow] = []
        for position, raw in spooled:
            if rows and raw[:width] == rows[-1].cells[:width]:
                rows.append(replace(rows[-1], position=position, cells=self._columns.binder.complete(raw)))
                continue
            header, faults = {}, []
            notices: list[Fault] = []
            cells = self._columns.binder.complete(raw)
            for name, read in self._header_reads:
                try:
                    header[name] = as_text(read(cells), name, notices)
                except CellError as error:
                    header[name] = None
                    faults.append(Fault(field_path(name), str(error)))
            if notices:
                notices = [Fault(field_path(notice.path), notice.message) for notice in notices]
            rows.append(SourceRow(position, cells, header, faults, notices))
        return rows

    def is_no_order(self, number: str | None, rows: Sequence[SourceRow]) -> bool:
        """Return whether rows are blank in all that is read, or marked as a footer."""
        if number is None:
            return all(is_blank(cell) for row in rows for cell in row.cells)
        width = len(self._columns.binder.indexes)
        return self._columns.line_mark is not None and not any(self._is_filled(row, width) for row in rows)

    def has_header(self, row: SourceRow) -> bool:
        """Return whether a field that belongs to the order as a whole is filled."""
        return self._is_filled(row, self._columns.header_width)

    def _is_filled(self, row: SourceRow, width: int) -> bool:
        """Return whether one of the first columns that are read, except the order number's, is filled."""
        return not all(map(is_blank, row.cells[self._columns.number_width : width]))

    def has_line(self, row: SourceRow) -> bool:
        """Return whether a row is a line of its order."""
        mark = self._columns.line_mark
        return mark is None or not is_blank(mark(row.cells)) or not is_blank(self._raw("sku", row))

    def has_goods(self, row: SourceRow, *, may_be_footer: bool) -> bool:
        """Return whether a row names a SKU or a quantity; the footer of a sheet has none."""
        if not self.has_line(row):
            return False
        sku, quantity = self._raw("sku", row), self._raw("quantity", row)
        is_headed = self.has_header(row)
        if isinstance(sku, str) and sku.strip(" :").lower() in _TOTALS:
            return is_headed
        return not is_blank(sku) or (not is_blank(quantity) and (is_headed or not may_be_footer))

    def header(self, rows: Sequence[SourceRow], faults: list[Fault]) -> dict[str, str | None]:
        """Return the order's header with its blanks filled; adds to `faults` what cannot be read."""
        header = rows[0].header
        own = dict.fromkeys(fault for row in rows for fault in row.faults)
        unreadable = {fault.path for fault in own}
        faults += own
        for name in self._defaults:
            path = field_path(name)
            if header[name] is not None or path in unreadable:
                continue
            reading = partial(as_text, field=name)
            values = dict.fromkeys(
                self._value(name, row.cells, reading, path, faults, first=1) for row in rows
            )
            values.pop(None, None)
            if len(values) > 1:
                faults.append(Fault(path, "is blank, and its default differs between rows of this order"))
            elif values:
                (value,) = values
                header = {**header, name: value}
        return header

    def lines(self, rows: Sequence[SourceRow], faults: list[Fault]) -> tuple[Any, list[str | None]]:
        """Return the lines as `Order.parse` takes them, and their ids; adds to `faults`."""
        ids: list[str | None]
        if self._columns.one_row_per_order:
            items = self.items(rows[0], faults)
            ids = [item.pop(LINE_ID, None) if isinstance(item, dict) else None for item in items or ()]
            return items, [one if isinstance(one, str) else None for one in ids]
        lines, ids = [], []
        for index, row in enumerate(rows):
            values = {
                name: self._value(name, row.cells, reading, f"{ITEMS}[{index}].{name}", faults)
                for name, reading in self._line_readings.items()
            }
            ids.append(values.pop(LINE_ID, None))
            lines.append({name: value for name, value in values.items() if value is not None})
        return lines, ids

    def items(self, row: SourceRow, faults: list[Fault]) -> list[Any] | None:
        """Return the lines in a row's `items`; adds to `faults` why they cannot be read."""
        reading = partial(_parse_items, sources=self._columns.in_items)
        found: list[Any] | None = self._value(ITEMS, row.cells, reading, ITEMS, faults)
        return found

    def items_key(self, row: SourceRow) -> str:
        """Return a text that is equal for equal lines in `items`."""
        items = self.items(row, [])
        if items is None:
            cell = self._raw(ITEMS, row)
            return "" if is_blank(cell) else canonical(cell)
        # Lines in another sequence are the same lines.
        return "\n".join(sorted(map(canonical, items)))

    def _value(
        self, name: str, cells: Any, reading: Reader, path: str, faults: list[Fault], first: int = 0
    ) -> Any:
        """Return a field's value by the first of its sources that is filled; adds to `faults`.

        :param first: the first of its sources that counts.
        """
        try:
            return first_filled(self._columns.fields[name].readers[first:], cells, reading)
        except CellError as error:
            faults.append(Fault(path, str(error)))
            return None

    def _raw(self, name: str, row: SourceRow) -> Any:
        """Return a field's value as it came; an unreadable one counts as filled."""
        try:
            return self._columns.fields[name].read(row.cells)
        except CellError as error:
            return error


def _without_zero_decimals(cell: Any) -> Any:
    return as_quantity(re.sub(r"\.0+$", "", cell.strip()) if isinstance(cell, str) else cell)


def _as_number(cell: Any) -> str | None:
    """Return a cell as the order number that rows are grouped by."""
    try:
        number = as_text(cell, NUMBER)
        (number or "").encode()
    except ValueError:  # also for a lone surrogate
        return None
    return number


def field_path(field: str) -> str:
    """Return the path of a field in an `Order`."""
    return f"address.{field}" if field in ADDRESS_FIELDS else field


# The items column ---------------------------------------------------------------------------------


def _parse_items(cell: Any, sources: Mapping[str, FieldSource]) -> list[Any] | None:
    """Return a decoded cell, a list or JSON text, as lines for `Order.parse`; blank is absent.

    :param sources: where a line's fields come from, so that all else in an element is left out; empty when
        its elements have our own names, in upper or lower case as with columns. A `line_id` is kept.
    :raises CellError: it is no list.
    """
    try:
        lines = read_json(cell)
    except CellError as error:
        raise CellError(f"{error}. It must be {_EXPECTED}") from None
    if lines is not None and not isinstance(lines, list):
        raise CellError(f"must be {_EXPECTED}, as JSON text or as a list")
    return None if lines is None else [_line(line, sources) for line in lines]


def check_for_nameless_records(cells: Iterable[Any]) -> None:
    """Raise ColumnsError for BigQuery's arrays of structs, that Airflow's hook yields without field names."""
    first = next(filter(None, cells), None)
    if isinstance(first, list) and all(isinstance(line, dict) and set(line) == {"v"} for line in first):
        raise ColumnsError(
            "items is a BigQuery array, whose fields arrive without their names: "
            "select TO_JSON_STRING(items) AS items"
        )


def _line(line: Any, sources: Mapping[str, FieldSource]) -> Any:
    if not isinstance(line, Mapping):
        return line
    if sources:
        found = {name.removeprefix(f"{ITEMS}."): _filled(source, line) for name, source in sources.items()}
    else:
        found = {str(name).lower(): value for name, value in line.items()}
        if len(found) < len(line):
            return line
    clean = {name: _line_value(name, value) for name, value in found.items()}
    return {name: value for name, value in clean.items() if value is not None or name not in _READINGS}


def _filled(source: FieldSource, line: Mapping[str, Any]) -> Any:
    """Return the first value that is filled. Nested data stays, and the order's check rejects it."""
    try:
        return first_filled(source.readers, line, lambda value: None if is_blank(value) else value)
    except CellError:
        return {}


def _line_value(name: str, value: Any) -> Any:
    # What cannot be read here is left as it is: the order's own check then names the line.
    try:
        return _READINGS[name](value) if name in _READINGS else value
    except CellError:
        return value
