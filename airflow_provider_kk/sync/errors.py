"""The error of this room: operators translate it to an exception of Airflow, commands to an exit status."""

from __future__ import annotations


class SyncError(Exception):
    """A sync fails. The text has the reason and what to do.

    :param is_retryable: whether a retry can succeed without a change by a person.
    """

    def __init__(self, message: str, *, is_retryable: bool) -> None:
        super().__init__(message)
        self.is_retryable = is_retryable
