"""The ledger's statements on a row, each made once and then run with other values.

Making a statement costs SQLAlchemy several times what running it does, and an order runs half a dozen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

_EPOCH = sa.Float(53)


@dataclass(frozen=True)
class Moment:
    """A time that the database tells as it writes: its clock plus `after_s`, from `floor` to `ceiling`."""

    after_s: float = 0.0
    floor: float = 0.0
    ceiling: float = 1e15

    def __add__(self, seconds: float) -> Moment:
        return Moment(self.after_s + seconds, self.floor + seconds, self.ceiling + seconds)

    def at_least(self, epoch: float) -> Moment:
        """Return the later of this and an epoch in seconds."""
        return Moment(self.after_s, max(self.floor, epoch), max(self.ceiling, epoch))

    def at_most(self, epoch: float) -> Moment:
        """Return the earlier of this and an epoch in seconds."""
        return Moment(self.after_s, min(self.floor, epoch), min(self.ceiling, epoch))


class Statements:
    """Runs statements by the names of what they compare and set.

    :param now: returns an expression for the database's clock.
    """

    def __init__(self, now: Callable[[], sa.ColumnElement[float]]) -> None:
        self._now = now
        self._made: dict[Any, Any] = {}

    def insert(
        self, db: Connection, table: sa.Table, values: Mapping[str, Any], *, returning: Sequence[Any] = ()
    ) -> Any:
        """Add a row; values may be a `Moment`."""
        return self._run(db, sa.insert, table, {}, values, returning)

    def update(
        self,
        db: Connection,
        table: sa.Table,
        where: Mapping[str, Any],
        values: Mapping[str, Any],
        *,
        returning: Sequence[Any] = (),
    ) -> Any:
        """Change the rows whose columns equal `where`; values may be a `Moment`."""
        return self._run(db, sa.update, table, where, values, returning)

    def select(
        self, db: Connection, columns: Sequence[Any], table: sa.Table, where: Mapping[str, Any]
    ) -> Any:
        """Read these columns of the rows whose columns equal `where`; of a table always the same ones."""
        shape = (sa.select, table, tuple(where))
        if shape not in self._made:
            self._made[shape] = sa.select(*columns).where(*_where_equal(table, where))
        return db.execute(self._made[shape], {f"is_{name}": value for name, value in where.items()})

    def _run(
        self,
        db: Connection,
        verb: Callable[[sa.Table], Any],
        table: sa.Table,
        where: Mapping[str, Any],
        values: Mapping[str, Any],
        returning: Sequence[Any],
    ) -> Any:
        moments = frozenset(name for name, value in values.items() if isinstance(value, Moment))
        shape = (verb, table, tuple(where), tuple(values), moments, bool(returning))
        statement = self._made.get(shape)
        if statement is None:
            statement = verb(table).values({name: self._set(name, name in moments) for name in values})
            if where:
                statement = statement.where(*_where_equal(table, where))
            if returning:
                statement = statement.returning(*returning)
            self._made[shape] = statement
        parameters = {f"is_{name}": value for name, value in where.items()}
        for name, value in values.items():
            if name in moments:
                parameters[f"after_{name}"] = value.after_s
                parameters[f"floor_{name}"], parameters[f"ceiling_{name}"] = value.floor, value.ceiling
            else:
                parameters[f"set_{name}"] = value
        return db.execute(statement, parameters)

    def _set(self, name: str, is_moment: bool) -> Any:
        if not is_moment:
            return sa.bindparam(f"set_{name}")
        moment = self._now() + sa.bindparam(f"after_{name}", type_=_EPOCH)
        moment = sa.func.greatest(moment, sa.bindparam(f"floor_{name}", type_=_EPOCH), type_=_EPOCH)
        return sa.func.least(moment, sa.bindparam(f"ceiling_{name}", type_=_EPOCH), type_=_EPOCH)


def _where_equal(table: sa.Table, where: Mapping[str, Any]) -> tuple[sa.ColumnElement[bool], ...]:
    return tuple(table.c[name] == sa.bindparam(f"is_{name}") for name in where)
