"""The formats of KK's JSON: its envelope, dates and money, and rejections of invalid values.

KK publishes no list of error codes, so these are the sandbox's own. Do not test for one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

SUCCESS = 10000
INVALID = 40001
UNKNOWN_SKU = 40002
SOLD_OUT = 40003
NO_BALANCE = 40004
NOT_FOUND = 40005
TOO_LATE = 40006


class Rejected(Exception):
    """KK rejects the call: an envelope with another code than 10000."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def envelope(data: Any, code: int = SUCCESS, message: str = "success") -> dict[str, Any]:
    """Return data in the envelope of every answer of KK."""
    return {"code": code, "message": message, "data": data}


def iso(epoch: float) -> str:
    """Return a date in KK's format: `2016-01-18T23:41:00Z`."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_iso(text: str) -> float:
    """Parse a date in KK's format. Raises ValueError for any other format."""
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()


def money(cents: int) -> float:
    """Return cents as dollars in KK's JSON."""
    return cents / 100


def read_lines(
    value: Any, name: str, sku_field: str = "sku", others: Iterable[str] = ()
) -> list[tuple[str, int]]:
    """Parse goods. Raises Rejected unless each line has a SKU, a quantity and the other fields."""
    if not isinstance(value, list) or not value:
        raise Rejected(INVALID, f"{name} is required")
    lines = []
    for index, line in enumerate(value):
        path = f"{name}[{index}]"
        if not isinstance(line, Mapping):
            raise Rejected(INVALID, f"{path} is not an object")
        for field in others:
            if line.get(field) is None:
                raise Rejected(INVALID, f"{path}.{field} is required")
        sku = text_in(line, sku_field, 64, required=True, path=path)
        quantity = line.get("quantity")
        if isinstance(quantity, bool) or not isinstance(quantity, int) or not 1 <= quantity < 10**16:
            raise Rejected(INVALID, f"{path}.quantity must be greater than 0")
        lines.append((str(sku), quantity))
    return lines


def text_in(
    given: Mapping[str, Any], name: str, width: int, *, required: bool = False, path: str = ""
) -> str | None:
    """Read a text; an empty one counts as absent. `path` is its place in the body, for the message."""
    value = given.get(name)
    where = f"{path}.{name}" if path else name
    if value is None or value == "":
        if required:
            raise Rejected(INVALID, f"{where} is required")
        return None
    if not isinstance(value, str) or len(value) > width:
        raise Rejected(INVALID, f"{where} must be a text of at most {width} characters")
    return value


def whole_in(query: Mapping[str, str], name: str, default: int) -> int:
    """Read a whole number of at least 1 from a query."""
    text = query.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) < 10**9:
        raise Rejected(INVALID, f"{name} must be a whole number of at least 1")
    return int(text)
