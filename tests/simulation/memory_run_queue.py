"""A board in plain memory: the twin of `delivery.board.Board`, which keeps its jobs in a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

from airflow_provider_kk.delivery.run_queue import QueuedOrder, RunResult, RunStatus


@dataclass
class _Place:
    item: QueuedOrder | None
    key: str | None
    name: str | None
    status: RunStatus = RunStatus.PENDING
    is_new: bool = False
    ids: tuple[str, ...] = ()
    code: int | None = None
    message: str = ""


class MemoryBoard:
    """What a stream needs of a board."""

    def __init__(self) -> None:
        self._places: dict[int, _Place] = {}
        self._by_key: dict[str | None, _Place] = {}

    def close(self) -> None:
        self._places.clear()

    def add(self, items: Iterable[QueuedOrder]) -> None:
        for item in items:
            place = self._places[item.position] = _Place(item, item.key, item.key)
            self._by_key.setdefault(item.key, place)

    def add_finished(self, finished: RunResult) -> None:
        place = _Place(
            None,
            finished.key,
            finished.name,
            finished.status,
            finished.is_new,
            finished.kk_order_ids,
            finished.code,
            finished.message,
        )
        self._places[finished.position] = place
        self._by_key.setdefault(finished.key, place)

    def set(
        self,
        position: int,
        status: RunStatus,
        *,
        is_new: bool = False,
        ids: Sequence[str] = (),
        code: int | None = None,
        message: str = "",
    ) -> None:
        place = self._places[position]
        place.status, place.is_new, place.ids = status, is_new, tuple(ids)
        place.code, place.message = code, message

    def set_all(self, status: RunStatus, to: RunStatus, message: str = "") -> None:
        for place in self._places.values():
            if place.status is status:
                place.status, place.message = to, message

    def batches(self, status: RunStatus) -> Iterator[list[QueuedOrder]]:
        batch = [place.item for place in self._places.values() if place.status is status and place.item]
        if batch:
            yield batch

    def finished(self, *statuses: RunStatus) -> Iterator[RunResult]:
        places = [one for one in self._places.items() if not statuses or one[1].status in statuses]
        for position, place in sorted(places, key=itemgetter(0)):
            yield RunResult(
                position,
                place.key,
                place.status,
                place.is_new,
                place.ids,
                place.code,
                place.message,
                place.name,
            )

    def item(self, key: str) -> QueuedOrder | None:
        place = self._by_key.get(key)
        return place.item if place is not None else None

    def has(self, key: str) -> bool:
        return key in self._by_key

    def counts(self) -> Mapping[RunStatus, int]:
        return Counter([place.status for place in self._places.values()])

    def examples(self, status: RunStatus, limit: int = 5) -> list[tuple[str, str]]:
        found = [place for place in self._places.values() if place.status is status]
        found.sort(key=lambda place: not place.is_new)
        return [(place.name or "", place.message) for place in found[:limit]]

    def count_new(self, *statuses: RunStatus) -> int:
        return len([1 for place in self._places.values() if place.is_new and place.status in statuses])
