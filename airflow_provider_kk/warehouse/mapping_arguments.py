"""The fields of an order, and `columns` and `defaults` checked before any column is known.

`match_columns` then maps the columns of a statement or a file to the fields.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from airflow_provider_kk.warehouse.field_sources import SourceError, constant_of, parse_source
from airflow_provider_kk.warehouse.presets import PRESETS, Preset

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


ADVISED_FIELDS = ("street1", "city", "zip")
"""KK takes an order without these, and the parcel may not arrive."""


ORDER_FIELDS = ("remark", "sale_platform", "channel_type")


LINE_FIELDS = ("sku", "quantity")


LINE_ID = "line_id"


NUMBER = "custom_order_number"


ITEMS = "items"


FIELDS = (NUMBER, *ADDRESS_FIELDS, *LINE_FIELDS, LINE_ID, *ORDER_FIELDS, ITEMS)
"""Every column that is read, by the name that the API gives it in snake_case."""


IN_ITEMS = tuple(f"{ITEMS}.{name}" for name in (*LINE_FIELDS, LINE_ID))
"""Fields inside one element of `items`."""


PRESET = "preset"
"""The key of `columns` that names a preset beside the fields that differ from it."""


DUPLICATE_ROWS = ("fail", "keep")


Check = Callable[[Sequence[str]], object]
"""Is called with the column names before a row is kept, and stops the reading by raising."""


class ColumnsError(ValueError):
    """The columns cannot be read as orders; the text lists what is there and what to do."""


@dataclass(frozen=True)
class FieldMapping:
    """The sources by field that `columns` and `defaults` ask for, before the columns are known."""

    given: Mapping[str, str]
    """The sources that were given one by one."""
    defaults: Mapping[str, str]
    preset: Preset

    @classmethod
    def parse(
        cls, columns: str | Mapping[str, str] | None = None, defaults: Mapping[str, str] | None = None
    ) -> FieldMapping:
        """Check all that can be checked without the columns, as when a DAG is parsed.

        :param columns: a preset's name; or fields and their sources, and a preset's name under `preset`.
        :raises ColumnsError: an unknown field or preset, or a text that is no source.
        """
        if columns is not None and not isinstance(columns, str | Mapping):
            raise ColumnsError("columns must be a preset's name, or a mapping of fields to sources")
        given = {PRESET: columns} if isinstance(columns, str) else dict(columns or {})
        name = next((given.pop(key) for key in list(given) if str(key).strip().lower() == PRESET), None)
        preset = _preset(name) if name is not None else Preset("", {}, {})
        return cls(_checked(given, "columns"), _checked(defaults or {}, "defaults"), preset)


def check_mapping(
    columns: str | Mapping[str, str] | None, defaults: Mapping[str, str] | None, duplicate_rows: str
) -> None:
    """Raise ColumnsError for what can be known to be wrong without the columns, as when a DAG is parsed."""
    FieldMapping.parse(columns, defaults)
    if duplicate_rows not in DUPLICATE_ROWS:
        raise ColumnsError(f"duplicate_rows must be {' or '.join(map(repr, DUPLICATE_ROWS))}")


def _preset(name: object) -> Preset:
    known = str(name).strip().lower()
    if known not in PRESETS:
        raise ColumnsError(
            f"columns: there is no preset {name!r}{did_you_mean(known, PRESETS)}. "
            f"The presets are {', '.join(PRESETS)}"
        )
    return PRESETS[known]


def _checked(given: Mapping[str, str], argument: str) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise ColumnsError(f"{argument} must be a mapping of fields to sources")
    known = (*FIELDS, *IN_ITEMS)
    checked: dict[str, str] = {}
    for ours, source in given.items():
        name = str(ours).strip().lower()
        if name not in known:
            hint = did_you_mean(name, known) or f". The fields are {', '.join(known)}"
            turned = f". `{argument}` maps a field of the order to a column of the warehouse"
            raise ColumnsError(f"{argument}: {ours!r} is not a field of an order{hint}{turned}")
        if not isinstance(source, str) or not source.strip():
            raise ColumnsError(f"{argument}: {ours!r} must name a column")
        try:
            parse_source(source.strip())
        except SourceError as error:
            raise ColumnsError(f"{argument}: the source of {name} {error}") from None
        if name in (NUMBER, ITEMS, LINE_ID) and constant_of(source.strip()) is not None:
            raise ColumnsError(f"{argument}: {name} cannot be a constant, the same for every order")
        checked[name] = source.strip()
    return checked


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint at the known name that is most like another one, or nothing."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def describe_presets() -> str:
    """Describe each preset and what it maps, for the command line."""
    blocks = []
    for name, preset in PRESETS.items():
        columns = {
            field: sources if isinstance(sources, str) else ", else ".join(sources)
            for field, sources in preset.columns.items()
        }
        for field_name, default in preset.defaults.items():
            columns[field_name] = f"{columns[field_name]}, else {default}"
        width = max(map(len, columns))
        lines = [f"  {field.ljust(width)} <- {source}" for field, source in columns.items()]
        blocks.append("\n".join([f"{name}: {preset.about}", *lines]))
    return "\n\n".join(blocks)
