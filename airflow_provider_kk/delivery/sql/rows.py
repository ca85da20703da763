"""The ledger's rows as its tables keep them, in both directions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from airflow_provider_kk.delivery.model import Attempt, Record
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.states import State


def as_columns(values: Mapping[str, Any], jobs: tables.JobTables) -> dict[str, Any]:
    """Return the fields of a row as its table keeps them."""
    return {jobs.column(name): _AS_COLUMN.get(name, _as_is)(value) for name, value in values.items()}


def _as_is(value: Any) -> Any:
    return value


_AS_COLUMN: dict[str, Callable[[Any], Any]] = {
    "state": lambda state: state.value,
    "kk_order_ids": lambda ids: json.dumps(list(ids)),
    "goods": lambda goods: json.dumps(dict(sorted(goods.items())), separators=(",", ":")),
    "adopted": int,
}


def record_of(row: Any) -> Record:
    """Return what a row with `RECORD_FIELDS` says."""
    fields: list[Any] = list(row)
    for index, read in _READ_AS.items():
        fields[index] = read(fields[index])
    return Record(*fields)


def attempt_of(row: Any, jobs: tables.JobTables) -> Attempt:
    """Return what a whole row of a POST says."""
    values = {name: getattr(row, jobs.column(name)) for name in _ATTEMPT_FIELDS}
    values.update(kk_order_ids=tuple(json.loads(values["kk_order_ids"])), goods=json.loads(row.goods))
    return Attempt(**values)


RECORD_FIELDS = list(Record.__dataclass_fields__)
_READ_AS: dict[int, Callable[[Any], Any]] = {
    RECORD_FIELDS.index("state"): State,
    RECORD_FIELDS.index("kk_order_ids"): lambda text: tuple(json.loads(text)),
    RECORD_FIELDS.index("goods"): json.loads,
    RECORD_FIELDS.index("adopted"): bool,
}
_ATTEMPT_FIELDS = list(Attempt.__dataclass_fields__)


def where_equal(table: sa.Table, values: Mapping[str, Any]) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions under which a row has these values."""
    return tuple(table.c[name] == value for name, value in values.items())


def in_turn(attempt: sa.Table) -> tuple[Any, ...]:
    """Return what the rows of POSTs are ordered by."""
    # The time of an intent is the earliest of three clocks, and KK's has whole seconds.
    return (attempt.c.generation, attempt.c.attempt, attempt.c.intent_at)
