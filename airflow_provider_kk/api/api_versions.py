"""Describe KK's API versions as data: where each call lives and what its fields are called.

`v1` is the API as first documented, `v1-orders` its later revision (pages "Create order" and "Query orders",
v1), `v2` the current one. Another API version is one more entry of `API_VERSIONS`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_kk.api.errors import Fault, InvalidOrderError
from airflow_provider_kk.api.models import Order
from airflow_provider_kk.api.validators import CHANNEL_TYPES

ADDRESS_KEYS = ("orderAddresses", "orderAddress")
"""All of KK's examples have `orderAddresses`, one of its tables has `orderAddress`."""


@dataclass(frozen=True)
class ApiVersion:
    """One version of the API (pages "Create order", "Query orders", "Refund").

    `create_keys` pairs KK's key with our field, in the order in which they are sent after the address.
    `orders_path` creates by POST and lists by GET. `{id}` in a path stands for a kkOrderId.
    `channel_types` are the documented shipping speeds, none where the version has no such field.
    `default_channel_type` is for orders that name none; None where KK does not require the field.
    """

    name: str
    orders_path: str
    refund_path: str
    refunds_path: str
    create_keys: tuple[tuple[str, str], ...]
    channel_types: tuple[str, ...]
    default_channel_type: str | None
    filters_by_status: bool

    def check(self, order: Order) -> None:
        """Raise InvalidOrderError when this version does not document the order's shipping speed.

        KK does not document what it does then. It may ship more slowly without notice.
        """
        if self.channel_types and order.channel_type not in (None, *self.channel_types):
            speeds = " or ".join(self.channel_types)
            raise InvalidOrderError((Fault("channel_type", f"must be {speeds} in API version {self.name}"),))

    def create_body(self, order: Order, address_key: str, sale_platform: str | None) -> dict[str, Any]:
        """Return the JSON body that creates `order`. Absent optional fields are left out.

        `address_key` is one of `ADDRESS_KEYS`; `sale_platform` is for orders that name none.
        Raises InvalidOrderError like `check`.
        """
        self.check(order)
        fields = order.model_dump(exclude_none=True)
        fields.setdefault("sale_platform", sale_platform)
        fields.setdefault("channel_type", self.default_channel_type)
        body = {address_key: fields["address"]}
        body.update((key, fields[field]) for key, field in self.create_keys if fields.get(field) is not None)
        return body


_V1 = ApiVersion(
    name="v1",
    orders_path="/openapi/v1/order/order",
    refund_path="/openapi/v1/order/orders/{id}/refund",
    refunds_path="/openapi/v1/order/orders/refund/{id}",
    create_keys=(
        ("remark", "remark"),
        ("orderItemsList", "items"),
        ("CustomOrderNumber", "custom_order_number"),
        ("SalePlatform", "sale_platform"),
    ),
    channel_types=(),
    default_channel_type=None,
    filters_by_status=True,
)

_V1_ORDERS = replace(
    _V1,
    name="v1-orders",
    orders_path="/openapi/v1/order/orders",
    create_keys=(
        ("remark", "remark"),
        ("orderItemsList", "items"),
        ("customOrderId", "custom_order_number"),
        ("salePlatform", "sale_platform"),
        ("channelType", "channel_type"),
    ),
    channel_types=("Standard", "Express"),
)

_V2 = ApiVersion(
    name="v2",
    orders_path="/openapi/v2/order/orders",
    refund_path="/openapi/v2/order/orders/{id}/refund",
    refunds_path="/openapi/v2/order/orders/refund/{id}",
    create_keys=(
        ("orderItemsList", "items"),
        ("remark", "remark"),
        ("customOrderId", "custom_order_number"),
        ("salePlatform", "sale_platform"),
        ("channelType", "channel_type"),
    ),
    channel_types=CHANNEL_TYPES,
    default_channel_type="Standard",
    filters_by_status=False,
)

API_VERSIONS: dict[str, ApiVersion] = {version.name: version for version in (_V1, _V1_ORDERS, _V2)}
