"""The write-ahead record of what is known of each order number: every way in which a row may change.

Each change is a short transaction of its own, and is either a compare-and-set on (state, attempt, version)
or made under the row's lock.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Generic, TypeVar

from airflow_provider_kk.delivery.clock import CLOCKS_AGREE_S, Clock
from airflow_provider_kk.delivery.model import (
    BLANK,
    MAX_MESSAGE,
    Attempt,
    AttemptResult,
    Claim,
    Content,
    Job,
    Origin,
    Record,
    Timing,
    created_values,
    union,
)
from airflow_provider_kk.delivery.states import DOUBTFUL, Event, State, can_follow, follow
from airflow_provider_kk.delivery.storage import KeyTakenError, Storage, Transaction

#: A rejected order is not tried again for 15 minutes, then twice as long each time, at most a day.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 900.0, 86_400.0

S_co = TypeVar("S_co", bound=Storage, covariant=True)


def _new_version() -> str:
    return secrets.token_hex(16)


class Ledger(Generic[S_co]):
    """Everything that a worker does with the rows of one account.

    Where a method takes `kk_skew_s`, that is KK's clock minus the worker's, 0 while it is not known.

    :param storage: keeps the rows.
    :param clock: the worker's.
    :param new_version: returns a text that nobody has had before.
    """

    def __init__(
        self,
        storage: S_co,
        clock: Clock,
        timing: Timing | None = None,
        *,
        new_version: Callable[[], str] = _new_version,
    ) -> None:
        self.storage = storage
        self.host, self.account = storage.host, storage.account
        self.clock = clock
        self.timing = timing or Timing()
        self.new_version = new_version

    def close(self) -> None:
        """Close the connections of the storage."""
        self.storage.close()

    # Reading ---------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the database's clock, epoch seconds."""
        return self.storage.now()

    def look_up(self, keys: Sequence[str]) -> dict[str, Record]:
        """Return the newest generation of each key that is known."""
        return self.storage.look_up(keys)

    def entries(
        self, *, states: Iterable[State] = (), key: str | None = None, limit: int | None = None
    ) -> list[Record]:
        """Return rows by state and key, least recently changed first."""
        return self.storage.entries(states=states, key=key, limit=limit)

    def generations(self, key: str) -> list[Record]:
        """Return every generation of a key, oldest first."""
        return self.storage.entries(key=key)

    def attempts(self, keys: Sequence[str]) -> list[Attempt]:
        """Return every POST of these keys, oldest first within each."""
        return self.storage.attempts(keys)

    def doubts(self) -> list[Record]:
        """Return what has no known outcome and no live lease: the account's open doubts."""
        # A lease that ends later than it can was written by a clock that was ahead.
        return self.storage.doubts(longest_lease_s=self.timing.lease_s + CLOCKS_AGREE_S)

    # Changing a row --------------------------------------------------------------------------------

    def compare_and_set(
        self, expected: Record, event: Event, values_at: Callable[[Transaction], Mapping[str, Any]]
    ) -> Record | None:
        """Let `event` happen to a row if it is as it was read; None when it has moved."""
        state = follow(expected.state, event)
        return self.storage.transact(
            lambda tx: tx.change(expected, self.stamped(tx, {**values_at(tx), "state": state}))
        )

    def add(self, key: str, values_at: Callable[[Transaction], Mapping[str, Any]]) -> bool:
        """Add the first row of a key; False when somebody else has just done so."""
        try:
            self.storage.transact(lambda tx: tx.add(key, 1, {**BLANK, **self.stamped(tx, values_at(tx))}))
        except KeyTakenError:
            return False
        return True

    def stamped(self, tx: Transaction, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a changed row, with a new version: who read it before must read it again."""
        return {"version": self.new_version(), "updated_at": tx.now, **values}

    def _latest_now(self, tx: Transaction, kk_skew_s: float) -> Any:
        """Return the latest of three clocks: what is behind may be set right soon."""
        wall = self.clock.wall()
        return tx.later(tx.now, max(wall, wall + kk_skew_s))

    def _earliest_now(self, tx: Transaction, kk_skew_s: float) -> Any:
        """Return the earliest of three clocks: what is ahead may be set right soon."""
        wall = self.clock.wall()
        return tx.earlier(tx.now, min(wall, wall + kk_skew_s))

    # A POST ----------------------------------------------------------------------------------------

    def claim(
        self, job: Job, expected: Record | None, *, origin: Origin, sync_id: str, kk_skew_s: float = 0.0
    ) -> Claim | None:
        """Commit the intent to POST a job, or return None when somebody else has moved it since.

        :param expected: the row as it was read before any listing; None when there was none.
        """
        claim = Claim(
            job=job,
            generation=expected.generation if expected else 1,
            attempt=(expected.attempt if expected else 0) + 1,
            token=self.new_version(),
            kk_skew_s=kk_skew_s,
        )
        tries = 0

        def work(tx: Transaction) -> Record | None:
            nonlocal tries
            tries += 1
            # The connection may have broken after the commit, before it said so.
            if tries > 1 and (held := self._held(tx, claim)):
                return held
            entry = self._take(tx, claim, expected, sync_id)
            if entry is not None:
                tx.add_attempt(claim, self._intent(tx, claim, origin))
            elif tries > 1:
                return self._held(tx, claim)  # that commit has only come through while this one waited for it
            return entry

        try:
            entry = self.storage.persist(work)
        except KeyTakenError:
            # Another worker inserted the same key first; or this one did, before its connection broke.
            entry = self.storage.persist(lambda tx: self._held(tx, claim)) if tries > 1 else None
        return replace(claim, entry=entry) if entry else None

    def _held(self, tx: Transaction, claim: Claim) -> Record | None:
        entry = tx.read(claim.job.key, claim.generation)
        return entry if entry is not None and entry.version == claim.token else None

    def _take(self, tx: Transaction, claim: Claim, expected: Record | None, sync_id: str) -> Record | None:
        values = {
            "content": claim.job.content,
            "state": follow(expected.state if expected else None, Event.INTENT),
            "attempt": claim.attempt,
            "version": claim.token,
            "lease_until": tx.now + self.timing.lease_s,
            "settle_after": self._latest_now(tx, claim.kk_skew_s) + self.settle_delay_s,
            "code": None,
            "message": "",
            "sync_id": sync_id,
            "adopted": False,
            "updated_at": tx.now,
        }
        if expected is None:
            return tx.add(claim.job.key, claim.generation, {**BLANK, **values})
        if expected.state in DOUBTFUL:
            values["resends"] = expected.resends + 1
        return tx.change(expected, values)

    @property
    def settle_delay_s(self) -> float:
        """How long after its intent KK's list tells what became of a POST that nobody came back from."""
        return self.timing.lease_s + self.timing.timeout_s + self.timing.settle_window_s

    def _intent(self, tx: Transaction, claim: Claim, origin: Origin) -> dict[str, Any]:
        return {
            "content": claim.job.content,
            "intent_at": self._earliest_now(tx, claim.kk_skew_s),
            "settle_after": self._latest_now(tx, claim.kk_skew_s) + self.settle_delay_s,
            "outcome": "",
            "code": None,
            "message": "",
            "kk_order_ids": (),
            "recorded_at": 0.0,
            "dag_id": origin.dag_id,
            "run_id": origin.run_id,
            "task_id": origin.task_id,
            "try_number": origin.try_number,
        }

    def bound_times(self, expected: Record, kk_skew_s: float | None) -> Record | None:
        """Shorten waits that are longer than their rule allows; None when none is, or when the row has moved.

        A clock that was ahead, and has been set right since, wrote such times. Everything was sent before
        this call, so a full settle delay from now is as safe as one from the intent. While KK's clock is not
        known (`kk_skew_s` None), nothing is shortened: it may be the worker's clock that is behind now.
        """
        if kk_skew_s is None or not self.waits_too_long(expected, kk_skew_s):
            return None
        return self.storage.transact(
            lambda tx: tx.change(
                expected,
                self.stamped(
                    tx,
                    {
                        "settle_after": self._latest_now(tx, kk_skew_s) + self._settle_delay_of(expected),
                        "lease_until": tx.earlier(tx.now + self.timing.lease_s, expected.lease_until),
                        "retry_after": tx.earlier(
                            tx.now + _pause_s(expected.rejections), expected.retry_after
                        ),
                    },
                ),
            )
        )

    def waits_too_long(self, expected: Record, kk_skew_s: float) -> bool:
        """Whether a row's settle time lies further ahead than any that would be written now."""
        wall = self.clock.wall()
        latest = expected.settle_after - self._settle_delay_of(expected) - CLOCKS_AGREE_S
        return latest > max(wall, wall + kk_skew_s) and latest > self.now()

    def _settle_delay_of(self, expected: Record) -> float:
        if expected.state is not State.SENDING:
            return self.settle_delay_s
        # The lease of another connection may be longer.
        return self.settle_delay_s + max(
            0.0, expected.lease_until - expected.updated_at - self.timing.lease_s
        )

    def record(self, claim: Claim, answer: AttemptResult) -> Record:
        """Store what became of a claim's POST, whoever holds the row by now, and return the row."""
        try:
            return self.storage.persist(lambda tx: self._record(tx, claim, answer))
        except KeyTakenError:  # the row was lost, and somebody else has just written it anew
            return self.storage.persist(lambda tx: self._record(tx, claim, answer))

    def _record(self, tx: Transaction, claim: Claim, answer: AttemptResult) -> Record:
        is_known = tx.answer_attempt(
            claim,
            {
                "outcome": answer.event.value,
                "code": answer.code,
                "message": answer.message[:MAX_MESSAGE],
                "kk_order_ids": answer.kk_order_ids,
                "recorded_at": tx.now,
            },
        )
        if claim.entry is not None and is_known:
            own = self.stamped(tx, self._own_answer(tx, claim.entry, answer, claim.kk_skew_s))
            if written := tx.change(claim.entry, own):
                return written
        entry = tx.lock(claim.job.key, claim.generation)
        if entry is None:
            return tx.add(claim.job.key, claim.generation, self._forgotten(tx, claim, answer))
        # The number of an attempt can come twice, when the ledger was restored from a backup between.
        if entry.state is State.SENDING and entry.attempt == claim.attempt and is_known:
            own = self.stamped(tx, self._own_answer(tx, entry, answer, claim.kk_skew_s))
            return tx.overwrite(entry, own)
        if answer.event is Event.CREATED:
            return tx.overwrite(entry, self.stamped(tx, self._late_answer(tx, entry, claim, answer)))
        if not is_known and (doubt := self._forgotten_doubt(tx, entry, claim, answer)):
            return tx.overwrite(entry, self.stamped(tx, doubt))
        return entry

    def _forgotten(self, tx: Transaction, claim: Claim, answer: AttemptResult) -> dict[str, Any]:
        """The row of a claim that the ledger has lost since: a backup was restored."""
        created = answer.event is Event.CREATED
        return {
            **BLANK,
            **self.stamped(tx, {"content": claim.job.content}),
            "state": State.CREATED if created else State.IN_DOUBT,
            "kk_order_ids": answer.kk_order_ids,
            "settle_after": self._latest_now(tx, claim.kk_skew_s) + self.settle_delay_s,
            "created_at": tx.now if created else 0.0,
            "message": "" if created else answer.message[:MAX_MESSAGE],
        }

    def _forgotten_doubt(
        self, tx: Transaction, entry: Record, claim: Claim, answer: AttemptResult
    ) -> dict[str, Any] | None:
        """What an older row, which a failover has brought back, has to learn of a POST that may be at KK."""
        if answer.event is Event.NOT_SENT or entry.state in (State.CREATED, State.HELD):
            return None
        latest_now = self._latest_now(tx, claim.kk_skew_s)
        settle_after = tx.later(latest_now + self.settle_delay_s, entry.settle_after)
        if entry.state in DOUBTFUL:
            return {"settle_after": settle_after}
        return {
            "content": claim.job.content,
            "state": State.IN_DOUBT,
            "settle_after": settle_after,
            "message": answer.message[:MAX_MESSAGE],
        }

    def _own_answer(
        self, tx: Transaction, entry: Record, answer: AttemptResult, kk_skew_s: float
    ) -> dict[str, Any]:
        if entry.kk_order_ids:  # an older attempt has turned out to be created meanwhile
            return self._meet_late(tx, entry, answer, kk_skew_s)
        changes: dict[str, Any] = {
            "state": follow(entry.state, answer.event),
            "code": answer.code,
            "message": answer.message[:MAX_MESSAGE],
        }
        if answer.event is Event.CREATED:
            changes.update(kk_order_ids=answer.kk_order_ids, created_at=tx.now)
        if answer.event is Event.UNKNOWN:
            changes.update(settle_after=self._a_window_from_now(tx, entry, kk_skew_s))
        if answer.event is Event.REJECTED:
            rejections = entry.rejections + 1
            changes.update(rejections=rejections, retry_after=tx.now + _pause_s(rejections))
            # A refusal may have come after half of a split was created: KK's list has to say.
            changes.update(settle_after=self._latest_now(tx, kk_skew_s) + self.timing.settle_window_s)
        return changes

    def _a_window_from_now(self, tx: Transaction, entry: Record, kk_skew_s: float) -> Any:
        return tx.later(self._latest_now(tx, kk_skew_s) + self.timing.settle_window_s, entry.settle_after)

    def _meet_late(
        self, tx: Transaction, entry: Record, answer: AttemptResult, kk_skew_s: float
    ) -> dict[str, Any]:
        if answer.event is Event.CREATED:
            return _created_or_conflict(entry, answer.kk_order_ids, tx.now)
        if answer.event is Event.UNKNOWN:
            return {
                "state": State.IN_DOUBT,
                "settle_after": self._a_window_from_now(tx, entry, kk_skew_s),
                "message": answer.message[:MAX_MESSAGE],
            }
        values = created_values(entry, entry.kk_order_ids, tx.now)
        return {**values, **self._content_of_created(tx, entry)}

    def _content_of_created(self, tx: Transaction, entry: Record) -> dict[str, Any]:
        """What the older attempt ordered that turned out to be created."""
        created = [
            one for one in tx.attempts(entry.key, entry.generation) if one.outcome == Event.CREATED.value
        ]
        return {"content": created[-1].content} if created else {}

    def _late_answer(
        self, tx: Transaction, entry: Record, claim: Claim, answer: AttemptResult
    ) -> dict[str, Any]:
        if entry.state in DOUBTFUL:
            # The newer attempt may have been created as well: keep the ids, its outcome decides.
            return {"kk_order_ids": union(entry.kk_order_ids, answer.kk_order_ids)}
        changes = _created_or_conflict(entry, answer.kk_order_ids, tx.now)
        if entry.state is not State.CREATED and changes["state"] is State.CREATED:
            changes.update(content=claim.job.content)
        return changes

    # What KK's list says ---------------------------------------------------------------------------

    def adopt(
        self,
        expected: Record,
        attempt: Attempt,
        ids: Sequence[str],
        *,
        created_at: float | None = None,
        sync_id: str | None = None,
    ) -> Record | None:
        """Take what was found at KK as the effect of `attempt`; None when the row has moved.

        :param created_at: KK's creation time, epoch seconds.
        :param sync_id: the sync that has the order at hand; None leaves it with the one that sent it.
        """
        values = {
            **created_values(expected, ids, created_at or attempt.intent_at),
            "adopted": True,
            "content": attempt.content,
            "sync_id": sync_id or expected.sync_id,
        }
        return self.compare_and_set(expected, Event.FOUND, lambda _tx: values)

    def hold(
        self,
        expected: Record,
        event: Event,
        message: str,
        ids: Sequence[str] = (),
        *,
        sync_id: str | None = None,
    ) -> Record | None:
        """Leave it to a human (CONFLICT or GIVEN_UP); None when the row has moved."""
        values = {
            "message": message[:MAX_MESSAGE],
            "kk_order_ids": union(expected.kk_order_ids, ids),
            "sync_id": sync_id or expected.sync_id,
        }
        return self.compare_and_set(expected, event, lambda _tx: values)

    def wait_for_rest(
        self, expected: Record, message: str, ids: Sequence[str], *, kk_skew_s: float
    ) -> Record | None:
        """Give KK one more settle window to show the rest of an order; None when the row has moved."""
        return self.compare_and_set(
            expected,
            Event.INCOMPLETE,
            lambda tx: {
                "message": message[:MAX_MESSAGE],
                "kk_order_ids": union(expected.kk_order_ids, ids),
                "settle_after": self._latest_now(tx, kk_skew_s) + self.timing.settle_window_s,
            },
        )

    def attach_fingerprint(self, expected: Record, content: Content) -> None:
        """Note the fingerprint of an order that was found at KK with the goods of `content`."""
        self.compare_and_set(expected, Event.FOUND, lambda _tx: {"content": content})

    # Without a POST --------------------------------------------------------------------------------

    def note_invalid(self, key: str, digest: str, message: str, *, sync_id: str) -> bool:
        """Remember that a key's data is invalid; True when this digest of it was not known yet."""
        entry = self.look_up([key]).get(key)
        if not can_follow(entry.state if entry else None, Event.FAULT):
            return False  # it was sent before: what became of it is what counts
        if entry is not None and entry.content.fingerprint == digest:
            return entry.sync_id == sync_id
        content = replace(entry.content if entry else Content(), fingerprint=digest)
        values = {"content": content, "message": message[:MAX_MESSAGE], "sync_id": sync_id}
        if entry is None:
            state = follow(None, Event.FAULT)
            self.add(key, lambda _tx: {**values, "state": state})
        else:
            self.compare_and_set(entry, Event.FAULT, lambda _tx: values)
        return True


AnyLedger = Ledger[Storage]


def _pause_s(rejections: int) -> float:
    return min(_FIRST_PAUSE_S * (1 << max(0, rejections - 1)), _LONGEST_PAUSE_S)


def _created_or_conflict(entry: Record, ids: Sequence[str], now: Any) -> dict[str, Any]:
    changes = created_values(entry, ids, now)
    # Two answers that share an id speak of one order; a split may be named in part.
    is_other = bool(entry.kk_order_ids) and not set(entry.kk_order_ids) & set(ids)
    if is_other or (entry.state is State.HELD and entry.kk_order_ids):
        changes["state"] = State.HELD
        changes["message"] = (
            "conflict: two POSTs of this order were both created" if is_other else entry.message
        )
    return changes
