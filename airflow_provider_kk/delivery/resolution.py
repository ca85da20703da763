"""Manual resolution: what a person may decide about an order, and when.

`sync.resolution_checks` reads KK's list first. Each returns None or False when the row has moved.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.model import BLANK, Record, RecordChanges, created_values, union
from airflow_provider_kk.delivery.states import CLOSED, Event, State
from airflow_provider_kk.delivery.storage import KeyTakenError, Transaction

#: KK's clock shows whole seconds: less than this apart, it agrees.
_KK_CLOCK_STEP_S = 2.0


def resolve(
    ledger: AnyLedger, expected: Record, event: Event, *, ids: Sequence[str] = (), who: str, why: str
) -> Record | None:
    """Apply a person's decision (RESOLVED_CREATED or RESOLVED_NEVER_CREATED).

    :param ids: the order's kkOrderIds; with RESOLVED_NEVER_CREATED those that KK lists and are another's.
    :raises ValueError: when KK may still list the order, so that nobody can know that it was never created.
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
    """Require that the ledger knows of nothing at KK that may be this order.

    :param not_mine: the ids in its row that are another number's.
    :raises ValueError: when KK may still list the order, or has listed it.
    """
    require_window_over(ledger, expected)
    if others := set(expected.kk_order_ids) - set(not_mine):
        raise ValueError(
            f"KK has {', '.join(sorted(others))} under {expected.key}: cancel there what is wrong, "
            "then say --created with the ids that stand, and --order-again to order it once more; "
            "ids that are another number's: --never-created --not-mine with them"
        )


def order_again(ledger: AnyLedger, expected: Record, *, ids: Sequence[str] = (), who: str, why: str) -> bool:
    """Open a new generation of a closed key.

    :param ids: all that KK has of it by now: an answer may have named only a part of a split, and the
        rest must not be taken for the new generation's.
    :raises ValueError: when the newest generation is not closed, or its settle window is not over.
    """
    require_over(ledger, expected)
    values: RecordChanges = {
        "state": State.NOT_SENT,
        "resolved_by": as_kept(who, why),
        "message": "ordered again by a human",
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
    """Require that this generation is over, so that KK's list shows all of it.

    :raises ValueError: when it is not closed, or its settle window is not over.
    """
    if expected.state not in CLOSED:
        raise ValueError(f"{expected.key} is {expected.state.value}: resolve it first")
    require_window_over(ledger, expected)


def clear_backoff(ledger: AnyLedger, expected: Record, *, who: str, why: str) -> Record | None:
    """End the back-off of a rejected order. It is still reconciled before it is sent.

    :raises ValueError: when the order is not rejected.
    """
    values: RecordChanges = {"retry_after": 0.0, "resolved_by": as_kept(who, why)}
    return ledger.compare_and_set(expected, Event.BACKOFF_CLEARED, lambda _tx: values)


def require_window_over(ledger: AnyLedger, expected: Record, kk_skew_s: float = 0.0) -> None:
    """Require that the settle window is over, by the database's, the machine's and KK's clock.

    :param kk_skew_s: KK's clock minus the machine's, 0 while it is not known.
    :raises ValueError: KK may still show the order.
    """
    wall = ledger.clock.wall()
    kk = wall + kk_skew_s if abs(kk_skew_s) > _KK_CLOCK_STEP_S else wall
    if (rest_s := expected.settle_after - min(ledger.now(), wall, kk)) > 0:
        raise ValueError(f"{expected.key} may still turn up at KK for {rest_s:.0f} s: try again then")


def as_kept(who: str, why: str) -> str:
    """Return who and why as `resolved_by` keeps them."""
    return f"{who}: {why}"[:250]
