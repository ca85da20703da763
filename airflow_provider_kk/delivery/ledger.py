"""The ledger: a write-ahead record of each order number, with every change that a worker may make.

Each change is one short transaction, by compare-and-set on (state, attempt, version) or by the row's lock.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Generic, TypeVar

from airflow_provider_kk.delivery.clock import CLOCKS_AGREE_S, Clock
from airflow_provider_kk.delivery.model import (
    BLANK,
    MAX_MESSAGE,
    Attempt,
    AttemptChanges,
    AttemptResult,
    Claim,
    Content,
    DailyCapError,
    Epoch,
    Job,
    Origin,
    Record,
    RecordChanges,
    Timing,
    created_values,
    union,
)
from airflow_provider_kk.delivery.states import DOUBTFUL, TRANSITIONS, Event, State, follow
from airflow_provider_kk.delivery.storage import KeyTakenError, Storage, Transaction

_DAY_S = 86_400.0
#: A standby that takes over lacks the commits of seconds, in which KK takes 2 orders each.
_REMEMBERED = 200
#: Retries of a rejected order: its back-off is 15 minutes at first, twice as long after each rejection, at
#: most a day.
_FIRST_BACKOFF_S, _LONGEST_BACKOFF_S = 900.0, 86_400.0

T = TypeVar("T")
S_co = TypeVar("S_co", bound=Storage, covariant=True)


class Ledger(Generic[S_co]):
    """All operations of a worker on the rows of one account.

    `kk_skew_s` is KK's clock minus the worker's, in seconds; 0 while it is not known.

    :param max_orders_per_day: the most orders that the account may send within a day; None: no limit.
    :param new_version: returns a text that was never used before.
    """

    def __init__(
        self,
        storage: S_co,
        clock: Clock,
        timing: Timing | None = None,
        *,
        max_orders_per_day: int | None = None,
        new_version: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self.storage = storage
        self.host, self.account = storage.host, storage.account
        # The protocol has no rule for these: they are the storage's own.
        self.now, self.look_up, self.attempts = storage.now, storage.look_up, storage.attempts
        self.entries, self.close = storage.entries, storage.close
        self.clock = clock
        self.timing = timing or Timing()
        self.max_orders_per_day = max_orders_per_day
        self.new_version = new_version
        #: By version. Its operations are safe for threads.
        self._recent: OrderedDict[str, tuple[Claim, AttemptResult]] = OrderedDict()

    # Reading ---------------------------------------------------------------------------------------

    def generations(self, key: str) -> list[Record]:
        """Return every generation of a key, oldest first."""
        return self.storage.entries(key=key)

    def doubts(self) -> list[Record]:
        """Return the account's orders without a known outcome and without a live lease."""
        # A clock that was ahead may have written a lease that is too long.
        return self.storage.doubts(longest_lease_s=self.timing.lease_s + CLOCKS_AGREE_S)

    # Changing a row --------------------------------------------------------------------------------

    def compare_and_set(
        self, expected: Record, event: Event, values_at: Callable[[Transaction], RecordChanges]
    ) -> Record | None:
        """Apply `event` to a row that is unchanged since it was read; None if it changed."""
        state = follow(expected.state, event)
        return self.storage.transact(
            lambda tx: tx.change(expected, self.stamped(tx, {**values_at(tx), "state": state}))
        )

    def add(self, key: str, values_at: Callable[[Transaction], RecordChanges]) -> bool:
        """Add the first row of a key; False if another worker added it first."""
        try:
            self.storage.transact(lambda tx: tx.add(key, 1, {**BLANK, **self.stamped(tx, values_at(tx))}))
        except KeyTakenError:
            return False
        return True

    def stamped(self, tx: Transaction, values: RecordChanges) -> RecordChanges:
        """Return changes with a new version, so that workers that read the row before must read it again."""
        return {"version": self.new_version(), "updated_at": tx.now, **values}

    def _latest_now(self, tx: Transaction, kk_skew_s: float) -> Epoch:
        """Return the latest of three clocks, since one that is behind may soon be corrected."""
        wall = self.clock.wall()
        return tx.later(tx.now, max(wall, wall + kk_skew_s))

    def _earliest_now(self, tx: Transaction, kk_skew_s: float) -> Epoch:
        """Return the earliest of three clocks, since one that is ahead may soon be corrected."""
        wall = self.clock.wall()
        return tx.earlier(tx.now, min(wall, wall + kk_skew_s))

    # Claim and intent ------------------------------------------------------------------------------

    def claim(
        self, job: Job, expected: Record | None, *, origin: Origin, sync_id: str, kk_skew_s: float = 0.0
    ) -> Claim | None:
        """Commit the intent to POST a job; None if another worker changed its row.

        :param expected: the row as it was read before any listing; None if there was none.
        :raises DailyCapError: the account may send no more orders now.
        """
        claim = Claim(
            job=job,
            generation=expected.generation if expected else 1,
            attempt=(expected.attempt if expected else 0) + 1,
            version=self.new_version(),
            kk_skew_s=kk_skew_s,
        )
        tries = 0

        def work(tx: Transaction) -> Record | None:
            nonlocal tries
            tries += 1
            # The commit may have happened before its connection broke.
            if tries > 1 and (held := self._held(tx, claim)):
                return held
            if self.max_orders_per_day is not None:
                self._require_below_cap(tx, self.max_orders_per_day, claim.kk_skew_s)
            entry = self._take(tx, claim, expected, sync_id)
            if entry is not None:
                tx.add_attempt(self._intent(tx, claim, origin))
            elif tries > 1:
                return self._held(tx, claim)  # an earlier commit of this claim succeeded meanwhile
            return entry

        try:
            entry = self.storage.persist(work)
        except KeyTakenError:
            # Another worker inserted the key first, or this one did before its connection broke.
            entry = self.storage.persist(lambda tx: self._held(tx, claim)) if tries > 1 else None
        return replace(claim, entry=entry) if entry else None

    def _require_below_cap(self, tx: Transaction, most: int, kk_skew_s: float) -> None:
        # Claims of this account run one after the other here, so that no two use the last order of a day.
        tx.lock_account()
        # Settle times hold the latest of three clocks, so that a clock that is behind ends no day early.
        earliest_now = self._earliest_now(tx, kk_skew_s)
        count, first = tx.count_bought(earliest_now + (self.settle_delay_s - _DAY_S))
        if count >= most:
            raise DailyCapError(most, first - self.settle_delay_s + _DAY_S)

    def _held(self, tx: Transaction, claim: Claim) -> Record | None:
        entry = tx.read(claim.job.key, claim.generation)
        return entry if entry is not None and entry.version == claim.version else None

    def _take(self, tx: Transaction, claim: Claim, expected: Record | None, sync_id: str) -> Record | None:
        values: RecordChanges = {
            "content": claim.job.content,
            "state": follow(expected.state if expected else None, Event.INTENT),
            "attempt": claim.attempt,
            "version": claim.version,
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
        """Seconds from an intent until KK's list proves its outcome, if its worker records none."""
        return self.timing.lease_s + self.timing.timeout_s + self.timing.settle_window_s

    def _intent(self, tx: Transaction, claim: Claim, origin: Origin) -> Attempt:
        return Attempt(
            key=claim.job.key,
            generation=claim.generation,
            attempt=claim.attempt,
            version=claim.version,
            content=claim.job.content,
            intent_at=self._earliest_now(tx, claim.kk_skew_s),
            settle_after=self._latest_now(tx, claim.kk_skew_s) + self.settle_delay_s,
            dag_id=origin.dag_id,
            run_id=origin.run_id,
            task_id=origin.task_id,
            try_number=origin.try_number,
        )

    # Waits that a wrong clock made too long ----------------------------------------------------------

    def shorten_waits(self, expected: Record, kk_skew_s: float | None) -> Record | None:
        """Shorten waits that are longer than their rule allows; None if there are none or the row changed.

        A clock that was ahead wrote such times. All POSTs were sent before this call, so a full settle delay
        from now is safe. While KK's clock is not known (`kk_skew_s` None), nothing is shortened, since the
        worker's clock may be wrong.
        """
        if kk_skew_s is None or not self.waits_too_long(expected, kk_skew_s):
            return None

        def shortened(tx: Transaction) -> RecordChanges:
            backoff_s = _backoff_s(expected.rejections)
            return {
                "settle_after": self._latest_now(tx, kk_skew_s) + self._settle_delay_of(expected),
                "lease_until": tx.earlier(tx.now + self.timing.lease_s, expected.lease_until),
                "retry_after": tx.earlier(tx.now + backoff_s, expected.retry_after),
            }

        return self.storage.transact(lambda tx: tx.change(expected, self.stamped(tx, shortened(tx))))

    def waits_too_long(self, expected: Record, kk_skew_s: float) -> bool:
        """Return whether a row's settle time is later than any that would be written now."""
        wall = self.clock.wall()
        latest = expected.settle_after - self._settle_delay_of(expected) - CLOCKS_AGREE_S
        return latest > max(wall, wall + kk_skew_s) and latest > self.now()

    def _settle_delay_of(self, expected: Record) -> float:
        if expected.state is not State.SENDING:
            return self.settle_delay_s
        # The lease of another connection may be longer.
        lease_s = expected.lease_until - expected.updated_at
        return self.settle_delay_s + max(0.0, lease_s - self.timing.lease_s)

    # Recording a result ----------------------------------------------------------------------------

    def record(self, claim: Claim, answer: AttemptResult) -> Record:
        """Store the result of a claim's POST, also when another worker owns the row now; return the row.

        If the intent is gone, a failover lost the last commits: then recent results are stored again.
        """
        entry, is_known = self._persist_answer(partial(self._record, claim=claim, answer=answer))
        if is_known:
            self._recent[claim.version] = claim, answer
            if len(self._recent) > _REMEMBERED:
                self._recent.popitem(last=False)
        else:
            self._record_lost()
        return entry

    def _persist_answer(self, work: Callable[[Transaction], T]) -> T:
        try:
            return self.storage.persist(work)
        except KeyTakenError:  # the row was lost, and another worker added it again first
            return self.storage.persist(work)

    def _record_lost(self) -> None:
        for claim, answer in list(self._recent.values()):
            has_recorded = partial(self._has_recorded, claim=claim, answer=answer)
            if answer.event is not Event.NOT_SENT and not self._persist_answer(has_recorded):
                # Only once, since a later change of the order, as by a person, must stay.
                self._recent.pop(claim.version, None)

    def _has_recorded(self, tx: Transaction, claim: Claim, answer: AttemptResult) -> bool:
        """Record an answer again if it is lost; return whether the ledger has its intent."""
        known = tx.attempts(claim.job.key, claim.generation)
        if any(one.version == claim.version and one.outcome for one in known):
            return True
        return self._record(tx, claim, answer)[1]

    def _record(self, tx: Transaction, claim: Claim, answer: AttemptResult) -> tuple[Record, bool]:
        """Store an answer; return the row, and whether the ledger has the intent."""
        result: AttemptChanges = {
            "outcome": answer.event.value,
            "code": answer.code,
            "message": answer.message[:MAX_MESSAGE],
            "kk_order_ids": answer.kk_order_ids,
            "recorded_at": tx.now,
        }
        is_known = tx.answer_attempt(claim, result)
        if not is_known and claim.entry is not None and answer.event is not Event.NOT_SENT:
            # KK's list is read from this POST on, which may be long ago.
            since, settle_after = claim.entry.updated_at, claim.entry.settle_after
            intent = self._intent(tx, claim, Origin())
            tx.add_attempt(replace(intent, intent_at=since, settle_after=settle_after, **result))
        return self._record_in_row(tx, claim, answer, is_known=is_known), is_known

    def _record_in_row(
        self, tx: Transaction, claim: Claim, answer: AttemptResult, *, is_known: bool
    ) -> Record:
        if claim.entry is not None and is_known:
            own = self.stamped(tx, self._own_answer(tx, claim.entry, answer, claim.kk_skew_s))
            if written := tx.change(claim.entry, own):
                return written
        entry = tx.lock(claim.job.key, claim.generation)
        if entry is None:
            return tx.add(claim.job.key, claim.generation, self._forgotten(tx, claim, answer))
        # After a restored backup, the number of an attempt can occur twice.
        if entry.state is State.SENDING and entry.attempt == claim.attempt and is_known:
            changes: RecordChanges | None = self._own_answer(tx, entry, answer, claim.kk_skew_s)
        elif answer.event is Event.CREATED:
            changes = self._late_answer(tx, entry, claim, answer)
        else:
            changes = None if is_known else self._forgotten_doubt(tx, entry, claim, answer)
        return tx.overwrite(entry, self.stamped(tx, changes)) if changes else entry

    def _forgotten(self, tx: Transaction, claim: Claim, answer: AttemptResult) -> RecordChanges:
        """Return the row of a claim that a restored backup lacks."""
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
    ) -> RecordChanges | None:
        """Return the changes to an older row that a failover restored, for a POST that it lacks."""
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
    ) -> RecordChanges:
        if entry.kk_order_ids:  # a late answer proved that an older attempt created the order
            return self._meet_late(tx, entry, answer, kk_skew_s)
        changes: RecordChanges = {
            "state": follow(entry.state, answer.event),
            "code": answer.code,
            "message": answer.message[:MAX_MESSAGE],
        }
        if answer.event is Event.CREATED:
            changes["kk_order_ids"], changes["created_at"] = answer.kk_order_ids, tx.now
        elif answer.event is Event.UNKNOWN:
            changes["settle_after"] = self._a_window_from_now(tx, entry, kk_skew_s)
        elif answer.event is Event.REJECTED:
            changes["rejections"] = entry.rejections + 1
            changes["retry_after"] = tx.now + _backoff_s(entry.rejections + 1)
            # KK may reject after it created a part of a split, so the settle window must pass first.
            changes["settle_after"] = self._latest_now(tx, kk_skew_s) + self.timing.settle_window_s
        return changes

    def _a_window_from_now(self, tx: Transaction, entry: Record, kk_skew_s: float) -> Epoch:
        return tx.later(self._latest_now(tx, kk_skew_s) + self.timing.settle_window_s, entry.settle_after)

    def _meet_late(
        self, tx: Transaction, entry: Record, answer: AttemptResult, kk_skew_s: float
    ) -> RecordChanges:
        if answer.event is Event.CREATED:
            return _created_or_conflict(entry, answer.kk_order_ids, tx.now)
        if answer.event is Event.UNKNOWN:
            return {
                "state": State.IN_DOUBT,
                "settle_after": self._a_window_from_now(tx, entry, kk_skew_s),
                "message": answer.message[:MAX_MESSAGE],
            }
        # The older attempt is the order.
        changes = created_values(entry, entry.kk_order_ids, tx.now)
        for one in tx.attempts(entry.key, entry.generation):
            if one.outcome == Event.CREATED.value:
                changes["content"] = one.content
        return changes

    def _late_answer(
        self, tx: Transaction, entry: Record, claim: Claim, answer: AttemptResult
    ) -> RecordChanges:
        if entry.state in DOUBTFUL:
            # The newer attempt may be created as well, so keep the ids until its outcome is known.
            return {"kk_order_ids": union(entry.kk_order_ids, answer.kk_order_ids)}
        changes = _created_or_conflict(entry, answer.kk_order_ids, tx.now)
        if entry.state is not State.CREATED and changes["state"] is State.CREATED:
            changes["content"] = claim.job.content
        return changes

    # Recording what KK's list shows ----------------------------------------------------------------

    def adopt(
        self,
        expected: Record,
        attempt: Attempt,
        ids: Sequence[str],
        *,
        created_at: float | None = None,
        sync_id: str | None = None,
    ) -> Record | None:
        """Record KK's listed orders as the effect of `attempt`; None if the row changed.

        :param created_at: KK's creation time, epoch seconds.
        :param sync_id: the sync that handles the order; None: the sync that sent it stays.
        """
        values: RecordChanges = {
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
        """Hold an order (CONFLICT or GIVEN_UP); None if the row changed."""
        values: RecordChanges = {
            "message": message[:MAX_MESSAGE],
            "kk_order_ids": union(expected.kk_order_ids, ids),
            "sync_id": sync_id or expected.sync_id,
        }
        return self.compare_and_set(expected, event, lambda _tx: values)

    def wait_for_splits(
        self, expected: Record, message: str, ids: Sequence[str], *, kk_skew_s: float
    ) -> Record | None:
        """Wait one more settle window until KK lists the other splits; None if the row changed."""
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
        """Store the fingerprint of an order that was adopted with the goods of `content`."""
        self.compare_and_set(expected, Event.FOUND, lambda _tx: {"content": content})

    # Without a POST --------------------------------------------------------------------------------

    def note_invalid(self, key: str, digest: str, message: str, *, sync_id: str) -> bool:
        """Record that an order's data is invalid; return whether this digest of it is new."""
        entry = self.look_up([key]).get(key)
        if (entry.state if entry else None, Event.FAULT) not in TRANSITIONS:
            return False  # it was sent before, and that outcome counts
        if entry is not None and entry.content.fingerprint == digest:
            return entry.sync_id == sync_id
        content = replace(entry.content if entry else Content(), fingerprint=digest)
        values: RecordChanges = {"content": content, "message": message[:MAX_MESSAGE], "sync_id": sync_id}
        if entry is None:
            self.add(key, lambda _tx: {**values, "state": follow(None, Event.FAULT)})
        else:
            self.compare_and_set(entry, Event.FAULT, lambda _tx: values)
        return True


AnyLedger = Ledger[Storage]


def _backoff_s(rejections: int) -> float:
    """Return the seconds before an order that KK rejected so often is retried."""
    return min(_FIRST_BACKOFF_S * (1 << max(0, rejections - 1)), _LONGEST_BACKOFF_S)


def _created_or_conflict(entry: Record, ids: Sequence[str], now: Epoch) -> RecordChanges:
    changes = created_values(entry, ids, now)
    # Two answers that share an id describe one order, since an answer may have only a part of the splits.
    is_other = bool(entry.kk_order_ids) and not set(entry.kk_order_ids) & set(ids)
    if is_other or (entry.state is State.HELD and entry.kk_order_ids):
        changes["state"] = State.HELD
        changes["message"] = (
            "conflict: two POSTs of this order were both created" if is_other else entry.message
        )
    return changes
