"""What is read and changed in one transaction of the ledger's database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from airflow_provider_kk.delivery.model import Attempt, Claim, Record
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.database import Database
from airflow_provider_kk.delivery.sql.rows import (
    RECORD_FIELDS,
    as_columns,
    attempt_of,
    in_turn,
    record_of,
    where_equal,
)
from airflow_provider_kk.delivery.sql.statements import Moment, Statements


class SqlTransaction:
    """A `Transaction` on a connection of the ledger's database."""

    def __init__(
        self,
        db: Connection,
        database: Database,
        statements: Statements,
        jobs: tables.JobTables,
        account_filter: Mapping[str, str],
        token_fingerprint: str,
    ) -> None:
        self._db, self._database, self._statements = db, database, statements
        self._jobs, self._job, self._attempt = jobs, jobs.job, jobs.attempt
        self._columns = jobs.columns(RECORD_FIELDS)
        self._account_filter = account_filter
        self._token_fingerprint = token_fingerprint
        self._returning = self._columns if database.returns_rows else ()

    @property
    def now(self) -> Any:
        """The database's clock, as a value to write."""
        here = self._database.time_here()
        return Moment() if here is None else here

    def later(self, first: Any, second: Any) -> Any:
        """Return the later of two times, of which one is made with `now`."""
        if isinstance(first, Moment):
            return first.at_least(second)
        return second.at_least(first) if isinstance(second, Moment) else max(first, second)

    def earlier(self, first: Any, second: Any) -> Any:
        """Return the earlier of two times, of which one is made with `now`."""
        if isinstance(first, Moment):
            return first.at_most(second)
        return second.at_most(first) if isinstance(second, Moment) else min(first, second)

    def read(self, key: str, generation: int) -> Record | None:
        """Return a row."""
        return self._one(
            self._statements.select(self._db, self._columns, self._job, self._primary_key(key, generation))
        )

    def lock(self, key: str, generation: int) -> Record | None:
        """Return a row, which nobody else can change until the transaction ends."""
        where_row = where_equal(self._job, self._primary_key(key, generation))
        return self._one(self._db.execute(sa.select(*self._columns).where(*where_row).with_for_update()))

    def _one(self, result: Any) -> Record | None:
        row = result.one_or_none()
        return record_of(row) if row else None

    def add(self, key: str, generation: int, values: Mapping[str, Any]) -> Record:
        """Add a row and return it."""
        row = self._primary_key(key, generation) | as_columns(values, self._jobs)
        result = self._statements.insert(self._db, self._job, row, returning=self._returning)
        return self._written(result, key, generation)

    def change(self, expected: Record, values: Mapping[str, Any]) -> Record | None:
        """Change a row and return it, if its state, attempt and version are still those of `expected`."""
        unchanged = self._primary_key(expected.key, expected.generation)
        unchanged.update(state=expected.state.value, attempt=expected.attempt, version=expected.version)
        return self._update(expected, unchanged, values)

    def overwrite(self, locked: Record, values: Mapping[str, Any]) -> Record:
        """Change a row that this transaction has locked, and return it."""
        written = self._update(locked, self._primary_key(locked.key, locked.generation), values)
        assert written is not None  # noqa: S101 - for the type checker: the row is locked or was just written
        return written

    def _update(self, old: Record, where: Mapping[str, Any], values: Mapping[str, Any]) -> Record | None:
        changes = as_columns(values, self._jobs)
        result = self._statements.update(self._db, self._job, where, changes, returning=self._returning)
        if self._returning:
            return self._one(result)
        if result.rowcount != 1:
            return None
        return self._written(result, values.get("key", old.key), old.generation)

    def _written(self, result: Any, key: str, generation: int) -> Record:
        entry = self._one(result) if self._returning else self.read(key, generation)
        assert entry is not None  # noqa: S101 - for the type checker: the row is locked or was just written
        return entry

    def add_attempt(self, claim: Claim, values: Mapping[str, Any]) -> None:
        """Add the row of a POST."""
        row = self._attempt_key(claim) | as_columns(values, self._jobs)
        row["token_fingerprint"] = self._token_fingerprint
        self._statements.insert(self._db, self._attempt, row)

    def answer_attempt(self, claim: Claim, values: Mapping[str, Any]) -> bool:
        """Change the row of a claim's POST; False when there is none."""
        where = self._attempt_key(claim)
        written = self._statements.update(self._db, self._attempt, where, as_columns(values, self._jobs))
        return bool(written.rowcount == 1)

    def _attempt_key(self, claim: Claim) -> dict[str, Any]:
        primary_key = self._primary_key(claim.job.key, claim.generation)
        primary_key.update(attempt=claim.attempt, version=claim.token)
        return primary_key

    def attempts(self, key: str, generation: int) -> list[Attempt]:
        """Return the POSTs of a row, oldest first."""
        query = sa.select(self._attempt).where(
            *where_equal(self._attempt, self._primary_key(key, generation))
        )
        return [
            attempt_of(row, self._jobs) for row in self._db.execute(query.order_by(*in_turn(self._attempt)))
        ]

    def _primary_key(self, key: str, generation: int) -> dict[str, Any]:
        return {**self._account_filter, self._jobs.key: key, "generation": generation}
