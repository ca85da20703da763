"""The errors of calls to KK. Each has an outcome: what it proves about the request.

No text here ever holds an access token, a name, a street or a phone number.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, NamedTuple


class Outcome(StrEnum):
    """The proven effect of a request that should change something at KK."""

    CREATED = "created"
    """KK did it and returned an id."""
    REJECTED = "rejected"
    """KK answered no."""
    NOT_SENT = "not_sent"
    """It is proven that KK did not act on it: it may be sent again."""
    UNKNOWN = "unknown"
    """KK may have done it: reconcile before anything is sent again."""


class KKError(Exception):
    """The root of all errors of a call to KK.

    `outcome` is what the error proves. `http_status` and `code` (of the envelope) are None when they did not
    arrive. `kk_message` is KK's text in one line, without the order's personal values.
    """

    outcome: Outcome = Outcome.UNKNOWN

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        code: int | None = None,
        kk_message: str | None = None,
    ) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.code = code
        self.kk_message = kk_message


class KKNotSentError(KKError):
    """No byte of the request reached the socket: name, connection, TLS, proxy, or `before_send` failed."""

    outcome = Outcome.NOT_SENT


class KKRateLimitedError(KKError):
    """KK's bucket is full (HTTP or code 429). `retry_after_s`: the seconds KK asked to wait, or None."""

    outcome = Outcome.NOT_SENT

    def __init__(self, message: str, *, retry_after_s: float | None = None, **known: Any) -> None:
        super().__init__(message, **known)
        self.retry_after_s = retry_after_s


class KKAuthError(KKError):
    """The access token is wrong, missing or may not do this (HTTP 401 or 403, or code 401)."""

    outcome = Outcome.NOT_SENT


class KKEndpointError(KKError):
    """There is no KK API at this path (HTTP 404 or 405 without an envelope): wrong host or version."""

    outcome = Outcome.NOT_SENT


class KKRejectedError(KKError):
    """KK understood the request and rejected it: `code` and `kk_message` are its reason."""

    outcome = Outcome.REJECTED


class KKUnknownOutcomeError(KKError):
    """A write may or may not have happened. Sending it again could do it twice."""

    outcome = Outcome.UNKNOWN


class KKAnswerError(KKError):
    """A read failed, or its answer cannot be parsed. It changes nothing, so it may be repeated."""

    outcome = Outcome.NOT_SENT


class Fault(NamedTuple):
    """One fault of an order: where (`items[0].quantity`) and what, never the value itself."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidOrderError(ValueError):
    """Names every fault of an order that must not be sent."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(faults)
        self.faults = faults

    def __str__(self) -> str:
        return "invalid order: " + "; ".join(map(str, self.faults))
