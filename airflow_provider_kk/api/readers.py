"""Read KK's lists leniently: an odd field is left out, and its order and page are kept.

A model's fields are a table: `Annotated[type, ReadFrom(reader, "kkName", "olderName")]`. A value that its
reader cannot parse leaves the field at its default, and its path is kept in `odd_fields`.
"""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Self, cast

from pydantic import BaseModel, ConfigDict, Field


class ResponseModel(BaseModel):
    """The root of everything that KK lists."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    odd_fields: list[str] = Field(default_factory=list, repr=False)
    """Paths (`items[0].quantity`) of what could not be parsed; `(whole)` for what is no JSON object."""

    @classmethod
    def read(cls, data: object) -> Self:
        """Read what can be parsed of `data`, a piece of parsed JSON. Never raises."""
        source: Mapping[Any, Any] = data if isinstance(data, Mapping) else {}
        odd = [] if source is data else ["(whole)"]
        values: dict[str, Any] = {}
        for field, reads in _plan(cls):
            raw = next((source[name] for name in reads.names if source.get(name) not in (None, "")), None)
            if raw is None:
                continue
            try:
                values[field] = reads.reader(raw)
            except (ValueError, ArithmeticError):
                odd.append(field)
                continue
            odd += _odd_below(field, values[field])
        # All defaults are given, since pydantic takes longer to find them than for all the rest.
        whole = {name: make() for name, make in _defaults(cls)} | values | {"odd_fields": odd}
        return cast("Self", cls.model_construct({*values, "odd_fields"}, **whole))


class ReadFrom:
    """Where a field comes from: its reader, and KK's names for it, of which the first with a value counts.

    A reader gets a value that is neither null nor empty text. It raises ValueError when it cannot parse it.
    """

    def __init__(self, reader: Callable[[Any], Any], *names: str) -> None:
        self.reader = reader
        self.names = names


def as_text(value: object) -> str | None:
    """Read text, or the digits of a number: KK lists ids and order numbers as either."""
    if isinstance(value, str):
        # A database takes neither NUL nor half of a surrogate pair.
        return re.sub(r"[\x00\ud800-\udfff]", "\ufffd", value.strip()) or None
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise ValueError("no text")
    number = as_number(value)
    return str(int(number)) if number == number.to_integral_value() else format(number, "f")


def as_status(value: object) -> str | None:
    """Read a status of an open set. KK writes "no status" as the text NULL."""
    status = as_text(value)
    return None if status == "NULL" else status


def as_number(value: object) -> Decimal:
    """Read money or a count, a JSON number or its text, within a sensible range."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise ValueError("no number")
    if isinstance(value, str) and ("_" in value or not value.strip().isascii()):
        raise ValueError("no number")  # Decimal("1_5") is 15
    number = value if isinstance(value, Decimal) else Decimal(str(value).strip())
    if (
        not number.is_finite()
        or (number and not -30 < number.adjusted() < 30)
        or len(number.as_tuple().digits) > 60
    ):
        raise ValueError("no sensible number")
    return number


def as_count(value: object) -> int:
    """Read a whole number from 0."""
    number = as_number(value)
    if number < 0 or number != number.to_integral_value():
        raise ValueError("no count")
    return int(number)


def as_stock(value: object) -> int:
    """Read a count. A negative one, of goods that are oversold, is 0."""
    return as_count(max(as_number(value), Decimal(0)))


def as_price(value: object) -> Decimal:
    """Read an amount of money from 0."""
    number = as_number(value)
    if number < 0:
        raise ValueError("no price")
    return number


def is_integer(value: object) -> bool:
    """Return whether KK listed this as a JSON integer rather than as text."""
    return not isinstance(value, bool) and isinstance(value, int | float | Decimal)


def as_time(value: object) -> datetime:
    """Read an aware time: ISO text (UTC without a zone), `yyyy-mm-dd HH:MM:SS`, or epoch milliseconds.

    A bare year, as in an old example of KK, is no time.
    """
    text = as_text(value) or ""
    if re.fullmatch(r"[0-9]+", text, re.ASCII):
        return _epoch_time(int(text[:20]))
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def as_rows(model: type[ResponseModel]) -> Callable[[object], list[Any]]:
    """Return a reader of lists of `model`. A single object counts as a list of one."""

    def read(value: object) -> list[Any]:
        rows = [value] if isinstance(value, Mapping) else value
        if not isinstance(rows, list):
            raise ValueError("no list")
        return [model.read(row) for row in rows]

    return read


def _epoch_time(number: int) -> datetime:
    for seconds in (number / 1000, float(number)):
        # 2001 to 2128: in this range, milliseconds and seconds cannot be confused.
        if 1e9 <= seconds < 5e9:
            return datetime.fromtimestamp(seconds, UTC)
    raise ValueError("no time")


def _odd_below(field: str, value: object) -> list[str]:
    if isinstance(value, ResponseModel):
        return [f"{field}.{path}" for path in value.odd_fields]
    if isinstance(value, list):
        return [
            f"{field}[{i}].{path}"
            for i, row in enumerate(value)
            if isinstance(row, ResponseModel)
            for path in row.odd_fields
        ]
    return []


@functools.cache
def _defaults(model: type[ResponseModel]) -> list[tuple[str, Callable[[], Any]]]:
    return [
        (name, functools.partial(copy.copy, field.get_default(call_default_factory=True)))
        for name, field in model.model_fields.items()
    ]


@functools.cache
def _plan(model: type[ResponseModel]) -> list[tuple[str, ReadFrom]]:
    return [
        (name, reads)
        for name, field in model.model_fields.items()
        for reads in field.metadata
        if isinstance(reads, ReadFrom)
    ]
