"""Which column of a statement's result fills which field of an order."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

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

_NAME = re.compile(r"[^\W\d_][\w -]{0,39}")
_FIGURE = re.compile(r"[+(\d]")
_NEEDED = (NUMBER, "country", "phone", "recipient", "province")


class ColumnsError(ValueError):
    """The columns cannot be read as orders; the text says what is there and what to do."""


@dataclass(frozen=True)
class Source:
    """Where columns come from, in the words of an error."""

    has: str
    it_has: str
    unique: str
    """How each column comes to be there once."""
    named: str
    """How a column gets a name that is read, by which it is followed."""
    mapped: Callable[[str], str]
    """How an order's field is mapped to a column."""


STATEMENT = Source(
    has="the statement returns",
    it_has="It returns",
    unique="select each once, or rename one with AS",
    named="Name them with AS in the statement, or map them: columns={{{}}}",
    mapped='"{}": "<your column>"'.format,
)
#: A statement, as the command line takes it.
QUERY = replace(
    STATEMENT,
    named="Name them with AS in the statement, or map them: {}",
    mapped="--columns {}=YOUR_COLUMN".format,
)
FILE = Source(
    has="the file has",
    it_has="It has",
    unique="leave one out, or rename it",
    named="Name them so in the file, or map them: {}",
    mapped="--columns {}=YOUR_COLUMN".format,
)


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


def resolve(
    names: Sequence[str], columns: Mapping[str, str] | None = None, source: Source = STATEMENT
) -> Columns:
    """Find the fields of an order among a result's column names, upper and lower case being the same.

    `columns` maps our names to the warehouse's; a column that it names is no longer found under its own name.
    Raises ColumnsError for unknown keys, for columns that are not there or there twice, and when a field that
    every order needs has no column.
    """
    mapped = _checked_mapping(columns or {})
    theirs = [name.strip().lower() for name in names]
    lowered = {field: column.lower() for field, column in mapped.items()}
    wanted = {field: field for field in FIELDS if field in theirs and field not in lowered.values()} | lowered
    _one_shape(wanted, mapped, names, source)
    _check_present(wanted, mapped, theirs, names, source)
    twice = sorted({column for column in wanted.values() if theirs.count(column) > 1})
    if twice:
        raise ColumnsError(
            f"{source.has} {', '.join(twice)} more than once (upper and lower case are the same): "
            f"{source.unique}. {_what_it_has(names, source)}"
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
            raise ColumnsError(f"columns: {ours!r} must name a column")
        mapped[field] = theirs.strip()
    return mapped


def _one_shape(
    wanted: dict[str, str], mapped: Mapping[str, str], names: Sequence[str], source: Source
) -> None:
    """Keep either `items` or `sku` and `quantity`: what is mapped goes before what happens to be there."""
    line_fields = [field for field in LINE_FIELDS if field in wanted]
    if ITEMS not in wanted or not line_fields:
        return
    lines_mapped = any(field in mapped for field in LINE_FIELDS)
    if lines_mapped == (ITEMS in mapped):
        raise ColumnsError(
            f"{source.has} both {wanted[ITEMS]} and {', '.join(wanted[f] for f in line_fields)}: "
            "let it have either one row per order with all lines in items, or one row per order line with "
            f"sku and quantity. If {wanted[ITEMS]} is no list of lines, map the others: "
            f"{(', ' if source is STATEMENT else ' ').join(map(source.mapped, LINE_FIELDS))}. "
            f"{_what_it_has(names, source)}"
        )
    for field in (ITEMS,) if lines_mapped else line_fields:
        del wanted[field]


def _check_present(
    wanted: Mapping[str, str],
    mapped: Mapping[str, str],
    theirs: Sequence[str],
    names: Sequence[str],
    source: Source,
) -> None:
    found = _what_it_has(names, source)
    gone = [f"{field} -> {column}" for field, column in mapped.items() if column.lower() not in theirs]
    if gone:
        raise ColumnsError(f"columns maps {', '.join(gone)}, but {source.has} no such column. {found}")
    missing = [field for field in _NEEDED if field not in wanted]
    if ITEMS not in wanted:
        missing += [field for field in LINE_FIELDS if field not in wanted]
    if not missing:
        return
    or_items = " (or items, with all lines of the order)" if set(missing) & set(LINE_FIELDS) else ""
    example = (", " if source is STATEMENT else " ").join(map(source.mapped, missing))
    raise ColumnsError(
        f"{source.has} no column {', '.join(missing)}{or_items}. {found}. "
        f"What is read: {', '.join(FIELDS)}. {source.named.format(example)}"
    )


def _what_it_has(names: Sequence[str], source: Source) -> str:
    if source is FILE:
        shown = [name if _NAME.fullmatch(name) else "***" for name in names]
        # Without a header the first order stands there, with a telephone number and a quantity.
        if shown.count("***") > len(names) / 2 or any(map(_FIGURE.match, names)):
            return "Its first line seems to be no header, so it is not shown"
        names = shown
    return f"{source.it_has}: {', '.join(names) or 'no column'}"
