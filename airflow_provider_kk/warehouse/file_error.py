"""The error of a file that cannot be read as orders."""

from __future__ import annotations


class FileError(ValueError):
    """The file cannot be read as orders; the text describes where, and what to do."""
