"""The same worlds in less time: what costs much in a simulation, and on which nothing depends."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field, fields, make_dataclass
from typing import Any
from unittest.mock import patch

from airflow_provider_kk.delivery import listing
from airflow_provider_kk.delivery.model import Attempt, AttemptResult, Claim, Job, ListedOrder, Origin, Record
from airflow_provider_kk.delivery.reconcile import AbsencePolicy, _Decision
from airflow_provider_kk.delivery.run_queue import QueuedOrder, RunResult
from airflow_provider_kk.delivery.storage import RunRow
from tests.simulation.kk import Order

_RECORDS: tuple[Any, ...] = (
    *(AttemptResult, Attempt, Claim, Record, RunResult, QueuedOrder, Job, Order, Origin, AbsencePolicy),
    *(RunRow, ListedOrder, _Decision),
)


@contextmanager
def quickened() -> Iterator[None]:
    """While it lasts, nothing forbids to change frozen records, and a row of KK's list is read only once."""
    read = listing.listed_order

    def read_once(row: Any) -> ListedOrder:
        if row.sighting is None:
            row.sighting = read(row)
        return row.sighting  # type: ignore[no-any-return]

    frozen = [(one, one.__init__, one.__setattr__, one.__delattr__) for one in _RECORDS]
    for one in _RECORDS:
        one.__init__ = _plain_init(one)
        # It is what takes most of the time to make a record: each field goes through it.
        del one.__setattr__, one.__delattr__
    gc.disable()  # it costs a fifth, and finds nothing before a world ends
    gc.freeze()  # what was there before the worlds is not looked through after each
    try:
        with patch.object(listing, "listed_order", read_once):
            yield
    finally:
        gc.enable()
        gc.collect()
        for one, made, changed, deleted in frozen:
            one.__init__, one.__setattr__, one.__delattr__ = made, changed, deleted


def forget_world() -> None:
    """Free what a world has left, so that the next finds its memory in the processor's cache."""
    gc.collect(0)


def _plain_init(record: Any) -> Any:
    return make_dataclass(
        record.__name__,
        [
            (one.name, Any, field(default=one.default, default_factory=one.default_factory))
            for one in fields(record)
        ],
    ).__init__
