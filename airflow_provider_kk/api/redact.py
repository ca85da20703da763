"""Remove personal data and the token, whole or in parts, from KK's messages."""

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
#: The widest field of an address. A longer text is a remark, whose words KK's messages may have, too.
_WORDY = 64
_SHORTEST_SECRET = 4
#: So many equal characters, or digits of a number, are no coincidence.
_REVEALING = 6
#: Words of KK's messages, which a street or a name may hold, too.
_KK_TERM = re.compile(
    "access|address|city|code|country|customer|exist|exists|field|first|format|from|house|invalid|"
    "item|items|last|list|long|missing|must|name|null|number|order|orders|phone|postal|province|"
    "quantity|recipient|remark|required|short|stock|street|street1|street2|that|this|token|unknown|"
    "value|warehouse|with|wrong",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(?<![\w-])\+?\(?\d[\d ()./-]*\d(?![\w-])")


def redact(text: str, secrets: Iterable[str]) -> str:
    """Return `text` as one short decoded line without the words, digits or beginnings of `secrets`.

    Case does not matter. A word counts from 4 letters, digits and beginnings from 6 characters.
    Transliterated, abbreviated, hashed or shorter text is not found.
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
    """Undo the escapes of URLs, JSON or HTML, twice at most, and return one line."""
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
        # KK may group a phone number in another way.
        return r"\+?" + r"[ ()./-]*".join(digits)
    # Very short values, such as a zip of two digits, occur inside of other words.
    edge = r"\b" if len(secret) < 4 and secret.isalnum() else ""
    return edge + re.escape(secret) + edge


def _without_parts(line: str, secret: str) -> str:
    """Hide parts of names and streets. Words joined by `-` or `_` are a SKU or an order number."""
    if len(secret) > _WORDY:
        return line
    letters = re.findall(r"[^\W\d_]+", secret)
    for word in sorted({*secret.split(), *letters}, key=len, reverse=True):
        if sum(map(str.isalpha, word)) >= _SHORTEST_SECRET and not _KK_TERM.fullmatch(word):
            line = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", _HIDDEN, line, flags=re.IGNORECASE)
    return line


def _without_beginnings(line: str, secret: str) -> str:
    """Hide values that KK has cut."""
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
    """Hide a phone number with another prefix, or with none."""
    parts = {digits[place : place + _REVEALING] for place in range(len(digits) - _REVEALING + 1)}

    def shown(number: re.Match[str]) -> str:
        bare = re.sub(r"[^0-9]", "", number[0])
        return _HIDDEN if any(part in bare for part in parts) else number[0]

    return _NUMBER.sub(shown, line)
