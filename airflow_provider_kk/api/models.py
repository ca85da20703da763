"""Check an order before it is sent: Order, OrderAddress, OrderItem.

Widths and required fields are those of KK's pages "Create order" (v1, v2); a width counts characters. Orders
that KK lists are read leniently, by `response_types.py`.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from airflow_provider_kk.api.countries import lost_zero_of_zip
from airflow_provider_kk.api.errors import Fault, InvalidOrderError
from airflow_provider_kk.api.response_types import (
    Channel,
    KKAddress,
    KKOrder,
    KKOrderItem,
    KKProduct,
    KKSku,
    OrderPage,
    Package,
    Refund,
    Stock,
    TrackingInfo,
    Warehouse,
    WarehouseStock,
)
from airflow_provider_kk.api.validators import (
    PROVINCE_REQUIRED,
    ChannelType,
    Country,
    Note,
    OrderNumber,
    Quantity,
    as_address,
    as_lines,
    parse_json,
    text,
)

__all__ = [
    "Channel",
    "KKAddress",
    "KKOrder",
    "KKOrderItem",
    "KKProduct",
    "KKSku",
    "Order",
    "OrderAddress",
    "OrderItem",
    "OrderPage",
    "Package",
    "Refund",
    "RefundLines",
    "Shipment",
    "Stock",
    "TrackingInfo",
    "Warehouse",
    "WarehouseStock",
]


class RequestModel(BaseModel):
    """Base of the models that are sent: frozen, no unknown fields, names in snake_case or KK's own.

    Names are compared without case and underscores, so `sku`, `SKU` and KK's `orderItemsList` all work.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    other_names: ClassVar[dict[str, str]] = {}
    """Names of KK's for a field, squashed (lower case, no underscores)."""
    near_names: ClassVar[dict[str, str]] = {}
    """Names that are not taken, but whose meaning can be guessed for a hint."""
    parts: ClassVar[dict[str, type[RequestModel]]] = {}
    """The models below this one, by the path of the first of each."""

    @model_validator(mode="before")
    @classmethod
    def _own_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        named: dict[Any, Any] = {}
        for key, value in data.items():
            field = _names_of(cls).get(_squash(key)) if isinstance(key, str) else None
            # A field given twice stays under its second name and is rejected like an unknown one.
            named[field if field and field not in named else key] = value
        return named

    @classmethod
    def parse(cls, data: RequestModel | Mapping[str, Any] | str, notices: list[Fault] | None = None) -> Self:
        """Check a model, a mapping or JSON text and return it as a model. Raises InvalidOrderError.

        Gets `notices` what was read differently from how it was written, and what looks doubtful.
        """
        faults: tuple[Fault, ...]
        found: list[Fault] = []
        try:
            return cls.model_validate(_plain(data), context={"notices": found})
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            faults = tuple(_fault(cls, detail) for detail in details)
        except PydanticCustomError as error:
            faults = (Fault("", f"the order {error.message()}"),)
        finally:
            if notices is not None:
                notices += [Fault(_path_of(cls, field), message) for field, message in found]
        # Raised outside of the handler: pydantic's errors keep the order's values within them.
        raise InvalidOrderError(faults)


class OrderItem(RequestModel):
    """One line: KK's SKU (64 characters) and a whole quantity from 1 to 16 digits."""

    near_names = {"skucode": "sku", "qty": "quantity", "count": "quantity", "productnum": "quantity"}

    sku: Annotated[str, text(64, required=True, number_ok=True)]
    quantity: Quantity


class OrderAddress(RequestModel):
    """Where the goods go: country (ISO 3166 alpha-2), phone, recipient and province are required."""

    near_names = {
        "state": "province",
        "region": "province",
        "name": "recipient",
        "fullname": "recipient",
        "street": "street1",
        "address1": "street1",
        "address2": "street2",
        "postalcode": "zip",
        "postcode": "zip",
        "zipcode": "zip",
        "countrycode": "country",
        "telephone": "phone",
        "vatnumber": "vat",
    }

    country: Country
    city: Annotated[str | None, text(64), Field(repr=False)] = None
    phone: Annotated[str, text(64, required=True, number_ok=True), Field(repr=False)]
    recipient: Annotated[str, text(32, required=True), Field(repr=False)]
    street1: Annotated[str | None, text(64), Field(repr=False)] = None
    street2: Annotated[str | None, text(64), Field(repr=False)] = None
    province: Annotated[str, text(32, required=PROVINCE_REQUIRED), Field(repr=False)]
    zip: Annotated[str | None, text(32, number_ok=True), Field(repr=False)] = None
    ioss: Annotated[str | None, text(32, number_ok=True), Field(repr=False)] = None
    vat: Annotated[str | None, text(32, number_ok=True), Field(repr=False)] = None

    @model_validator(mode="after")
    def _notice_lost_zero(self, info: ValidationInfo) -> Self:
        warning = lost_zero_of_zip(self.zip or "", self.country)
        if warning and info.context:
            info.context["notices"].append(Fault("zip", warning))
        return self


class Order(RequestModel):
    """An order as the caller means it, before an API version gives it KK's names.

    `custom_order_number` is the caller's own number: printable ASCII, 40 at most. `sale_platform` beats the
    connection's. `channel_type` is KK's shipping speed: `v1` has none, `v1-orders` takes it, `v2` requires it
    (Standard when absent).
    """

    other_names = {
        "orderaddress": "address",
        "orderaddresses": "address",
        "orderitemslist": "items",
        "orderitems": "items",
        "customorderid": "custom_order_number",
    }
    near_names = {
        "shippingaddress": "address",
        "lines": "items",
        "orderlines": "items",
        "note": "remark",
        "ordernumber": "custom_order_number",
        "orderid": "custom_order_number",
        "platform": "sale_platform",
        "channel": "channel_type",
    }
    parts = {"items[0]": OrderItem, "address": OrderAddress}

    address: Annotated[OrderAddress, as_address]
    items: Annotated[list[OrderItem], as_lines]
    remark: Note = None
    custom_order_number: OrderNumber = None
    sale_platform: Annotated[str | None, text()] = None
    channel_type: ChannelType = None

    def private_values(self) -> tuple[str, ...]:
        """Return the personal texts of this order, for taking them out of messages."""
        # A country or a province identifies nobody.
        address = self.address.model_dump(exclude={"country", "province"})
        return tuple(value for value in (*address.values(), self.remark) if value)


class Shipment(RequestModel):
    """Goods, and the country that they go to (ISO 3166 alpha-2)."""

    parts = {"items[0]": OrderItem}

    items: Annotated[list[OrderItem], as_lines]
    country: Country


class RefundLines(RequestModel):
    """The lines of a refund: each a SKU and how many of it."""

    parts = {"lines[0]": OrderItem}

    lines: Annotated[list[OrderItem], as_lines]


def _plain(data: object) -> dict[str, Any]:
    """Return data that pydantic can check; of models too, since `model_copy(update=...)` does not check."""
    if isinstance(data, RequestModel):
        return data.model_dump()
    if isinstance(data, str):
        data = parse_json(data)
    if not isinstance(data, Mapping):
        kind = type(data).__name__
        raise PydanticCustomError(
            "kk_order", "must be an Order, a mapping or a JSON object, not {kind}", {"kind": kind}
        )
    return dict(data)


def _fault(model: type[RequestModel], detail: ErrorDetails) -> Fault:
    """Translate a finding of pydantic. Only texts that hold no value are passed on."""
    *above, last = detail["loc"] or ("",)
    kind = detail["type"]
    if kind == "extra_forbidden":
        owner = model.parts.get(_path([0 if isinstance(step, int) else step for step in above]), model)
        return Fault(_path([*above, _shown(last)]), _unknown_field(owner, str(last)))
    messages = {
        "kk_order": detail["msg"],
        "missing": PROVINCE_REQUIRED if last == "province" else "is required",
        "model_type": "must be an object with named fields",
        "invalid_key": "names of fields must be text",
    }
    return Fault(_path([*above, last]), messages.get(kind, "is not valid"))


def _unknown_field(owner: type[RequestModel], name: str) -> str:
    squashed = _squash(name)
    field = _names_of(owner).get(squashed)
    if field:
        return f"is given twice, under this name and as {field}"
    near = owner.near_names.get(squashed)
    if near is None:
        close = difflib.get_close_matches(squashed[:64], _names_of(owner), n=1, cutoff=0.7)
        near = _names_of(owner)[close[0]] if close else _field_of_part(owner, squashed)
    return "is not a field of an order" + (f". Did you mean {near}?" if near else "")


def _field_of_part(owner: type[RequestModel], squashed: str) -> str | None:
    """Return the path of a field of the address or of a line that was given beside them."""
    for path, part in owner.parts.items():
        if field := _names_of(part).get(squashed) or part.near_names.get(squashed):
            return f"{path}.{field}"
    return None


def _path(loc: list[int | str]) -> str:
    path = ""
    for step in loc:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _path_of(model: type[RequestModel], field: str) -> str:
    """Return a notice's field path. Lines of goods get none, so an unknown field is the address's."""
    return field if field in model.model_fields else f"address.{field}"


def _shown(name: int | str) -> str:
    return str(name) if re.fullmatch(r"[\w .-]{1,40}", str(name)) else "(a name that cannot be shown)"


@functools.cache
def _names_of(model: type[RequestModel]) -> dict[str, str]:
    """Return every name a field goes by, squashed, with the field's own name."""
    return {_squash(field): field for field in model.model_fields} | model.other_names


def _squash(name: str) -> str:
    return name.replace("_", "").lower()
