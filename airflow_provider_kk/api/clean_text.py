"""Read the text of one cell: strip it, recognise blanks, find damage.

Spreadsheets, data frames and database dumps leave marks in text: a quote before digits, `.0` behind them,
`nan` for nothing, invisible characters. A certain mark is removed, an uncertain one is a fault. The models
and the warehouse read every cell by these rules. No message repeats a value, except that of an order number,
a country, a SKU or a quantity.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from itertools import islice

EXACT_FLOATS = 2**53
"""Whole floats up to this size have lost no digit."""
LONGEST_NUMBER = 40

NUMBER = "custom_order_number"
_NUMBERS = frozenset({NUMBER, "phone", "zip", "ioss", "vat", "line_id"})
_STRICT_FIELDS = _NUMBERS | {"sku", "country", "channel_type", "quantity"}
"""Fields with numbers and codes, in which people write no prose."""


class CellError(ValueError):
    """A cell that cannot be the field it was selected as; the text describes how to correct it."""


def plain_text(text: str, field: str) -> str | None:
    """Return the text without trailing blanks if it surely needs no closer look, as most cells; else None."""
    if _PLAIN.get(field, _PLAIN_PROSE).fullmatch(text) is None:
        return None
    line = text.rstrip()
    if line in _BOOLEANS:
        return None
    words = (line,) if field in _PLAIN else (line.replace(",", " ") if "," in line else line).split()
    return line if _MISSING_TEXTS.isdisjoint(words) else None


def tidy(text: str, field: str) -> str:
    """Return the text, composed (NFC), without marks that certainly do not belong to it. Idempotent.

    A number of digits and `.0` is its digits, except in a SKU.
    """
    strict = field in _STRICT_FIELDS
    if not text.isascii():
        text = _visible(text, strict)
    text = _unquoted(text.strip(), strict)
    if field in _NUMBERS and (match := _WHOLE.fullmatch(text)) and not _is_uncertain(field, text, match[1]):
        text = match[1]
    return text


def comparable(text: str, field: str) -> str | None:
    """Return the one form that all spellings of the text have, to compare rows; None if blank.

    For text that is not plain. Damaged text stays as it is, for the order's check to find. Raises
    CellError for an order number that stands for a missing one, since rows that have it do not belong
    together.
    """
    if field != NUMBER and _is_suspect(text):
        return text
    line = tidy(text, field)
    if line and is_missing(line, field):
        if field == NUMBER:
            raise CellError(
                f"is the text {line!r}, which stands for a missing number: correct the source of the number"
            )
        return None
    if field == NUMBER and line:
        _reject(line, _NO_NUMBER)
    return line or None


def _is_suspect(text: str) -> bool:
    try:
        return bool(check_encoding(text))
    except CellError:
        return True


def is_missing(text: str, field: str) -> bool:
    """Return whether the tidy text is how a program writes that there is no value.

    In names and streets only the exact spellings of programs count: `Null` is a surname.
    """
    if field == "country" and len(text) == 2:
        return False  # NA is Namibia.
    if field in _STRICT_FIELDS:
        return text.casefold() in _MISSING_NUMBERS
    # None is a town in Italy. `None None` is a name whose two parts are missing.
    return _MISSING_TEXTS.issuperset(text.replace(",", " ").split()) and not (
        field == "city" and text == "None"
    )


def check(text: str, field: str) -> str:
    """Raise CellError for tidy text that is damaged; otherwise return a warning about it, or nothing."""
    _check_damage(text, field)
    strict = field in _STRICT_FIELDS
    entities = [found for found in dict.fromkeys(_ENTITY.findall(text)) if html.unescape(found) != found]
    if entities and strict:
        raise CellError("has an HTML entity such as &amp;: export it as plain text")
    _reject(text, _FIELD_FAULTS.get(field, ()))
    if field == "recipient" and not any(map(str.isalpha, text)):
        _reject(text, _NO_RECIPIENT)
    if warning := _warning_of_field(text, field):
        return warning
    if entities:
        return f"has HTML entities: {_pairs((found, html.unescape(found)) for found in entities)}"
    return "" if strict or field == "remark" else _warning_of_prose(text, field)


def _warning_of_field(text: str, field: str) -> str:
    digits, letters = sum(map(str.isdecimal, text)), sum(map(str.isalpha, text))
    if field == "zip" and not any(map(str.isdigit, text)):
        return "has no digit"
    if field == "phone" and letters > digits:
        return "has more letters than digits"
    if field == "city" and not letters:
        return "has no letter, so it may be a zip: check the columns"
    if field in ("vat", "ioss") and re.fullmatch("[0-9]{1,4}", text):
        return "has few digits, as an amount or a rate"
    if field == "ioss" and not re.fullmatch("IM[0-9]{10}", re.sub(r"[ .-]", "", text).upper()):
        return "is not IM and 10 digits, the usual form of an IOSS number"
    return ""


def _warning_of_prose(text: str, field: str) -> str:
    if field not in ("street2", "sale_platform") and not any(map(str.isalnum, text)):
        return "has no letter and no digit"
    if found := sorted(_MISSING_TEXTS.intersection(text.replace(",", " ").split())):
        return f"has the word {found[0]!r}, with which programs write a missing value"
    if _LOST_LETTER.search(text):
        return "has a question mark in a word, which may stand for a letter that an encoding has lost"
    if _SIGN_BESIDE_LETTER.search(text):
        return "has a sign in a word, such as \xa3 or \xaf, or mixed cases, as text in another encoding has"
    if "\\" in text:
        return "has a backslash, as escaped text of a dump has: export it as plain text"
    return ""


def check_part(text: str, field: str) -> None:
    """Raise CellError for damaged text that is a part of a field, as in a template."""
    if plain_text(text, field) is None:
        _check_damage(text, field)
        if field in (NUMBER, "zip", "sku"):
            _reject(text, _FIELD_FAULTS[field])


def _check_damage(text: str, field: str) -> None:
    if field not in _STRICT_FIELDS:
        _reject(text, _DAMAGES_OF_PROSE)
    # People write anything into remarks.
    if field != "remark":
        _reject(text, _DAMAGES)


def _reject(text: str, faults: Iterable[tuple[re.Pattern[str], str]]) -> None:
    """Raise CellError with the fault of the first pattern that is found."""
    for pattern, fault in faults:
        if match := pattern.search(text):
            raise CellError(fault.replace("{found}", repr(match[0])))


def check_encoding(text: str) -> str:
    """Raise CellError for text, as it came, that was decoded wrongly; return a warning if that is likely."""
    if text.isascii():
        return ""
    # In capitals, \u00c3 or \u00c2 may end a word, with a no-break space behind it.
    text = re.sub("(?<=[A-Z\u00c0-\u00de])([\u00c2\u00c3])\u00a0", r"\1 ", text.removeprefix(_BOM_AS_TEXT))
    hint = "text in another encoding than it was read in (mojibake)"
    for encoding, suspect in _suspects().items():
        if not suspect.search(text):
            continue
        repaired = _redecoded(text, encoding)
        pairs = [(found, _redecoded(found, encoding)) for found in suspect.findall(text)]
        likely = [(found, meant) for found, meant in pairs if meant and _is_plausible(meant)]
        if not likely or (repaired is not None and not _is_plausible(repaired)):
            continue
        if _is_mojibake(text, encoding, repaired, likely):
            raise CellError(f"is {hint}: {_pairs(likely)}. Read it as UTF-8, or fix it where it is stored")
        if encoding == _WESTERN:
            return f"may be {hint}: {_pairs(likely)}"
    return ""


def read_quantity(text: str) -> int | None:
    """Return text as a whole number, or None.

    Raises CellError for digits that two countries read differently.
    """
    text = tidy(text, "quantity")
    if match := re.fullmatch(r"\+?([0-9]{1,40})(?:\.|[.,]0{1,2}|[.,]0{4,})?", text):
        return int(match[1])
    if re.fullmatch(r"\+?[1-9][0-9]{0,2}[.,][0-9]{3}", text):
        raise CellError(
            f"is {text!r}, which is ambiguous: a comma or point before three digits may group thousands or "
            "start a fraction. Pass digits only, such as 3 or 3000"
        )
    for group, point in (".,", ",."):
        whole = rf"\+?([1-9][0-9]{{0,2}}(?:\{group}[0-9]{{3}}){{1,12}})"
        if match := re.fullmatch(rf"{whole}\{point}0+|{whole}", text):
            return int((match[1] or match[2]).replace(group, ""))
    return None


def whole_number(value: object) -> int | None:
    """Return a number of any type as an integer, if it is whole, exact and of at most 40 digits."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT_FLOATS else None
    if isinstance(value, Decimal):
        fits = value.is_finite() and value.adjusted() < LONGEST_NUMBER
        return int(value) if fits and value == value.to_integral_value() else None
    return value if isinstance(value, int) and abs(value) < 10**LONGEST_NUMBER else None


def _visible(text: str, strict: bool) -> str:
    """Return the text composed, with plain spaces and without invisible characters."""
    before = None
    # What was composed may show another joiner to be loose.
    while text != before and _SPECIAL.search(text):
        before = text
        text = text.removeprefix(_BOM_AS_TEXT).translate(_STRICT if strict else _SPACES)
        text = unicodedata.normalize("NFC", _LOOSE_JOINERS.sub("", text))
    return unicodedata.normalize("NFC", text)


def _unquoted(text: str, strict: bool) -> str:
    """Return the text without a spreadsheet's marks of text, `'` in front or `="..."` around."""
    while text[:1] in ("'", "\u2018", "\u2019", '"', "="):
        if match := _AS_TEXT.fullmatch(text):
            inner = match[1].replace('""', '"')
        elif text[0] == '"' and len(text) > 1 and text[-1] == '"' and (strict or text[1] == "="):
            inner = text[1:-1].replace('""', '"')
        elif text[0] in "'\u2018\u2019" and strict:
            inner = text[1:].removesuffix("'")
        # 't Hof and 's-Hertogenbosch are names.
        elif text[0] == "'" and text[-1] != "'" and re.match(r"[0-9+=]", text[1:]):
            inner = text[1:]
        else:
            break
        text = inner.strip()
    return text


def _is_uncertain(field: str, text: str, whole: str) -> bool:
    """Return whether digits, a point or comma and zeros may be something else than that whole number."""
    if field in ("vat", "ioss"):
        return len(whole) < 7  # an amount
    return bool(_GROUPED.fullmatch(text))


def _is_mojibake(text: str, encoding: str, repaired: str | None, likely: list[tuple[str, str]]) -> bool:
    if encoding != _WESTERN:
        # Accents and quotes side by side are common in correct text, so one pair of them is no sign.
        leads = _LATIN_LEADS[encoding]
        marked = any(found[0] in leads and _is_certain(found) for found, _meant in likely)
        return repaired is not None and (marked or len(set(likely)) > 2)
    if any(_is_certain(found) for found, _meant in likely if repaired or found[0] == "\u00c3"):
        return True
    return bool(repaired and len(likely) > 1) or _ftfy_finds(text)


def _is_certain(found: str) -> bool:
    """Return whether no language writes these characters side by side, as `\u00c3\u00a9`."""
    lead, followers = found[0], found[1:]
    if lead == "\u00c3":
        return followers not in "\u2019\u201d\u2026"
    if found == "\u00c2\u00a0" or not lead.isalpha():
        return True
    is_usual = all(one in _COMMON_SIGNS for one in followers)
    return not is_usual and (len(found) > 2 or not followers.isalpha())


def _ftfy_finds(text: str) -> bool:
    try:
        from ftfy.badness import is_bad
    except ImportError:
        return False
    return bool(is_bad(text))


def _redecoded(text: str, encoding: str) -> str | None:
    raw = bytearray()
    try:
        for character in text:
            # Windows leaves five places of its table empty, and programs fill them from Latin-1.
            is_control = "\x80" <= character <= "\x9f"
            raw += character.encode("latin-1" if is_control else encoding)
        return raw.decode()
    except UnicodeError:
        return None


def _is_plausible(text: str) -> bool:
    """Return whether the characters are those of names: letters of living scripts, signs, emoji, spaces."""
    others = (character for character in text if character > "\x7f")
    return not any(unicodedata.category(one) in ("Cn", "Co", "Cc") or _RARE.match(one) for one in others)


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a few of the characters, never whole words."""
    few = islice(dict.fromkeys(pairs), 3)
    return ", ".join(f"{found!r} probably means {meant!r}" for found, meant in few)


_WESTERN = "cp1252"
_COMMON_SIGNS = "\u2116\u00ab\u00bb\u00a0\u2018\u2019\u201a\u201c\u201d\u201e\u2013\u2014\u2026\u2039\u203a"


def _suspect(encoding: str) -> re.Pattern[str]:
    """Return two to four characters that may be the bytes of one character in UTF-8."""

    def of_bytes(first: int, last: int) -> str:
        characters = (bytes([one]).decode(encoding, "ignore") or chr(one) for one in range(first, last + 1))
        return f"[{''.join(map(re.escape, characters))}]"

    follower = of_bytes(0x80, 0xBF)
    leads = of_bytes(0xC2, 0xDF), of_bytes(0xE0, 0xEF), of_bytes(0xF0, 0xF4)
    return re.compile("|".join(f"{lead}{follower}{{{length}}}" for length, lead in enumerate(leads, 1)))


@functools.cache
def _suspects() -> dict[str, re.Pattern[str]]:
    return {name: _suspect(name) for name in (_WESTERN, *_LATIN_LEADS)}


#: The first bytes of Latin letters and of typographic signs in UTF-8, read in other encodings.
_LATIN_LEADS = {
    name: b"\xc2\xc3\xc4\xc5\xe2".decode(name) for name in ("cp1251", "mac_roman", "cp850", "cp437")
}


#: Letters of phonetics and of dead or rare scripts, that wrong repairs end in.
_RARE = re.compile(
    "[\u0180-\u019f\u01a2-\u01ae\u01b1-\u0217\u021c-\u02af\u03e2-\u03ef\u0700-\u08ff\u2c80-\u2cff]"
)

_BOM_AS_TEXT = "\u00ef\u00bb\u00bf"
_INVISIBLE = [0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x2065)]
_INVISIBLE += [*range(0x2066, 0x2070), 0xFEFF]
_BLANKS = [0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x2800, 0x3000, 0x3164, 0xFFA0]
_JOINERS = [0x200C, 0x200D]
_SPACES: dict[int, str | None] = {**dict.fromkeys(_INVISIBLE), **dict.fromkeys(_BLANKS, " ")}
_STRICT: dict[int, str | None] = {
    **_SPACES,
    **dict.fromkeys(_JOINERS),
    **{wide: chr(wide - 0xFEE0) for wide in range(0xFF01, 0xFF5F)},
    **dict.fromkeys([*range(0x2010, 0x2016), 0x2212], "-"),
}
_SPECIAL = re.compile(f"[{''.join(map(chr, _STRICT))}]|^{_BOM_AS_TEXT}")
#: Joiners are part of emoji, of Persian words and of letters of India; elsewhere they are dirt.
_VIRAMAS = "\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca"
_LOOSE_JOINERS = re.compile(
    "(?<![\u0300-\u1dff\u200c\u200d\u2100-\U000e0fff])[\u200c\u200d]+"
    f"|(?<![{_VIRAMAS}])[\u200c\u200d]+(?![\u0300-\u1dff\u200c\u200d\u2100-\U000e0fff])"
)

_AS_TEXT = re.compile(r'=\s*"((?:[^"]|"")*)"')
_WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0*|,0{1,2})", re.ASCII)
_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+|(?:\.[0-9]{3})+|(?:[ '][0-9]{3})+)(?:[.,]0+)?")
_AMOUNT = re.compile(
    r"[+-]?(?:0+|[0-9]{1,3}(?:[., '][0-9]{3})+[.,][0-9]{1,2}|[0-9]+[.,][0-9]{1,2})"
    "|[\u20ac$\u00a3] ?[-0-9., ]+|[-0-9., ]+(?:[%\u20ac$\u00a3]|EUR|USD|GBP)"
)
_SCIENTIFIC = re.compile(r"[+-]?(?:[0-9]+[.,][0-9]+[eE][+-]?|[0-9]+[eE]\+|[0-9][eE]-)[0-9]{1,3}")
_FORMULA = re.compile(r"\A=[^=>\s]")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,8}[0-9]{0,2});")
_ERROR = re.compile(
    r"#[\u00a1\u00bf]?[^\W\d_]+(?:[/_ ][^\W_]+)*[!?]|#N/[A-Z]|#(?:NV|NB|BRAK|GETTING_DATA)|#{2,}|"
    r"Err:[0-9]{3}",
    re.IGNORECASE,
)
_ERROR_INSIDE = re.compile(r"#(?:N/A\b|(?:REF|VALUE|NUM|NULL|DIV/0)!|NAME\?)")

_MONTHS = (
    "jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec|mai|okt|dez|janv|févr|mars|avr|juin|juil|août|déc|"
    "gen|mag|giu|lug|ago|set|ott|dic|ene|abr|mrt|mei|mär|out|fev"
)
#: Not in capitals, in which codes are written.
_MONTH = f"(?:{_MONTHS}|{_MONTHS.title()})"
_CLOCK = "[T ][0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:[.][0-9]+)?)?(?: ?[AaPp][Mm]|Z|[+-][0-9:]{2,6})?"
_NUMERIC_DATE = "[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}|[0-9]{1,2}([/.])[0-9]{1,2}\\1(?:[0-9]{4}|[0-9]{2})"
#: Dates as spreadsheets write them in place of `1-5` or `5/26`, dates with a time, and other dates.
_DAY = re.compile(rf"[0-9]{{1,2}}(?:-|\. ?){_MONTH}\.?(?:[- ][0-9]{{2,4}})?|{_MONTH}\.?-[0-9]{{2,4}}")
_TIME = re.compile(f"(?:{_NUMERIC_DATE}){_CLOCK}")
_DATE = re.compile(_NUMERIC_DATE)
_IS_DATE = "is a date. A spreadsheet may have converted text such as 1-5: export the column as text"
_LOST_LETTER = re.compile(r"[^\W\d_]\?|\?[^\W\d_]")
#: Signs of ISO-8859-1 beside letters, and KOI8-R read as another Cyrillic encoding.
_SIGN_BESIDE_LETTER = re.compile(
    "[^\\W\\d_][\xa1-\xa6\xa8\xa9\xac\xae\xaf\xb1-\xb3\xb6\xb8\xb9\xbc-\xbf\xd7\xf7][^\\W\\d_]"
    "|(?<!\\w)[\xa3-\xa6\xac\xaf\xb1\xb3\xb9\xbc\xbe][^\\W\\d_]"
    "|(?<!\\w)[\u0430-\u044f][\u0410-\u042f]{2}"
)


def _exactly(pattern: re.Pattern[str] | str) -> re.Pattern[str]:
    """Return a pattern that is found in a text only if the whole text fits it."""
    whole = re.compile(pattern)
    return re.compile(rf"\A(?:{whole.pattern})\Z", whole.flags)


_HAS_LOST = "has lost characters in an encoding (U+FFFD or ?): export it again as UTF-8"
_HAS_ERROR = "is or has a spreadsheet's error such as #N/A or ####: fix the cell and export it again"
_DAMAGES_OF_PROSE = ((re.compile("\ufffd"), _HAS_LOST), (_ERROR_INSIDE, _HAS_ERROR))
_DAMAGES = (
    (re.compile("\ufffd|" + r"\A[?\s]*\?\s*\?[?\s]*\Z|[^\W\d_]\?\?|\?\?[^\W\d_]"), _HAS_LOST),
    (_exactly(_ERROR), _HAS_ERROR),
    (
        re.compile(r"\A(?:True|False|TRUE|FALSE|true|false)\Z"),
        "is True or False: select the intended text",
    ),
    (_FORMULA, "is a spreadsheet's formula: export its value as text"),
    (
        _exactly(_SCIENTIFIC),
        "is in scientific notation, such as 3.3E+10, so digits are lost: format the column as text in "
        "the spreadsheet, enter it again and export it",
    ),
    (
        re.compile(
            r"""\A(?:\{\s*(?:["'].*)?\}|\[\s*(?:["'{\[].*)?\]|\[object\ \w+\]|b'.*'|b".*"
            |<[\w.]+\ object\ at\ 0x[0-9a-f]+>)\Z""",
            re.DOTALL | re.VERBOSE,
        ),
        "is nested data as text, such as JSON: map a path to the value in it",
    ),
    (
        re.compile(r"\{\{.*\}\}|\{%.*%\}|\$\{[^{}]*\}|%\(\w+\)s|\A\{\w+\}\Z", re.DOTALL),
        "has a placeholder without a value, such as {{ name }}: fill it in",
    ),
    (
        re.compile(
            r"\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|%[c-eC-E][0-9a-fA-F]%[89abAB][0-9a-fA-F]"
            "|=[C-E][0-9A-F]=[89AB][0-9A-F]"
        ),
        "has letters as escape sequences, such as \\u00e9 or %C3%A9: export it as plain text",
    ),
)

_NO_LETTER_OR_DIGIT = _exactly(r"[\W_]*")
_SPREADSHEET_DATES = tuple((_exactly(one), _IS_DATE) for one in (_DAY, _TIME))
_DATES = (*_SPREADSHEET_DATES, (_exactly(_DATE), _IS_DATE))
_MISSING_PARTS = (
    (
        re.compile("(?<![A-Za-z0-9])(?:None|nan|NaN|NaT|null|NULL|undefined)(?![A-Za-z0-9])"),
        "has the part {found}, which stands for a missing value: correct the source of that part",
    ),
)
#: An order number that may stand for any other order, too.
_NO_NUMBER = (
    (_exactly(_ERROR), "is {found}, a spreadsheet's error: fix the cell and export it again"),
    (_NO_LETTER_OR_DIGIT, "has no letter and no digit: give each row its order's number"),
)
_NO_TAX_NUMBER = (
    (
        _exactly(_AMOUNT),
        "is an amount or a rate, not a tax number: map the column that holds the number",
    ),
)
#: If there is no letter: a phone or a zip, or only signs.
_NO_RECIPIENT = (
    (
        re.compile(r"(?:[\d²³¹].*){5}|\A[!-/:-@\s]+\Z", re.DOTALL),
        "has no letter: check that the row's columns are not shifted",
    ),
)
_FIELD_FAULTS: dict[str, tuple[tuple[re.Pattern[str], str], ...]] = {
    NUMBER: (
        *_NO_NUMBER,
        *_MISSING_PARTS,
        *_SPREADSHEET_DATES,
        (_exactly(_GROUPED), "is {found}, which may have grouped digits: export it as text, digits only"),
    ),
    "zip": (
        *_DATES,
        (_exactly("[1-9][0-9]{0,2}[.,][0-9]{3}"), "is a number with grouped digits: export it as text"),
        (
            _exactly(r"-[0-9]+(?:[.,][0-9]*)?|\+?[0-9]+[.,][0-9]+|[0-9., ]*[%€$£][0-9., ]*"),
            "is an amount or a number with a fraction or a sign: map the column of the zip",
        ),
    ),
    "sku": (
        (_NO_LETTER_OR_DIGIT, "has no letter and no digit"),
        *_MISSING_PARTS,
        *_DATES,
        (
            _exactly(_WHOLE),
            "is {found}, which a spreadsheet may have made from a whole number: export it as text",
        ),
    ),
    "phone": (
        (_exactly(r"\D*"), "has no digit"),
        (re.compile("@"), "is an e-mail address: map the column of the phone"),
        (
            re.compile(r"\A(?:[0-9]+[eE][0-9]+\Z|-)"),
            "is a number that a spreadsheet has calculated: enter the phone as text",
        ),
        *_SPREADSHEET_DATES,
        (_exactly("(?:19|20)[0-9]{2}(?:-[0-9]{2}){2}"), _IS_DATE),
    ),
    "vat": _NO_TAX_NUMBER,
    "ioss": _NO_TAX_NUMBER,
    "city": (
        (
            _exactly("None"),
            "is the text 'None', which may be a missing value or the town in Italy: leave it blank, "
            "or write NONE",
        ),
    ),
}

_PROGRAMS_WRITE = r"""
    nan NaN -nan NaT None <None> null NULL <null> <NULL> (null) (NULL) [null] [NULL] nil <nil> <NA> pd.NA
    N/A n/a \N \\N undefined (blank) 1.#IND -1.#IND 1.#QNAN -1.#QNAN
"""
_BOOLEANS = frozenset(["True", "False", "TRUE", "FALSE", "true", "false"])
_MISSING_TEXTS = frozenset(_PROGRAMS_WRITE.split())
_MISSING_NUMBERS = frozenset(["na", *map(str.casefold, _MISSING_TEXTS)])
#: A composed letter that is no part of another character's bytes, since none follows.
_ACCENTED = "[\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017f](?![^\x00-\x7f])"
#: What may be such a part, or a date, is looked at closely.
_NO_PART = "(?!#?(?:[A-Za-z0-9]*[_-])*(?:None|nan|NaN|NaT|null|NULL|undefined)(?![A-Za-z0-9]))"
_NO_DATE = r"(?![0-9]{1,2}-[A-Za-z]{3}|[A-Za-z]{3,5}-[0-9]{2}(?:[0-9]{2})?\Z|[0-9]{4}-[0-9]{1,2}-)"
_PLAIN_PROSE = re.compile(
    rf"(?!b')(?:[0-9]{{1,5}} )?(?:[A-Za-z]|{_ACCENTED})[A-Za-z0-9 ,.'-]*(?:{_ACCENTED}[A-Za-z0-9 ,.'-]*)*"
)
_PLAIN_NUMBER = re.compile(rf"{_NO_DATE}{_NO_PART}#?[A-Za-z_-]*[0-9](?![0-9]*[eE][+-])[A-Za-z0-9_-]*")
_PLAIN = {
    NUMBER: _PLAIN_NUMBER,
    "line_id": _PLAIN_NUMBER,
    "phone": re.compile(rf"{_NO_DATE}\+?\(?[0-9][0-9 ()-]*"),
    "zip": re.compile(rf"{_NO_DATE}[A-Za-z]*[0-9](?![0-9]*[eE][+-])[A-Za-z0-9 -]*"),
    "vat": re.compile(r"[A-Z]{2}[A-Z0-9]*[0-9]{5}[A-Z0-9]*"),
    "ioss": re.compile(r"IM[0-9]{10}"),
    "sku": re.compile(rf"{_NO_DATE}{_NO_PART}[A-Za-z][A-Za-z_-]*[0-9][A-Za-z0-9_-]*"),
}
