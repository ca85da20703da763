"""KKClient: KK's calls as methods. One request, one paging loop; the network is `transport.py`.

Ids are always `str`, times aware datetimes, money Decimal. Every call that fails raises a KKError
(`errors.py`) whose outcome says what is proven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from airflow_provider_kk.api.api_versions import ADDRESS_KEYS, API_VERSIONS
from airflow_provider_kk.api.errors import KKRateLimitedError, KKUnknownOutcomeError
from airflow_provider_kk.api.models import (
    Channel,
    KKOrder,
    KKProduct,
    Order,
    OrderItem,
    OrderPage,
    Refund,
    Shipment,
    Stock,
    Warehouse,
)
from airflow_provider_kk.api.paging import checked_id, chunks, listing, paged, present, rows_of, utc_text
from airflow_provider_kk.api.responses import data_of, kk_order_ids
from airflow_provider_kk.api.throttle import LocalBucket, Throttle
from airflow_provider_kk.api.transport import Request, Transport

MAX_PAGE_SIZE = 250
"""The most orders that KK lists on a page."""
MAX_SKUS = 30
"""The most SKUs that KK takes in one question about products or stock."""

_RATE_LIMIT_RETRIES = 3
_IDS_AT_ONCE = 50


class KKClient:
    """One KK store through one access token. Safe for many threads.

    `api_version` is one of `API_VERSIONS`, `address_key` one of `ADDRESS_KEYS`, `sale_platform` goes with
    orders that name none. `timeout_s` is for a whole call. `throttle` is asked before each request; without
    one, a bucket of KK's figures for this process. Raises ValueError for settings that cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        api_version: str = "v1",
        address_key: str = "orderAddresses",
        sale_platform: str | None = None,
        timeout_s: float = 30.0,
        throttle: Throttle | None = None,
        use_env_proxies: bool = False,
        ca_bundle: str | None = None,
    ) -> None:
        if api_version not in API_VERSIONS:
            raise ValueError(f"the API version must be one of {', '.join(API_VERSIONS)}")
        if address_key not in ADDRESS_KEYS:
            raise ValueError(f"the address key must be one of {', '.join(ADDRESS_KEYS)}")
        self._api_version = API_VERSIONS[api_version]
        self._address_key = address_key
        self._sale_platform = sale_platform
        self._token = token
        self._throttle: Throttle = throttle if throttle is not None else LocalBucket()
        self._transport = Transport(
            base_url, token, timeout_s=timeout_s, use_env_proxies=use_env_proxies, ca_bundle=ca_bundle
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def clock_skew_s(self) -> float | None:
        """KK's `Date` minus this machine's wall clock, in seconds, at the last answer that had one."""
        return self._transport.clock_skew_s

    @property
    def requests(self) -> int:
        """How many requests were attempted so far."""
        return self._transport.requests

    def close(self) -> None:
        """Close kept connections."""
        self._transport.close()

    def create_order(self, order: Order | Mapping[str, Any] | str) -> list[str]:
        """Check `order`, then create it as `post_order` does. Raises InvalidOrderError, too."""
        return self.post_order(Order.parse(order))

    def post_order(
        self,
        order: Order,
        *,
        throttled: bool = True,
        before_send: Callable[[float], None] | None = None,
    ) -> list[str]:
        """Create a checked order and return its kkOrderIds, several when KK splits it (page "Create order").

        The same order sent twice is two orders at KK. `before_send` gets the seconds left once connection
        and TLS stand, right before the first byte; if it raises, no byte is sent. With `throttled=False`
        the caller has a place in the rate limit already, and a 429 is not tried again.

        Raises KKNotSentError, KKRateLimitedError, KKAuthError, KKEndpointError (not sent), KKRejectedError
        (KK said no), KKUnknownOutcomeError (KK may have it).
        """
        call = Request(
            "POST",
            self._api_version.orders_path,
            body=self._api_version.create_body(order, self._address_key, self._sale_platform),
            is_write=True,
            before_send=before_send,
        )
        ids = kk_order_ids(self._data(call, throttled=throttled, secrets=order.private_values()))
        if not ids:
            raise KKUnknownOutcomeError("KK reports success without an order id that can be read", code=10000)
        return ids

    def list_orders(
        self,
        *,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        ids: Iterable[str] | None = None,
        status: str | Iterable[str] | None = None,
        page_number: int = 1,
        page_size: int = MAX_PAGE_SIZE,
    ) -> OrderPage:
        """One page of KK's orders (page "Query orders"). Only an empty page proves the end.

        Times must be aware; they are sent in whole seconds that never narrow the window. `status` exists in
        v1 only. KK may show an order minutes after it was made. Raises KKAnswerError and its kin,
        ValueError for arguments.
        """
        if status is not None and not self._api_version.filters_by_status:
            raise ValueError(f"KK's API {self._api_version.name} does not filter orders by status")
        params = {
            "createStartTime": utc_text(created_from),
            "createEndTime": utc_text(created_to, up=True),
            "updateStartTime": utc_text(updated_from),
            "updateEndTime": utc_text(updated_to, up=True),
            "ids": ",".join(checked_id(kk_id) for kk_id in ids) if ids is not None else None,
            "status": status if status is None or isinstance(status, str) else ",".join(status),
            "pageNumber": str(page_number),
            "pageSize": str(min(page_size, MAX_PAGE_SIZE)),
        }
        return OrderPage.read(
            listing(self._data(Request("GET", self._api_version.orders_path, params=present(params))))
        )

    def iter_orders(
        self,
        *,
        created_from: datetime | None = None,
        created_to: datetime | None = None,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        ids: Iterable[str] | None = None,
        status: str | Iterable[str] | None = None,
    ) -> Iterator[KKOrder]:
        """All orders of a window, each id once; arguments as in `list_orders`.

        Rows that move between pages while they are read can be missed: who needs all of them fixes both
        bounds.
        """
        wanted_ids = list(ids) if ids is not None else None

        def page(number: int) -> list[KKOrder]:
            return self.list_orders(
                created_from=created_from,
                created_to=created_to,
                updated_from=updated_from,
                updated_to=updated_to,
                ids=wanted_ids,
                status=status,
                page_number=number,
            ).orders

        return paged(page, key=lambda order: order.id)

    def get_order(self, kk_order_id: str) -> KKOrder | None:
        """One order by KK's id, or None when KK lists no such order."""
        return next(iter(self.get_orders([kk_order_id])), None)

    def get_orders(self, kk_order_ids: Iterable[str]) -> list[KKOrder]:
        """The orders with these ids, in this order; those that KK does not list are left out."""
        wanted = list(dict.fromkeys(checked_id(kk_id) for kk_id in kk_order_ids))
        found: dict[str, KKOrder] = {}
        for chunk in chunks(wanted, _IDS_AT_ONCE):
            for number in range(1, len(chunk) + 1):
                orders = self.list_orders(ids=chunk, page_number=number).orders
                new = {order.id: order for order in orders if order.id in chunk and order.id not in found}
                found |= new
                # A page without a new one ends it too: a server that ignores `ids` lists its whole store.
                if not new or all(kk_id in found for kk_id in chunk):
                    break
        return [found[kk_id] for kk_id in wanted if kk_id in found]

    def refund_order(
        self,
        kk_order_id: str,
        remark: str,
        *,
        lines: Sequence[Mapping[str, Any]] | None = None,
        refund_reason: str = "Other",
        before_send: Callable[[float], None] | None = None,
        throttled: bool = True,
    ) -> str:
        """Ask for a refund of an order, or of some `lines`, and return the refund number (page "Refund").

        A line is `{itemId, skuCode, quantity, countryCode}`. Only before shipping; KK decides within a day.
        The same call twice may be two refunds. Raises like `create_order`.
        """
        body: dict[str, Any] = {"remark": remark}
        if lines is not None:
            body |= {"refundReason": refund_reason, "orderItems": [dict(line) for line in lines]}
        path = self._api_version.refund_path.format(id=checked_id(kk_order_id))
        call = Request("POST", path, body=body, is_write=True, before_send=before_send)
        data = self._data(call, throttled=throttled, secrets=(remark,))
        numbers = kk_order_ids(
            data.get("refundNo") if isinstance(data, Mapping) and "refundNo" in data else data
        )
        if not numbers:
            raise KKUnknownOutcomeError(
                "KK reports success without a refund number that can be read", code=10000
            )
        return numbers[0]

    def get_refunds(self, kk_order_id: str) -> list[Refund]:
        """The refunds of one order, and what became of them."""
        path = self._api_version.refunds_path.format(id=checked_id(kk_order_id))
        return [Refund.read(row) for row in rows_of(self._data(Request("GET", path)))]

    def get_channels(
        self,
        items: Sequence[OrderItem | Mapping[str, Any]] | str,
        country: str,
        *,
        split: bool = False,
    ) -> list[Channel]:
        """Ways to ship these goods to a country, with freight; `split`: of an order that KK splits.

        Documented under v2 only, so every version asks there. Raises InvalidOrderError before anything is
        asked, KKRejectedError when KK says no (an unknown SKU), KKAnswerError and its kin.
        """
        shipment = Shipment.parse({"items": items, "country": country})
        body = {
            "products": [item.model_dump() for item in shipment.items],
            "shipToCountry": shipment.country,
        }
        path = "/openapi/v2/order/orders/channel" + ("/automationSplit" if split else "")
        return [Channel.read(row) for row in rows_of(self._data(Request("POST", path, body=body)))]

    def get_balance(self) -> Any:
        """The account's balance, as KK sends it: its form is not documented."""
        return self._data(Request("GET", "/openapi/v1/payment/balance"))

    def iter_stock(
        self,
        skus: Iterable[str] | None = None,
        *,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        warehouse_code: str | None = None,
    ) -> Iterator[Stock]:
        """Stock by warehouse, of these SKUs or of all that changed in a window (page "Product stocks").

        At most `MAX_SKUS` are asked for in a request; what KK answers for an unknown SKU is not documented.
        """
        window = _window(updated_from, updated_to) | present({"warehouseCode": warehouse_code})
        for row in self._iter_rows("/openapi/v1/product/stocks", "skus", skus, window):
            yield Stock.read(row)

    def iter_products(
        self,
        skus: Iterable[str] | None = None,
        *,
        spus: Iterable[str] | None = None,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        category_id: str | None = None,
    ) -> Iterator[KKProduct]:
        """Products with their SKUs, by SKUs, SPUs, a window of changes or a category (page "Products").

        At most `MAX_SKUS` codes are asked for in a request. KK does not document what it answers for an
        unknown code, nor whether it lists the other SKUs of a product too: identify each SKU by its `sku`.
        """
        key, codes = ("skus", skus) if spus is None else ("spus", spus)
        window = _window(updated_from, updated_to) | present({"categoryId": category_id})
        for row in self._iter_rows("/openapi/v1/product/products", key, codes, window):
            yield KKProduct.read(row)

    def get_warehouses(self) -> list[Warehouse]:
        """KK's warehouses."""
        return [
            Warehouse.read(row)
            for row in rows_of(self._data(Request("GET", "/openapi/v1/product/countryAndWarehouse")))
        ]

    def get_categories(self) -> Any:
        """KK's tree of categories, as KK sends it."""
        return self._data(Request("GET", "/openapi/v1/product/category"))

    def _iter_rows(
        self, path: str, key: str, codes: Iterable[str] | None, window: Mapping[str, str]
    ) -> Iterator[Any]:
        """Rows by codes, a few at once, else page by page."""
        if codes is not None:
            for chunk in chunks(list(dict.fromkeys(codes)), MAX_SKUS):
                yield from rows_of(self._data(Request("GET", path, params={key: ",".join(chunk), **window})))
            return

        def page(number: int) -> list[Any]:
            return rows_of(self._data(Request("GET", path, params={**window, "pageNumber": str(number)})))

        yield from paged(page, key=repr)

    def _data(self, call: Request, *, throttled: bool = True, secrets: Iterable[str] = ()) -> Any:
        """The one way to KK: a place in the rate limit, the exchange, the answer's `data`."""
        secrets = (self._token, *secrets)
        for retries_left in reversed(range(_RATE_LIMIT_RETRIES + 1)):
            if throttled:
                self._throttle.acquire()
            try:
                return data_of(self._transport.send(call), is_write=call.is_write, secrets=secrets)
            except KKRateLimitedError as error:
                self._throttle.back_off(error.retry_after_s)
                # Proven not to have been acted on, so even what changes something may be asked again.
                if not (throttled and retries_left):
                    raise
        raise AssertionError("the last try returns or raises")


def _window(updated_from: datetime | None, updated_to: datetime | None) -> dict[str, str]:
    return present({"dateStartTime": utc_text(updated_from), "dateEndTime": utc_text(updated_to, up=True)})
