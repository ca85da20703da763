"""What is to be done with a job next, by what the ledger knows of it: for a run, and for a plan of one."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from airflow_provider_kk.delivery.ledger import AnyLedger
from airflow_provider_kk.delivery.model import Record, plain_number
from airflow_provider_kk.delivery.orders import fingerprint_with
from airflow_provider_kk.delivery.recover import FOUND_AS_INTEGER
from airflow_provider_kk.delivery.run_queue import QueuedOrder
from airflow_provider_kk.delivery.states import State


class Action(Enum):
    """The next thing with a job."""

    SEND = auto()
    COMPARE = auto()
    """KK has it: what matters is whether it is still the same order."""
    HOLD = auto()
    BACK_OFF = auto()
    """KK has refused it, and the pause is not over."""
    RECONCILE_FIRST = auto()
    """KK's list has to say what became of it."""


def next_action(item: QueuedOrder, entry: Record | None, now: Callable[[], float]) -> Action:
    """Return what to do with a job; `now` asks the ledger's clock, which may be far away."""
    if entry is None or is_unsent(entry):
        return Action.SEND
    if entry.state is State.CREATED:
        return Action.COMPARE
    if entry.state is State.HELD:
        return Action.HOLD
    is_refused_so = entry.state is State.REJECTED and entry.content.fingerprint == item.content.fingerprint
    return Action.BACK_OFF if is_refused_so and entry.retry_after > now() else Action.RECONCILE_FIRST


def is_unsent(entry: Record | None) -> bool:
    """Whether KK has never had it, as far as the ledger knows."""
    return entry is None or entry.state in (State.INVALID, State.NOT_SENT)


def difference(item: QueuedOrder, entry: Record) -> str:
    """Return what of a job is not as it was ordered under its number: its goods, its address, or both."""
    if item.content.goods == entry.content.goods:
        what = "its address differs"
    else:
        what = "its goods and address differ" if _has_other_address(item, entry) else "its goods differ"
    return f"{what} from what was ordered under this number"


def _has_other_address(item: QueuedOrder, entry: Record) -> bool:
    if not entry.content.fingerprint:  # found at KK: only country and zip are known
        return item.content.goes_elsewhere(entry.content)
    # The ledger keeps no address, but with the goods that it knows the address decides the fingerprint.
    return fingerprint_with(item.payload, entry.content.goods) != entry.content.fingerprint


def found_as_integer(ledger: AnyLedger, item: QueuedOrder) -> Record | None:
    """Return the order that healing has found under this job's number without leading zeros."""
    plain = plain_number(item.key or "")
    if plain == item.key:
        return None
    entry = ledger.look_up([plain]).get(plain)
    return entry if entry is not None and entry.message == FOUND_AS_INTEGER else None
