"""Orders as jobs, and a complete reading of the orders that KK lists by creation time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.api.redact import redact
from airflow_provider_kk.delivery.model import Content, Goods, InconclusiveError, Job, ListedOrder, zip_digest

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import KKOrder, Order
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.run_queue import QueuedOrder

_PAGE_SIZE = 250
#: Periods with more rows are read in smaller slices, since rows shift while pages are read.
_MAX_ROWS_AT_ONCE = 1_000
_MAX_PAGES = 2 * _MAX_ROWS_AT_ONCE // 10
_SHORTEST_SLICE_S = 2
#: Values of `status`, v1 and v2.
CANCELLED = ("cancel", "refunded")


def order_job(order: Order, client: KKClient) -> Job:
    """Make the job that creates this order; it must have its number."""
    if order.custom_order_number is None:
        raise ValueError("an order needs a custom_order_number to be delivered")
    return Job(
        key=order.custom_order_number,
        content=content_of(order),
        send=lambda before_send: client.post_order(order, throttled=False, before_send=before_send),
        redact=lambda text: redact(text, order.private_values()),
    )


def content_of(order: Order) -> Content:
    """Return an order's content, as the ledger keeps it."""
    number, address = order.custom_order_number or "", order.address
    return Content(
        fingerprint(order), goods_of(order.items), address.country, zip_digest(number, address.zip)
    )


def goods_of(lines: Iterable[Any]) -> dict[str, int]:
    """Return quantities by SKU in upper case; nothing if a line lacks either."""
    goods: dict[str, int] = {}
    for line in lines:
        if line.sku is None or line.quantity is None:
            return {}
        goods[line.sku.upper()] = goods.get(line.sku.upper(), 0) + line.quantity
    return goods


def fingerprint(order: Order) -> str:
    """Return a digest of an order's goods and address, without case, spaces and the order of lines.

    It begins with the version of its format.
    """
    return _fingerprint(goods_of(order.items), order.address.model_dump())


def fingerprint_with(payload: str, goods: Goods) -> str:
    """Return the fingerprint that an order in JSON would have with these goods."""
    return _fingerprint(goods, json.loads(payload)["address"])


def difference(item: QueuedOrder, entry: Record) -> str:
    """Describe the difference between an order and the one under its number: goods, address, or both."""
    if item.content.goods == entry.content.goods:
        what = "its address differs"
    else:
        what = "its goods and address differ" if _has_other_address(item, entry) else "its goods differ"
    return f"{what} from the order that was sent under this number"


def _has_other_address(item: QueuedOrder, entry: Record) -> bool:
    if not entry.content.fingerprint:  # an adopted order: only country and zip are known
        return item.content.goes_elsewhere(entry.content)
    # The ledger has no address. With its goods, the address alone makes the fingerprint differ.
    return fingerprint_with(item.payload, entry.content.goods) != entry.content.fingerprint


def _fingerprint(goods: Goods, address: Mapping[str, str | None]) -> str:
    plain = {
        name: " ".join(str(value).split()).casefold() for name, value in address.items() if value is not None
    }
    text = json.dumps([sorted(goods.items()), plain], sort_keys=True)
    return "1:" + hashlib.sha256(text.encode()).hexdigest()[:40]


class KKOrderList:
    """Lists KK's orders by creation time, completely or not at all.

    Source: KK's page "Query orders". A short page does not prove the end of the list, since a server may cap
    the page size. Rows may shift between pages. There is no filter by the caller's number.
    """

    def __init__(self, client: KKClient) -> None:
        self._client = client

    @property
    def clock_skew_s(self) -> float | None:
        """KK's clock minus this machine's, in seconds, at the last answer."""
        return self._client.clock_skew_s

    def find(self, since: float, until: float) -> Iterator[list[ListedOrder]]:
        """Yield the orders created from `since` to `until` (epoch seconds) in complete slices.

        :raises InconclusiveError: even the shortest slice may be incomplete.
        :raises KKError: KK cannot be read.
        """
        # KK's parameters have whole seconds, and it is not documented whether a period includes its bounds,
        # so neighbouring slices overlap by one second.
        slices = [(int(since) - 1, int(until) + 2)]
        while slices:
            start, end = slices.pop()
            rows = self._read_slice(start, end)
            if rows is not None:
                yield [listed_order(row) for row in rows]
            elif end - start > _SHORTEST_SLICE_S:
                middle = (start + end) // 2
                slices += [(middle, end), (start, middle + 1)]
            else:
                raise InconclusiveError(
                    "KK's list of orders could not be read completely, since its pages contradict each other"
                )

    def _read_slice(self, start: int, end: int) -> list[KKOrder] | None:
        """Return every order of a slice, or None if its pages do not prove to be all."""
        seen: dict[str, KKOrder] = {}
        total = None
        since, until = datetime.fromtimestamp(start, UTC), datetime.fromtimestamp(end, UTC)
        for page_number in range(1, _MAX_PAGES):
            page = self._client.list_orders(
                created_from=since, created_to=until, page_number=page_number, page_size=_PAGE_SIZE
            )
            if page_number > 1 and page.total != total:
                return None  # rows were added or removed meanwhile
            total = page.total
            if total is not None and total > _MAX_ROWS_AT_ONCE and end - start > _SHORTEST_SLICE_S:
                return None
            if not page.orders:
                # An empty page ends a list, but only the rows of a single page cannot have shifted.
                is_whole = page_number <= 2 and total in (None, len(seen))
                return list(seen.values()) if is_whole else None
            if page_number > 1 and total is None:
                return None
            seen.update({order.id: order for order in page.orders})
            if "" in seen:
                raise InconclusiveError("KK's list has orders whose id is missing or cannot be parsed")
            if len(seen) == total:
                return list(seen.values())
        return None


def listed_order(order: KKOrder) -> ListedOrder:
    """Return a listed order without its personal data."""
    address = order.shipping_address
    return ListedOrder(
        id=order.id,
        key=order.custom_order_number,
        key_is_integer=order.number_is_integer,
        goods=goods_of(order.items) or None,
        country=address.country if address else None,
        zip=address.zip if address else None,
        created_at=order.created_at.timestamp() if order.created_at else None,
        is_cancelled=order.status in CANCELLED,
    )
