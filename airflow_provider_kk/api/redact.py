"""Takes a customer and the token out of what KK says, whole or in parts, however KK has written them."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterable
from itertools import takewhile
from urllib.parse import unquote

_HIDDEN = "***"
_READ = 5_000
_SHOWN = 300
#: The widest field of an address; what is longer is a remark, and its words are words that KK may say, too.
_WORDY = 64
_SHORTEST_SECRET = 4
#: So many characters, or digits of a number, are no coincidence.
_REVEALING = 6
#: What KK names its fields and faults by, which a street or a name may hold, too.
_KK_TERM = re.compile(
    "access|address|city|code|country|customer|exist|exists|field|first|format|from|house|invalid|"
    "item|items|last|list|long|missing|must|name|null|number|order|orders|phone|postal|province|"
    "quantity|recipient|remark|required|short|stock|street|street1|street2|that|this|token|unknown|"
    "value|warehouse|with|wrong",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w-])\+?\(?\d[\d ()./-]*\d(?![\w-])")


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` as one short line, decoded, without any of `secrets`: its words, digits or beginning.

    Upper and lower case are the same. A word counts from 4 letters, digits and beginnings from 6 characters.
    What is spelt otherwise (transliterated, abbreviated, hashed), or shorter, is not found.
    """
    line = _plain(text[:_READ])
    values = {form for value in secrets for form in (" ".join(_normal(value).split()), _plain(value)) if form}
    for secret in sorted(values, key=len, reverse=True):
        line = re.sub(_pattern(secret), _HIDDEN, line, flags=re.IGNORECASE)
    for secret in sorted(values, key=len, reverse=True):
        line = _without_parts(_without_beginnings(line, secret), secret)
        if re.fullmatch(r"[0-9 ()+./-]*", secret):
            line = _without_digits(line, re.sub(r"[^0-9]", "", secret))
    return line[:_SHOWN]


def _plain(text: str) -> str:
    """What a URL, JSON or HTML has escaped, twice at most, in one line."""
    for _ in range(2):
        text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), unquote(text))
        text = html.unescape(re.sub(r"\\(['\"\\/])", r"\1", text))
    # JSON escapes a character beyond the first 65,536 as two halves.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return re.sub(r"[\s\x00-\x1f\x7f-\x9f]+", " ", _normal(text)).strip()


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _pattern(secret: str) -> str:
    if re.fullmatch(r"[0-9 ()+./-]*", secret) and len(digits := re.sub(r"[^0-9]", "", secret)) >= _REVEALING:
        # A phone number may come back grouped in another way.
        return r"\+?" + r"[ ()./-]*".join(digits)
    # Very short values, such as a zip of two digits, occur inside of innocent words.
    edge = r"\b" if len(secret) < 4 and secret.isalnum() else ""
    return edge + re.escape(secret) + edge


def _without_parts(line: str, secret: str) -> str:
    """Names and streets come back in parts. What is joined by `-` or `_` is a SKU or an order number."""
    if len(secret) > _WORDY:
        return line
    letters = re.findall(r"[^\W\d_]+", secret)
    for word in sorted({*secret.split(), *letters}, key=len, reverse=True):
        if sum(map(str.isalpha, word)) >= _SHORTEST_SECRET and not _KK_TERM.fullmatch(word):
            line = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", _HIDDEN, line, flags=re.IGNORECASE)
    return line


def _without_beginnings(line: str, secret: str) -> str:
    """Values that are too long come back cut."""
    start = re.compile(rf"(?<!\w){re.escape(secret[:_REVEALING])}", re.IGNORECASE)
    at = 0
    while len(secret) > _REVEALING and (found := start.search(line, at)):
        pairs = zip(line[found.end() :], secret[_REVEALING:], strict=False)
        same = takewhile(lambda pair: pair[0].lower() == pair[1].lower(), pairs)
        at = end = found.end() + len(list(same))
        if not _KK_TERM.fullmatch(line[found.start() : end].strip()):
            line = line[: found.start()] + _HIDDEN + line[end:]
            at = found.start() + len(_HIDDEN)
    return line


def _without_digits(line: str, digits: str) -> str:
    """A phone number comes back with another prefix, or with none."""
    parts = {digits[place : place + _REVEALING] for place in range(len(digits) - _REVEALING + 1)}

    def shown(number: re.Match[str]) -> str:
        bare = re.sub(r"[^0-9]", "", number[0])
        return _HIDDEN if any(part in bare for part in parts) else number[0]

    return _NUMBER.sub(shown, line)
