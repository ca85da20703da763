"""Which column of a statement's result fills which field of an order."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ADDRESS_FIELDS = (
    "country",
    "phone",
    "recipient",
    "province",
    "street1",
    "street2",
    "city",
    "zip",
    "ioss",
    "vat",
)
ORDER_FIELDS = ("remark", "sale_platform", "channel_type")
LINE_FIELDS = ("sku", "quantity")
NUMBER = "custom_order_number"
ITEMS = "items"
FIELDS = (NUMBER, *ADDRESS_FIELDS, *LINE_FIELDS, *ORDER_FIELDS, ITEMS)
"""Every column that is read, by the name that the API gives it in snake_case."""

_NEEDED = (NUMBER, "country", "phone", "recipient", "province")


class ColumnsError(ValueError):
    """The statement's columns cannot be read as orders; the text says what is there and what to do."""


@dataclass(frozen=True)
class Columns:
    """Field of an order -> index of the column that fills it."""

    index: Mapping[str, int]
    #: Field -> the warehouse's own name, for those that `columns=` maps.
    mapped: Mapping[str, str]
    #: Names of the columns that nothing reads.
    ignored: tuple[str, ...]

    @property
    def one_row_per_order(self) -> bool:
        """Rows carry all lines of an order in `items`, rather than one line each."""
        return ITEMS in self.index

    @property
    def header(self) -> tuple[str, ...]:
        """The fields that belong to the order as a whole, the number excepted."""
        return tuple(field for field in (*ADDRESS_FIELDS, *ORDER_FIELDS) if field in self.index)


def resolve(names: Sequence[str], columns: Mapping[str, str] | None = None) -> Columns:
    """Find the fields of an order among a result's column names, upper and lower case being the same.

    `columns` maps our names to the warehouse's; a column that it names is no longer found under its own name.
    Raises ColumnsError for unknown keys, for columns that are not there or there twice, and when a field that
    every order needs has no column.
    """
    mapped = _checked_mapping(columns or {})
    theirs = [name.strip().lower() for name in names]
    lowered = {field: column.lower() for field, column in mapped.items()}
    wanted = {field: field for field in FIELDS if field in theirs and field not in lowered.values()} | lowered
    _one_shape(wanted, mapped, names)
    _check_present(wanted, mapped, theirs, names)
    twice = sorted({column for column in wanted.values() if theirs.count(column) > 1})
    if twice:
        raise ColumnsError(
            f"the statement returns {', '.join(twice)} more than once (upper and lower case are the same): "
            f"select each once, or rename one with AS. It returns: {', '.join(names)}"
        )
    index = {field: theirs.index(column) for field, column in wanted.items()}
    used = set(index.values())
    ignored = tuple(name for position, name in enumerate(names) if position not in used)
    return Columns(index, {field: mapped[field] for field in wanted if field in mapped}, ignored)


def _checked_mapping(columns: Mapping[str, str]) -> dict[str, str]:
    mapped: dict[str, str] = {}
    for ours, theirs in columns.items():
        field = ours.strip().lower()
        if field not in FIELDS:
            close = difflib.get_close_matches(field, FIELDS, n=1)
            hint = f", did you mean {close[0]!r}?" if close else f"; the fields are {', '.join(FIELDS)}"
            turned = " (`columns` maps the order's field to the warehouse's column)"
            raise ColumnsError(f"columns: {ours!r} is no field of an order{hint}{turned}")
        if not isinstance(theirs, str) or not theirs.strip():
            raise ColumnsError(f"columns: {ours!r} must name a column of the statement")
        mapped[field] = theirs.strip()
    return mapped


def _one_shape(wanted: dict[str, str], mapped: Mapping[str, str], names: Sequence[str]) -> None:
    """Keep either `items` or `sku` and `quantity`: what is mapped goes before what happens to be there."""
    line_fields = [field for field in LINE_FIELDS if field in wanted]
    if ITEMS not in wanted or not line_fields:
        return
    lines_mapped = any(field in mapped for field in LINE_FIELDS)
    if lines_mapped == (ITEMS in mapped):
        raise ColumnsError(
            f"the statement returns both {wanted[ITEMS]} and {', '.join(wanted[f] for f in line_fields)}: "
            "select either one row per order with all lines in items, or one row per order line with sku and "
            f"quantity. It returns: {', '.join(names)}"
        )
    for field in (ITEMS,) if lines_mapped else line_fields:
        del wanted[field]


def _check_present(
    wanted: Mapping[str, str], mapped: Mapping[str, str], theirs: Sequence[str], names: Sequence[str]
) -> None:
    found = ", ".join(names) or "no column"
    gone = [f"{field} -> {column}" for field, column in mapped.items() if column.lower() not in theirs]
    if gone:
        raise ColumnsError(f"columns maps {', '.join(gone)}, but the statement returns: {found}")
    missing = [field for field in _NEEDED if field not in wanted]
    if ITEMS not in wanted:
        missing += [field for field in LINE_FIELDS if field not in wanted]
    if not missing:
        return
    or_items = " (or items, with all lines of the order)" if set(missing) & set(LINE_FIELDS) else ""
    example = ", ".join(f'"{field}": "<your column>"' for field in missing)
    raise ColumnsError(
        f"the statement returns no column {', '.join(missing)}{or_items}. It returns: {found}. "
        f"Name them with AS in the statement, or map them: columns={{{example}}}"
    )
