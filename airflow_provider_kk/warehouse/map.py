"""Group rows by order number and turn them into checked orders; report every fault at once."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from airflow_provider_kk.api.api_versions import API_VERSIONS, ApiVersion
from airflow_provider_kk.api.errors import Fault, InvalidOrderError
from airflow_provider_kk.api.models import Order
from airflow_provider_kk.warehouse.cells import canonical
from airflow_provider_kk.warehouse.mapping_arguments import (
    ADDRESS_FIELDS,
    ADVISED_FIELDS,
    ITEMS,
    LINE_ID,
    NUMBER,
    check_mapping,
)
from airflow_provider_kk.warehouse.match_columns import Columns, match_columns
from airflow_provider_kk.warehouse.read_order import (
    RowReader,
    SourceRow,
    check_for_nameless_records,
    field_path,
)
from airflow_provider_kk.warehouse.spool import RowKey, Spool

MAX_ROWS_PER_ORDER = 10_000
"""More rows with one order number are no order but a mistake in the statement, and not held in memory."""

_NAMED = 5


@dataclass(frozen=True, slots=True)
class ParsedOrder:
    """The result for the rows of one order number: an order, or the faults that prevent it.

    `number` is None when the rows have none that can be read. `position` is the place of the first row in the
    statement's result, from 1. `digest` is a short hash of what was read, the same in every run for the same
    content: it distinguishes a known invalid order from a new one. `warnings` stop no order;
    like faults, they hold no value of a cell.
    """

    number: str | None
    order: Order | None
    faults: tuple[Fault, ...]
    position: int
    digest: str
    warnings: tuple[Fault, ...] = ()


def parse_orders(
    spool: Spool,
    columns: str | Mapping[str, str] | None = None,
    *,
    defaults: Mapping[str, str] | None = None,
    duplicate_rows: str = "fail",
    api_version: str | None = None,
    on_skipped: Callable[[int], object] = lambda _: None,
) -> Iterator[ParsedOrder]:
    """Yield one result for each order number, in order of first appearance, in constant memory.

    Rows are one per order line, in any order, or one per order with `items`. Every other field belongs to
    the order as a whole. A blank cell agrees with the order's other rows. Rows of one number that differ are
    different orders, and each variant is an invalid result of its own. So is each row without a readable
    number. Each call is a new pass.

    :param duplicate_rows: `fail`: lines that are equal in every column are a fault; `keep`: both count.
    :param api_version: the version of KK's API that the orders are for, None when it is not known.
    :param on_skipped: is called with the position of each row that holds no order, such as a blank one.
    :raises ColumnsError: at once when the columns do not fit, see `match_columns`.
    """
    check_mapping(columns, defaults, duplicate_rows)
    mapping = match_columns(spool.names, columns, defaults=defaults)
    names = [name.lower() for name in spool.names]
    if ITEMS in mapping.fields and (items := mapping.fields[ITEMS].sources[0].lower()) in names:
        check_for_nameless_records(spool.column(names.index(items)))
    version = None if api_version is None else API_VERSIONS[api_version]
    return _Mapper(mapping, spool, version, duplicate_rows == "keep", on_skipped).parsed_orders()


class _Mapper:
    """The mapping of one statement."""

    def __init__(
        self,
        columns: Columns,
        spool: Spool,
        api_version: ApiVersion | None,
        keeps_duplicates: bool,
        on_skipped: Callable[[int], object],
    ) -> None:
        self._columns = columns
        self._spool = spool
        self._api_version = api_version
        self._keeps_duplicates = keeps_duplicates
        self._on_skipped = on_skipped
        self._reader = RowReader(columns)
        self._indexes = tuple(columns.binder.indexes)
        fills_down = columns.preset.fills_down
        self._key = RowKey(
            f"{fills_down} {columns.fields[NUMBER]}",
            self._indexes[: columns.number_width],
            self._reader.order_number,
            fills_down,
        )
        #: Number of an order beside goods without one -> row of the order, row of the goods.
        self._goods_beside = {} if columns.one_row_per_order else self._find_goods_without_number()
        #: Number that another one nearly equals -> row of the other one.
        self._alike: dict[str | None, int] = dict(spool.keys_alike(self._key))

    def parsed_orders(self) -> Iterator[ParsedOrder]:
        for number, group in self._spool.groups(self._key, self._indexes):
            spooled = list(islice(group, MAX_ROWS_PER_ORDER))
            if more := sum(1 for _ in group):
                yield self._too_many(number, spooled[0].position, len(spooled) + more)
                continue
            rows = self._reader.read(spooled)
            if self._reader.is_no_order(number, rows):
                for row in rows:
                    self._on_skipped(row.position)
            else:
                yield from self._variants(number, rows)

    def _find_goods_without_number(self) -> dict[str, tuple[int, int]]:
        """Return rows that may be lines of the order above them, or of the one below with the same header.

        Without an order above, it is the one below. A sheet's footer is no line.
        """
        found: dict[str, tuple[int, int]] = {}
        for spooled, neighbours in self._spool.rows_without_key(self._key, self._indexes):
            (row,) = self._reader.read([spooled])
            is_below_all = all(neighbour.position < row.position for _, neighbour in neighbours)
            if not self._reader.has_goods(row, may_be_footer=is_below_all):
                continue
            may_be_below = self._reader.has_header(row) or len(neighbours) == 1
            for number, neighbour in neighbours:
                is_above = neighbour.position < row.position
                (beside,) = self._reader.read([neighbour])
                if is_above or (may_be_below and _agree(row.header, beside.header)):
                    found[number] = (neighbour.position, row.position)
        return found

    def _variants(self, number: str | None, rows: list[SourceRow]) -> Iterator[ParsedOrder]:
        """Yield the rows of one number: one order, or as many invalid ones as there are different headers."""
        number_faults = [] if number is not None else [self._reader.number_fault(rows[0])]
        headers = list({id(row.header): row.header for row in rows}.values())
        agreed = headers[0]
        if len(headers) > 1:
            filled = {name: {header[name] for header in headers} - {None} for name in agreed}
            agreed = {name: next(iter(values), None) for name, values in filled.items() if len(values) < 2}
        variants: dict[object, list[SourceRow]] = {}
        for row in rows:
            # In a field with several values, each row keeps its own.
            row.header = {**row.header, **agreed}
            has_items = self._columns.one_row_per_order and len(rows) > 1
            key = (*row.header.values(), self._reader.items_key(row) if has_items else None)
            variants.setdefault(key, []).append(row)
        groups = list(variants.values())
        conflicts = self._conflicts(groups) if len(groups) > 1 else []
        found = [self._parse(number, group, [*number_faults, *conflicts]) for group in groups]
        if conflicts:
            # They share one number, so what is remembered of it has to fit each of them.
            digest = _digest({"variants": sorted(one.digest for one in found)})
            found = [replace(one, digest=digest) for one in found]
        yield from found

    def _parse(self, number: str | None, rows: list[SourceRow], faults: list[Fault]) -> ParsedOrder:
        by_line = not self._columns.one_row_per_order
        counted = [row for row in rows if self._reader.has_line(row)] if by_line else rows[:1]
        notices = list(dict.fromkeys(notice for row in rows for notice in row.notices))
        header = self._reader.header(rows, faults)
        lines, line_ids = self._reader.lines(counted, faults)
        data = _order_data(number, header, lines)
        if len(line_ids) > 1:
            faults += self._faults_of_lines(counted, lines, line_ids)
        statuses = [one for one in self._columns.statuses if any(one.applies(row.cells) for row in rows)]
        faults += [status.fault for status in statuses if not status.is_warning]
        if number in self._goods_beside:
            faults.append(_goods_fault(*self._goods_beside[number]))
        order = None
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
                    faults.append(Fault(path, message + why))
        faults = [_located(self._explained(fault), counted) for fault in faults]
        alike = [Fault(NUMBER, _ALIKE.format(self._alike[number]))] if number in self._alike else []
        return ParsedOrder(
            number=number,
            order=None if faults else order,
            faults=tuple(faults),
            position=rows[0].position,
            digest=_digest(data),
            warnings=(
                *(status.fault for status in statuses if status.is_warning),
                *map(self._explained, (*alike, *dict.fromkeys(notices))),
                *(() if faults else _missing(header, {notice.path for notice in notices})),
                *(() if faults else _repeated_skus(lines, line_ids)),
            ),
        )

    def _faults_of_lines(
        self, rows: Sequence[SourceRow], lines: Any, ids: Sequence[str | None]
    ) -> Iterator[Fault]:
        """Yield lines that are there twice: by their ids, or because their rows are equal in every column."""
        skus = Counter(_sku(line) for line in lines)
        named: Counter[str | None] = Counter(one for one in ids if one is not None)
        if self._columns.one_row_per_order:
            if places := [index for index, one in enumerate(ids) if named[one] > 1]:
                yield Fault(ITEMS, f"has one {LINE_ID} on several lines ({_some(places, 'line')}): {_TWICE}")
            return
        positions = [row.position for row in rows]
        suspects = [place for place, line in zip(positions, lines, strict=True) if skus[_sku(line)] > 1]
        equal = self._spool.equal_rows(suspects)
        if equal and not self._keeps_duplicates:
            examples = "; ".join(_some(group) for group in equal[:_NAMED])
            remedy = "Remove the rows" if named else f"Remove the rows, or select a {LINE_ID} for each line"
            yield Fault(
                ITEMS,
                f"has rows that are equal in every column ({examples}). A file pasted twice or a JOIN "
                f"may cause this. {remedy}. If all rows are right, set duplicate_rows to 'keep'",
            )
        is_equal = {place: number for number, group in enumerate(equal) for place in group}
        for one in (one for one, count in named.items() if count > 1):
            places_of_id = [place for place, own in zip(positions, ids, strict=True) if own == one]
            if len({is_equal.get(place, -place) for place in places_of_id}) > 1:
                yield Fault(ITEMS, f"has one {LINE_ID} on several rows ({_some(places_of_id)}): {_TWICE}")

    def _conflicts(self, variants: Sequence[Sequence[SourceRow]]) -> list[Fault]:
        """Return a fault for each field in which rows of one number differ; never with the values."""
        firsts = [rows[0] for rows in variants]
        fields = [
            field_path(name) for name in self._columns.header if len({row.header[name] for row in firsts}) > 1
        ]
        if self._columns.one_row_per_order and len({self._reader.items_key(row) for row in firsts}) > 1:
            fields.append(ITEMS)
        places = " and ".join(f"row {row.position}" for row in firsts[:2])
        message = (
            f"differs between rows of this order number ({places}): two orders have one number, or one row "
            "is wrong"
        )
        return [Fault(path, message) for path in fields]

    def _too_many(self, number: str | None, position: int, rows: int) -> ParsedOrder:
        message = f"is on {rows} rows, more than the {MAX_ROWS_PER_ORDER} that one order may have"
        fault = self._explained(Fault(NUMBER, message))
        return ParsedOrder(number, None, (fault,), position, _digest({NUMBER: number, "rows": rows}))

    def _explained(self, fault: Fault) -> Fault:
        """Return the fault with the source of the field, where that is called otherwise than the field."""
        inside_items = self._columns.one_row_per_order and fault.path.startswith(ITEMS)
        field = ITEMS if inside_items else fault.path.rpartition(".")[2]
        if field not in self._columns.mapped:
            return fault
        return Fault(fault.path, f"{fault.message} (column {self._columns.fields[field]})")


_ALIKE = (
    "differs from that of row {} only in case, spaces, # or leading zeros. Both are sent: check that they "
    "are two orders"
)
_TWICE = "a line is repeated, as by an append-only load or a JOIN. Select each line once"


def _agree(one: Mapping[str, str | None], other: Mapping[str, str | None]) -> bool:
    """Return whether two headers may be of one order: a blank agrees with anything."""
    return all(value is None or other[name] in (None, value) for name, value in one.items())


def _goods_fault(own: int, goods: int) -> Fault:
    where = "below" if goods > own else "above"
    return Fault(
        ITEMS,
        f"may be incomplete: row {goods}, {where} row {own} of this order, has goods and no readable order "
        f"number. Give row {goods} its order number",
    )


def _missing(header: Mapping[str, str | None], noticed: set[str]) -> Iterator[Fault]:
    """Warn of a blank part of the address, unless there is a notice of it, such as that `nan` is blank."""
    for name in ADVISED_FIELDS:
        is_filled = header.get(name) or (name == "street1" and header.get("street2"))
        if not is_filled and field_path(name) not in noticed:
            yield Fault(field_path(name), "is blank: KK accepts the order, but the parcel may not arrive")


def _repeated_skus(lines: Any, ids: Sequence[str | None]) -> Iterator[Fault]:
    """Warn of a SKU on several lines, unless each of them has an id of its own."""
    skus = Counter(_sku(line) for line in lines)
    pairs = {(_sku(line), one) for line, one in zip(lines, ids, strict=True) if one is not None}
    named = Counter(sku for sku, _ in pairs)
    if any(count > 1 and named[sku] < count for sku, count in skus.items()):
        yield Fault(
            ITEMS,
            "has a SKU on several lines, whose quantities are added up. Check that no JOIN or append-only "
            f"load repeats lines, or select a {LINE_ID} for each line",
        )


def _sku(line: Any) -> str | None:
    sku = line.get("sku") if isinstance(line, dict) else None
    return sku if isinstance(sku, str) else None


def _some(places: Sequence[int], kind: str = "row") -> str:
    first = [f"{kind} {place}" for place in places[:_NAMED]]
    more = len(places) - len(first)
    return ", ".join(first[:-1]) + (f", {first[-1]} and {more} more" if more else f" and {first[-1]}")


def _located(fault: Fault, rows: Sequence[SourceRow]) -> Fault:
    """Return the fault with the row of its line, where that is not the order's first."""
    found = re.match(rf"{ITEMS}\[(\d+)\]", fault.path)
    line = int(found[1]) if found else 0
    if not 0 < line < len(rows):
        return fault
    return Fault(fault.path, f"{fault.message} (row {rows[line].position})")


def _order_data(number: str | None, header: Mapping[str, str | None], lines: Any) -> dict[str, Any]:
    present = {field: value for field, value in header.items() if value is not None}
    return {
        **{field: value for field, value in present.items() if field not in ADDRESS_FIELDS},
        "address": {field: value for field, value in present.items() if field in ADDRESS_FIELDS},
        **({} if lines is None else {ITEMS: lines}),
        **({} if number is None else {NUMBER: number}),
    }


def _digest(data: Mapping[str, Any]) -> str:
    lines = data.get(ITEMS)
    if isinstance(lines, list):
        data = {**data, ITEMS: sorted(map(canonical, lines))}
    return hashlib.blake2b(canonical(data).encode(), digest_size=10, person=b"kk-warehouse").hexdigest()
