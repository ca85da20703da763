"""The write-ahead record of what is known of each order number: every way in which a row may change.

Each change is a short transaction of its own, and is either a compare-and-set on (state, attempt, claim
token) or made under the row's lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_kk.delivery.job import Job, ListedOrder, add_goods, zip_digest
from airflow_provider_kk.delivery.model import (
    BLANK,
    MAX_KEY,
    MAX_MESSAGE,
    Attempt,
    Record,
    created_values,
    identity_of,
    union,
)
from airflow_provider_kk.delivery.sending import SendingLedger
from airflow_provider_kk.delivery.states import CLOSED, Event, State, can_follow, follow
from airflow_provider_kk.delivery.storage import KeyTakenError, Transaction

#: What the row of an order says whose number KK gave as an integer: zeros before it may be lost.
FOUND_AS_INTEGER = "found at KK as an integer"


@dataclass
class Completion:
    """What became of orders of which KK has more ids than the ledger knew."""

    completed: list[Record] = field(default_factory=list)
    held: list[Record] = field(default_factory=list)


class Ledger(SendingLedger):
    """The ledger of one account, wherever it keeps its rows; see `sql.ledger.SqlLedger`."""

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
            "fingerprint": attempt.fingerprint,
            "goods": attempt.goods,
            "country": attempt.country,
            "zip_digest": attempt.zip_digest,
            "sync_id": sync_id or expected.sync_id,
        }
        return self._compare_and_set(expected, Event.FOUND, lambda _tx: values)

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
        return self._compare_and_set(expected, event, lambda _tx: values)

    def wait_for_rest(self, expected: Record, message: str, ids: Sequence[str]) -> Record | None:
        """Give KK one more settle window to show the rest of an order; None when the row has moved."""
        return self._compare_and_set(
            expected,
            Event.INCOMPLETE,
            lambda tx: {
                "message": message[:MAX_MESSAGE],
                "kk_order_ids": union(expected.kk_order_ids, ids),
                "settle_after": self._latest_now(tx) + self.timing.settle_window_s,
            },
        )

    def recover(self, listed: Sequence[ListedOrder]) -> list[str]:
        """Adopt what KK has and the ledger does not know; return the numbers of these orders.

        Leaves alone what is in doubt, rejected or held: settling and humans know more about those.
        """
        by_key: dict[str, list[ListedOrder]] = {}
        for sighting in listed:
            if sighting.key and len(sighting.key) <= MAX_KEY:
                by_key.setdefault(sighting.key, []).append(sighting)
        known = self.look_up(list(by_key))
        zero_padded_rows = self.zero_padded_rows(
            [key for key, group in by_key.items() if group[0].key_is_integer]
        )
        adopted = []
        for key, group in by_key.items():
            entry = known.get(key)
            if key in zero_padded_rows:
                # Where only one row can be it, and it is not known to be anywhere, it is.
                if entry is None and len(zero_padded_rows[key]) == 1:
                    (only,) = zero_padded_rows[key]
                    news = [
                        one for one in self.of_its_generation(only, group) if one.id not in only.kk_order_ids
                    ]
                    if news and _is_recoverable(only) and self._recover_one(only, only.key, news):
                        adopted.append(only.key)
                continue
            news = group if entry is None else self.of_its_generation(entry, group)
            if entry is not None:
                news = [one for one in news if one.id not in entry.kk_order_ids]
            if news and (entry is None or _is_recoverable(entry)) and self._recover_one(entry, key, news):
                adopted.append(key)
        return adopted

    def zero_padded_rows(self, numbers: Sequence[str]) -> dict[str, list[Record]]:
        """Return rows whose numbers have zeros before one of `numbers`, by that: as integers they are one."""
        plain = {key.zfill(width): key for key in numbers for width in range(len(key) + 1, MAX_KEY + 1)}
        found: dict[str, list[Record]] = {}
        for key, entry in self.look_up(list(plain)).items():
            found.setdefault(plain[key], []).append(entry)
        return found

    def has_sent_one_of(self, listed: Sequence[ListedOrder]) -> bool:
        """Whether one of KK's orders is known to have been created by a POST of ours under its number."""
        known = self.sent_ids(sorted({one.key for one in listed if one.key is not None}))
        return any(one.key is not None and one.id in known.get(one.key, ()) for one in listed)

    def of_its_generation(self, entry: Record, listed: Sequence[ListedOrder]) -> list[ListedOrder]:
        """Return those of a number's orders at KK that are not of another generation."""
        if entry.generation == 1:
            return list(listed)
        others = [one for one in self.generations(entry.key) if one.generation != entry.generation]
        ids = {one for other in others for one in other.kk_order_ids}
        return [one for one in listed if one.id not in ids]

    def add_splits(self, listed: Sequence[ListedOrder]) -> Completion:
        """Add the splits of created orders that the answer to the POST did not name.

        :param sightings: all that is known at KK under each key, the ids that the ledger has included. Where
            one of those is missing, or a human has had the last word, nothing is done.
        """
        by_key: dict[str, list[ListedOrder]] = {}
        for sighting in listed:
            if sighting.key:
                by_key.setdefault(sighting.key, []).append(sighting)
        completion = Completion()
        for key, entry in self.look_up(list(by_key)).items():
            if (
                entry.state is State.CREATED
                and entry.attempt > 0
                and not (entry.resolved_by and entry.adopted)
            ):
                self._add_splits_of(entry, by_key[key], completion)
        return completion

    def _add_splits_of(self, entry: Record, group: Sequence[ListedOrder], completion: Completion) -> None:
        own = list({one.id: one for one in self.of_its_generation(entry, group)}.values())
        known = set(entry.kk_order_ids)
        if known - {one.id for one in own} or any(one.goods is None for one in own):
            return
        if not (is_within := _fits(own, entry)):
            # A surplus that was cancelled at KK is over; a split that was cancelled fits and is one.
            own = [one for one in own if one.id in known or not one.is_cancelled]
            is_within = _fits(own, entry)
        news = sorted({one.id for one in own} - known)
        if not news:
            return
        ids = union(entry.kk_order_ids, news)
        if is_within:
            moved = self._compare_and_set(entry, Event.FOUND, lambda _tx: {"kk_order_ids": ids})
            completion.completed += [moved] if moved else []
        else:
            message = "conflict: KK has this number with more or other goods than were sent"
            moved = self.hold(entry, Event.CONFLICT, message, news)
            completion.held += [moved] if moved else []

    def rename(self, expected: Record, key: str) -> Record | None:
        """Give an order that KK lists by an integer the number that it really has; None when it has moved."""
        try:
            return self.transact(lambda tx: tx.change(expected, {"key": key, "version": self.new_version()}))
        except KeyTakenError:
            return None

    def _recover_one(self, entry: Record | None, key: str, news: Sequence[ListedOrder]) -> bool:
        if entry is None:
            return self._added(key, 1, lambda tx: self._found_values(tx, None, key, news))
        return (
            self._compare_and_set(entry, Event.FOUND, lambda tx: self._found_values(tx, entry, key, news))
            is not None
        )

    def _added(self, key: str, generation: int, values_at: Any) -> bool:
        """Add a row; False when somebody else has just done so."""
        try:
            self.transact(lambda tx: tx.add(key, generation, {**BLANK, **self._stamped(tx, values_at(tx))}))
        except KeyTakenError:
            return False
        return True

    def _found_values(
        self, tx: Transaction, entry: Record | None, key: str, news: Sequence[ListedOrder]
    ) -> dict[str, Any]:
        before = entry if entry is not None and entry.state is State.CREATED else None
        return {
            "state": State.CREATED,
            "kk_order_ids": union(before.kk_order_ids if before else (), [one.id for one in news]),
            "fingerprint": "",
            "goods": add_goods([before.goods if before else {}, *(one.goods or {} for one in news)]),
            "country": (news[0].country or "")[:2].upper(),
            "zip_digest": zip_digest(key, news[0].zip),
            "message": FOUND_AS_INTEGER if news[0].key_is_integer else "found at KK",
            "adopted": True,
            "created_at": news[0].created_at or tx.now,
        }

    def attach_fingerprint(self, expected: Record, job: Job) -> None:
        """Note the fingerprint of an order that was found at KK with the goods of `job`."""
        self._compare_and_set(expected, Event.FOUND, lambda _tx: identity_of(job))

    # Without a POST --------------------------------------------------------------------------------

    def note_invalid(self, key: str, digest: str, message: str, *, sync_id: str) -> bool:
        """Remember that a key's data is invalid; True when this digest of it was not known yet."""
        entry = self.look_up([key]).get(key)
        if not can_follow(entry.state if entry else None, Event.FAULT):
            return False  # it was sent before: what became of it is what counts
        if entry is not None and entry.fingerprint == digest:
            return entry.sync_id == sync_id
        values = {"fingerprint": digest, "message": message[:MAX_MESSAGE], "sync_id": sync_id}
        if entry is None:
            state = follow(None, Event.FAULT)
            self._added(key, 1, lambda _tx: {**values, "state": state})
        else:
            self._compare_and_set(entry, Event.FAULT, lambda _tx: values)
        return True

    def resolve(
        self, expected: Record, event: Event, *, ids: Sequence[str] = (), who: str, why: str
    ) -> Record | None:
        """Apply a human's word (DECLARED_CREATED or DECLARED_NEVER); None when the row has moved.

        :param ids: the order's kkOrderIds; with DECLARED_NEVER those that KK lists and that are another's.
        :raises ValueError: when KK may still show the order, so that nobody can say that it never came.
        """
        word = {"resolved_by": as_kept(who, why), "message": ""}
        if event is Event.RESOLVED_CREATED:
            return self._compare_and_set(
                expected,
                event,
                lambda tx: {
                    **created_values(expected, (), tx.now),
                    **word,
                    "kk_order_ids": tuple(ids),
                    "adopted": True,
                },
            )
        self.require_absent(expected, ids)
        return self._compare_and_set(expected, event, lambda _tx: {**word, "resends": 0, "kk_order_ids": ()})

    def require_absent(self, expected: Record, not_mine: Sequence[str] = ()) -> None:
        """Require that the ledger knows nothing of KK's that speaks for an order.

        :param not_mine: the ids in its row that are another number's.
        :raises ValueError: when KK may still show the order, or has shown it.
        """
        self._require_window_over(expected)
        if others := set(expected.kk_order_ids) - set(not_mine):
            raise ValueError(
                f"KK has {', '.join(sorted(others))} under {expected.key}: cancel there what is wrong, "
                "then say --created with the ids that stand, and --order-again to order it once more; "
                "ids that are another number's: --never-created --not-mine with them"
            )

    def order_again(self, expected: Record, *, ids: Sequence[str] = (), who: str, why: str) -> bool:
        """Open a new generation of a closed key; False when somebody has just done so.

        :param ids: all that KK has of it by now: an answer may have named only a part of a split, and the
            rest must not be taken for the new generation's.
        :raises ValueError: when the newest generation is not closed, or its settle window is not over.
        """
        self.require_over(expected)
        values = {
            "state": State.NOT_SENT,
            "resolved_by": as_kept(who, why),
            "message": "ordered again by a human",
        }

        def work(tx: Transaction) -> bool:
            # A sync that is about to send the old generation must not get through any more.
            known = union(expected.kk_order_ids, ids)
            if not tx.change(expected, {"version": self.new_version(), "kk_order_ids": known}):
                return False
            tx.add(expected.key, expected.generation + 1, {**BLANK, **self._stamped(tx, values)})
            return True

        try:
            return self.transact(work)
        except KeyTakenError:
            return False

    def require_over(self, expected: Record) -> None:
        """Require that this generation is over, so that KK's list has all of it.

        :raises ValueError: when it is not closed, or its settle window is not over.
        """
        if expected.state not in CLOSED:
            raise ValueError(f"{expected.key} is {expected.state.value}: resolve it first")
        self._require_window_over(expected)

    def clear_backoff(self, expected: Record, *, who: str, why: str) -> Record | None:
        """Let a rejected order be asked for again without its pause; None when the row has moved.

        The settle window stays, and so does the look at KK's list before it is sent.

        :raises ValueError: when the order is not rejected.
        """
        values = {"retry_after": 0.0, "resolved_by": as_kept(who, why)}
        return self._compare_and_set(expected, Event.BACKOFF_CLEARED, lambda _tx: values)

    def _require_window_over(self, expected: Record) -> None:
        expected = self.bound_times(expected) or expected
        if (rest_s := expected.settle_after - min(self.now(), self.clock.wall())) > 0:
            raise ValueError(f"{expected.key} may still turn up at KK for {rest_s:.0f} s: try again then")


def as_kept(who: str, why: str) -> str:
    """Return a human's word as `resolved_by` keeps it."""
    return f"{who}: {why}"[:250]


def _is_recoverable(entry: Record) -> bool:
    if entry.state is State.CREATED:
        return entry.adopted and not entry.fingerprint  # its splits may be listed one by one
    return entry.state in (State.INVALID, State.NOT_SENT)


def _fits(listed: Sequence[ListedOrder], entry: Record) -> bool:
    """Whether these hold no more of anything than was ordered."""
    found = add_goods([one.goods or {} for one in listed])
    return all(quantity <= entry.goods.get(sku, 0) for sku, quantity in found.items())
