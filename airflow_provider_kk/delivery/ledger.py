"""The write-ahead record of what is known of each order number: every way in which a row may change.

Each change is a short transaction of its own, and is either a compare-and-set on (state, attempt, claim
token) or made under the row's lock.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy.exc import IntegrityError

from airflow_provider_kk.delivery import tables
from airflow_provider_kk.delivery.job import Job, Sighting, add_goods, zip_digest
from airflow_provider_kk.delivery.rows import (
    BLANK,
    MAX_MESSAGE,
    Attempt,
    Entry,
    created_values,
    goods_text,
    identity_of,
    union,
)
from airflow_provider_kk.delivery.sending import SendingLedger
from airflow_provider_kk.delivery.states import CLOSED, Event, State, can_follow

_ORDER = tables.order


class Ledger(SendingLedger):
    """The ledger of one account."""

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
            "message": message[:MAX_MESSAGE],
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
                "message": message[:MAX_MESSAGE],
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
            "message": message[:MAX_MESSAGE],
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
            if seen.kk_order_ids:
                raise ValueError(
                    f"KK has {', '.join(seen.kk_order_ids)} under {seen.key}: cancel there what is wrong, "
                    "then say --created with the ids that stand, and --order-again to order it once more"
                )
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


def _is_healable(entry: Entry) -> bool:
    if entry.state is State.CREATED:
        return entry.attempt == 0 and not entry.fingerprint  # its splits may be listed one by one
    return entry.state in (State.INVALID, State.NOT_SENT)
