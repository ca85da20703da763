"""What the sandbox says about an order it will not take, in KK's envelope.

KK publishes no list of error codes, so these are the sandbox's own: nobody should test for one of them.
"""

from __future__ import annotations

from typing import Any

SUCCESS = 10000
INVALID = 40001
UNKNOWN_SKU = 40002
SOLD_OUT = 40003
NO_BALANCE = 40004
NOT_FOUND = 40005
TOO_LATE = 40006


class Rejected(Exception):
    """KK says no: an envelope with another code than 10000."""

    def __init__(self, code: int, message: str, http_status: int | None = None) -> None:
        super().__init__(code, message, http_status)
        self.code = code
        self.message = message
        self.http_status = http_status


def envelope(data: Any, code: int = SUCCESS, message: str = "success") -> dict[str, Any]:
    """Every answer of KK's has this form."""
    return {"code": code, "message": message, "data": data}
