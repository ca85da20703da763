"""The ledger's rows as its tables keep them, in both directions."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from airflow_provider_kk.delivery.model import Attempt, Content, Record
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.states import State


def as_columns(values: Mapping[str, Any], jobs: tables.JobTables) -> dict[str, Any]:
    """Return the fields of a row as its table keeps them."""
    columns: dict[str, Any] = {}
    for name, value in values.items():
        if name == "content":
            columns.update(zip(_CONTENT_FIELDS, _content_columns(value), strict=True))
        else:
            columns[jobs.column(name)] = _AS_COLUMN.get(name, _as_is)(value)
    return columns


def _as_is(value: Any) -> Any:
    return value


def _content_columns(content: Content) -> tuple[str, str, str, str]:
    goods = json.dumps(dict(sorted(content.goods.items())), separators=(",", ":"))
    return content.fingerprint, goods, content.country, content.zip_digest


_AS_COLUMN: dict[str, Callable[[Any], Any]] = {
    "state": lambda state: state.value,
    "kk_order_ids": lambda ids: json.dumps(list(ids)),
    "adopted": int,
}


def record_of(row: Any) -> Record:
    """Return what a row with `RECORD_FIELDS` says."""
    fields: list[Any] = list(row)
    for index, read in _READ_AS.items():
        fields[index] = read(fields[index])
    fields[_CONTENT_AT : _CONTENT_AT + len(_CONTENT_FIELDS)] = [_content(row)]
    return Record(*fields)


def attempt_of(row: Any, jobs: tables.JobTables) -> Attempt:
    """Return what a whole row of a POST says."""
    values = {name: getattr(row, jobs.column(name)) for name in _ATTEMPT_FIELDS}
    values.update(kk_order_ids=tuple(json.loads(values["kk_order_ids"])))
    return Attempt(content=_content(row), **values)


def _content(row: Any) -> Content:
    return Content(row.fingerprint, json.loads(row.goods), row.country, row.zip_digest)


_CONTENT_FIELDS = list(Content.__dataclass_fields__)
_CONTENT_AT = list(Record.__dataclass_fields__).index("content")
#: The fields of a row, those of its content among them.
RECORD_FIELDS = list(Record.__dataclass_fields__)
RECORD_FIELDS[_CONTENT_AT : _CONTENT_AT + 1] = _CONTENT_FIELDS
_READ_AS: dict[int, Callable[[Any], Any]] = {
    RECORD_FIELDS.index("state"): State,
    RECORD_FIELDS.index("kk_order_ids"): lambda text: tuple(json.loads(text)),
    RECORD_FIELDS.index("adopted"): bool,
}
_ATTEMPT_FIELDS = [name for name in Attempt.__dataclass_fields__ if name != "content"]


def where_equal(table: sa.Table, values: Mapping[str, Any]) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions under which a row has these values."""
    return tuple(table.c[name] == value for name, value in values.items())


def in_turn(attempt: sa.Table) -> tuple[Any, ...]:
    """Return what the rows of POSTs are ordered by."""
    # The time of an intent is the earliest of three clocks, and KK's has whole seconds.
    return (attempt.c.generation, attempt.c.attempt, attempt.c.intent_at)
