"""What a POST does to a row: its intent before, its answer after, and answers that come late."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from airflow_provider_kk.delivery import tables
from airflow_provider_kk.delivery.job import Job
from airflow_provider_kk.delivery.rows import (
    BLANK,
    MAX_MESSAGE,
    Answer,
    Claim,
    Entry,
    Origin,
    created_values,
    identity_of,
    union,
)
from airflow_provider_kk.delivery.states import DOUBTFUL, Event, State, follow
from airflow_provider_kk.delivery.store import LedgerStore

_ORDER = tables.order
_ATTEMPT = tables.attempt
#: A rejected order rests for 15 minutes, then twice as long each time, at most a day.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 900.0, 86_400.0


class SendingLedger(LedgerStore):
    """The part of the ledger that a worker needs around a POST."""

    def begin(self, job: Job, seen: Entry | None, *, origin: Origin, sync_id: str) -> Claim | None:
        """Commit the intent to POST a job, or return None when somebody else has moved it since.

        :param seen: the row as it was read before any listing; None when there was none.
        """
        claim = Claim(
            job=job,
            generation=seen.generation if seen else 1,
            attempt=(seen.attempt if seen else 0) + 1,
            token=secrets.token_hex(16),
        )
        tries = 0

        def work(db: Connection) -> bool:
            nonlocal tries
            tries += 1
            # The connection may have broken after the commit, before it said so.
            if tries > 1 and self._holds(db, claim):
                return True
            if not self._take(db, claim, seen, sync_id):
                return False
            db.execute(_ATTEMPT.insert().values(self._intent(claim, origin)))
            return True

        try:
            return claim if self.database.persist(work) else None
        except IntegrityError:
            return None  # another worker inserted the same key first

    def _holds(self, db: Connection, claim: Claim) -> bool:
        row = db.execute(
            sa.select(_ORDER.c.claim_token).where(*self._is(_ORDER, claim.job.key, claim.generation))
        ).one_or_none()
        return row is not None and row.claim_token == claim.token

    def _take(self, db: Connection, claim: Claim, seen: Entry | None, sync_id: str) -> bool:
        now = self.database.now()
        state = follow(seen.state if seen else None, Event.INTENT)
        values = dict(
            identity_of(claim.job),
            state=state.value,
            attempt=claim.attempt,
            claim_token=claim.token,
            lease_until=now + self.terms.lease_s,
            settle_after=now + self.settle_delay_s,
            code=None,
            message="",
            sync_id=sync_id,
            adopted=0,
            updated_at=now,
        )
        if seen is None:
            row = dict(BLANK, **self._key(claim.job.key, claim.generation), **values)
            db.execute(_ORDER.insert().values(row))
            return True
        if seen.state in DOUBTFUL:
            values["resends"] = seen.resends + 1
        return bool(db.execute(self._if_unchanged(seen).values(values)).rowcount == 1)

    @property
    def settle_delay_s(self) -> float:
        """How long after its intent KK's list tells what became of a POST that nobody came back from."""
        return self.terms.lease_s + self.terms.timeout_s + self.terms.settle_window_s

    def _intent(self, claim: Claim, origin: Origin) -> dict[str, Any]:
        now = self.database.now()
        return dict(
            self._key(claim.job.key, claim.generation),
            **identity_of(claim.job),
            attempt=claim.attempt,
            claim_token=claim.token,
            intent_at=now,
            settle_after=now + self.settle_delay_s,
            token_fingerprint=self._token_fingerprint,
            outcome="",
            message="",
            kk_order_ids="[]",
            recorded_at=0.0,
            dag_id=origin.dag_id,
            run_id=origin.run_id,
            task_id=origin.task_id,
            try_number=origin.try_number,
        )

    def record(self, claim: Claim, answer: Answer) -> Entry:
        """Store what became of a claim's POST, whoever holds the row by now, and return the row."""
        try:
            return self.database.persist(lambda db: self._record(db, claim, answer))
        except IntegrityError:  # the row was lost, and somebody else has just written it anew
            return self.database.persist(lambda db: self._record(db, claim, answer))

    def _record(self, db: Connection, claim: Claim, answer: Answer) -> Entry:
        entry = self._lock(db, claim.job.key, claim.generation)
        is_known = self._record_attempt(db, claim, answer)
        if entry is None:
            return self._record_forgotten(db, claim, answer)
        # The number of an attempt can come twice, when the ledger was restored from a backup between.
        if entry.state is State.SENDING and entry.attempt == claim.attempt and is_known:
            changes = self._own_answer(db, entry, answer)
        elif answer.event is Event.CREATED:
            changes = self._late_answer(entry, claim, answer)
        else:
            return entry
        return self._change(db, entry, changes)

    def _record_attempt(self, db: Connection, claim: Claim, answer: Answer) -> bool:
        written = db.execute(
            _ATTEMPT.update()
            .where(*self._is(_ATTEMPT, claim.job.key, claim.generation))
            .where(_ATTEMPT.c.attempt == claim.attempt, _ATTEMPT.c.claim_token == claim.token)
            .values(
                outcome=answer.event.value,
                code=answer.code,
                message=answer.message[:MAX_MESSAGE],
                kk_order_ids=json.dumps(answer.kk_order_ids),
                recorded_at=self.database.now(),
            )
        )
        return bool(written.rowcount == 1)

    def _record_forgotten(self, db: Connection, claim: Claim, answer: Answer) -> Entry:
        """The ledger has lost the row since: a backup was restored."""
        created = answer.event is Event.CREATED
        now = self.database.now()
        row = dict(
            BLANK,
            **self._key(claim.job.key, claim.generation),
            **identity_of(claim.job),
            state=(State.CREATED if created else State.IN_DOUBT).value,
            claim_token=secrets.token_hex(16),
            updated_at=now,
        )
        row.update(
            kk_order_ids=json.dumps(answer.kk_order_ids),
            settle_after=now + self.settle_delay_s,
            created_at=now if created else 0.0,
            message="" if created else answer.message[:MAX_MESSAGE],
        )
        db.execute(_ORDER.insert().values(row))
        return self._read(db, claim.job.key, claim.generation)

    def _own_answer(self, db: Connection, entry: Entry, answer: Answer) -> dict[str, Any]:
        if entry.kk_order_ids:  # an older attempt has turned out to be created meanwhile
            return self._meet_late(db, entry, answer)
        now = self.database.now()
        changes: dict[str, Any] = {
            "state": follow(entry.state, answer.event).value,
            "code": answer.code,
            "message": answer.message[:MAX_MESSAGE],
        }
        if answer.event is Event.CREATED:
            changes.update(kk_order_ids=json.dumps(answer.kk_order_ids), created_at=now)
        if answer.event in (Event.UNKNOWN, Event.REJECTED):
            # A refusal may have come after half of a split was created: KK's list has to say.
            changes["settle_after"] = self._at_least(
                entry.settle_after if answer.event is Event.UNKNOWN else 0.0, self.terms.settle_window_s
            )
        if answer.event is Event.REJECTED:
            pause_s = min(_FIRST_PAUSE_S * 2**entry.rejections, _LONGEST_PAUSE_S)
            changes.update(rejections=entry.rejections + 1, retry_after=now + pause_s)
        return changes

    def _meet_late(self, db: Connection, entry: Entry, answer: Answer) -> dict[str, Any]:
        if answer.event is Event.CREATED:
            return _created_or_conflict(entry, answer.kk_order_ids, self.database.now())
        if answer.event is Event.UNKNOWN:
            return {
                "state": State.IN_DOUBT.value,
                "settle_after": self._at_least(entry.settle_after, self.terms.settle_window_s),
                "message": answer.message[:MAX_MESSAGE],
            }
        values = created_values(entry, entry.kk_order_ids, self.database.now())
        return dict(values, **self._identity_of_created(db, entry))

    def _identity_of_created(self, db: Connection, entry: Entry) -> dict[str, Any]:
        """What the older attempt ordered that turned out to be created."""
        row = db.execute(
            sa.select(_ATTEMPT)
            .where(*self._is(_ATTEMPT, entry.key, entry.generation))
            .where(_ATTEMPT.c.outcome == Event.CREATED.value)
            .order_by(_ATTEMPT.c.intent_at.desc())
        ).first()
        names = ("fingerprint", "goods", "country", "zip_digest")
        return {name: getattr(row, name) for name in names} if row is not None else {}

    def _late_answer(self, entry: Entry, claim: Claim, answer: Answer) -> dict[str, Any]:
        if entry.state in DOUBTFUL:
            # The newer attempt may have been created as well: keep the ids, its outcome decides.
            return {"kk_order_ids": json.dumps(union(entry.kk_order_ids, answer.kk_order_ids))}
        changes = _created_or_conflict(entry, answer.kk_order_ids, self.database.now())
        if entry.state is not State.CREATED and changes["state"] == State.CREATED.value:
            changes.update(identity_of(claim.job))
        return changes


def _created_or_conflict(entry: Entry, ids: Sequence[str], now: Any) -> dict[str, Any]:
    changes = created_values(entry, ids, now)
    # Two answers that share an id speak of one order; a split may be named in part.
    is_other = bool(entry.kk_order_ids) and not set(entry.kk_order_ids) & set(ids)
    if is_other or (entry.state is State.HELD and entry.kk_order_ids):
        changes["state"] = State.HELD.value
        changes["message"] = (
            "conflict: two POSTs of this order were both created" if is_other else entry.message
        )
    return changes
