"""The interface between the ledger and the storage of its rows.

`SqlStorage` stores them in a database, `tests/simulation/memory.py` in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from airflow_provider_kk.delivery.model import (
    Attempt,
    AttemptChanges,
    Claim,
    Epoch,
    Origin,
    Pause,
    Record,
    RecordChanges,
)
from airflow_provider_kk.delivery.states import State

T = TypeVar("T")


class KeyTakenError(Exception):
    """Another worker added the same key first; the transaction is rolled back."""


class Transaction(Protocol):
    """A transaction: all of its changes are committed durably, or none."""

    @property
    def now(self) -> Epoch:
        """The database's clock."""

    def later(self, moment: Epoch, epoch: float) -> Epoch:
        """Return the later of a time that is made with `now` and another one."""

    def earlier(self, moment: Epoch, epoch: float) -> Epoch:
        """Return the earlier of a time that is made with `now` and another one."""

    def read(self, key: str, generation: int) -> Record | None:
        """Return a row."""

    def lock(self, key: str, generation: int) -> Record | None:
        """Lock a row, so that no other transaction changes it until this one ends, and return it."""

    def add(self, key: str, generation: int, values: RecordChanges) -> Record:
        """Add a row and return it.

        :raises KeyTakenError: there is such a row already.
        """

    def change(self, expected: Record, values: RecordChanges) -> Record | None:
        """Change a row and return it, if its state, attempt and version are still those of `expected`."""

    def overwrite(self, locked: Record, values: RecordChanges) -> Record:
        """Change a row that this transaction has locked, and return it."""

    def add_attempt(self, attempt: Attempt) -> None:
        """Add the row of a POST."""

    def answer_attempt(self, claim: Claim, values: AttemptChanges) -> bool:
        """Change the row of a claim's POST; return whether there is one."""

    def attempts(self, key: str, generation: int) -> list[Attempt]:
        """Return the POSTs of a row, oldest first."""

    def lock_account(self) -> None:
        """Make other transactions that lock the account wait until this one ends."""

    def count_bought(self, settle_after: Epoch) -> tuple[int, float]:
        """Count the account's POSTs that may have bought something; return also the first settle time.

        :param settle_after: count only POSTs whose settle time is later.
        """


@dataclass(frozen=True)
class RunRow:
    """The columns of a row in `kk_sync_run` that are read again."""

    sync_id: str
    try_number: int
    started_at: float
    try_started_at: float
    state: str
    summary: Mapping[str, Any]


class Storage(Protocol):
    """The rows of one account, and short transactions on them."""

    host: str
    account: str
    has_own_clock: bool
    """Whether the database has a clock of its own."""

    def close(self) -> None:
        """Close the connections."""

    # Transactions ----------------------------------------------------------------------------------

    def persist(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction; retry after any transient error.

        The work must be safe to run twice, since a commit may succeed before its connection breaks.
        """

    def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work`, which must not run twice, in a transaction; retry only after a rollback."""

    def now(self) -> float:
        """Return the database's clock, epoch seconds."""

    # Reading ---------------------------------------------------------------------------------------

    def look_up(self, keys: Sequence[str]) -> dict[str, Record]:
        """Return the newest generation of each of these keys in the ledger."""

    def entries(
        self, *, states: Iterable[State] = (), key: str | None = None, limit: int | None = None
    ) -> list[Record]:
        """Return rows by state and key, least recently changed first."""

    def of_sync(self, sync_id: str) -> Iterator[Record]:
        """Yield the rows that this sync was the last to change."""

    def doubts(self, *, longest_lease_s: float) -> list[Record]:
        """Return the orders without a known outcome and without a live lease.

        :param longest_lease_s: a lease that ends later than this from now counts as over.
        """

    def attempts(self, keys: Sequence[str]) -> list[Attempt]:
        """Return every POST of these keys, oldest first within each."""

    def sent_ids(self, keys: Sequence[str]) -> dict[str, set[str]]:
        """Return the kkOrderIds of orders that the ledger's POSTs created, by key.

        Adopted orders are left out, since they prove nothing about KK's list.
        """

    def newest_sent(self, *, before: float, limit: int) -> list[Record]:
        """Return orders that the ledger's POSTs created before a time, newest first."""

    def is_of_another_key(self, kk_order_id: str, key: str) -> bool:
        """Return whether the ledger has this kkOrderId under another number; reads the whole account."""

    # The account -----------------------------------------------------------------------------------

    def recovered_until(self) -> float:
        """Return the time up to which KK's list was recovered, by KK's clock, epoch seconds."""

    def set_recovered_until(self, epoch: float) -> None:
        """Move the stamp forward."""

    def pause(self) -> Pause | None:
        """Return the account's pause; None while sending is allowed."""

    # The syncs -------------------------------------------------------------------------------------

    def newest_run(self, origin: Origin) -> RunRow | None:
        """Return the last sync that this task began."""

    def add_run(self, run: RunRow, origin: Origin) -> None:
        """Add a sync."""

    def change_run(self, sync_id: str, values: Mapping[str, Any]) -> None:
        """Change a sync; a new summary also sets the time of its end."""
