"""What a ledger needs of the database that keeps its rows.

`SqlLedger` keeps them in a database. Whatever else offers this runs the same protocol, as a simulation does.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from airflow_provider_kk.delivery.clock import Clock
from airflow_provider_kk.delivery.model import Attempt, Claim, Origin, Record, Timing
from airflow_provider_kk.delivery.states import Event, State, follow

T = TypeVar("T")


class KeyTakenError(Exception):
    """Somebody else has just added the same key; the transaction is undone."""


class Transaction(Protocol):
    """Committed durably as a whole when its block ends, or not at all.

    Values are named like the fields of `Record` and `Attempt`.
    """

    @property
    def now(self) -> Any:
        """The database's clock, epoch seconds: a number, or an expression that stands for it in values."""
        ...

    def later(self, first: Any, second: Any) -> Any:
        """Return the later of two times, of which one is made with `now`."""
        ...

    def earlier(self, first: Any, second: Any) -> Any:
        """Return the earlier of two times, of which one is made with `now`."""
        ...

    def read(self, key: str, generation: int) -> Record | None:
        """Return a row."""
        ...

    def lock(self, key: str, generation: int) -> Record | None:
        """Return a row, which nobody else can change until the transaction ends."""
        ...

    def add(self, key: str, generation: int, values: Mapping[str, Any]) -> Record:
        """Add a row and return it.

        :raises KeyTakenError: there is one already.
        """
        ...

    def change(self, expected: Record, values: Mapping[str, Any]) -> Record | None:
        """Change a row and return it, if its state, attempt and version are still those of `expected`."""
        ...

    def overwrite(self, locked: Record, values: Mapping[str, Any]) -> Record:
        """Change a row that this transaction has locked, and return it."""
        ...

    def add_attempt(self, claim: Claim, values: Mapping[str, Any]) -> None:
        """Add the row of a POST."""
        ...

    def answer_attempt(self, claim: Claim, values: Mapping[str, Any]) -> bool:
        """Change the row of a claim's POST; False when there is none."""
        ...

    def attempts(self, key: str, generation: int) -> list[Attempt]:
        """Return the POSTs of a row, oldest first."""
        ...


@dataclass(frozen=True)
class RunRow:
    """A row of `kk_sync_run`, as far as it is read again."""

    sync_id: str
    try_number: int
    started_at: float
    try_started_at: float
    state: str
    summary: Mapping[str, Any]


class Store(ABC):
    """The rows of one account, and short transactions on them."""

    clock: Clock
    timing: Timing
    kk_skew_s: float = 0.0
    """KK's clock minus the worker's, as its last answer told."""
    has_own_clock: bool = True
    """Whether the database's clock is another one than the worker's."""
    host: str
    account: str

    # Transactions ----------------------------------------------------------------------------------

    @abstractmethod
    def persist(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction, again after a lost connection or a lock timeout.

        For work that may run twice: a commit may have happened when its connection broke.
        """

    @abstractmethod
    def transact(self, work: Callable[[Transaction], T]) -> T:
        """Run `work` in a transaction, again only when the database has undone it for another one's sake."""

    @abstractmethod
    def now(self) -> float:
        """Return the database's clock, epoch seconds."""

    def new_version(self) -> str:
        """Return a text that nobody has had before."""
        return secrets.token_hex(16)

    def _stamped(self, tx: Transaction, values: Mapping[str, Any]) -> dict[str, Any]:
        # A fresh token with every change: whoever has looked before must look again.
        return {"version": self.new_version(), "updated_at": tx.now, **values}

    def _latest_now(self, tx: Transaction) -> Any:
        """Return the later of the database's clock and the worker's: what is behind may be set right soon."""
        wall = self.clock.wall()
        return tx.later(tx.now, max(wall, wall + self.kk_skew_s))

    def _earliest_now(self, tx: Transaction) -> Any:
        """Return the earliest of three clocks: what is ahead may be set right soon."""
        wall = self.clock.wall()
        return tx.earlier(tx.now, min(wall, wall + self.kk_skew_s))

    def _compare_and_set(
        self, expected: Record, event: Event, values_at: Callable[[Transaction], Mapping[str, Any]]
    ) -> Record | None:
        """Let `event` happen to a row if it is as it was read; None when it has moved."""
        state = follow(expected.state, event)
        return self.transact(
            lambda tx: tx.change(expected, self._stamped(tx, {**values_at(tx), "state": state}))
        )

    # Reading ---------------------------------------------------------------------------------------

    @abstractmethod
    def look_up(self, keys: Sequence[str]) -> dict[str, Record]:
        """Return the newest generation of each key that is known."""

    @abstractmethod
    def entries(
        self, *, states: Iterable[State] = (), key: str | None = None, limit: int | None = None
    ) -> list[Record]:
        """Return rows by state and key, least recently changed first."""

    def generations(self, key: str) -> list[Record]:
        """Return every generation of a key, oldest first."""
        return self.entries(key=key)

    @abstractmethod
    def of_sync(self, sync_id: str) -> Iterator[Record]:
        """Yield the rows that this sync was the last to move."""

    @abstractmethod
    def doubts(self) -> list[Record]:
        """Return what has no known outcome and no live lease: the account's open doubts."""

    @abstractmethod
    def attempts(self, keys: Sequence[str]) -> list[Attempt]:
        """Return every POST of these keys, oldest first within each."""

    @abstractmethod
    def sent_ids(self, keys: Sequence[str]) -> dict[str, set[str]]:
        """Return the kkOrderIds of what was created by a POST of ours, by key.

        What was only found in KK's list says nothing about that list.
        """

    @abstractmethod
    def newest_sent(self, *, before: float, limit: int) -> list[Record]:
        """Return orders that POSTs of ours have created before a time, newest first."""

    @abstractmethod
    def is_of_another_key(self, kk_order_id: str, key: str) -> bool:
        """Whether the ledger knows this kkOrderId under another order number; reads the whole account."""

    # The account -----------------------------------------------------------------------------------

    @abstractmethod
    def recovered_until(self) -> float:
        """Return the time up to which KK's list is known, on KK's clock, epoch seconds."""

    @abstractmethod
    def set_recovered_until(self, epoch: float) -> None:
        """Move the stamp forward."""

    # The syncs -------------------------------------------------------------------------------------

    @abstractmethod
    def newest_run(self, origin: Origin) -> RunRow | None:
        """Return the last sync that this task has begun."""

    @abstractmethod
    def add_run(self, run: RunRow, origin: Origin) -> None:
        """Add a sync."""

    @abstractmethod
    def change_run(self, sync_id: str, values: Mapping[str, Any]) -> None:
        """Change a sync; a new summary stamps the time of its end."""
