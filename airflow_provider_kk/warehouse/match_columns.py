"""Match the columns of a statement or a file to the fields of an order: which source fills which field."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from airflow_provider_kk.api.clean_text import CellError
from airflow_provider_kk.api.errors import Fault
from airflow_provider_kk.warehouse.cells import as_text
from airflow_provider_kk.warehouse.field_sources import (
    Binder,
    Reader,
    bind_element,
    constant_of,
    first_filled,
    references,
)
from airflow_provider_kk.warehouse.mapping_arguments import (
    ADDRESS_FIELDS,
    ADVISED_FIELDS,
    FIELDS,
    IN_ITEMS,
    ITEMS,
    LINE_FIELDS,
    LINE_ID,
    NUMBER,
    ORDER_FIELDS,
    ColumnsError,
    FieldMapping,
    did_you_mean,
)
from airflow_provider_kk.warehouse.presets import Preset

_NAME = re.compile(r"[^\W\d_][\w ()/&#.:+-]{0,59}")
_FIGURE = re.compile(r"[+(\d]")
_NEEDED = (NUMBER, "country", "phone", "recipient", "province")
_A_CONSTANT = "='...'"


@dataclass(frozen=True)
class Source:
    """Where columns come from, in the words of an error."""

    has: str
    unique: str
    """How each column comes to be there once."""
    named: str
    """How a column gets a name that is read."""
    is_argument: bool = False
    """Fields are mapped by the operator's argument `columns`, rather than by options of a command."""

    def maps(self, names: Iterable[str], sources: Mapping[str, str] | None = None) -> str:
        """Show how fields are mapped to their sources, or to columns of unknown names."""
        unknown = "<your column>" if self.is_argument else "YOUR_COLUMN"
        pairs = [(name, (sources or {}).get(name, unknown)) for name in names]
        if self.is_argument:
            return ", ".join(f'"{name}": "{source}"' for name, source in pairs)
        quotes = ["" if re.fullmatch(r"[\w.-]+", source) else '"' for _, source in pairs]
        return " ".join(
            f"--columns {name}={quote}{source}{quote}"
            for (name, source), quote in zip(pairs, quotes, strict=True)
        )


STATEMENT = Source(
    has="the statement returns",
    unique="select each once, or rename one with AS",
    named="Name them with AS in the statement",
    is_argument=True,
)
#: A statement, as the command line takes it.
QUERY = replace(STATEMENT, is_argument=False)
FILE = Source(has="the file has", unique="leave one out, or rename it", named="Name them so in the file")


@dataclass(frozen=True)
class FieldSource:
    """Where one field comes from: its source, and others where that is blank, each with what reads it."""

    sources: tuple[str, ...]
    readers: tuple[Reader, ...]

    @property
    def read(self) -> Reader:
        """The reader of the first source."""
        return self.readers[0]

    def __str__(self) -> str:
        # A constant may be the sender's own telephone number.
        return ", else ".join(one if constant_of(one) is None else "a constant" for one in self.sources)


#: By the field of a preset: where a status of its source is reported, in which words, and if it only warns.
_STATUSES = {
    "cancelled": (NUMBER, "is cancelled, refunded or a test at its source: see the column {}", False),
    "refunded_in_part": (
        NUMBER,
        "is refunded in part at its source, so its lines may have too many pieces: see the column {}. Set "
        "the quantities that are left, and clear that cell",
        False,
    ),
    "shipped": (NUMBER, "may have shipped already: see the column {}", True),
    "unshipped_lines": (
        ITEMS,
        "has lines that need no shipping, such as a tip or a gift card: see the column {}. Remove these "
        "lines, or KK may reject the order",
        True,
    ),
}


@dataclass(frozen=True)
class Status:
    """A source whose value shows what became of an order where it comes from."""

    read: Reader
    #: Lower case; any value when there is none.
    values: tuple[str, ...]
    fault: Fault
    is_warning: bool

    def applies(self, cells: object) -> bool:
        """Return whether the value in a row's cells is one of them."""
        try:
            value = self.read(cells)
            value = "true" if value is True else as_text(value)
        except CellError:  # such as False
            return False
        return value is not None and (not self.values or value.lower() in self.values)


@dataclass(frozen=True)
class Columns:
    """How each field of an order is read from a row's cells."""

    fields: Mapping[str, FieldSource]
    #: Fields inside an element of `items`; empty when its elements have just our own names.
    in_items: Mapping[str, FieldSource]
    #: Reads a row's cells, each column once.
    binder: Binder
    #: How many of the columns that are read are of the order's number; they come first.
    number_width: int
    #: How many are of the number or of the order as a whole; they come first, too.
    header_width: int
    #: Names of the columns that nothing reads.
    ignored: tuple[str, ...]
    preset: Preset
    #: Reads what a row without a line of its own is blank in; None when every row is a line.
    line_mark: Reader | None = None
    #: What shows that an order must not be sent, or is on its way already.
    statuses: tuple[Status, ...] = ()

    @property
    def one_row_per_order(self) -> bool:
        """Rows carry all lines of an order in `items`, rather than one line each."""
        return ITEMS in self.fields

    @property
    def header(self) -> tuple[str, ...]:
        """The fields that belong to the order as a whole, the number excepted."""
        return tuple(name for name in (*ADDRESS_FIELDS, *ORDER_FIELDS) if name in self.fields)

    @property
    def mapped(self) -> Mapping[str, str]:
        """The sources of fields that are called otherwise than the field."""
        firsts = {name: source.sources[0] for name, source in self.fields.items()}
        return {name: first for name, first in firsts.items() if first.lower() != name}

    @property
    def unfilled(self) -> tuple[str, ...]:
        """Fields that no column fills, and without which a parcel may not arrive."""
        return tuple(name for name in ADVISED_FIELDS if name not in self.fields)

    def lines(self) -> tuple[str, ...]:
        """Describe each field with its source: `recipient <- {first_name} {last_name}`."""
        return tuple(f"{name} <- {source}" for name, source in (*self.fields.items(), *self.in_items.items()))


def match_columns(
    names: Sequence[str],
    columns: str | Mapping[str, str] | None = None,
    source: Source = STATEMENT,
    *,
    defaults: Mapping[str, str] | None = None,
) -> Columns:
    """Find the fields of an order among a result's column names, upper and lower case being the same.

    A column that `columns` names as a whole is no longer found under its own name.
    Raises ColumnsError for unknown keys, for columns that are not there or there twice, and when a field that
    every order needs has no column.
    """
    return _ColumnChoice(names, FieldMapping.parse(columns, defaults), source).columns()


class _ColumnChoice:
    """The mapping of one result's columns."""

    def __init__(self, names: Sequence[str], mapping: FieldMapping, source: Source) -> None:
        self._names = names
        self._theirs = [name.strip().lower() for name in names]
        self._mapping = mapping
        self._preset = mapping.preset
        self._source = source
        self._binder = Binder(names)
        self._defaults = {**mapping.preset.defaults, **mapping.defaults}
        self._of_preset = self._sources_of_preset()
        #: The sources of each field, the first of which is read and the others where it is blank.
        self._chosen: dict[str, tuple[str, ...]] = {name: (one,) for name, one in mapping.given.items()}

    def columns(self) -> Columns:
        """Decide on each field's sources, then bind them to the columns."""
        self._choose()
        self._keep_one_shape()
        self._check_sources()
        self._check_needed()
        fields: dict[str, FieldSource] = {}
        widths = []
        for group in ((NUMBER,), (*ADDRESS_FIELDS, *ORDER_FIELDS), (*LINE_FIELDS, LINE_ID, ITEMS)):
            fields |= {name: self._bind(name) for name in group if name in self._chosen}
            widths.append(len(self._binder.indexes))
        self._check_unique()
        mark = self._preset.line_column
        line_mark = self._binder.bind(mark) if mark and self._binder.has(mark) else None
        statuses = tuple(
            Status(self._binder.bind(source), values, Fault(path, message.format(source)), is_warning)
            for name, (path, message, is_warning) in _STATUSES.items()
            for source, values in getattr(self._preset, name).items()
            if self._binder.has(source)
        )
        read = self._binder.indexes
        return Columns(
            fields={name: fields[name] for name in FIELDS if name in fields},
            in_items=self._in_items(),
            binder=self._binder,
            number_width=widths[0],
            header_width=widths[1],
            ignored=tuple(name for index, name in enumerate(self._names) if index not in read),
            preset=self._preset,
            line_mark=line_mark,
            statuses=statuses,
        )

    # Which source for which field -------------------------------------------------------------------

    def _choose(self) -> None:
        """Choose the sources of each field: given ones, the preset's, or the column of its own name."""
        chosen = self._chosen
        for name, sources in self._of_preset.items():
            chosen.setdefault(name, sources)
        taken = {sources[0].lower() for sources in chosen.values()}
        for name in FIELDS:
            if name in self._theirs and name not in taken:
                chosen.setdefault(name, (name,))
        for name, default in self._defaults.items():
            if name in self._mapping.defaults or not self._unknown(name, default):
                # A field without a column is blank in every row.
                chosen.setdefault(name, ())

    def _sources_of_preset(self) -> dict[str, tuple[str, ...]]:
        """Return the preset's sources that have their columns, unless the given ones are of another shape."""
        given, found = self._mapping.given, {}
        for name, sources in self._preset.columns.items():
            if (name in (ITEMS, *IN_ITEMS) and any(one in given for one in LINE_FIELDS)) or (
                name in LINE_FIELDS and ITEMS in given
            ):
                continue
            alternatives = (sources,) if isinstance(sources, str) else sources
            there = tuple(one for one in alternatives if name in IN_ITEMS or self._binder.has(one))
            if name == NUMBER:
                there = there[:1]  # a second number would make another order of a row
            is_needed = name in (*_NEEDED, *LINE_FIELDS, ITEMS)
            if there or (is_needed and name not in self._theirs and name not in self._defaults):
                found[name] = there or alternatives[:1]  # an error names what is not there
        return found

    def _keep_one_shape(self) -> None:
        """Keep either `items` or `sku` and `quantity`: what is mapped goes before what is just there."""
        chosen = self._chosen
        line_fields = [name for name in LINE_FIELDS if name in chosen]
        inside = [name for name in IN_ITEMS if name in chosen]
        if ITEMS in chosen and line_fields:
            mapped = {*self._mapping.given, *self._of_preset}
            lines_mapped = bool(mapped & {*LINE_FIELDS})
            if lines_mapped == bool(mapped & {ITEMS, *IN_ITEMS}):
                raise self._both_shapes(line_fields)
            for name in (ITEMS,) if lines_mapped else line_fields:
                del chosen[name]
        if ITEMS in chosen:
            chosen.pop(LINE_ID, None)
        elif inside:
            raise self._error(
                f"columns maps {', '.join(inside)}, but {self._source.has} no column items. Map it, "
                f"too: {self._source.maps([ITEMS])}"
            )

    def _both_shapes(self, line_fields: Sequence[str]) -> ColumnsError:
        # A field that has only a default has no source.
        theirs = {name: (self._chosen[name] or (name,))[0] for name in (ITEMS, *line_fields)}
        return self._error(
            f"{self._source.has} both {theirs[ITEMS]} and {', '.join(theirs[one] for one in line_fields)}. "
            "An order is either one row with all lines in items, or one row per line with sku and quantity. "
            f"To read {' and '.join(line_fields)}, map them: {self._source.maps(line_fields, theirs)}. "
            f"To read items, map it: {self._source.maps([ITEMS], theirs)}"
        )

    def _check_sources(self) -> None:
        gone = []
        for name, source in ((name, one) for name, sources in self._chosen.items() for one in sources):
            if name not in IN_ITEMS and not self._binder.has(source):
                column = next(named for named in references(source) if self._binder.find(named) is None)
                beside = "" if column == source else f" (no column {column})"
                gone.append(f"{name} -> {source}{beside}{self._near(column)}")
        if gone:
            raise self._error(f"columns maps {', '.join(gone)}, but {self._source.has} no such column")
        for name, default in self._mapping.defaults.items():
            for column in self._unknown(name, default):
                raise self._error(
                    f"defaults: {name} -> {default} names no column or field {column}{self._near(column)}. "
                    f'Write a fixed text as "{_A_CONSTANT}"'
                )

    def _check_needed(self) -> None:
        needed = _NEEDED if ITEMS in self._chosen else (*_NEEDED, *LINE_FIELDS)
        missing = [name for name in needed if name not in self._chosen]
        if not missing:
            return
        or_items = " (or items, with all lines of the order)" if set(missing) & set(LINE_FIELDS) else ""
        advised = [name for name in ADVISED_FIELDS if name not in self._chosen]
        example = self._source.maps(missing + advised)
        example = f"columns={{{example}}}" if self._source.is_argument else example
        also = f" Without {', '.join(advised)} the parcel may not arrive." if advised else ""
        if missing[0] != NUMBER:
            constant = self._source.maps(missing[:1], {missing[0]: _A_CONSTANT})
            also = f"{also} A constant is possible, too: {constant}."
        raise ColumnsError(
            f"{self._source.has} no column {', '.join(missing)}{or_items}. {self._what_it_has()}. "
            f"The fields of an order are {', '.join(FIELDS)}. {self._source.named}, or map them: {example}."
            f"{also}"
        )

    def _unknown(self, name: str, default: str) -> list[str]:
        """Return what a default refers to that is neither a column nor another field with a source."""
        if name in IN_ITEMS or self._binder.is_column(default):
            return []
        return [
            one
            for one in references(default)
            if self._binder.find(one) is None and (one.lower() == name or not self._chosen.get(one.lower()))
        ]

    def _check_unique(self) -> None:
        used = {self._theirs[index] for index in self._binder.indexes}
        twice = sorted(name for name in used if self._theirs.count(name) > 1)
        if twice:
            raise self._error(
                f"{self._source.has} {', '.join(twice)} more than once (upper and lower case are the same): "
                f"{self._source.unique}"
            )

    # Reading ----------------------------------------------------------------------------------------

    def _bind(self, name: str, above: tuple[str, ...] = ()) -> FieldSource:
        """Bind a field's sources and its default; `above` are the fields whose defaults refer to it."""
        chosen, sources, default = self._chosen, self._chosen[name], self._defaults.get(name)
        readers = [self._binder.bind(one, name) for one in sources]
        if default and not self._unknown(name, default):
            others = {
                other: self._binder.bind(chosen[other][0], other)
                if other in above  # defaults that refer to each other
                else _filled_source(other, self._bind(other, (*above, name)))
                for other in map(str.lower, references(default))
                if other != name and chosen.get(other)
            }
            sources = (*sources, default)
            readers.append(self._binder.bind(default, name, others))
        return FieldSource(sources or ("nothing",), tuple(readers) or (_nothing,))

    def _in_items(self) -> dict[str, FieldSource]:
        found = {}
        for field in IN_ITEMS if any(field in self._chosen for field in IN_ITEMS) else ():
            name = field.removeprefix(f"{ITEMS}.")
            default = self._defaults.get(field)
            sources = (*(self._chosen.get(field) or (name,)), *([default] if default else ()))
            found[field] = FieldSource(sources, tuple(bind_element(one, name) for one in sources))
        return found

    # What an error shows ----------------------------------------------------------------------------

    def _error(self, text: str) -> ColumnsError:
        return ColumnsError(f"{text}. {self._what_it_has()}")

    def _near(self, column: str) -> str:
        named = filter(_NAME.fullmatch, self._theirs)
        return "" if self._seems_headless() else did_you_mean(column.lower(), named)

    def _seems_headless(self) -> bool:
        """Return whether the header of a file is probably its first order, such as a telephone number."""
        if self._source is not FILE:
            return False
        unnamed = sum(1 for name in self._names if not _NAME.fullmatch(name))
        return unnamed > len(self._names) / 2 or any(map(_FIGURE.match, self._names))

    def _what_it_has(self) -> str:
        if self._seems_headless():
            return "Its first line does not look like a header, so it is not shown"
        is_file = self._source is FILE
        shown = [name if not is_file or _NAME.fullmatch(name) else "***" for name in self._names]
        return f"It {self._source.has.split()[-1]}: {', '.join(shown) or 'no column'}"


def _filled_source(name: str, source: FieldSource) -> Reader:
    """Return what reads a field with its defaults, as it came."""

    def unless_blank(value: object) -> object:
        return None if as_text(value, name) is None else value

    return lambda cells: first_filled(source.readers, cells, unless_blank)


def _nothing(_: object) -> None:
    return None
