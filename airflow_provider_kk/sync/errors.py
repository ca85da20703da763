"""The error of a sync, which operators translate to Airflow's exceptions and commands to an exit status."""

from __future__ import annotations


class SyncError(Exception):
    """Says why a sync fails, and what to do.

    :param is_retryable: whether a retry helps without anybody changing anything.
    """

    def __init__(self, message: str, *, is_retryable: bool) -> None:
        super().__init__(message)
        self.is_retryable = is_retryable
