"""The bucket never asks more of KK than KK takes, and never wastes much of it."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kk.api.throttle import MAX_BACK_OFF_S, LocalBucket


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def bucket(clock: Clock, **figures: float) -> LocalBucket:
    return LocalBucket(clock=clock, sleep=clock.sleep, **figures)  # type: ignore[arg-type]


def sent_at(throttle: LocalBucket, clock: Clock, count: int) -> list[float]:
    times = []
    for _ in range(count):
        throttle.acquire()
        times.append(clock.now)
    return times


def test_rate_limit_allows_a_full_burst_then_the_steady_rate() -> None:
    clock = Clock()
    times = sent_at(bucket(clock), clock, 140)
    assert times[117] == 1000.0
    assert times[118] == pytest.approx(1000.5)
    assert times[139] == pytest.approx(1011.0)


@given(
    st.lists(st.floats(0, 30), min_size=1, max_size=300),
    st.integers(1, 120),
    st.floats(0.5, 50),
)
def test_rate_limit_never_overflows_a_bucket_of_kks_size_and_waits_only_while_it_is_full(
    pauses: list[float], burst: int, per_second: float
) -> None:
    clock = Clock()
    throttle = bucket(clock, burst=burst, per_second=per_second, headroom=0)
    level, last = 0.0, clock.now
    for pause in pauses:
        clock.now += pause
        came = clock.now
        throttle.acquire()
        level = max(0.0, level - (clock.now - last) * per_second) + 1
        last = clock.now
        assert level <= burst + 1e-6
        if clock.now > came + 1e-6:
            assert level == pytest.approx(burst, abs=1e-3)


def test_after_a_rate_limit_response_nothing_is_sent_until_retry_after() -> None:
    clock = Clock()
    throttle = bucket(clock)
    throttle.acquire()
    throttle.back_off(7)
    times = sent_at(throttle, clock, 3)
    assert times == pytest.approx([1007.0, 1007.5, 1008.0])


def test_after_a_429_without_retry_after_there_is_a_short_backoff() -> None:
    clock = Clock()
    throttle = bucket(clock)
    throttle.back_off(None)
    assert sent_at(throttle, clock, 1) == pytest.approx([1001.0])


@pytest.mark.parametrize(("asked_s", "waited_s"), [(1e9, MAX_BACK_OFF_S), (-5.0, 0.0), (2.5, 2.5)])
def test_a_rate_limit_pause_has_bounds(asked_s: float, waited_s: float) -> None:
    clock = Clock()
    throttle = bucket(clock)
    throttle.back_off(asked_s)
    assert sent_at(throttle, clock, 2) == pytest.approx([1000 + waited_s, 1000.5 + waited_s])


def test_a_429_delays_waiting_requests_too() -> None:
    clock = Clock()
    throttle = bucket(clock, burst=1, headroom=0)
    throttle.acquire()

    def sleep_and_be_told(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now < 1001:
            throttle.back_off(5)

    throttle._sleep = sleep_and_be_told
    throttle.acquire()
    assert clock.now == pytest.approx(1005.5)


def test_threads_share_the_bucket() -> None:
    throttle = LocalBucket(burst=5, per_second=200, headroom=0)
    began = time.monotonic()
    threads = [threading.Thread(target=lambda: [throttle.acquire() for _ in range(10)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began >= 35 / 200


def test_a_rate_limit_pause_is_logged_once_with_its_seconds(caplog: pytest.LogCaptureFixture) -> None:
    throttle = bucket(Clock())
    for _thread in range(8):
        throttle.back_off(7.0)
    throttle.acquire()
    throttle.back_off(3.0)
    assert [text for text in caplog.messages if "429" in text] == [
        f"KK's rate limit is reached (HTTP 429): this process pauses for {seconds} s" for seconds in (7, 3)
    ]


def test_long_wait_is_logged_once_in_half_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    throttle = bucket(Clock())
    throttle.back_off(20.0)
    for _request in range(3):
        throttle.acquire()
    waits = [text for text in caplog.messages if text.startswith("Waiting")]
    assert waits == ["Waiting 20 s for KK's rate limit: other requests come first, or KK asked for a pause"]
