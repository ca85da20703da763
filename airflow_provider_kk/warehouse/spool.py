"""Hold all rows of a statement or of a file in a private temporary file, not in memory.

The file is SQLite's own (`connect("")`): it has no name, nobody else can open it, and it is gone when it is
closed or when the process dies. SQLite places it in `SQLITE_TMPDIR`, `TMPDIR` or `/var/tmp`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from typing import Any, NamedTuple

from airflow_provider_kk.warehouse.cells import Stored, comparable_cell, decode, encode, encode_text

_CACHE_KIB = 16_384
_ROWS_AT_ONCE = 1_000


class SpooledRow(NamedTuple):
    """One row: its position in the statement's result or in the file, and its decoded cells."""

    position: int
    cells: tuple[Any, ...]


class RowKey(NamedTuple):
    """By what rows are grouped: `key_of` makes the key of a row's decoded cells of the columns `indexes`.

    With `fills_down` a row without a key has the key of the row above it. `name` identifies the key.
    """

    name: str
    indexes: tuple[int, ...]
    key_of: Callable[[tuple[Any, ...]], str | None]
    fills_down: bool = False


class Spool:
    """All rows of one statement, kept on disk. Close it, or use it in a `with`.

    It may move between threads, but only one may use it at a time. `first` is the position of the first row.
    """

    def __init__(self, names: Sequence[str], first: int = 1) -> None:
        self.names = tuple(names)
        self.rows = 0
        self._next = first
        self._grouped: dict[str, int] = {}
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        # A crash loses the file anyway, so nothing is written for its sake.
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            self._db.execute(f"PRAGMA {setting}")
        columns = ", ".join(f"c{index}" for index in range(len(self.names)))
        self._db.execute(f"CREATE TABLE row (position INTEGER PRIMARY KEY, {columns})")
        placeholders = ", ".join("?" for _ in self.names)
        self._insert = f"INSERT OR REPLACE INTO row VALUES (?, {placeholders})"  # noqa: S608 - constant names

    @classmethod
    def filled(cls, names: Sequence[str], rows: Iterable[Sequence[object] | None], first: int = 1) -> Spool:
        """Keep all rows, in batches; closed when reading them raises."""
        spool, source = cls(names, first), iter(rows)
        try:
            while batch := list(islice(source, _ROWS_AT_ONCE)):
                spool.add(batch)
        except BaseException:
            spool.close()
            raise
        return spool

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file."""
        self._db.close()

    def add(self, rows: Sequence[Sequence[object] | None]) -> None:
        """Append rows, each with one value for each name; None leaves its position out."""
        places = enumerate(rows, self._next)
        batch = [[position, *_encode_row(row)] for position, row in places if row is not None]
        self._db.execute("BEGIN")
        try:
            self._db.executemany(self._insert, batch)
        except UnicodeEncodeError:
            # Of the batch, some rows are already in: without a journal they are replaced, not rolled back.
            self._db.executemany(self._insert, [[encode_text(cell) for cell in row] for row in batch])
        self._db.execute("COMMIT")
        self.rows += len(batch)
        self._next += len(rows)

    def column(self, index: int) -> Iterator[Any]:
        """Yield the decoded values of one column that are not NULL."""
        for (cell,) in self._db.execute(f"SELECT c{index} FROM row WHERE c{index} IS NOT NULL"):  # noqa: S608 - constant names
            yield decode(cell)

    def equal_rows(self, positions: Iterable[int]) -> list[list[int]]:
        """Return those of the rows at these positions that are equal in every column, put together.

        Cells that are one value in two spellings are equal.
        """
        query = "SELECT * FROM row WHERE position = ?"
        equal: dict[tuple[Any, ...], list[int]] = {}
        for position in positions:
            row = self._db.execute(query, (position,)).fetchone()[1:]
            equal.setdefault(tuple(map(comparable_cell, row)), []).append(position)
        return [group for group in equal.values() if len(group) > 1]

    def groups(
        self, key: RowKey, indexes: Sequence[int]
    ) -> Iterator[tuple[str | None, Iterator[SpooledRow]]]:
        """Yield rows with the same key together; groups by first appearance, rows in the statement's order.

        A row without a key is a group of its own. Only the columns `indexes` are read. Use a group's rows
        before asking for the next group.
        """
        number = self._group(key)
        line, first = f"line{number}", f"first{number}"
        rows = self._db.execute(
            f"SELECT {first}.key, {first}.position, row.position{_cells(indexes)} FROM {first} "  # noqa: S608 - constant names
            f"CROSS JOIN {line} ON {line}.key = {first}.key CROSS JOIN row ON row.position = {line}.position "
            f"ORDER BY {first}.position, {line}.position"
        )
        for (_, found), group in groupby(rows, key=itemgetter(1, 0)):
            yield (found if isinstance(found, str) else None), map(_spooled, group)

    def rows_without_key(
        self, key: RowKey, indexes: Sequence[int]
    ) -> Iterator[tuple[SpooledRow, list[tuple[str, SpooledRow]]]]:
        """Yield rows without a key, the last one first, each with its nearest rows that have a key.

        Neighbours are given with their keys.
        """
        line = f"line{self._group(key)}"
        keyed = f"SELECT other.position FROM {line} other WHERE typeof(key) = 'text' AND other.position"  # noqa: S608 - constant names
        row_at = (
            f"SELECT {line}.key, 0, row.position{_cells(indexes)} FROM {line} JOIN row USING (position) "  # noqa: S608 - constant names
            "WHERE row.position = ?"
        )
        for places in self._db.execute(
            f"SELECT position, ({keyed} < {line}.position ORDER BY 1 DESC LIMIT 1), "  # noqa: S608 - constant names
            f"({keyed} > {line}.position ORDER BY 1 LIMIT 1) FROM {line} WHERE typeof(key) = 'integer' "
            "ORDER BY position DESC"
        ):
            one, *neighbours = (
                self._db.execute(row_at, (place,)).fetchone() for place in places if place is not None
            )
            yield _spooled(one), [(row[0], _spooled(row)) for row in neighbours]

    def keys_alike(self, key: RowKey) -> Iterator[tuple[str, int]]:
        """Yield keys that differ only in case, spaces, `#` or leading zeros, with a row of another one."""
        first = f"first{self._group(key)}"
        alike = "upper(ltrim(replace(key, ' ', ''), '#0'))"
        texts = f"SELECT key, position, {alike} AS form FROM {first} WHERE typeof(key) = 'text'"  # noqa: S608 - constant names
        yield from self._db.execute(
            f"SELECT one.key, CASE one.position WHEN low THEN high ELSE low END FROM ({texts}) one "  # noqa: S608 - constant names
            f"JOIN (SELECT form, min(position) AS low, max(position) AS high FROM ({texts}) "
            "GROUP BY form HAVING count(*) > 1) USING (form)"
        )

    def _group(self, key: RowKey) -> int:
        """Note the key of each row, and where each key comes first; return the number of the tables."""
        if key.name in self._grouped:
            return self._grouped[key.name]
        number = self._grouped[key.name] = len(self._grouped)
        line, first = f"line{number}", f"first{number}"
        # Keys are TEXT, so a row without one can use its position, an INTEGER that equals no text.
        self._db.execute(f"CREATE TABLE {line} (position INTEGER PRIMARY KEY, key)")
        rows = self._db.execute(f"SELECT position{_cells(key.indexes)} FROM row ORDER BY position")  # noqa: S608 - constant names
        self._db.execute("BEGIN")
        self._db.executemany(f"INSERT INTO {line} VALUES (?, ?)", _keyed(rows, key))  # noqa: S608 - constant names
        self._db.execute("COMMIT")
        self._db.execute(f"CREATE INDEX {line}_key ON {line} (key, position)")
        self._db.execute(f"CREATE INDEX {line}_keyed ON {line} (position) WHERE typeof(key) = 'text'")
        self._db.execute(f"CREATE TABLE {first} (position INTEGER PRIMARY KEY, key)")
        self._db.execute(f"INSERT INTO {first} SELECT min(position), key FROM {line} GROUP BY key ORDER BY 1")  # noqa: S608 - constant names
        return number


def _cells(indexes: Sequence[int]) -> str:
    return "".join(f", row.c{index}" for index in indexes)


def _keyed(rows: Iterable[Sequence[Any]], key: RowKey) -> Iterator[tuple[int, str | int]]:
    """Yield each row's position and its key, for which a row without one has its position."""
    above: str | None = None
    for row in rows:
        found = key.key_of(_decoded(row[1:]))
        if found is None and key.fills_down:
            found = above
        above = found
        yield row[0], row[0] if found is None else found


def _encode_row(row: Sequence[object]) -> list[Stored]:
    return [cell if type(cell) is str or cell is None else encode(cell) for cell in row]


def _spooled(row: Sequence[Any]) -> SpooledRow:
    return SpooledRow(row[2], _decoded(row[3:]))


def _decoded(cells: Sequence[Any]) -> tuple[Any, ...]:
    if bytes not in map(type, cells):
        return tuple(cells)
    return tuple(decode(cell) if type(cell) is bytes else cell for cell in cells)
