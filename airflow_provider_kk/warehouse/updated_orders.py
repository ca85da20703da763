"""A complete reading of what has changed at KK: its orders by their last update."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_provider_kk.delivery.clock import Clock
from airflow_provider_kk.delivery.model import InconclusiveError

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import KKOrder, OrderPage

LAG_S = 600.0
"""Seconds before now at which KK advises to end a period."""

#: More rows than these are read in smaller slices, since a slice is kept in memory.
_MAX_ROWS_AT_ONCE = 20_000
_MAX_PAGES = 2_100
_SHORTEST_SLICE_S = 2


@dataclass(frozen=True)
class Changes:
    """All orders whose last change is in a slice of the period, by KK's clock, epoch seconds."""

    until: int
    orders: list[KKOrder]


class UpdatedOrders:
    """Lists orders by their last update, completely or not at all."""

    def __init__(self, client: KKClient, clock: Clock | None = None) -> None:
        self._client = client
        self._clock = clock or Clock()

    def read(self, since: float) -> Iterator[Changes]:
        """Yield the orders changed from `since` (epoch seconds) to 10 minutes before now, oldest first.

        :raises InconclusiveError: even the shortest slice may be incomplete.
        :raises KKError: KK cannot be read.
        """
        began = self._clock.wall()
        slices = [(int(since), int(began - LAG_S))]
        while slices:
            start, end = slices.pop()
            if start >= end:
                continue
            orders = self._read_slice(start, end)
            # KK lists by its own clock, which is known after its first answer.
            limit = int(began - LAG_S + min(self._client.clock_skew_s or 0.0, 0.0))
            if end > limit:
                slices.append((start, limit))
            elif orders is not None:
                yield Changes(end, orders)
            elif end - start > _SHORTEST_SLICE_S:
                middle = (start + end) // 2
                slices += [(middle, end), (start, middle)]
            else:
                raise InconclusiveError(
                    "KK's list of changed orders could not be read completely, since its pages contradict "
                    "each other"
                )

    def _read_slice(self, start: int, end: int) -> list[KKOrder] | None:
        """Return every order of a slice, or None if its pages do not prove to be all."""
        pages = _Pages(self._client, start, end)
        first = pages.read(1)
        if not first.orders or (first.total is not None and len(first.orders) >= first.total):
            return pages.orders if not first.total or first.orders else None
        if first.total is None:
            last = pages.last_of_unknown()
        elif first.total > _MAX_ROWS_AT_ONCE and end - start > _SHORTEST_SLICE_S:
            return None
        else:
            last = math.ceil(first.total / len(first.orders))
        for number in range(min(last, _MAX_PAGES), 1, -1):
            pages.read(number)
        if last > 1 and (pages.total is None or pages.total != first.total):
            pages.read(1)
        # A server that lists rows twice has more pages than its total suggests.
        while not pages.are_whole and pages.grow(last + 1):
            last += 1
        return pages.orders if pages.are_whole else None


class _Pages:
    """The orders on the pages of one slice that were read so far."""

    def __init__(self, client: KKClient, start: int, end: int) -> None:
        self._client = client
        # Neighbours overlap, as in `KKOrderList.find`.
        self._period = (datetime.fromtimestamp(start - 1, UTC), datetime.fromtimestamp(end + 1, UTC))
        self._seen: dict[str, KKOrder] = {}
        self.total: int | None = None

    def read(self, number: int) -> OrderPage:
        since, until = self._period
        page = self._client.list_orders(updated_from=since, updated_to=until, page_number=number)
        self.total = page.total
        for order in page.orders:
            # One without a readable id counts as a row too, if only once.
            self._seen[order.id or order.model_dump_json()] = order
        return page

    def last_of_unknown(self) -> int:
        """Return the last page that has a new order, for a list without a total."""
        number = 1
        while number < _MAX_PAGES and self.grow(number + 1):
            number += 1
        return number

    def grow(self, number: int) -> bool:
        """Read a page; return whether it has a new order."""
        known = len(self._seen)
        self.read(number)
        return len(self._seen) > known

    @property
    def orders(self) -> list[KKOrder]:
        return list(self._seen.values())

    @property
    def are_whole(self) -> bool:
        return len(self._seen) >= (self.total or 0)
