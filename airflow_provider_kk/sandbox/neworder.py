"""What KK requires of a new order, by the call it came through."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_kk.sandbox.catalogue import CHANNELS
from airflow_provider_kk.sandbox.protocol import INVALID, Rejected
from airflow_provider_kk.sandbox.settings import Settings


@dataclass(frozen=True)
class Form:
    """The field names of one revision of the call."""

    version: str
    number: str
    platform: str
    channels: tuple[str, ...] = ()
    """What `channelType` may be; empty where the revision has no such field."""
    needs_channel: bool = False


FORMS = {
    "/openapi/v1/order/order": Form("v1", "CustomOrderNumber", "SalePlatform"),
    "/openapi/v1/order/orders": Form("v1", "customOrderId", "salePlatform", ("Standard", "Express")),
    "/openapi/v2/order/orders": Form("v2", "customOrderId", "salePlatform", tuple(CHANNELS), True),
}

#: field: (width, required)
ADDRESS = {
    "country": (32, True),
    "phone": (64, True),
    "recipient": (32, True),
    "province": (32, True),
    "street1": (64, False),
    "street2": (64, False),
    "city": (64, False),
    "zip": (32, False),
    "ioss": (32, False),
    "vat": (32, False),
}


@dataclass(frozen=True)
class NewOrder:
    """A create call whose form is right; its goods are not looked at yet."""

    number: str | None
    address: dict[str, str | None]
    lines: tuple[tuple[str, int], ...]
    remark: str | None
    sale_platform: str | None
    channel_type: str | None


def read_order(form: Form, body: Any, settings: Settings) -> NewOrder:
    """Read the body of a create call; names of other revisions count as unknown and are ignored.

    Raises:
        Refused: a required field is missing or a value is not as documented.
    """
    if not isinstance(body, Mapping):
        raise Rejected(INVALID, "the request body is not a JSON object")
    return NewOrder(
        number=_number(body.get(form.number), settings.number_width),
        address=_address(body, settings.address_key),
        lines=read_lines(body.get("orderItemsList"), "orderItemsList"),
        remark=_text(body, "remark", 512),
        sale_platform=_text(body, form.platform, 64),
        channel_type=_channel(form, body),
    )


def read_lines(value: Any, name: str) -> tuple[tuple[str, int], ...]:
    """Read `[{"sku", "quantity"}]`.

    Raises:
        Refused: no lines, no SKU, or a quantity that is not a whole number of at least 1.
    """
    if not isinstance(value, list) or not value:
        raise Rejected(INVALID, f"{name} is required")
    return tuple(_line(line, f"{name}[{index}]") for index, line in enumerate(value))


def number_in(body: Any) -> str | None:
    """The caller's number under any of its names, for the log and for faults that wait for it."""
    if not isinstance(body, Mapping):
        return None
    values = (body.get(name) for name in ("CustomOrderNumber", "customOrderId"))
    return next((str(value) for value in values if value is not None), None)


def _line(line: Any, path: str) -> tuple[str, int]:
    if not isinstance(line, Mapping):
        raise Rejected(INVALID, f"{path} is not an object")
    sku = _text(line, "sku", 64, required=True, path=path)
    quantity = line.get("quantity")
    if isinstance(quantity, bool) or not isinstance(quantity, int) or not 1 <= quantity < 10**16:
        raise Rejected(INVALID, f"{path}.quantity must be greater than 0")
    return str(sku), quantity


def _channel(form: Form, body: Mapping[str, Any]) -> str | None:
    if not form.channels:
        return None
    channel = _text(body, "channelType", 32, required=form.needs_channel)
    if channel is not None and channel not in form.channels:
        raise Rejected(INVALID, f"channelType must be one of {', '.join(form.channels)}")
    return channel


def _address(body: Mapping[str, Any], key: str) -> dict[str, str | None]:
    keys = ("orderAddresses", "orderAddress") if key == "either" else (key,)
    name = next((name for name in keys if isinstance(body.get(name), Mapping)), None)
    if name is None:
        raise Rejected(INVALID, f"{keys[0]} is required")
    given = body[name]
    address = {
        field: _text(given, field, width, required=required, path=name)
        for field, (width, required) in ADDRESS.items()
    }
    if not re.fullmatch(r"[A-Z]{2}", address["country"] or ""):
        raise Rejected(INVALID, f"{name}.country must be a country shortcode")
    return address


def _text(
    given: Mapping[str, Any], name: str, width: int, *, required: bool = False, path: str = ""
) -> str | None:
    value = given.get(name)
    where = f"{path}.{name}" if path else name
    if value is None or value == "":
        if required:
            raise Rejected(INVALID, f"{where} is required")
        return None
    if not isinstance(value, str) or len(value) > width:
        raise Rejected(INVALID, f"{where} must be a text of at most {width} characters")
    return value


def _number(value: Any, width: int) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Rejected(INVALID, "the order number must be a text")
    return str(value)[:width]
