"""What a POST does to a row: its intent before, its answer after, and answers that come late."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow_provider_kk.delivery.clock import CLOCKS_AGREE_S
from airflow_provider_kk.delivery.job import Job
from airflow_provider_kk.delivery.model import (
    BLANK,
    MAX_MESSAGE,
    AttemptResult,
    Claim,
    Origin,
    Record,
    created_values,
    identity_of,
    union,
)
from airflow_provider_kk.delivery.states import DOUBTFUL, Event, State, follow
from airflow_provider_kk.delivery.storage import KeyTakenError, Store, Transaction

#: A rejected order rests for 15 minutes, then twice as long each time, at most a day.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 900.0, 86_400.0


class SendingLedger(Store):
    """The part of the ledger that a worker needs around a POST."""

    def claim(self, job: Job, expected: Record | None, *, origin: Origin, sync_id: str) -> Claim | None:
        """Commit the intent to POST a job, or return None when somebody else has moved it since.

        :param expected: the row as it was read before any listing; None when there was none.
        """
        claim = Claim(
            job=job,
            generation=expected.generation if expected else 1,
            attempt=(expected.attempt if expected else 0) + 1,
            token=self.new_version(),
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
            entry = self.persist(work)
        except KeyTakenError:
            # Another worker inserted the same key first; or this one did, before its connection broke.
            entry = self.persist(lambda tx: self._held(tx, claim)) if tries > 1 else None
        return Claim(job, claim.generation, claim.attempt, claim.token, entry) if entry else None

    def _held(self, tx: Transaction, claim: Claim) -> Record | None:
        entry = tx.read(claim.job.key, claim.generation)
        return entry if entry is not None and entry.version == claim.token else None

    def _take(self, tx: Transaction, claim: Claim, expected: Record | None, sync_id: str) -> Record | None:
        values = {
            **identity_of(claim.job),
            "state": follow(expected.state if expected else None, Event.INTENT),
            "attempt": claim.attempt,
            "version": claim.token,
            "lease_until": tx.now + self.timing.lease_s,
            "settle_after": self._latest_now(tx) + self.settle_delay_s,
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
            **identity_of(claim.job),
            "intent_at": self._earliest_now(tx),
            "settle_after": self._latest_now(tx) + self.settle_delay_s,
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

    def bound_times(self, expected: Record) -> Record | None:
        """Shorten waits that are longer than their rule allows; None when none is, or when the row has moved.

        A clock that was ahead, and has been set right since, wrote such times. Everything was sent before
        this call, so a full settle delay from now is as safe as one from the intent. `kk_skew_s` has to say
        what KK's clock is.
        """
        if not self.waits_too_long(expected):
            return None
        return self.transact(
            lambda tx: tx.change(
                expected,
                self._stamped(
                    tx,
                    {
                        "settle_after": self._latest_now(tx) + self._settle_delay_of(expected),
                        "lease_until": tx.earlier(tx.now + self.timing.lease_s, expected.lease_until),
                        "retry_after": tx.earlier(
                            tx.now + _pause_s(expected.rejections), expected.retry_after
                        ),
                    },
                ),
            )
        )

    def waits_too_long(self, expected: Record) -> bool:
        """Whether a row's settle time lies further ahead than any that would be written now."""
        wall = self.clock.wall()
        latest = expected.settle_after - self._settle_delay_of(expected) - CLOCKS_AGREE_S
        return latest > max(wall, wall + self.kk_skew_s) and latest > self.now()

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
            return self.persist(lambda tx: self._record(tx, claim, answer))
        except KeyTakenError:  # the row was lost, and somebody else has just written it anew
            return self.persist(lambda tx: self._record(tx, claim, answer))

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
            own = self._stamped(tx, self._own_answer(tx, claim.entry, answer))
            if written := tx.change(claim.entry, own):
                return written
        entry = tx.lock(claim.job.key, claim.generation)
        if entry is None:
            return tx.add(claim.job.key, claim.generation, self._forgotten(tx, claim, answer))
        # The number of an attempt can come twice, when the ledger was restored from a backup between.
        if entry.state is State.SENDING and entry.attempt == claim.attempt and is_known:
            return tx.overwrite(entry, self._stamped(tx, self._own_answer(tx, entry, answer)))
        if answer.event is Event.CREATED:
            return tx.overwrite(entry, self._stamped(tx, self._late_answer(tx, entry, claim, answer)))
        if not is_known and (doubt := self._forgotten_doubt(tx, entry, claim, answer)):
            return tx.overwrite(entry, self._stamped(tx, doubt))
        return entry

    def _forgotten(self, tx: Transaction, claim: Claim, answer: AttemptResult) -> dict[str, Any]:
        """The row of a claim that the ledger has lost since: a backup was restored."""
        created = answer.event is Event.CREATED
        return {
            **BLANK,
            **self._stamped(tx, identity_of(claim.job)),
            "state": State.CREATED if created else State.IN_DOUBT,
            "kk_order_ids": answer.kk_order_ids,
            "settle_after": self._latest_now(tx) + self.settle_delay_s,
            "created_at": tx.now if created else 0.0,
            "message": "" if created else answer.message[:MAX_MESSAGE],
        }

    def _forgotten_doubt(
        self, tx: Transaction, entry: Record, claim: Claim, answer: AttemptResult
    ) -> dict[str, Any] | None:
        """What an older row, which a failover has brought back, has to learn of a POST that may be at KK."""
        if answer.event is Event.NOT_SENT or entry.state in (State.CREATED, State.HELD):
            return None
        settle_after = tx.later(self._latest_now(tx) + self.settle_delay_s, entry.settle_after)
        if entry.state in DOUBTFUL:
            return {"settle_after": settle_after}
        return {
            **identity_of(claim.job),
            "state": State.IN_DOUBT,
            "settle_after": settle_after,
            "message": answer.message[:MAX_MESSAGE],
        }

    def _own_answer(self, tx: Transaction, entry: Record, answer: AttemptResult) -> dict[str, Any]:
        if entry.kk_order_ids:  # an older attempt has turned out to be created meanwhile
            return self._meet_late(tx, entry, answer)
        changes: dict[str, Any] = {
            "state": follow(entry.state, answer.event),
            "code": answer.code,
            "message": answer.message[:MAX_MESSAGE],
        }
        if answer.event is Event.CREATED:
            changes.update(kk_order_ids=answer.kk_order_ids, created_at=tx.now)
        if answer.event is Event.UNKNOWN:
            changes.update(settle_after=self._a_window_from_now(tx, entry))
        if answer.event is Event.REJECTED:
            rejections = entry.rejections + 1
            changes.update(rejections=rejections, retry_after=tx.now + _pause_s(rejections))
            # A refusal may have come after half of a split was created: KK's list has to say.
            changes.update(settle_after=self._latest_now(tx) + self.timing.settle_window_s)
        return changes

    def _a_window_from_now(self, tx: Transaction, entry: Record) -> Any:
        return tx.later(self._latest_now(tx) + self.timing.settle_window_s, entry.settle_after)

    def _meet_late(self, tx: Transaction, entry: Record, answer: AttemptResult) -> dict[str, Any]:
        if answer.event is Event.CREATED:
            return _created_or_conflict(entry, answer.kk_order_ids, tx.now)
        if answer.event is Event.UNKNOWN:
            return {
                "state": State.IN_DOUBT,
                "settle_after": self._a_window_from_now(tx, entry),
                "message": answer.message[:MAX_MESSAGE],
            }
        values = created_values(entry, entry.kk_order_ids, tx.now)
        return {**values, **self._identity_of_created(tx, entry)}

    def _identity_of_created(self, tx: Transaction, entry: Record) -> dict[str, Any]:
        """What the older attempt ordered that turned out to be created."""
        created = [
            one for one in tx.attempts(entry.key, entry.generation) if one.outcome == Event.CREATED.value
        ]
        names = ("fingerprint", "goods", "country", "zip_digest")
        return {name: getattr(created[-1], name) for name in names} if created else {}

    def _late_answer(
        self, tx: Transaction, entry: Record, claim: Claim, answer: AttemptResult
    ) -> dict[str, Any]:
        if entry.state in DOUBTFUL:
            # The newer attempt may have been created as well: keep the ids, its outcome decides.
            return {"kk_order_ids": union(entry.kk_order_ids, answer.kk_order_ids)}
        changes = _created_or_conflict(entry, answer.kk_order_ids, tx.now)
        if entry.state is not State.CREATED and changes["state"] is State.CREATED:
            changes.update(identity_of(claim.job))
        return changes


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
