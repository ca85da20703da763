"""The errors of this room: operators translate them to exceptions of Airflow, commands to an exit status."""

from __future__ import annotations


class SyncError(Exception):
    """Says why a sync fails, and what to do.

    :param is_retryable: whether a retry helps without anybody changing anything.
    """

    def __init__(self, message: str, *, is_retryable: bool) -> None:
        super().__init__(message)
        self.is_retryable = is_retryable


class ResolutionRejected(Exception):
    """Says why a resolution is rejected, and what to do instead; the order is unchanged."""


class ResolutionUnavailable(ResolutionRejected):
    """KK did not answer, so the same resolution may be accepted later."""
