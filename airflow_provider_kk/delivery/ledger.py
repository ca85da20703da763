"""The write-ahead record of what is known of each order number: every way in which a row may change.

Each change is a short transaction of its own, and is either a compare-and-set on (state, attempt, claim
token) or made under the row's lock.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from airflow_provider_kk.delivery import tables
from airflow_provider_kk.delivery.job import Job, Sighting, add_goods, zip_digest
from airflow_provider_kk.delivery.rows import (
    BLANK,
    Answer,
    Attempt,
    Claim,
    Entry,
    Origin,
    created_values,
    goods_text,
    identity_of,
    union,
)
from airflow_provider_kk.delivery.states import CLOSED, DOUBTFUL, Event, State, can_follow, follow
from airflow_provider_kk.delivery.store import LedgerStore

_ORDER = tables.order
_ATTEMPT = tables.attempt
_MAX_MESSAGE = 500
#: A rejected order rests for 15 minutes, then twice as long each time, at most a day.
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 900.0, 86_400.0


class Ledger(LedgerStore):
    """The ledger of one account."""

    # Sending ---------------------------------------------------------------------------------------

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
                message=answer.message[:_MAX_MESSAGE],
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
            message="" if created else answer.message[:_MAX_MESSAGE],
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
            "message": answer.message[:_MAX_MESSAGE],
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
                "message": answer.message[:_MAX_MESSAGE],
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

    # What KK's list says ---------------------------------------------------------------------------

    def adopt(
        self,
        seen: Entry,
        attempt: Attempt,
        ids: Sequence[str],
        *,
        created_at: float | None = None,
        sync_id: str | None = None,
    ) -> Entry | None:
        """Take what was found at KK as the effect of `attempt`; None when the row has moved.

        :param created_at: KK's creation time, epoch seconds.
        :param sync_id: the sync that has the order at hand; None leaves it with the one that sent it.
        """
        values: dict[str, Any] = dict(
            created_values(seen, ids, created_at or attempt.intent_at),
            adopted=1,
            fingerprint=attempt.fingerprint,
            goods=goods_text(attempt.goods),
            country=attempt.country,
            zip_digest=attempt.zip_digest,
            sync_id=sync_id or seen.sync_id,
        )
        return self._compare_and_set(seen, Event.SIGHTED, values)

    def hold(
        self,
        seen: Entry,
        event: Event,
        message: str,
        ids: Sequence[str] = (),
        *,
        sync_id: str | None = None,
    ) -> Entry | None:
        """Leave it to a human (CONFLICT or GIVEN_UP); None when the row has moved."""
        values = {
            "message": message[:_MAX_MESSAGE],
            "kk_order_ids": json.dumps(union(seen.kk_order_ids, ids)),
            "sync_id": sync_id or seen.sync_id,
        }
        return self._compare_and_set(seen, event, values)

    def wait_for_rest(self, seen: Entry, message: str, ids: Sequence[str]) -> Entry | None:
        """Give KK one more settle window to show the rest of an order; None when the row has moved."""
        return self._compare_and_set(
            seen,
            Event.INCOMPLETE,
            {
                "message": message[:_MAX_MESSAGE],
                "kk_order_ids": json.dumps(union(seen.kk_order_ids, ids)),
                "settle_after": self.database.now() + self.terms.settle_window_s,
            },
        )

    def heal(self, sightings: Sequence[Sighting]) -> int:
        """Adopt what KK has and the ledger does not know; return how many orders that are.

        Leaves alone what is in doubt, rejected or held: settling and humans know more about those.
        """
        by_key: dict[str, list[Sighting]] = {}
        for sighting in sightings:
            if sighting.key and len(sighting.key) <= 40:
                by_key.setdefault(sighting.key, []).append(sighting)
        known = self.look_up(list(by_key))
        adopted = 0
        for key, group in by_key.items():
            entry = known.get(key)
            old = self._ids_of(entry) if entry is not None else set()
            news = [one for one in group if one.id not in old]
            if news and (entry is None or _is_healable(entry)):
                adopted += self._heal_one(entry, key, news)
        return adopted

    def _ids_of(self, entry: Entry) -> set[str]:
        """The kkOrderIds of a key, those of older generations too."""
        generations = self.generations(entry.key) if entry.generation > 1 else [entry]
        return {one for generation in generations for one in generation.kk_order_ids}

    def rename(self, seen: Entry, key: str) -> Entry | None:
        """Give an order that KK lists by an integer the number that it really has; None when it has moved."""
        values = {"custom_order_number": key, "claim_token": secrets.token_hex(16)}
        try:
            with self.database.write() as db:
                if db.execute(self._if_unchanged(seen).values(values)).rowcount != 1:
                    return None
                return self._read(db, key, seen.generation)
        except IntegrityError:
            return None

    def _heal_one(self, entry: Entry | None, key: str, news: Sequence[Sighting]) -> bool:
        values = self._sighted(entry, key, news)
        if entry is not None:
            return self._compare_and_set(entry, Event.SIGHTED, values) is not None
        try:
            with self.database.write() as db:
                db.execute(_ORDER.insert().values(dict(BLANK, **self._key(key, 1), **values)))
        except IntegrityError:
            return False
        return True

    def _sighted(self, entry: Entry | None, key: str, news: Sequence[Sighting]) -> dict[str, Any]:
        before = entry if entry is not None and entry.state is State.CREATED else None
        goods = add_goods([before.goods if before else {}, *(one.goods or {} for one in news)])
        now = self.database.now()
        return {
            "state": State.CREATED.value,
            "kk_order_ids": json.dumps(
                union(before.kk_order_ids if before else (), [one.id for one in news])
            ),
            "fingerprint": "",
            "goods": goods_text(goods),
            "country": (news[0].country or "")[:2].upper(),
            "zip_digest": zip_digest(key, news[0].zip),
            "claim_token": secrets.token_hex(16),
            "message": "found at KK",
            "adopted": 1,
            "created_at": news[0].created_at or now,
            "updated_at": now,
        }

    def healed_until(self) -> float:
        """Return the time up to which KK's list is known, on KK's clock, epoch seconds."""
        row = self._account()
        return float(row.healed_until)

    def set_healed_until(self, epoch: float) -> None:
        """Move the stamp forward."""
        with self.database.write() as db:
            db.execute(
                tables.account.update()
                .where(*self._mine(tables.account), tables.account.c.healed_until < epoch)
                .values(healed_until=epoch)
            )

    def recognise(self, seen: Entry, job: Job) -> None:
        """Note the fingerprint of an order that was found at KK with the goods of `job`."""
        self._compare_and_set(seen, Event.SIGHTED, identity_of(job))

    # Without a POST --------------------------------------------------------------------------------

    def note_invalid(self, key: str, digest: str, message: str, *, sync_id: str) -> bool:
        """Remember that a key's data is invalid; True when this digest of it was not known yet."""
        entry = self.look_up([key]).get(key)
        if not can_follow(entry.state if entry else None, Event.FAULT):
            return False  # it was sent before: what became of it is what counts
        if entry is not None and entry.fingerprint == digest:
            return entry.sync_id == sync_id
        values = {
            "state": State.INVALID.value,
            "fingerprint": digest,
            "message": message[:_MAX_MESSAGE],
            "claim_token": secrets.token_hex(16),
            "sync_id": sync_id,
            "updated_at": self.database.now(),
        }
        if entry is not None:
            self._compare_and_set(entry, Event.FAULT, values)
            return True
        try:
            with self.database.write() as db:
                db.execute(_ORDER.insert().values(dict(BLANK, **self._key(key, 1), **values)))
        except IntegrityError:
            pass  # somebody else has just noted it
        return True

    def resolve(
        self, seen: Entry, event: Event, *, ids: Sequence[str] = (), who: str, why: str
    ) -> Entry | None:
        """Apply a human's word (DECLARED_CREATED or DECLARED_NEVER); None when the row has moved.

        :raises ValueError: when KK may still show the order, so that nobody can say that it never came.
        """
        values: dict[str, Any] = {"resolved_by": f"{who}: {why}"[:250], "message": ""}
        if event is Event.DECLARED_CREATED:
            values.update(created_values(seen, (), self.database.now()), adopted=1)
            values.update(kk_order_ids=json.dumps(list(ids)))
        else:
            self._require_window_over(seen)
            values.update(kk_order_ids="[]", resends=0)
        return self._compare_and_set(seen, event, values)

    def order_again(self, seen: Entry, *, who: str, why: str) -> bool:
        """Open a new generation of a closed key; False when somebody has just done so.

        :raises ValueError: when the newest generation is not closed, or its settle window is not over.
        """
        if seen.state not in CLOSED:
            raise ValueError(f"{seen.key} is {seen.state.value}: resolve it first")
        self._require_window_over(seen)
        row = dict(
            BLANK,
            **self._key(seen.key, seen.generation + 1),
            state=State.NOT_SENT.value,
            claim_token=secrets.token_hex(16),
            resolved_by=f"{who}: {why}"[:250],
            message="ordered again by a human",
            updated_at=self.database.now(),
        )
        try:
            with self.database.write() as db:
                # A sync that is about to send the old generation must not get through any more.
                mark = {"claim_token": secrets.token_hex(16)}
                if db.execute(self._if_unchanged(seen).values(mark)).rowcount != 1:
                    return False
                db.execute(_ORDER.insert().values(row))
        except IntegrityError:
            return False
        return True

    def _require_window_over(self, seen: Entry) -> None:
        if (rest_s := seen.settle_after - self.now()) > 0:
            raise ValueError(f"{seen.key} may still turn up at KK for {rest_s:.0f} s: try again then")


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


def _is_healable(entry: Entry) -> bool:
    if entry.state is State.CREATED:
        return entry.attempt == 0 and not entry.fingerprint  # its splits may be listed one by one
    return entry.state in (State.INVALID, State.NOT_SENT)
