"""What a failed POST proves, against real sockets that break in every way known."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_kk.api.errors import KKNotSentError, KKUnknownOutcomeError, Outcome
from airflow_provider_kk.api.models import Order
from tests.api.failures import UNKNOWN, post
from tests.api.helpers import CREATED, ORDER, SocketServer, Visit, answering, client_for, http, server_tls


@pytest.mark.parametrize("name", UNKNOWN)
def test_once_a_byte_was_handed_over_the_outcome_is_unknown(name: str) -> None:
    play, bodies = UNKNOWN[name]
    with SocketServer(play) as server:
        error = post(server.url)
        assert isinstance(error, KKUnknownOutcomeError)
        assert error.outcome is Outcome.UNKNOWN
        assert len(server.bodies) == bodies
        assert len(server.requests) <= 1, "nothing is repeated or followed"


@pytest.mark.parametrize(
    "name", ["reset after the body", "body cut", "headers cut", "closed without an answer"]
)
def test_the_same_holds_inside_tls(name: str, pem: Path) -> None:
    play, bodies = UNKNOWN[name]
    with SocketServer(play, tls=server_tls(pem)) as server:
        assert isinstance(post(server.url, ca_bundle=str(pem)), KKUnknownOutcomeError)
        assert len(server.bodies) == bodies


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_before_send_runs_after_the_connection_and_before_the_first_byte(tls: bool, pem: Path) -> None:
    left: list[float] = []

    def no(remaining_s: float) -> None:
        left.append(remaining_s)
        raise RuntimeError("the lease is over")

    with SocketServer(answering(http(CREATED)), tls=server_tls(pem) if tls else None) as server:
        client = client_for(server.url, ca_bundle=str(pem))
        with pytest.raises(KKNotSentError, match="the lease is over") as caught:
            client.post_order(Order.parse(ORDER), before_send=no)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert len(left) == 1
        assert 0 < left[0] <= 60
        time.sleep(0.05)
        assert server.connections == 1
        assert server.bytes_seen == 0


def test_before_send_that_takes_all_the_time_sends_nothing() -> None:
    with SocketServer(answering(http(CREATED))) as server:
        client = client_for(server.url, timeout_s=0.3)
        with pytest.raises(KKNotSentError):
            client.post_order(Order.parse(ORDER), before_send=lambda _left: time.sleep(0.4))
        assert server.bodies == []


def test_before_send_that_agrees_sends_the_order() -> None:
    with SocketServer(answering(http(CREATED))) as server:
        assert client_for(server.url).post_order(Order.parse(ORDER), before_send=lambda _left: None) == [
            "1000000371651"
        ]


def test_an_interruption_passes_through_as_it_is() -> None:
    class Terminated(BaseException):
        pass

    def interrupt(_left: float) -> None:
        raise Terminated

    with SocketServer(answering(http(CREATED))) as server, pytest.raises(Terminated):
        client_for(server.url).post_order(Order.parse(ORDER), before_send=interrupt)


@pytest.mark.parametrize("status", ["200 OK", "307 Temporary Redirect"])
def test_no_answer_is_read_without_bound(status: str) -> None:
    sent: list[int] = []
    done = threading.Event()

    def play(visit: Visit) -> None:
        visit.read_request()
        visit.send(f"HTTP/1.1 {status}\r\nLocation: /x\r\nContent-Length: {2**30}\r\n\r\n".encode())
        size = 0
        with contextlib.suppress(OSError):
            while size < 2**26:
                visit.send(b" " * 2**16)
                size += 2**16
        sent.append(size)
        done.set()

    with SocketServer(play) as server:
        assert isinstance(post(server.url), KKUnknownOutcomeError)
        assert done.wait(300)
        assert sent[0] < 2**25
