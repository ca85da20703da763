"""Keep one value of a warehouse row in the private file, and read it as text or as a quantity.

Drivers yield many types for the same thing (an order number may be `int`, `Decimal`, `float` or `str`). All
are kept as they came until it is known which field of an order they fill. No message here repeats a value: it
may be somebody's name.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

from airflow_provider_kk.api.clean_text import (
    LONGEST_NUMBER,
    CellError,
    comparable,
    plain_text,
    tidy,
    whole_number,
)
from airflow_provider_kk.api.countries import ALPHA_2, country_code
from airflow_provider_kk.api.errors import Fault

Stored = str | int | float | bytes | None
"""The types that SQLite has; `bytes` are a tag of one letter and the value of any other type as UTF-8."""


class Unreadable:
    """A value of a type that has no one reading as text, an interval for instance."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


def encode(value: object) -> Stored:
    """Return `value` in a form that SQLite keeps without loss. Some tools write NULL as NaN."""
    if value is None:
        return None
    for types, store in _ENCODERS:
        if isinstance(value, types):
            return store(value)
    to_python = getattr(value, "tolist", None)  # arrays and scalars of numpy, which some drivers yield
    if to_python is not None:
        return encode(to_python())
    return _tag("?", type(value).__name__)


def encode_text(value: Stored) -> Stored:
    """Encode text with lone surrogates, which SQLite rejects; return anything else as it is."""
    if not isinstance(value, str):
        return value
    return b"S" + value.encode("utf-8", "surrogatepass")


def decode(stored: Stored) -> Any:
    """Return the value that `encode` was given; dates, times and UUIDs come back as text."""
    if not isinstance(stored, bytes):
        return stored
    tag, content = chr(stored[0]), stored[1:]
    if tag == "X":
        return content
    return _DECODERS[tag](content.decode("utf-8", "surrogatepass"))


def as_text(value: Any, field: str = "", notices: list[Fault] | None = None) -> str | None:
    """Return a decoded cell as the text of a field, in the one form of all its spellings; blank is absent.

    A whole number is its digits, without `.0`: a float in a text column is almost surely an integer that
    passed through a float column. Leading zeros that the warehouse's type has dropped cannot be known here.
    Without a field, text is read as a name or a street. Country names become codes. `notices` gets what was
    read differently from how it is written.
    Raises CellError for a number with a fraction, a float too large to be exact, a negative number, True,
    False and nested data, and for an order number such as `nan`, which stands for none.
    """
    text = value if type(value) is str else _text_of(value)
    if text is None or (field == "country" and text in ALPHA_2):
        return text
    if field != "country" and (line := plain_text(text, field)) is not None:
        return line
    clean = comparable(text, field)
    notice = ""
    if clean is None and (missing := tidy(text, field)):
        notice = f"the text {missing!r} counts as blank"
    elif clean and field == "country":
        code = country_code(clean) or clean.upper()
        notice = "" if code == clean.upper() else f"{clean!r} is read as {code}"
        clean = code
    if notice and notices is not None:
        notices.append(Fault(field, notice))
    return clean


def comparable_cell(stored: Stored) -> Stored:
    """Return the one form of all spellings of a stored cell, such as `1007`, `1007.0` and `'1007`."""
    try:
        return as_text(decode(stored), "line_id")
    except CellError:
        return stored


def _text_of(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if value != value:  # NaN inside nested data, which stands for nothing as a whole cell does
        return None
    if isinstance(value, bytes):
        return from_bytes(value)
    number = whole_number(value)
    if number is not None and number >= 0:
        return str(number)
    raise CellError(f"is {_kind(value)}, which cannot be read as text: select it as text")


def as_quantity(value: Any) -> Any:
    """Return a decoded cell as a quantity: whole Decimals and floats are integers.

    Whatever else could be meant as a number is left to the order's own check. Raises CellError for the rest.
    """
    number = whole_number(value)
    if number is not None:
        return number
    if isinstance(value, bytes):
        return from_bytes(value).strip() or None
    if value is None or isinstance(value, str | bool | Decimal | float):
        return value
    raise CellError(f"is {_kind(value)}, not a whole number")


def canonical(data: Any) -> str:
    """Return equal text for equal data, as far as JSON can express it."""
    return json.dumps(data, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    """Return a value of a nested column as JSON has it, to any depth."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    stored = decode(encode(value))
    if isinstance(stored, bytes):
        return stored.decode("utf-8", "replace")
    if isinstance(stored, Decimal):
        number = whole_number(stored)
        return str(stored) if number is None else number
    return stored if isinstance(stored, str | bool | int | float | list | dict) else None


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "True or False"
    if whole_number(value) is not None:
        return "a negative number"
    if isinstance(value, int):
        return "a number with too many digits"
    if isinstance(value, float):
        return "a float too large to be exact" if value.is_integer() else "a number with a fraction"
    if isinstance(value, Decimal):
        too_long = value.is_finite() and value.adjusted() >= LONGEST_NUMBER
        return "a number with too many digits" if too_long else "a number with a fraction"
    if isinstance(value, Unreadable):
        return f"a value of type {value.kind}"
    return "nested data"


def from_bytes(value: bytes) -> str:
    """Return binary data as the text that it is. Raises CellError where it is none."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise CellError("is binary data, not UTF-8 text: select it as text") from None


def _tag(tag: str, content: str) -> bytes:
    return tag.encode() + content.encode("utf-8", "surrogatepass")


def _json(value: Mapping[Any, Any] | Sequence[Any]) -> bytes:
    return _tag("J", json.dumps(_plain(value)))


# The first type that fits decides: True is an int, and a datetime is a date.
_ENCODERS: tuple[tuple[Any, Callable[[Any], Stored]], ...] = (
    (bool, lambda value: _tag("B", "1" if value else "")),
    (str, str),
    (int, lambda value: int(value) if -(2**63) <= value < 2**63 else _tag("I", str(int(value)))),
    (float, lambda value: float(value) if value == value else None),
    (Decimal, lambda value: None if value.is_nan() else _tag("D", str(value))),
    (bytes | bytearray | memoryview, lambda value: b"X" + bytes(value)),
    (datetime.date | datetime.time, lambda value: value.isoformat()),
    (UUID, str),
    (Mapping | list | tuple | set | frozenset, _json),
)
_DECODERS: dict[str, Callable[[str], Any]] = {
    "B": bool,
    "D": Decimal,
    "I": int,
    "J": json.loads,
    "S": str,
    "?": Unreadable,
}
