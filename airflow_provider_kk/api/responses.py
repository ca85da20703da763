"""Derive from KK's response what it proves: the envelope, the outcome, the ids. Pure functions.

The envelope is `{"code": <int>, "message": <text>, "data": <any>}`; 10000 means success, and the text is
never tested. Only a whole JSON object with an integer code counts, since a truncated scalar would parse, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from airflow_provider_kk.api.errors import (
    KKAnswerError,
    KKAuthError,
    KKEndpointError,
    KKError,
    KKRateLimitedError,
    KKRejectedError,
    KKUnknownOutcomeError,
)
from airflow_provider_kk.api.redact import redact

SUCCESS = 10000
"""The code of every success."""


@dataclass(frozen=True)
class Response:
    """A whole HTTP answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Envelope(NamedTuple):
    """The form of every answer of KK."""

    code: int
    message: str
    data: Any


def data_of(answer: Response, *, is_write: bool, secrets: Iterable[str] = ()) -> Any:
    """Return the `data` of a success, or raise the KKError that the answer proves.

    A response that cannot be parsed is an unknown outcome after a write, else a failed read. `secrets` (the
    token, personal values) are removed from KK's message.
    """
    envelope = read_envelope(answer.body)
    if envelope is not None and envelope.code == SUCCESS and 200 <= answer.status < 300:
        return envelope.data
    if envelope is None:
        code, message, what = None, None, redact(_instead_of_an_envelope(answer), secrets)
    else:
        code, message = envelope.code, redact(envelope.message, secrets) or None
        what = f"code {code}"
    kind, meaning = _proven(answer.status, code, is_write)
    text = f"{meaning} (HTTP {answer.status}, {what})" + (f": {message}" if message else "")
    error = kind(text, http_status=answer.status, code=code, kk_message=message)
    if isinstance(error, KKRateLimitedError):
        error.retry_after_s = _retry_after_s(answer.headers)
    raise error


def read_envelope(body: bytes) -> Envelope | None:
    """Return the envelope in `body` with exact numbers; None when `body` is anything else."""
    try:
        data = json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError, ArithmeticError):
        return None
    if not isinstance(data, dict):
        return None
    code = data.get("code")
    if isinstance(code, str) and re.fullmatch(r"-?[0-9]{1,9}", code.strip(), re.ASCII):
        code = int(code)
    if isinstance(code, bool) or not isinstance(code, int):
        return None
    message = data.get("message")
    return Envelope(code, message if isinstance(message, str) else "", data.get("data"))


def kk_order_ids(data: object) -> list[str]:
    """Return the kkOrderIds in the `data` of a created order, in every form that is documented or likely.

    A number, text, comma separated text, a list of these, `{"kkOrderIds": ...}` or `{"id": ...}`, lists of
    those. Empty unless each id is plausible, so that a truncated answer does not pass for a whole one.
    """
    found = _ids_in(data, depth=3)
    plausible = found and all(is_plausible_id(kk_id) for kk_id in found)
    return list(dict.fromkeys(found)) if plausible else []


def is_plausible_id(text: str) -> bool:
    """Return whether `text` can be an id of KK's: up to 32 letters, digits, `-`, `_`, not all zeros."""
    return bool(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}", text) and re.search(r"[1-9]", text))


_UNKNOWN = KKUnknownOutcomeError, "KK's answer does not show whether the request was executed"
_UNUSABLE = KKAnswerError, "KK's answer cannot be used"
_RATE_LIMITED = KKRateLimitedError, "KK's rate limit is reached"
_NO_ACCESS = KKAuthError, "KK rejected the access token"
_NO_API = KKEndpointError, "there is no KK API at this path: check the host and api_version"
_REJECTED = KKRejectedError, "KK rejected the request"


def _proven(status: int, code: int | None, is_write: bool) -> tuple[type[KKError], str]:
    """Return the error that an answer proves, and its meaning; `code` is the envelope's, if there is one."""
    unclear: tuple[type[KKError], str] = _UNKNOWN if is_write else _UNUSABLE
    if is_write and code == SUCCESS:
        return unclear  # KK reports success, whatever the status
    if status == 429:
        return _RATE_LIMITED
    # The code of an envelope distinguishes a rejected token from a rejected order.
    if status in (401, 403) and not (is_write and code not in (None, 401, 403)):
        return _NO_ACCESS
    if status >= 500:
        return unclear
    if code is None:
        return _NO_API if status in (404, 405) else unclear
    if code == 401:
        return _NO_ACCESS
    if code == 429:
        return _RATE_LIMITED
    # A failure inside KK may come after the order was made.
    is_failure = 500 <= code <= 599 or 50000 <= code <= 59999
    return unclear if code in (SUCCESS, -1) or is_failure else _REJECTED


def _instead_of_an_envelope(answer: Response) -> str:
    """Describe an answer that is not KK's; of a redirect only the host, since the rest may hold anything."""
    if 300 <= answer.status < 400:
        host = _host_of(answer.headers.get("location", ""))
        return f"redirects to {host}, which is not followed: check the proxy and the host"
    if answer.headers.get("content-type", "").lower().startswith("text/html"):
        return "an HTML page instead of JSON: check for a proxy or a login page"
    return "not JSON in KK's format" if answer.body else "without a body"


def _host_of(location: str) -> str:
    try:
        host = urlsplit(location).hostname or ""
    except ValueError:
        host = ""
    return host if re.fullmatch(r"[a-z0-9.:-]{1,253}", host) else "another path"


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", value, re.ASCII):
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else datetime.now(UTC)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _ids_in(data: object, depth: int) -> list[str]:
    if isinstance(data, bool) or data is None or depth < 0:
        return [""]
    if isinstance(data, int):
        return [str(data)] if abs(data) < 10**32 else [""]
    if isinstance(data, str):
        return [part.strip() for part in data.split(",")]
    if isinstance(data, list):
        return [kk_id for part in data for kk_id in _ids_in(part, depth - 1)]
    if isinstance(data, Mapping):
        inner = next(
            (data[key] for key in ("kkOrderIds", "kkOrderId", "ids", "id") if data.get(key) is not None), None
        )
        return _ids_in(inner, depth - 1)
    return [""]
