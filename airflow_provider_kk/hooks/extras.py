"""Reads the extras of a connection one by one, and collects all that is wrong with them."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable
from typing import TypeVar, overload

from airflow_provider_kk.api.errors import Fault
from airflow_provider_kk.provider_info import CONN_FIELDS

T = TypeVar("T")

#: A longer name that is like none of the extras' may be a token that was put in the wrong place.
_LONGEST_SHOWN = 16
_BEGIN_SHOWN = 6


class Faults:
    """Collects what is wrong, so that one error can name it all."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def read(self, path: str, parse: Callable[[], T], otherwise: T) -> T:
        """What `parse` returns; when it raises a ValueError, that is noted and `otherwise` stands in."""
        try:
            return parse()
        except ValueError as error:
            self.found.append(Fault(path, str(error)))
            return otherwise


class Extras:
    """The extras by name. Null and empty text are absent; a wrong value is noted and reads as its default."""

    def __init__(self, extra: str | None, faults: Faults) -> None:
        self._faults = faults
        nothing: dict[str, object] = {}
        values = faults.read("extra", lambda: _object(extra), nothing)
        self._values = {name: value for name, value in values.items() if not _is_absent(value)}
        for name in self._values:
            if name not in CONN_FIELDS:
                faults.found.append(_unknown(name))

    def text(self, name: str, *, max_length: int) -> str | None:
        """Printable ASCII, or None."""
        return self._read(name, lambda value: _text(value, max_length), None)

    def choice(self, name: str, default: str) -> str:
        """One of the values that the connection form offers."""
        return self._read(name, lambda value: _choice(value, CONN_FIELDS[name]), default)

    def number(
        self, name: str, default: float, *, least: float = 0.0, why_least: str = "", at_most: float = math.inf
    ) -> float:
        """A number above zero, from `least` (`why_least` says where that comes from) to `at_most`."""
        return self._read(name, lambda value: _number(value, least, why_least, at_most), default)

    @overload
    def whole(self, name: str, default: int) -> int: ...

    @overload
    def whole(self, name: str, default: None) -> int | None: ...

    def whole(self, name: str, default: int | None) -> int | None:
        """A whole number of 1 or more."""
        return self._read(name, _whole, default)

    def flag(self, name: str, default: bool) -> bool:
        """True or false, as JSON or as text."""
        return self._read(name, _flag, default)

    def order_url(self, name: str) -> str | None:
        """A web page's address with a place for the kkOrderId, or None."""
        return self._read(name, _order_url, None)

    def _read(self, name: str, parse: Callable[[object], T], default: T) -> T:
        if name not in self._values:
            return default
        return self._faults.read(f"extra.{name}", lambda: parse(self._values[name]), default)


def _object(extra: str | None) -> dict[str, object]:
    if not extra or not extra.strip():
        return {}
    try:
        values = json.loads(extra)
    except ValueError:
        raise ValueError("is not JSON") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError('must be a JSON object such as {"account": "shop-1"}')
    return values


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _unknown(name: str) -> Fault:
    if near := difflib.get_close_matches(name, CONN_FIELDS, n=1):
        return Fault(f"extra.{name}", f"is unknown; did you mean {near[0]}?")
    shown = name if len(name) <= _LONGEST_SHOWN else f"{name[:_BEGIN_SHOWN]}***"
    return Fault(f"extra.{shown}", f"is unknown; known are {', '.join(CONN_FIELDS)}")


def _text(value: object, max_length: int) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("must be text")
    text = value.strip()
    if len(text) > max_length or not re.fullmatch(r"[ -~]+", text):
        raise ValueError(f"must be at most {max_length} printable ASCII characters")
    return text


def _order_url(value: object) -> str:
    url = _text(value, 500)
    if not url.startswith(("https://", "http://")) or "{kk_order_id}" not in url:
        raise ValueError("must be an http(s) address with {kk_order_id} in it")
    return url


def _choice(value: object, conn_field: dict[str, object]) -> str:
    schema = conn_field["schema"]
    choices = schema["enum"] if isinstance(schema, dict) else []
    text = str(value).strip()
    if text not in choices:
        raise ValueError(f"must be {' or '.join(choices)}")
    return text


def _number(value: object, least: float, why_least: str, at_most: float) -> float:
    number = _float(value)
    if number is None or not math.isfinite(number):
        raise ValueError("must be a number")
    if number <= 0:
        raise ValueError("must be above 0")
    if number < least:
        raise ValueError(f"must be at least {least:g} ({why_least})")
    if number > at_most:
        raise ValueError(f"must be at most {at_most:g}")
    return number


def _whole(value: object) -> int:
    number = _float(value)
    if number is None or not number.is_integer() or number < 1:
        raise ValueError("must be a whole number of 1 or more")
    return int(number)


def _float(value: object) -> float | None:
    """JSON's true is not the number 1, and text is what forms and URIs hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _flag(value: object) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError("must be true or false")
