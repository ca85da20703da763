"""Manual resolution in the ledger: the decisions that a person may make, and their conditions.

`sync.resolution_checks` reads KK's list first. Each function returns None or False if the row changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.model import BLANK, Record, RecordChanges, created_values, union
from airflow_provider_kk.delivery.states import CLOSED, Event, State
from airflow_provider_kk.delivery.storage import KeyTakenError, Transaction


class ResolutionRejected(ValueError):
    """A resolution is rejected, and the order is unchanged. The text has the reason and what to do."""


#: Seconds by which KK's clock may differ, since it has whole seconds.
_KK_CLOCK_STEP_S = 2.0


def resolve(
    ledger: AnyLedger, expected: Record, event: Event, *, ids: Sequence[str] = (), who: str, why: str
) -> Record | None:
    """Apply a person's decision (RESOLVED_CREATED or RESOLVED_NEVER_CREATED).

    :param ids: the order's kkOrderIds; with RESOLVED_NEVER_CREATED, listed ids of another order.
    :raises ResolutionRejected: KK may still list the order, so its absence proves nothing.
    """
    values: RecordChanges = {"resolved_by": as_kept(who, why), "message": ""}
    if event is not Event.RESOLVED_CREATED:
        require_absent(ledger, expected, ids)
        never: RecordChanges = {**values, "resends": 0, "kk_order_ids": ()}
        return ledger.compare_and_set(expected, event, lambda _tx: never)
    return ledger.compare_and_set(
        expected,
        event,
        lambda tx: {
            **created_values(expected, (), tx.now),
            **values,
            "kk_order_ids": tuple(ids),
            "adopted": True,
        },
    )


def require_absent(ledger: AnyLedger, expected: Record, not_mine: Sequence[str] = ()) -> None:
    """Require that the ledger has no KK order that may be this one.

    :param not_mine: the ids in its row that are another number's.
    :raises ResolutionRejected: KK may still list the order, or has listed it.
    """
    require_window_over(ledger, expected)
    if others := set(expected.kk_order_ids) - set(not_mine):
        raise ResolutionRejected(
            f"KK has {', '.join(sorted(others))} under {expected.key}. Cancel the wrong ones at KK, then use "
            "--created with the other ids, and --order-again to order it once more. If they belong to "
            "another number, use --never-created --not-mine with them"
        )


def order_again(ledger: AnyLedger, expected: Record, *, ids: Sequence[str] = (), who: str, why: str) -> bool:
    """Begin a new generation of a closed key.

    :param ids: all of KK's orders of it by now. An answer may have had only a part of the splits, and the
        others must not count for the new generation.
    :raises ResolutionRejected: the newest generation is not closed, or its settle window is not over.
    """
    require_over(ledger, expected)
    values: RecordChanges = {
        "state": State.NOT_SENT,
        "resolved_by": as_kept(who, why),
        "message": "ordered again by a person",
    }

    def work(tx: Transaction) -> bool:
        # The new version stops a sync that is about to send the old generation.
        known = union(expected.kk_order_ids, ids)
        if not tx.change(expected, {"version": ledger.new_version(), "kk_order_ids": known}):
            return False
        tx.add(expected.key, expected.generation + 1, {**BLANK, **ledger.stamped(tx, values)})
        return True

    try:
        return ledger.storage.transact(work)
    except KeyTakenError:
        return False


def require_over(ledger: AnyLedger, expected: Record) -> None:
    """Require that this generation is over, so that KK's list has all of it.

    :raises ResolutionRejected: it is not closed, or its settle window is not over.
    """
    if expected.state not in CLOSED:
        raise ResolutionRejected(f"{expected.key} is {expected.state.value}: resolve it first")
    require_window_over(ledger, expected)


def clear_backoff(ledger: AnyLedger, expected: Record, *, who: str, why: str) -> Record | None:
    """End the back-off of a rejected order. It is still reconciled before it is sent.

    :raises ValueError: the order is not rejected.
    """
    values: RecordChanges = {"retry_after": 0.0, "resolved_by": as_kept(who, why)}
    return ledger.compare_and_set(expected, Event.BACKOFF_CLEARED, lambda _tx: values)


def require_window_over(ledger: AnyLedger, expected: Record, kk_skew_s: float = 0.0) -> None:
    """Require that the settle window is over, by the database's, the machine's and KK's clock.

    :param kk_skew_s: KK's clock minus the machine's, 0 while it is not known.
    :raises ResolutionRejected: KK may still list the order.
    """
    wall = ledger.clock.wall()
    kk = wall + kk_skew_s if abs(kk_skew_s) > _KK_CLOCK_STEP_S else wall
    if (rest_s := expected.settle_after - min(ledger.now(), wall, kk)) > 0:
        raise ResolutionRejected(
            f"KK may still list {expected.key} during the next {rest_s:.0f} s. Try again then"
        )


def as_kept(who: str, why: str) -> str:
    """Return who and why in the form of `resolved_by`."""
    return f"{who}: {why}"[:250]
