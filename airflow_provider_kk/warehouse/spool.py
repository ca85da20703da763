"""A private temporary file that holds all rows of a statement or of a file, so that nothing else has to.

The file is SQLite's own (`connect("")`): it has no name, nobody else can open it, and it is gone when it is
closed or when the process dies. SQLite places it in `SQLITE_TMPDIR`, `TMPDIR` or `/var/tmp`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

from airflow_provider_kk.warehouse.cells import Stored, decode, encode, encode_text
from airflow_provider_kk.warehouse.columns import resolve

_CACHE_KIB = 16_384


class SpooledRow(NamedTuple):
    """One row: its position in the statement's result or in the file, and its decoded cells."""

    position: int
    cells: tuple[Any, ...]


class Spool:
    """All rows of one statement, kept on disk. Close it, or use it in a `with`.

    It may move between threads, but only one may use it at a time. `first` is the position of the first row.
    """

    def __init__(self, names: Sequence[str], first: int = 1) -> None:
        self.names = tuple(names)
        self.rows = 0
        self._next = first
        self._grouped: set[int] = set()
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        # A crash loses the file anyway, so nothing is written for its sake.
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            self._db.execute(f"PRAGMA {setting}")
        columns = ", ".join(f"c{index}" for index in range(len(self.names)))
        self._db.execute(f"CREATE TABLE row (position INTEGER PRIMARY KEY, {columns})")
        placeholders = ", ".join("?" for _ in self.names)
        self._insert = f"INSERT INTO row VALUES (?, {placeholders})"  # noqa: S608 - constant names

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file."""
        self._db.close()

    def add(self, rows: Iterable[Sequence[object]]) -> None:
        """Append rows, each with one value for each name."""
        first = self._next
        batch = [[position, *_encode_row(row)] for position, row in enumerate(rows, first)]
        self._db.execute("BEGIN")
        try:
            self._db.executemany(self._insert, batch)
        except UnicodeEncodeError:
            # Of the batch, some rows are already in: without a journal they cannot be rolled back.
            self._db.execute("DELETE FROM row WHERE position >= ?", (first,))
            self._db.executemany(self._insert, [[encode_text(cell) for cell in row] for row in batch])
        self._db.execute("COMMIT")
        self.rows += len(batch)
        self._next += len(batch)

    def skip(self, positions: int) -> None:
        """Leave out so many places: there are no rows."""
        self._next += positions

    def ignored_columns(self, columns: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """Names of the columns that no field of an order is read from, for the log. Raises ColumnsError."""
        return resolve(self.names, columns).ignored

    def column(self, index: int) -> Iterator[Any]:
        """The decoded values of one column that are not NULL."""
        for (cell,) in self._db.execute(f"SELECT c{index} FROM row WHERE c{index} IS NOT NULL"):  # noqa: S608 - constant names
            yield decode(cell)

    def distinct(self, positions: Iterable[int]) -> int:
        """How many of the rows at these places differ in some column."""
        query = "SELECT * FROM row WHERE position = ?"
        return len({self._db.execute(query, (position,)).fetchone()[1:] for position in positions})

    def groups(
        self, key_index: int, key_of: Callable[[Any], str | None], indexes: Sequence[int]
    ) -> Iterator[tuple[str | None, Iterator[SpooledRow]]]:
        """Rows with the same key together; groups by first appearance, rows in the statement's order.

        `key_of` makes the key of a decoded cell of column `key_index`; a row whose key is None is a group of
        its own. Only the columns `indexes` are read. Use a group's rows before asking for the next group.
        """
        if key_index not in self._grouped:
            self._group(key_index, key_of)
            self._grouped.add(key_index)
        line, first = f"line{key_index}", f"first{key_index}"
        cells = ", ".join(f"row.c{index}" for index in indexes)
        rows = self._db.execute(
            f"SELECT {first}.key, {first}.position, row.position, {cells} FROM {first} "  # noqa: S608 - constant names
            f"CROSS JOIN {line} ON {line}.key = {first}.key CROSS JOIN row ON row.position = {line}.position "
            f"ORDER BY {first}.position, {line}.position"
        )
        for (_, key), group in groupby(rows, key=itemgetter(1, 0)):
            yield (key if isinstance(key, str) else None), map(_spooled, group)

    def _group(self, key_index: int, key_of: Callable[[Any], str | None]) -> None:
        """Note the key of each row, and where each key comes first."""
        line, first, key = f"line{key_index}", f"first{key_index}", f"key{key_index}"
        self._db.create_function(key, 1, lambda cell: key_of(decode(cell)), deterministic=True)
        # Keys are TEXT, so a row without one can use its position, an INTEGER that equals no text.
        self._db.execute(
            f"CREATE TABLE {line} AS SELECT position, coalesce({key}(c{key_index}), position) AS key FROM row"  # noqa: S608 - constant names
        )
        self._db.execute(f"CREATE INDEX {line}_key ON {line} (key, position)")
        self._db.execute(f"CREATE TABLE {first} (position INTEGER PRIMARY KEY, key)")
        self._db.execute(f"INSERT INTO {first} SELECT min(position), key FROM {line} GROUP BY key ORDER BY 1")  # noqa: S608 - constant names


def _encode_row(row: Sequence[object]) -> list[Stored]:
    return [cell if type(cell) is str or cell is None else encode(cell) for cell in row]


def _spooled(row: Sequence[Any]) -> SpooledRow:
    return SpooledRow(row[2], tuple(decode(cell) if type(cell) is bytes else cell for cell in row[3:]))
