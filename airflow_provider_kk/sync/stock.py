"""Stock check: whether KK has the goods of an order, before it is sent."""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from airflow_provider_kk.api.client import MAX_SKUS, chunks
from airflow_provider_kk.api.errors import Fault, KKAnswerError, KKRejectedError

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import Stock
    from airflow_provider_kk.delivery.run_queue import QueuedOrder

_NOT_LISTED = "KK does not list this SKU"
_UNREADABLE = "KK's stock of it cannot be parsed"
_MOST = 10**18
"""More than any order needs, and little enough for a column of the file."""


class _Found(NamedTuple):
    """KK's stock of one SKU over all warehouses, and a fault if a part of it cannot be parsed."""

    quantity: int
    fault: str = ""


class StockCheck:
    """KK's stock during one run: each SKU is read once, and each order reserves its goods.

    An order that lacks goods reserves nothing. The stock of an SKU is the sum over all warehouses, since KK
    splits orders by warehouse. Use it in one thread. It keeps its data in a private temporary file, so memory
    does not grow with the number of orders or SKUs.

    Source: KK's page "Product stocks", at most 30 SKUs a request. KK does not document which SKUs it leaves
    out, so missing ones are read once more, without the others, before they count as not listed.
    """

    def __init__(self, client: KKClient) -> None:
        self._client = client
        self._coming: deque[QueuedOrder] = deque()
        self._has_answered = False
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode=OFF;"
            "CREATE TABLE stock (sku TEXT PRIMARY KEY, at_kk INTEGER, at_hand INTEGER, fault TEXT);"
            "CREATE TABLE served (position INTEGER PRIMARY KEY);"
        )

    def close(self) -> None:
        """Drop the file."""
        self._db.close()

    def expect(self, items: Iterable[QueuedOrder]) -> None:
        """Announce the orders that come next, so that their SKUs fill up requests for other SKUs."""
        self._coming = deque(items)

    def shortage(self, item: QueuedOrder) -> str:
        """Reserve an order's goods, or return each SKU that KK lacks, with the available quantity.

        A repeated call for the same order reserves nothing more.

        :raises KKError: KK's stock cannot be read.
        """
        if self._db.execute("SELECT 1 FROM served WHERE position = ?", (item.position,)).fetchone():
            return ""
        wanted = _wanted(item)
        self._fetch(wanted)
        faults = [fault for sku, lines in wanted.items() if (fault := self._fault(sku, lines)) is not None]
        if not faults:
            self._db.execute("INSERT INTO served VALUES (?)", (item.position,))
            taken = [(sum(lines.values()), sku) for sku, lines in wanted.items()]
            self._db.executemany("UPDATE stock SET at_hand = at_hand - ? WHERE sku = ?", taken)
        return "; ".join(map(str, faults))

    def _fault(self, sku: str, lines: Mapping[int, int]) -> Fault | None:
        at_kk, at_hand, fault = self._db.execute(
            "SELECT at_kk, at_hand, fault FROM stock WHERE sku = ?", (sku,)
        ).fetchone()
        wanted = sum(lines.values())
        if wanted <= at_hand:
            return None
        less = (
            f" of {at_kk} at KK, since earlier orders of this run need the others" if at_hand < at_kk else ""
        )
        path = ", ".join(f"items[{index}]" for index in lines)
        return Fault(path, f"{wanted} of {sku} ordered, {fault or f'{at_hand} available{less}'}")

    # Asking KK -------------------------------------------------------------------------------------

    def _fetch(self, wanted: Iterable[str]) -> None:
        own = self._unknown(wanted)
        if not own:
            return
        asked = dict.fromkeys(own)
        while self._coming and len(asked) < MAX_SKUS:
            asked.update(dict.fromkeys(self._unknown(_wanted(self._coming.popleft()))))
        for chunk in chunks(list(asked)[: max(MAX_SKUS, len(own))], MAX_SKUS):
            self._read_chunk(chunk)

    def _unknown(self, skus: Iterable[str]) -> list[str]:
        known = "SELECT 1 FROM stock WHERE sku = ?"
        return [sku for sku in skus if self._db.execute(known, (sku,)).fetchone() is None]

    def _read_chunk(self, skus: Sequence[str]) -> None:
        """Read these SKUs, one by one if KK rejects the request, so that one SKU does not stop the others."""
        try:
            self._learn(skus)
        except KKRejectedError as error:
            skus = self._unknown(skus)
            rejected = self._read_each(skus) if len(skus) > 1 else {skus[0]: _rejection(error)}
            if not self._has_answered:
                raise  # KK rejects every SKU, so the cause is another one
            self._keep(rejected)

    def _read_each(self, skus: Sequence[str]) -> dict[str, _Found]:
        rejected = {}
        for sku in skus:
            try:
                self._learn([sku])
            except KKRejectedError as error:
                rejected[sku] = _rejection(error)
        return rejected

    def _learn(self, skus: Sequence[str]) -> None:
        left = [sku for sku in skus if "," not in sku]  # a comma would make two SKUs of it in the request
        while left:
            found = _by_sku(self._read(left))
            listed = [sku for sku in left if sku.upper() in found]
            self._has_answered = True
            if not listed:
                break
            self._keep({sku: found[sku.upper()] for sku in listed})
            left = [sku for sku in left if sku.upper() not in found]
        self._keep({sku: _Found(0, _NOT_LISTED) for sku in self._unknown(skus)})

    def _read(self, skus: Sequence[str]) -> list[Stock]:
        try:
            return list(self._client.iter_stock(skus))
        except KKAnswerError:
            # One of thousands of requests may fail. A request that only reads can be repeated.
            return list(self._client.iter_stock(skus))

    def _keep(self, found: Mapping[str, _Found]) -> None:
        rows = [(sku, one.quantity, one.quantity, one.fault) for sku, one in found.items()]
        self._db.executemany("INSERT INTO stock VALUES (?, ?, ?, ?)", rows)


def _rejection(error: KKRejectedError) -> _Found:
    return _Found(0, f"KK rejects the request for its stock: {error.kk_message or f'code {error.code}'}")


def _wanted(item: QueuedOrder) -> dict[str, dict[int, int]]:
    """Return the quantities of an order by SKU and line."""
    wanted: dict[str, dict[int, int]] = {}
    for index, line in enumerate(json.loads(item.payload)["items"]):
        wanted.setdefault(line["sku"], {})[index] = line["quantity"]
    return wanted


def _by_sku(rows: Iterable[Stock]) -> dict[str, _Found]:
    """Return KK's stock by SKU in upper case."""
    found: dict[str, _Found] = {}
    for row in rows:
        if row.sku is None:
            continue
        before = found.get(row.sku.upper(), _Found(0))
        quantities = [one.quantity for one in row.warehouses]
        is_whole = None not in quantities and "warehouses" not in row.odd_fields
        total = before.quantity + sum(quantity or 0 for quantity in quantities)
        found[row.sku.upper()] = _Found(min(total, _MOST), before.fault if is_whole else _UNREADABLE)
    return found
