"""Settings of a running sandbox, for behaviour that KK does not document or may change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints


@dataclass
class Settings:
    """The behaviour of this KK. Times are seconds of the sandbox's clock."""

    #: The create answer's `data`; `first` hides the further ids of a split, most others join them by commas.
    answer: Literal["number", "text", "comma", "list", "kkOrderIds", "id", "first"] = "number"
    #: Orders and refunds younger than this are not listed.
    list_lag_s: float = 0.0
    #: Seconds until lists have a change; until then they have the order before the change.
    update_lag_s: float = 0.0
    #: Every n-th row of a page is listed twice; 0: none.
    repeat_every: int = 0
    #: The largest page size, also if the caller requests more.
    page_cap: int = 250
    #: The form of a list's total number of rows.
    total: Literal["number", "text", "missing"] = "number"
    #: `updated` moves a changed row to the front, so that pages shift while they are read.
    sort: Literal["created", "updated"] = "created"
    #: Dates of listed orders: ISO 8601, or only years as in one old example.
    dates: Literal["iso", "year"] = "iso"
    #: A number that looks like an integer is listed as one.
    integer_numbers: bool = False
    #: The field name of the caller's number in lists; empty: the documented name of each call.
    number_field: str = ""
    #: Which spelling of the address is read in a new order.
    address_key: Literal["either", "orderAddresses", "orderAddress"] = "either"
    #: The answer to a wrong token; `envelope_200` is code 401 with HTTP 200.
    unauthorized: Literal["envelope", "empty", "html", "envelope_200"] = "envelope"
    #: HTTP status of a rejection's envelope.
    rejection_status: int = 200
    #: The leaky bucket.
    rate_limit: bool = True
    rate_burst: int = 120
    rate_per_second: float = 2.0
    #: Seconds in a 429's `Retry-After`; negative: no such header.
    retry_after_s: float = -1.0
    #: Whether orders use up the stock. Without it, a long test never sells out.
    orders_take_stock: bool = False
    #: Also sell SKUs that the catalogue lacks, so that a shop can test with its own tables.
    any_sku: bool = False
    #: Seconds from creation to KK's payment from the balance.
    pay_after_s: float = 600.0
    #: Seconds from a refund's request to its decision.
    refund_after_s: float = 3600.0
    #: Seconds from its last change until an order is packed, shipped, its second parcel shipped, delivered;
    #: negative: never. See `life.py`.
    pack_after_s: float = 86_400.0
    ship_after_s: float = 86_400.0
    second_parcel_after_s: float = 86_400.0
    deliver_after_s: float = 604_800.0
    #: Real seconds that every call waits before it is handled.
    latency_s: float = 0.0

    def change(self, **changes: Any) -> None:
        """Change settings, all or none.

        Raises:
            ValueError: there is no such setting, or a value has the wrong type.
        """
        known = get_type_hints(Settings)
        for name, value in changes.items():
            if name not in known:
                raise ValueError(f"there is no setting {name!r}. Use one of: {', '.join(sorted(known))}")
            kind = known[name]
            if choices := get_args(kind):
                if value not in choices:
                    raise ValueError(f"{name} must be one of {', '.join(choices)}")
            elif type(value) is not kind and (type(value), kind) != (int, float):
                raise ValueError(f"{name} must be a value of type {kind.__name__}")
        vars(self).update(changes)
