"""The workers of a stream: several jobs at once."""

from __future__ import annotations

from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Pool(Protocol):
    """Runs work beside its caller."""

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begin `work`, or let it wait for a free worker."""
        ...

    def wait(self, futures: Collection[Future[Any]], timeout_s: float) -> Collection[Future[Any]]:
        """Wait until one of them is done, or the time is over; return those that are done."""
        ...

    def close(self) -> None:
        """Wait for what runs, drop what does not yet, and let the workers go."""
        ...


class Threads:
    """A pool of threads."""

    def __init__(self, number: int) -> None:
        self._threads = ThreadPoolExecutor(number, thread_name_prefix="kk")

    def submit(self, work: Callable[..., T], *arguments: Any) -> Future[T]:
        """Begin `work`, or let it wait for a free thread."""
        return self._threads.submit(work, *arguments)

    def wait(self, futures: Collection[Future[Any]], timeout_s: float) -> Collection[Future[Any]]:
        """Wait until one of them is done, or the time is over; return those that are done."""
        return wait(futures, timeout=timeout_s, return_when=FIRST_COMPLETED).done

    def close(self) -> None:
        """Wait for what runs, drop what does not yet, and let the threads go."""
        self._threads.shutdown(wait=True, cancel_futures=True)
