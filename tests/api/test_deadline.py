"""One deadline for a whole call: nothing lands after it, however slowly bytes come."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import threading
import time

import pytest

from airflow_provider_kk.api.errors import KKUnknownOutcomeError
from airflow_provider_kk.api.models import Order
from airflow_provider_kk.api.sent_bytes import TrackedRequest
from tests.api.failures import EMPTY_LIST, ENVELOPE, post
from tests.api.helpers import CREATED, ORDER, Play, SocketServer, Visit, client_for, dripping, http

#: Long enough to connect and send on a busy machine, much shorter than any of these answers takes.
TIMEOUT_S = 2.0
LONG_S = 300.0


def stall(visit: Visit) -> None:
    visit.read_request()
    visit.linger(LONG_S)


def stall_inside_the_body(visit: Visit) -> None:
    visit.read_request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n" + ENVELOPE[:30])
    visit.linger(LONG_S)


@pytest.mark.parametrize(
    "play",
    [
        stall,
        stall_inside_the_body,
        dripping(http(CREATED), 0.3),
        dripping(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 5_000),
    ],
    ids=["stall", "stall inside the body", "drip from the first byte", "drip of the body"],
)
def test_the_deadline_is_for_the_whole_call_however_slowly_bytes_come(play: Play) -> None:
    with SocketServer(play) as server:
        began = time.monotonic()
        error = post(server.url, timeout_s=TIMEOUT_S)
        assert isinstance(error, KKUnknownOutcomeError)
        assert time.monotonic() - began > 0.9 * TIMEOUT_S
        assert server.played == 0
        assert "timeout_s=" in str(error)
        assert len(server.bodies) == 1


def test_a_missed_deadline_resets_the_connection() -> None:
    errors: list[int] = []
    is_over, done = threading.Event(), threading.Event()

    def play(visit: Visit) -> None:
        visit.read_request()
        is_over.wait(LONG_S)
        errors.append(visit.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        done.set()

    with SocketServer(play) as server:
        assert isinstance(post(server.url, timeout_s=TIMEOUT_S), KKUnknownOutcomeError)
        is_over.set()
        assert done.wait(LONG_S)
        assert errors[0] in (errno.ECONNRESET, errno.EPIPE), "an orderly end would let queued bytes arrive"


def test_a_socket_that_comes_after_the_deadline_is_shut_down_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, TrackedRequest(time.monotonic()) as exchange:
        while not exchange.expired:
            time.sleep(0.01)
        exchange.watch(ours)
        theirs.settimeout(LONG_S)
        assert theirs.recv(1) == b""


def test_what_missed_the_deadline_does_not_land_later() -> None:
    received: list[int] = []
    is_over, done = threading.Event(), threading.Event()

    def read_late(visit: Visit) -> None:
        is_over.wait(LONG_S)
        size = 0
        with contextlib.suppress(OSError):
            while data := visit.sock.recv(2**20):
                size += len(data)
        received.append(size)
        done.set()

    remark = "x" * 2**24
    with SocketServer(read_late) as server:
        with pytest.raises(KKUnknownOutcomeError):
            client_for(server.url, timeout_s=TIMEOUT_S).create_order(ORDER | {"remark": remark})
        is_over.set()
        assert done.wait(LONG_S)
        assert received[0] < len(remark)


def option_of_the_other_end(visit: Visit, level: int, option: int) -> int:
    """A socket option of the client's end, which lives in this very process."""
    peer = visit.sock.getpeername()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(fd))) as sock:
            if sock.family == socket.AF_INET and sock.getsockname() == peer:
                return sock.getsockopt(level, option)
    raise AssertionError("the client's socket is not open")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
def test_the_kernel_gets_the_deadline_too() -> None:
    limits_ms: list[int] = []

    def play(visit: Visit) -> None:
        while visit.read_request():
            limits_ms.append(option_of_the_other_end(visit, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
            visit.send(EMPTY_LIST)

    with SocketServer(play) as server:
        client = client_for(server.url, timeout_s=60)
        with pytest.raises(KKUnknownOutcomeError):
            client.post_order(Order.parse(ORDER), before_send=lambda _left: time.sleep(0.5))
        client.list_orders()
    # What is left of the call's 60 s.
    assert 30_000 < limits_ms[0] <= 59_500
    assert 30_000 < limits_ms[1] <= 60_000


def test_a_request_that_begins_later_may_have_an_earlier_deadline() -> None:
    with (
        TrackedRequest(time.monotonic() + LONG_S) as long,
        TrackedRequest(time.monotonic() + 0.2) as short,
    ):
        assert wait_until_expired(short)
        assert not long.expired


def test_a_forked_process_keeps_its_own_deadlines() -> None:
    with TrackedRequest(time.monotonic() + LONG_S):
        child = os.fork()
        if child == 0:
            with TrackedRequest(time.monotonic() + 0.2) as request:
                os._exit(0 if wait_until_expired(request) else 1)
        assert os.waitpid(child, 0)[1] == 0


class TaskTimeout(BaseException):
    """Airflow's, which its signal handler raises wherever the task is."""


def test_deadlines_fire_after_a_signal_handler_raised_in_the_middle_of_a_request() -> None:
    def raise_timeout(*_: object) -> None:
        raise TaskTimeout

    with TrackedRequest(time.monotonic() + LONG_S):
        pass
    before = signal.signal(signal.SIGALRM, raise_timeout)
    try:
        for number in range(300):
            with contextlib.suppress(TaskTimeout):
                # Again after a second, should something ignore the exception.
                signal.setitimer(signal.ITIMER_REAL, 1e-5 + number * 1e-7, 1.0)
                while True:
                    with TrackedRequest(time.monotonic() + LONG_S):
                        pass
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    expired = threading.Event()

    def meet_a_deadline() -> None:
        with TrackedRequest(time.monotonic() + 0.1) as request:
            if wait_until_expired(request):
                expired.set()

    threading.Thread(target=meet_a_deadline, daemon=True).start()
    assert expired.wait(60)


def wait_until_expired(request: TrackedRequest) -> bool:
    until = time.monotonic() + 60
    while not request.expired and time.monotonic() < until:
        time.sleep(0.01)
    return request.expired
