"""The same worlds in less time: what costs much in a simulation, and on which nothing depends."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import field, fields, make_dataclass
from typing import Any
from unittest.mock import patch

from airflow_provider_kk.delivery import orders
from airflow_provider_kk.delivery.board import Finished, Item
from airflow_provider_kk.delivery.job import Job, Sighting
from airflow_provider_kk.delivery.rows import Answer, Attempt, Claim, Entry, Origin
from airflow_provider_kk.delivery.runs import SyncRun
from airflow_provider_kk.delivery.settle import Policy, _Verdict
from airflow_provider_kk.delivery.store import RunRow
from tests.simulation.kk import Order

_RECORDS: tuple[Any, ...] = (
    *(Answer, Attempt, Claim, Entry, Finished, Item, Job, Order, Origin, Policy),
    *(RunRow, Sighting, SyncRun, _Verdict),
)


@contextmanager
def quickened() -> Iterator[None]:
    """While it lasts, nothing forbids to change frozen records, and a row of KK's list is read only once."""
    read = orders.sighting

    def read_once(row: Any) -> Sighting:
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
        with patch.object(orders, "sighting", read_once):
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
