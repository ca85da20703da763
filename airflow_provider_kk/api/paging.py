"""Lists at KK: their form, their pages, and the arguments that select them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from airflow_provider_kk.api.errors import KKAnswerError
from airflow_provider_kk.api.responses import is_plausible_id

T = TypeVar("T")

_STUCK_PAGES = 3


def paged(page: Callable[[int], list[T]], key: Callable[[T], object]) -> Iterator[T]:
    """All rows of `page(1)`, `page(2)`, ... up to an empty one, each key once, those with a false key always.

    Raises KKAnswerError when page after page brings nothing new, since such a list has no end.
    """
    seen: set[object] = set()
    stuck = 0
    number = 1
    while rows := page(number):
        new = [row for row in rows if not key(row) or key(row) not in seen]
        stuck = stuck + 1 if all(not key(row) for row in new) else 0
        if stuck >= _STUCK_PAGES:
            raise KKAnswerError(f"KK's list does not end: pages up to {number} repeat what came before")
        for row in new:
            # A page may repeat a row within itself.
            if not key(row) or key(row) not in seen:
                seen.add(key(row))
                yield row
        number += 1


def listing(data: Any) -> Mapping[str, Any]:
    """`data` of a listing as `{"list": [...], ...}`. Raises KKAnswerError when it holds no list.

    A null list is an empty one; anything else that is no list must not look like "there are none".
    """
    if isinstance(data, list):
        return {"list": data}
    if (
        isinstance(data, Mapping)
        and "list" in data
        and (data["list"] is None or isinstance(data["list"], list))
    ):
        return data
    raise KKAnswerError("KK's answer holds no list")


def rows_of(data: Any) -> list[Any]:
    """The rows of a listing. Raises KKAnswerError when it holds no list."""
    return listing(data)["list"] or []


def chunks(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """`values` in pieces of at most `size`."""
    return (values[start : start + size] for start in range(0, len(values), size))


def utc_text(moment: datetime | None, *, up: bool = False) -> str | None:
    """A time as KK's parameters want it, in whole seconds, rounded down, or up for the end of a window."""
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise ValueError("times must have a time zone")
    moment = moment.astimezone(UTC)
    if up and moment.microsecond:
        moment += timedelta(seconds=1)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def checked_id(kk_id: str) -> str:
    """A kkOrderId fit for a path or a list. Raises ValueError for anything else."""
    if not isinstance(kk_id, str) or not is_plausible_id(kk_id):
        raise ValueError("a kkOrderId is text of up to 32 letters, digits, - and _")
    return kk_id


def present(params: Mapping[str, str | None]) -> dict[str, str]:
    """Parameters without those that are not set."""
    return {name: value for name, value in params.items() if value is not None}
