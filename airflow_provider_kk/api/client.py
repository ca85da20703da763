"""KKClient: KK's calls as methods. One request, one paging loop; the network is `transport.py`.

Ids are always `str`, times aware datetimes, money Decimal. Every call that fails raises a KKError
(`errors.py`) whose outcome is what is proven.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Self, TypedDict, TypeVar, Unpack

from airflow_provider_kk.api.api_versions import ADDRESS_KEYS, API_VERSIONS
from airflow_provider_kk.api.errors import KKAnswerError, KKRateLimitedError, KKUnknownOutcomeError
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
from airflow_provider_kk.api.responses import data_of, is_plausible_id, kk_order_ids
from airflow_provider_kk.api.throttle import LocalBucket, Throttle
from airflow_provider_kk.api.transport import Request, Transport

MAX_PAGE_SIZE = 250
"""The most orders that KK lists on a page."""
MAX_SKUS = 30
"""The most SKUs that KK takes in one request about products or stock."""

#: Requests in all that KK may answer with HTTP 429. The dispatcher counts the POSTs of its orders itself.
_RATE_LIMITED_TRIES = 4
_IDS_AT_ONCE = 50


class OrderFilter(TypedDict, total=False):
    """The orders that KK is asked for.

    Times must be aware; they are sent in whole seconds that never narrow the window. `status` exists in v1
    only.
    """

    created_from: datetime | None
    created_to: datetime | None
    updated_from: datetime | None
    updated_to: datetime | None
    ids: Iterable[str] | None
    status: str | Iterable[str] | None


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
        self._throttle = throttle or LocalBucket()
        self._transport = Transport(
            base_url, token, timeout_s=timeout_s, use_env_proxies=use_env_proxies, ca_bundle=ca_bundle
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def clock_skew_s(self) -> float | None:
        """KK's `Date` minus this machine's wall clock in seconds, at the last answer with a date."""
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

        The same order sent twice is two orders at KK. `before_send` gets the seconds left, right before the
        first byte; if it raises, no byte is sent. With `throttled=False` the caller has a permit of the rate
        limit already, and a 429 is not retried.

        Raises KKNotSentError, KKRateLimitedError, KKAuthError, KKEndpointError (not sent), KKRejectedError,
        KKUnknownOutcomeError (KK may have it).
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
            raise KKUnknownOutcomeError("KK reports success without a valid order id", code=10000)
        return ids

    def list_orders(
        self, *, page_number: int = 1, page_size: int = MAX_PAGE_SIZE, **wanted: Unpack[OrderFilter]
    ) -> OrderPage:
        """Return one page of KK's orders (page "Query orders"). Only an empty page proves the end.

        KK may list an order minutes after it was made. Raises a KKError, ValueError for arguments.
        """
        if unknown := wanted.keys() - OrderFilter.__annotations__.keys():
            raise TypeError(f"KK's orders cannot be filtered by {', '.join(sorted(unknown))}")
        ids, status = wanted.get("ids"), wanted.get("status")
        if status is not None and not self._api_version.filters_by_status:
            raise ValueError(f"KK's API {self._api_version.name} does not filter orders by status")
        params = {
            "createStartTime": _utc_text(wanted.get("created_from")),
            "createEndTime": _utc_text(wanted.get("created_to"), up=True),
            "updateStartTime": _utc_text(wanted.get("updated_from")),
            "updateEndTime": _utc_text(wanted.get("updated_to"), up=True),
            "ids": ",".join(_checked_id(kk_id) for kk_id in ids) if ids is not None else None,
            "status": _joined(status),
            "pageNumber": str(page_number),
            "pageSize": str(min(page_size, MAX_PAGE_SIZE)),
        }
        return OrderPage.read(_listing(self._get(self._api_version.orders_path, _present(params))))

    def iter_orders(self, **wanted: Unpack[OrderFilter]) -> Iterator[KKOrder]:
        """Yield all orders of a window, each id once.

        Rows that move between pages while they are read can be missed. To get all, set both bounds.
        """
        if (ids := wanted.get("ids")) is not None:
            wanted["ids"] = list(ids)
        wanted["status"] = _joined(wanted.get("status"))
        return _paged(
            lambda number: self.list_orders(page_number=number, **wanted).orders, key=lambda order: order.id
        )

    def get_order(self, kk_order_id: str) -> KKOrder | None:
        """Return one order by KK's id, or None when KK lists no such order."""
        return next(iter(self.get_orders([kk_order_id])), None)

    def get_orders(self, kk_order_ids: Iterable[str]) -> list[KKOrder]:
        """Return the orders with these ids, in this order, without those that KK does not list."""
        wanted = list(dict.fromkeys(_checked_id(kk_id) for kk_id in kk_order_ids))
        found: dict[str, KKOrder] = {}
        for chunk in chunks(wanted, _IDS_AT_ONCE):
            for number in range(1, len(chunk) + 1):
                orders = self.list_orders(ids=chunk, page_number=number).orders
                new = {order.id: order for order in orders if order.id in chunk and order.id not in found}
                found |= new
                # A page without a new order ends it, too: a server that ignores `ids` lists the whole store.
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
        """Request a refund of an order, or of some `lines`, and return its number (page "Refund").

        A line is `{itemId, skuCode, quantity, countryCode}`. Only before shipping; KK decides within a day.
        The same call twice may be two refunds. Raises like `create_order`.
        """
        body: dict[str, Any] = {"remark": remark}
        if lines is not None:
            body |= {"refundReason": refund_reason, "orderItems": [dict(line) for line in lines]}
        path = self._api_version.refund_path.format(id=_checked_id(kk_order_id))
        call = Request("POST", path, body=body, is_write=True, before_send=before_send)
        data = self._data(call, throttled=throttled, secrets=(remark,))
        numbers = kk_order_ids(
            data.get("refundNo") if isinstance(data, Mapping) and "refundNo" in data else data
        )
        if not numbers:
            raise KKUnknownOutcomeError("KK reports success without a valid refund number", code=10000)
        return numbers[0]

    def get_refunds(self, kk_order_id: str) -> list[Refund]:
        """Return the refunds of one order with their statuses."""
        path = self._api_version.refunds_path.format(id=_checked_id(kk_order_id))
        return [Refund.read(row) for row in _rows_of(self._get(path))]

    def get_channels(
        self,
        items: Sequence[OrderItem | Mapping[str, Any]] | str,
        country: str,
        *,
        split: bool = False,
    ) -> list[Channel]:
        """Return the ways to ship goods to a country, with freight; `split`: of an order that KK splits.

        It is documented under v2 only, so every version asks there. Raises InvalidOrderError before anything
        is sent, KKRejectedError (such as for an unknown SKU) or another KKError.
        """
        shipment = Shipment.parse({"items": items, "country": country})
        body = {
            "products": [item.model_dump() for item in shipment.items],
            "shipToCountry": shipment.country,
        }
        path = "/openapi/v2/order/orders/channel" + ("/automationSplit" if split else "")
        return [Channel.read(row) for row in _rows_of(self._data(Request("POST", path, body=body)))]

    def get_balance(self) -> Any:
        """Return the account's balance as KK sends it, since its form is not documented."""
        return self._get("/openapi/v1/payment/balance")

    def iter_stock(
        self,
        skus: Iterable[str] | None = None,
        *,
        updated_from: datetime | None = None,
        updated_to: datetime | None = None,
        warehouse_code: str | None = None,
    ) -> Iterator[Stock]:
        """Yield stock by warehouse, of these SKUs or of all that changed in a window (page "Product stocks").

        A request has at most `MAX_SKUS`. KK does not document its answer to an unknown SKU.
        """
        window = _window(updated_from, updated_to) | _present({"warehouseCode": warehouse_code})
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
        """Yield products with their SKUs, by SKUs, SPUs, a window of changes or a category (page "Products").

        A request has at most `MAX_SKUS` codes. KK documents neither its answer to an unknown code, nor
        whether it lists the other SKUs of a product, too: identify each SKU by its `sku`.
        """
        key, codes = ("skus", skus) if spus is None else ("spus", spus)
        window = _window(updated_from, updated_to) | _present({"categoryId": category_id})
        for row in self._iter_rows("/openapi/v1/product/products", key, codes, window):
            yield KKProduct.read(row)

    def get_warehouses(self) -> list[Warehouse]:
        """Return KK's warehouses."""
        rows = _rows_of(self._get("/openapi/v1/product/countryAndWarehouse"))
        return [Warehouse.read(row) for row in rows]

    def get_categories(self) -> Any:
        """Return KK's tree of categories, as KK sends it."""
        return self._get("/openapi/v1/product/category")

    def _iter_rows(
        self, path: str, key: str, codes: Iterable[str] | None, window: Mapping[str, str]
    ) -> Iterator[Any]:
        """Yield rows by codes, a few at once, else page by page."""
        if codes is not None:
            for chunk in chunks(list(dict.fromkeys(codes)), MAX_SKUS):
                yield from _rows_of(self._get(path, {key: ",".join(chunk), **window}))
            return

        def page(number: int) -> list[Any]:
            return _rows_of(self._get(path, {**window, "pageNumber": str(number)}))

        yield from _paged(page, key=repr)

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> Any:
        return self._data(Request("GET", path, params=params))

    def _data(self, call: Request, *, throttled: bool = True, secrets: Iterable[str] = ()) -> Any:
        """Send one request within the rate limit, and return the `data` of the answer."""
        secrets = (self._token, *secrets)
        tries_left = _RATE_LIMITED_TRIES if throttled else 1
        while True:
            if throttled:
                self._throttle.acquire()
            try:
                return data_of(self._transport.send(call), is_write=call.is_write, secrets=secrets)
            except KKRateLimitedError as error:
                self._throttle.back_off(error.retry_after_s)
                # KK has not acted on it, so even a write may be sent again.
                tries_left -= 1
                if not tries_left:
                    raise


def _window(updated_from: datetime | None, updated_to: datetime | None) -> dict[str, str]:
    return _present({"dateStartTime": _utc_text(updated_from), "dateEndTime": _utc_text(updated_to, up=True)})


T = TypeVar("T")

_STUCK_PAGES = 3


def _paged(page: Callable[[int], list[T]], key: Callable[[T], object]) -> Iterator[T]:
    """Yield the rows of `page(1)`, `page(2)`, ... up to an empty page, each key once, false keys always.

    Raises KKAnswerError when page after page has nothing new, since such a list has no end.
    """
    seen: set[object] = set()
    grew_at = 0
    for number in count(1):
        if not (rows := page(number)):
            return
        for row in rows:
            name = key(row)
            if name in seen:
                continue
            if name:
                seen.add(name)
                grew_at = number
            yield row
        if number >= grew_at + _STUCK_PAGES:
            raise KKAnswerError(f"KK's list does not end: pages up to {number} repeat earlier pages")


def _listing(data: Any) -> Mapping[str, Any]:
    """Return `data` of a listing as `{"list": [...], ...}`.

    A null list is an empty one. Anything else raises KKAnswerError: it must not pass for an empty list.
    """
    if isinstance(data, list):
        return {"list": data}
    if isinstance(data, Mapping) and "list" in data and isinstance(data["list"], list | None):
        return data
    raise KKAnswerError("KK's answer has no list")


def _rows_of(data: Any) -> list[Any]:
    """Return the rows of a listing. Raises KKAnswerError when it has no list."""
    return _listing(data)["list"] or []


def chunks(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Yield `values` in pieces of at most `size`."""
    return (values[start : start + size] for start in range(0, len(values), size))


def _utc_text(moment: datetime | None, *, up: bool = False) -> str | None:
    """Return a time for KK's parameters, in whole seconds rounded down, or up for the end of a window."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("times must have a time zone")
    moment = moment.astimezone(UTC)
    if up and moment.microsecond:
        moment += timedelta(seconds=1)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _checked_id(kk_id: str) -> str:
    """Return a kkOrderId that is fit for a path or a list. Raises ValueError for anything else."""
    if not isinstance(kk_id, str) or not is_plausible_id(kk_id):
        raise ValueError("a kkOrderId is text of up to 32 letters, digits, - and _")
    return kk_id


def _joined(values: str | Iterable[str] | None) -> str | None:
    return values if values is None or isinstance(values, str) else ",".join(values)


def _present(params: Mapping[str, str | None]) -> dict[str, str]:
    """Return the parameters that are set."""
    return {name: value for name, value in params.items() if value is not None}
