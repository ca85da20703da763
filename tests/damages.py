# ruff: noqa: RUF001
"""Clean cells of an order, and how spreadsheets, data frames, dumps and wrong encodings damage them.

`damaged_cells()` yields a field, its clean value, the damaged value and what must become of it:

- `same`: it is read as the clean value;
- `fault`: the order is invalid, and the fault names the field;
- `blank`: the field is left out, and a notice says so;
- `doubt`: the order is invalid, or a notice names the field;
- `warning`: it is sent as it is, and a notice names the field.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

NUMBER = "custom_order_number"
LINE_FIELDS = ("sku", "quantity")
ORDER_FIELDS = (NUMBER, "remark", "sale_platform", "channel_type")
REQUIRED = (NUMBER, "country", "phone", "recipient", "province", *LINE_FIELDS)
NUMBERS = (NUMBER, "phone", "zip", "ioss", "vat")
CODES = ("country", *LINE_FIELDS)

INVISIBLE = "\u200b\ufeff\u200e\u200f\u202a\u202c\u2066\u2069\u2060\u00ad"
BLANKS = "\u00a0\u202f\u2009\u2007\u3000"
ERRORS = [
    "#N/A",
    "#VALUE!",
    "#REF!",
    "#NAME?",
    "#DIV/0!",
    "#NULL!",
    "#NUM!",
    "#WERT!",
    "#NV",
    "##",
    "########",
]
MISSING = ["nan", "NaN", "None", "null", "NULL", "\\N", "<NA>", "NaT", "N/A"]

NAMES = [
    "Ida Test", "José Müller", "Zoë Ångström", "'t Hof", "O'Neil", "Null Otto", "Łukasz Żółć", "Иван Сёмин",
    "Ελένη", "Kim",
    "می\u200cخواهم", "김영희", "山田 太郎", "JOÃO IRMÃ", "Anna & Otto", "Renée 👩\u200d🚀", "Ñandú É",
]  # fmt: skip

_names = st.sampled_from(NAMES)
_digits = st.from_regex("[1-9][0-9]{3,8}", fullmatch=True)
CLEAN: dict[str, st.SearchStrategy[str]] = {
    NUMBER: _digits | st.from_regex("#[1-9][0-9]{3}|[A-Z]{2}-[0-9]{2,6}", fullmatch=True),
    "country": st.sampled_from(["FR", "US", "DE", "GB", "NA"]),
    "phone": st.from_regex(r"\+?[1-9][0-9]{7,11}|\+33 1 [0-9]{2} [0-9]{2}", fullmatch=True),
    "recipient": _names,
    "province": _names,
    "street1": st.from_regex("[1-9][0-9]? Rue [A-Z][a-z]{2,8}", fullmatch=True) | _names,
    "street2": _names,
    "city": _names,
    "zip": st.from_regex("[0-9]{5}|SW1A [0-9]AA", fullmatch=True),
    "ioss": st.from_regex("IM[0-9]{10}", fullmatch=True),
    "vat": st.from_regex("DE[0-9]{9}|[1-9][0-9]{8}", fullmatch=True),
    "sku": st.from_regex("FW[0-9]{4}_[A-Z]{3}|[1-9][0-9]{4}", fullmatch=True),
    "quantity": st.integers(1, 99_999).map(str),
    "remark": _names,
    "sale_platform": st.sampled_from(["Shopify", "KA"]),
}


@dataclass(frozen=True)
class DamagedCell:
    """A cell before and after, and what must become of it."""

    field: str
    clean: str
    kind: str
    value: Any
    outcome: str


Damage = Callable[[st.DataObject, str, str], tuple[Any, str] | None]
"""A damage takes the data to draw from, the field and its clean value; None where it does not apply."""


def _has_numbers(field: str) -> bool:
    return field in NUMBERS or field in LINE_FIELDS


def _quote(_data: st.DataObject, field: str, clean: str) -> tuple[Any, str] | None:
    applies = field in NUMBERS or field in CODES or clean[0].isdigit()
    return ("'" + clean, "same") if applies else None


def _formula_of_text(_data: st.DataObject, _field: str, clean: str) -> tuple[Any, str] | None:
    return '="' + clean.replace('"', '""') + '"', "same"


def _point_zero(data: st.DataObject, field: str, clean: str) -> tuple[Any, str] | None:
    if not (_has_numbers(field) and clean.isdigit()):
        return None
    suffix = data.draw(st.sampled_from([".0", ".00", ",0", ",00", "."]))
    return clean + suffix, "fault" if field == "sku" else "same"


def _typed(data: st.DataObject, field: str, clean: str) -> tuple[Any, str] | None:
    if not (_has_numbers(field) and clean.isdigit() and clean[0] != "0"):
        return None
    return data.draw(
        st.sampled_from([int(clean), float(clean), Decimal(clean), Decimal(clean + ".00")])
    ), "same"


def _scientific(_data: st.DataObject, field: str, clean: str) -> tuple[Any, str] | None:
    return (f"{float(clean):.5E}", "fault") if _has_numbers(field) and clean.isdigit() else None


def _grouped(data: st.DataObject, field: str, clean: str) -> tuple[Any, str] | None:
    if field not in (NUMBER, "quantity") or not clean.isdigit() or int(clean) < 1000:
        return None
    separator = data.draw(st.sampled_from(",."))
    return f"{int(clean):,}".replace(",", separator), "fault"


def _no_break_spaces(data: st.DataObject, _field: str, clean: str) -> tuple[Any, str] | None:
    blank = data.draw(st.sampled_from(BLANKS))
    return blank + clean.replace(" ", blank) + blank, "same"


def _invisible(data: st.DataObject, _field: str, clean: str) -> tuple[Any, str] | None:
    place = data.draw(st.integers(0, len(clean)))
    return clean[:place] + data.draw(st.sampled_from(INVISIBLE)) + clean[place:], "same"


def _joiners(data: st.DataObject, field: str, clean: str) -> tuple[Any, str] | None:
    joiner = data.draw(st.sampled_from("\u200c\u200d"))
    strict = field in NUMBERS or field in CODES
    place = data.draw(st.integers(0, len(clean))) if strict else data.draw(st.sampled_from([0, len(clean)]))
    return clean[:place] + joiner + clean[place:], "same"


def _full_width(_data: st.DataObject, field: str, clean: str) -> tuple[Any, str] | None:
    if not (field in NUMBERS or field in CODES):
        return None
    return "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in clean), "same"


def _decomposed(_data: st.DataObject, _field: str, clean: str) -> tuple[Any, str] | None:
    return unicodedata.normalize("NFD", clean), "same"


def _error(data: st.DataObject, field: str, _clean: str) -> tuple[Any, str] | None:
    # In a remark only what nobody writes is an error.
    return data.draw(st.sampled_from(ERRORS[:7] if field == "remark" else ERRORS)), "fault"


def _missing(data: st.DataObject, field: str, _clean: str) -> tuple[Any, str] | None:
    word = data.draw(st.sampled_from(MISSING))
    return word, "fault" if field in REQUIRED or (field, word) == ("city", "None") else "blank"


def _replacement_character(data: st.DataObject, _field: str, clean: str) -> tuple[Any, str] | None:
    place = data.draw(st.integers(0, len(clean) - 1))
    return clean[:place] + "\ufffd" + clean[place + 1 :], "fault"


def _mojibake(data: st.DataObject, _field: str, clean: str) -> tuple[Any, str] | None:
    if clean.isascii():
        return None
    encoding = data.draw(st.sampled_from(["latin-1", "cp1252", "cp850", "mac_roman"]))
    raw = clean.encode()
    return "".join(bytes([one]).decode(encoding, "ignore") or chr(one) for one in raw), "doubt"


def _html(_data: st.DataObject, field: str, clean: str) -> tuple[Any, str] | None:
    escaped = html.escape(clean)
    return (escaped, "fault" if field in NUMBERS + CODES else "warning") if escaped != clean else None


def _other_content(data: st.DataObject, field: str, _clean: str) -> tuple[Any, str] | None:
    amounts = st.sampled_from(["12.50", "0", "0.00", "1.234,50", "20%", "\u20ac 12"])
    others = {
        "phone": st.sampled_from(["ida@example.com", "-", "none given"]),
        "vat": amounts,
        "ioss": amounts,
    }
    return (data.draw(others[field]), "fault") if field in others else None


DAMAGES: dict[str, Damage] = {
    "quote in front": _quote,
    "formula of text": _formula_of_text,
    "point zero": _point_zero,
    "typed number": _typed,
    "scientific": _scientific,
    "grouped digits": _grouped,
    "no-break spaces": _no_break_spaces,
    "invisible character": _invisible,
    "joiner": _joiners,
    "full width": _full_width,
    "decomposed": _decomposed,
    "spreadsheet error": _error,
    "missing value": _missing,
    "replacement character": _replacement_character,
    "mojibake": _mojibake,
    "HTML": _html,
    "other content": _other_content,
}


@st.composite
def damaged_cells(draw: st.DrawFn, field: str | None = None) -> DamagedCell:
    """A clean cell of `field`, or of any, with one damage that applies to it."""
    name = field or draw(st.sampled_from(sorted(CLEAN)))
    clean = draw(CLEAN[name])
    kinds = draw(st.permutations(sorted(DAMAGES)))
    data = draw(st.data())
    for kind in kinds:
        found = DAMAGES[kind](data, name, clean)
        if found is not None:
            return DamagedCell(name, clean, kind, *found)
    raise AssertionError("every cell can be damaged")


@st.composite
def clean_rows(draw: st.DrawFn) -> dict[str, str]:
    """One order of one line, a column for each field."""
    return {field: draw(cells) for field, cells in CLEAN.items()}


def order_of(row: dict[str, Any]) -> dict[str, Any]:
    """The row as `Order.parse` takes it."""
    line = {field: row[field] for field in LINE_FIELDS if field in row}
    order = {field: row[field] for field in ORDER_FIELDS if field in row}
    address = {field: value for field, value in row.items() if field not in (*LINE_FIELDS, *ORDER_FIELDS)}
    return {**order, "address": address, "items": [line]}


def is_about(path: str, field: str) -> bool:
    """Whether a fault's or a notice's path is the field's."""
    return re.split(r"[.\]]", path)[-1] == field


def spellings_of(number: int) -> Iterator[Any]:
    """One order number as drivers, spreadsheets and data frames write it."""
    text = str(number)
    yield from (text, f"{text}.0", f"'{text}", f'="{text}"', f" {text}", f"{text}\u00a0", f"\u200b{text}")
    yield from (number, float(number), Decimal(number), Decimal(f"{text}.0"), f'"{text}"', f"\ufeff{text}")
    yield from (text.encode(), f"{text}\u200d", f"\u202a{text}\u202c")
