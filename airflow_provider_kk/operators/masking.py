"""What Airflow sees of an order: it stores the rendered fields of every task, mapped ones included."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: The fields of an order that say nothing of a customer, in every spelling: no case, no underscores.
_SHOWN = {"customordernumber", "customorderid", "sku", "quantity", "saleplatform", "channeltype"}
_HIDDEN = "***"


class Masked:
    """A value whose text, which is what Airflow stores, shows goods and order number and hides all else."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __str__(self) -> str:
        seen = _seen(self.value)
        return seen if isinstance(seen, str) else json.dumps(seen, default=str)

    __repr__ = __str__


def unmasked(value: Any) -> Any:
    """The value itself, whether it was masked or not."""
    return value.value if isinstance(value, Masked) else value


def _seen(value: Any, name: object = None) -> Any:
    if hasattr(value, "model_dump"):
        value = value.model_dump(exclude_none=True)
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping):
        return {str(key): _seen(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_seen(inner) for inner in value]
    is_shown = value is None or str(name).replace("_", "").lower() in _SHOWN
    return value if is_shown else _HIDDEN


def _parsed(text: str) -> Any:
    """What JSON text holds, when that is an order or lines; else the text."""
    try:
        parsed = json.loads(text)
    except ValueError:
        return text
    return parsed if isinstance(parsed, dict | list) else text
