"""Rows become orders: grouped by order number, checked, every fault told at once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from airflow_provider_kk.api.api_versions import API_VERSIONS, ApiVersion
from airflow_provider_kk.api.cell_text import CellError
from airflow_provider_kk.api.errors import Fault, InvalidOrderError
from airflow_provider_kk.api.models import Order
from airflow_provider_kk.warehouse.cells import as_quantity, as_text, plain
from airflow_provider_kk.warehouse.columns import (
    ADDRESS_FIELDS,
    ITEMS,
    LINE_FIELDS,
    NUMBER,
    Columns,
    resolve,
)
from airflow_provider_kk.warehouse.items import check_for_nameless_records, parse_items
from airflow_provider_kk.warehouse.spool import Spool, SpooledRow

MAX_ROWS_PER_ORDER = 10_000
"""More rows with one order number are no order but a mistake in the statement, and not held in memory."""


@dataclass(frozen=True, slots=True)
class ParsedOrder:
    """What the rows of one order number amount to: an order, or the faults that keep it from being one.

    `number` is None when the rows have none that can be read. `position` is the place of the first row in the
    statement's result, from 1; `rows` how many rows it is made of; `repeated` how many of them only repeat
    another one whole and were not counted (with an `items` column); `doubled` how many equal another one in
    every column, read or not, and were counted all the same (lines of an order). `digest` is a short hash of
    what was read, the same in every run for the same content: it tells a known invalid order from a new one.
    `warnings` are what was read differently from how it is written, and what looks doubtful.
    """

    number: str | None
    order: Order | None
    faults: tuple[Fault, ...]
    position: int
    digest: str
    rows: int = 1
    repeated: int = 0
    doubled: int = 0
    warnings: tuple[Fault, ...] = ()


def parse_orders(
    spool: Spool, columns: Mapping[str, str] | None = None, *, api_version: str | None = None
) -> Iterator[ParsedOrder]:
    """One candidate for each order number, in order of first appearance; memory does not grow with the rows.

    Rows are one per order line, in any order, or one per order with `items`. Every other column belongs to
    the order as a whole: rows of one number that differ there are different orders, and each variant is an
    invalid candidate of its own. So is each row without a readable number. Each call is a new pass.
    `api_version` is the version of KK's API that the orders are for, None when it is not known.
    Raises ColumnsError at once when the columns do not fit, see `columns.resolve`.
    """
    mapping = resolve(spool.names, columns)
    if ITEMS in mapping.index:
        check_for_nameless_records(spool.column(mapping.index[ITEMS]))
    return _Mapper(mapping, spool, None if api_version is None else API_VERSIONS[api_version]).parsed_orders()


@dataclass(slots=True)
class _Row:
    position: int
    header: dict[str, str | None]
    #: The cells that hold the lines: sku and quantity, or items.
    lines: tuple[Any, ...]
    #: Faults of header cells that cannot be read, without the order's number.
    faults: list[Fault]
    #: What was read differently from how it is written.
    notices: list[Fault]


class _Mapper:
    """The mapping of one statement."""

    def __init__(self, columns: Columns, spool: Spool, api_version: ApiVersion | None) -> None:
        self._columns = columns
        self._spool = spool
        self._api_version = api_version
        self._header = columns.header
        self._line_fields = (ITEMS,) if columns.one_row_per_order else LINE_FIELDS
        self._fields = (NUMBER, *self._header, *self._line_fields)

    def parsed_orders(self) -> Iterator[ParsedOrder]:
        index = self._columns.index
        indexes = [index[field] for field in self._fields]
        for number, group in self._spool.groups(index[NUMBER], _order_number, indexes):
            rows = list(islice(group, MAX_ROWS_PER_ORDER))
            more = next(group, None)
            if more is not None:
                count = len(rows) + sum(1 for _ in chain([more], group))
                yield self._too_many(number, rows[0].position, count)
            else:
                yield from self._variants(number, rows)

    def _variants(self, number: str | None, spooled: Sequence[SpooledRow]) -> Iterator[ParsedOrder]:
        """The rows of one number: one order, or as many invalid ones as there are different headers."""
        variants: dict[object, list[_Row]] = {}
        for row in map(self._row, spooled):
            variants.setdefault(self._identity(row), []).append(row)
        conflicts = self._conflicts(list(variants.values())) if len(variants) > 1 else []
        number_faults = self._number_faults(number, spooled[0])
        found = [self._parse(number, rows, [*number_faults, *conflicts]) for rows in variants.values()]
        if conflicts:
            # They share one number, so what is remembered of it has to fit each of them.
            digest = _digest({"variants": sorted(candidate.digest for candidate in found)})
            found = [replace(candidate, digest=digest) for candidate in found]
        yield from found

    def _parse(self, number: str | None, rows: list[_Row], faults: list[Fault]) -> ParsedOrder:
        repeated = len(rows) - 1 if self._columns.one_row_per_order else 0
        counted = rows[:1] if self._columns.one_row_per_order else rows
        lines, line_faults = self._lines(counted)
        data = _order_data(number, counted[0].header, lines)
        faults = [*faults, *(self._explained(fault) for fault in (*counted[0].faults, *line_faults))]
        order = None
        notices = [notice for row in counted for notice in row.notices]
        try:
            order = Order.parse(data, notices)
            if self._api_version is not None:
                self._api_version.check(order)
        except InvalidOrderError as error:
            known = {fault.path for fault in faults}
            blank = dict(notices)
            for path, message in error.faults:
                if path not in known:
                    why = f" ({blank[path]})" if path in blank else ""
                    faults.append(self._explained(Fault(path, message + why)))
        faults = [_located(fault, counted) for fault in faults]
        return ParsedOrder(
            number=number,
            order=None if faults else order,
            faults=tuple(faults),
            position=rows[0].position,
            digest=_digest(data),
            rows=len(rows),
            repeated=repeated,
            doubled=0 if faults else self._doubled(counted),
            warnings=tuple(map(self._explained, dict.fromkeys(notices))),
        )

    def _doubled(self, rows: Sequence[_Row]) -> int:
        """How many rows equal another one in every column, such as a line's id that nothing reads."""
        if len(rows) == 1 or len(rows) == len({row.lines for row in rows}):
            return 0
        return len(rows) - self._spool.distinct([row.position for row in rows])

    def _row(self, spooled: SpooledRow) -> _Row:
        faults: list[Fault] = []
        notices: list[Fault] = []
        header: dict[str, str | None] = {}
        for field, cell in zip(self._header, spooled.cells[1:], strict=False):
            header[field] = _read(as_text, cell, _path(field), faults, field, notices)
        if country := header.get("country"):
            header["country"] = country.upper()
        if notices:
            notices = [Fault(_path(notice.path), notice.message) for notice in notices]
        return _Row(spooled.position, header, spooled.cells[1 + len(self._header) :], faults, notices)

    def _lines(self, rows: Sequence[_Row]) -> tuple[Any, list[Fault]]:
        """The order's lines as `Order.parse` takes them, and the faults of cells that cannot be read."""
        faults: list[Fault] = []
        if self._columns.one_row_per_order:
            return _read(parse_items, rows[0].lines[0], ITEMS, faults), faults
        lines = []
        for index, row in enumerate(rows):
            sku, quantity = row.lines
            path = f"{ITEMS}[{index}]"
            line = {
                "sku": _read(as_text, sku, f"{path}.sku", faults, "sku"),
                "quantity": _read(as_quantity, quantity, f"{path}.quantity", faults),
            }
            lines.append({name: value for name, value in line.items() if value is not None})
        return lines, faults

    def _identity(self, row: _Row) -> object:
        """What makes rows of one number the same order."""
        header = (*row.header.values(), *row.faults)
        return (header, self._items_key(row)) if self._columns.one_row_per_order else header

    def _items_key(self, row: _Row) -> str:
        try:
            items = parse_items(row.lines[0])
        except CellError:
            items = row.lines[0]
        # Lines in another sequence are the same lines.
        return "\n".join(sorted(map(_canonical, items))) if isinstance(items, list) else _canonical(items)

    def _conflicts(self, variants: Sequence[Sequence[_Row]]) -> list[Fault]:
        """A fault for each field in which rows of one number differ; never with the values."""
        firsts = [rows[0] for rows in variants]
        unreadable = [{fault.path for fault in row.faults} for row in firsts]
        fields = []
        for path, field in ((_path(field), field) for field in self._header):
            seen = {(row.header[field], path in paths) for row, paths in zip(firsts, unreadable, strict=True)}
            if len(seen) > 1:
                fields.append(path)
        if self._columns.one_row_per_order and len({self._items_key(row) for row in firsts}) > 1:
            fields.append(ITEMS)
        places = " and ".join(f"row {row.position}" for row in firsts[:2])
        message = f"differs between rows of this order number ({places}): one number, several orders"
        return [self._explained(Fault(path, message)) for path in fields]

    def _number_faults(self, number: str | None, row: SpooledRow) -> list[Fault]:
        if number is not None:
            return []
        faults: list[Fault] = []
        if _read(as_text, row.cells[0], NUMBER, faults, NUMBER) is None and not faults:
            faults.append(Fault(NUMBER, "is required: without it an order cannot be found again"))
        return [self._explained(fault) for fault in faults or [Fault(NUMBER, "is not valid Unicode text")]]

    def _too_many(self, number: str | None, position: int, rows: int) -> ParsedOrder:
        message = f"is on {rows} rows, more than the {MAX_ROWS_PER_ORDER} that one order may have"
        fault = self._explained(Fault(NUMBER, message))
        return ParsedOrder(number, None, (fault,), position, _digest({NUMBER: number, "rows": rows}), rows)

    def _explained(self, fault: Fault) -> Fault:
        """The fault with the warehouse's own name for the column, when `columns` maps it."""
        inside_items = self._columns.one_row_per_order and fault.path.startswith(ITEMS)
        field = ITEMS if inside_items else fault.path.rpartition(".")[2]
        theirs = self._columns.mapped.get(field)
        return Fault(fault.path, f"{fault.message} (column {theirs})") if theirs else fault


def _located(fault: Fault, rows: Sequence[_Row]) -> Fault:
    """The fault with the row of its line, where that is not the order's first."""
    found = re.match(rf"{ITEMS}\[(\d+)\]", fault.path)
    line = int(found[1]) if found else 0
    if not 0 < line < len(rows):
        return fault
    return Fault(fault.path, f"{fault.message} (row {rows[line].position})")


def _order_number(cell: Any) -> str | None:
    """A cell as the order number that rows are grouped by."""
    try:
        number = as_text(cell, NUMBER)
    except CellError:
        return None
    if number is None or any("\ud800" <= character <= "\udfff" for character in number):
        return None
    return number


def _order_data(number: str | None, header: Mapping[str, str | None], lines: Any) -> dict[str, Any]:
    present = {field: value for field, value in header.items() if value is not None}
    return {
        **{field: value for field, value in present.items() if field not in ADDRESS_FIELDS},
        "address": {field: value for field, value in present.items() if field in ADDRESS_FIELDS},
        **({} if lines is None else {ITEMS: lines}),
        **({} if number is None else {NUMBER: number}),
    }


def _path(field: str) -> str:
    return f"address.{field}" if field in ADDRESS_FIELDS else field


def _read(reading: Any, cell: Any, path: str, faults: list[Fault], *arguments: Any) -> Any:
    try:
        return reading(cell, *arguments)
    except CellError as error:
        faults.append(Fault(path, str(error)))
        return None


def _digest(data: Mapping[str, Any]) -> str:
    lines = data.get(ITEMS)
    if isinstance(lines, list):
        data = {**data, ITEMS: sorted(map(_canonical, lines))}
    return hashlib.blake2b(_canonical(data).encode(), digest_size=10, person=b"kk-warehouse").hexdigest()


def _canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True, default=plain)
