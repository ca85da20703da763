"""Connections that reads share, and that no POST rides on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from airflow_provider_kk.api.errors import KKAnswerError, KKUnknownOutcomeError, Outcome
from tests.api.failures import EMPTY_LIST, after_the_body, redirect, reset_after_the_body
from tests.api.helpers import CREATED, ORDER, TOKEN, Play, SocketServer, Visit, answering, client_for, http


def test_reads_share_a_connection_and_a_post_never_rides_on_one_that_has_served() -> None:
    with SocketServer(answering(EMPTY_LIST)) as server:
        client = client_for(server.url)
        client.list_orders()
        client.list_orders()
        assert server.connections == 1
        for _ in range(2):
            with pytest.raises(KKUnknownOutcomeError):
                client.create_order(ORDER)
        assert server.connections == 3
        client.list_orders()
        assert server.connections == 3


def serve_one_and_drop_the_next(visit: Visit) -> None:
    visit.read_request()
    visit.send(EMPTY_LIST)
    visit.read_request()
    visit.reset()


def test_a_read_on_a_connection_that_kk_closed_is_retried_once() -> None:
    with SocketServer(serve_one_and_drop_the_next) as server:
        client = client_for(server.url)
        client.list_orders()
        client.list_orders()
        assert server.connections == 2
        assert len(server.requests) == 3


def test_a_read_on_a_new_connection_is_not_retried() -> None:
    def play(visit: Visit) -> None:
        visit.read_request()
        if len(visit.server.requests) == 1:
            visit.send(EMPTY_LIST)

    with SocketServer(play) as server:
        client = client_for(server.url)
        client.list_orders()
        time.sleep(0.05)
        with pytest.raises(KKAnswerError):
            client.list_orders()
        assert len(server.requests) == 2


def test_a_post_at_the_moment_of_an_idle_close_is_not_lost_with_it() -> None:
    def play(visit: Visit) -> None:
        if visit.read_request().startswith("POST"):
            visit.send(http(CREATED))
            return
        visit.send(EMPTY_LIST)
        visit.read_request()

    with SocketServer(play) as server:
        client = client_for(server.url)
        client.list_orders()
        assert client.create_order(ORDER) == ["1000000371651"]
        assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "play",
    [
        reset_after_the_body,
        after_the_body(b""),
        answering(http("x", "503 Unavailable")),
        redirect("302 Found"),
    ],
    ids=["reset", "closed", "503", "redirect"],
)
def test_a_read_that_fails_changes_nothing_and_is_not_repeated(play: Play) -> None:
    with SocketServer(play) as server:
        with pytest.raises(KKAnswerError) as caught:
            client_for(server.url).list_orders()
        assert caught.value.outcome is Outcome.NOT_SENT
        assert len(server.requests) == 1


def test_a_listing_larger_than_the_limit_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_provider_kk.api.transport.MAX_LIST_BYTES", 2**20)
    with (
        SocketServer(answering(http(b"[" + b"1," * 2**20))) as server,
        pytest.raises(KKAnswerError, match="larger"),
    ):
        client_for(server.url).list_orders()


def test_cookies_are_not_kept() -> None:
    seen: list[bytes] = []

    def play(visit: Visit) -> None:
        while b"\r\n\r\n" in (data := visit.sock.recv(65536)):
            seen.append(data)
            visit.send(http({"code": 10000, "data": {"list": []}}, headers="Set-Cookie: a=b; Path=/\r\n"))

    with SocketServer(play) as server:
        client = client_for(server.url)
        client.list_orders()
        client.list_orders()
    assert len(seen) == 2
    assert b"cookie" not in b"".join(seen).lower()


def test_netrc_and_the_environments_proxies_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    seen: list[bytes] = []

    def play(visit: Visit) -> None:
        seen.append(visit.sock.recv(65536))
        visit.send(EMPTY_LIST)

    with SocketServer(play) as server:
        client_for(server.url).list_orders()
    assert f"Authorization: Bearer {TOKEN}".encode() in seen[0]


def test_many_threads_share_one_client() -> None:
    with SocketServer(answering(http(CREATED))) as server:
        client = client_for(server.url)
        answers: list[list[str]] = []
        threads = [
            threading.Thread(target=lambda: answers.append(client.create_order(ORDER))) for _ in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [["1000000371651"]] * 20
        assert len(server.bodies) == 20
        assert client.requests == 20
