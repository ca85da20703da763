"""Names, certificates and proxies: what fails before the first byte proves that nothing was sent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_kk.api.errors import KKNotSentError, KKUnknownOutcomeError, Outcome
from tests.api.failures import UNKNOWN, post, reset_after_the_body
from tests.api.helpers import (
    CREATED,
    ORDER,
    TOKEN,
    Play,
    SocketServer,
    Visit,
    answering,
    client_for,
    dripping,
    http,
    server_tls,
)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def test_a_refused_connection_proves_that_nothing_was_sent() -> None:
    error = post(f"http://127.0.0.1:{free_port()}")
    assert isinstance(error, KKNotSentError)
    assert error.outcome is Outcome.NOT_SENT
    assert "refused" in str(error)


def test_a_name_that_does_not_resolve_proves_that_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = post("https://nowhere.invalid")
    assert isinstance(error, KKNotSentError)
    assert "Name or service not known" in str(error)


def test_a_name_of_many_silent_addresses_takes_one_deadline_together(monkeypatch: pytest.MonkeyPatch) -> None:
    # A listener with a full backlog answers no connection.
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        address = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_args: [address] * 4)
        began = time.monotonic()
        assert isinstance(post(f"http://127.0.0.1:{port}", timeout_s=2), KKNotSentError)
        # Each for itself, all four would take 8 s.
        assert time.monotonic() - began < 6


def test_an_untrusted_certificate_proves_that_nothing_was_sent(pem: Path) -> None:
    with SocketServer(answering(http(CREATED)), tls=server_tls(pem)) as server:
        error = post(server.url)
        assert isinstance(error, KKNotSentError)
        assert "self-signed certificate" in str(error)
        assert server.bytes_seen == 0


def test_a_server_without_tls_proves_that_nothing_was_sent() -> None:
    with SocketServer(lambda visit: visit.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        assert isinstance(post(server.url.replace("http:", "https:")), KKNotSentError)
        assert server.bodies == []


def drip_a_handshake(visit: Visit) -> None:
    visit.send(b"\x16\x03\x03\x40\x00")
    for _ in range(1_000):
        visit.send(b"\x02")
        visit.linger(0.05)


@pytest.mark.parametrize("play", [lambda visit: visit.linger(300), drip_a_handshake], ids=["stall", "drip"])
def test_a_handshake_that_never_ends_is_cut_at_the_deadline(play: Play) -> None:
    with SocketServer(play) as server:
        assert isinstance(post(server.url.replace("http:", "https:"), timeout_s=0.4), KKNotSentError)
        assert server.played == 0


def test_a_trusted_certificate_lets_the_order_through(pem: Path) -> None:
    with SocketServer(answering(http(CREATED)), tls=server_tls(pem)) as server:
        assert client_for(server.url, ca_bundle=str(pem)).create_order(ORDER) == ["1000000371651"]
        assert len(server.bodies) == 1


def tunnel_to(port: int) -> Play:
    """A proxy that opens a tunnel."""

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def play(visit: Visit) -> None:
        assert visit.read_request().startswith("CONNECT ")
        with socket.create_connection(("127.0.0.1", port)) as upstream:
            visit.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=pump, args=(upstream, visit.sock), daemon=True)
            back.start()
            pump(visit.sock, upstream)
            back.join(300)

    return play


@pytest.fixture
def through_proxy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("no_proxy", "NO_PROXY", "https_proxy", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    "play",
    [
        answering(http("", f"407 {TOKEN} is not welcome")),
        answering(http("", "502 Bad Gateway")),
        reset_after_the_body,
        dripping(b"HTTP/1.1 200 Connection established\r\n\r\n", 3),
    ],
    ids=["407", "502", "reset", "drip"],
)
def test_a_proxy_that_opens_no_tunnel_proves_that_nothing_was_sent(
    play: Play, through_proxy: pytest.MonkeyPatch
) -> None:
    with SocketServer(play) as proxy:
        through_proxy.setenv("HTTPS_PROXY", f"http://user:proxy-password@127.0.0.1:{proxy.port}")
        began = time.monotonic()
        error = post("https://kk.invalid", use_env_proxies=True, timeout_s=2)
        assert isinstance(error, KKNotSentError)
        assert time.monotonic() - began < 60  # of the two minutes that it drips
        assert "proxy-password" not in str(error)
        assert proxy.bodies == []


def test_a_proxy_that_cannot_be_reached_proves_that_nothing_was_sent(
    through_proxy: pytest.MonkeyPatch,
) -> None:
    through_proxy.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    assert isinstance(post("https://kk.invalid", use_env_proxies=True), KKNotSentError)


def test_a_socks_proxy_fails_before_anything_is_sent(through_proxy: pytest.MonkeyPatch) -> None:
    through_proxy.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    assert isinstance(post("https://kk.invalid", use_env_proxies=True), KKNotSentError)


def test_an_order_goes_through_a_proxy_only_when_configured(
    pem: Path, through_proxy: pytest.MonkeyPatch
) -> None:
    with (
        SocketServer(answering(http(CREATED)), tls=server_tls(pem)) as kk,
        SocketServer(tunnel_to(kk.port)) as proxy,
    ):
        through_proxy.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        through_proxy.setenv("REQUESTS_CA_BUNDLE", str(pem))
        client_for(kk.url, ca_bundle=str(pem)).create_order(ORDER)
        assert proxy.connections == 0
        client_for(kk.url, use_env_proxies=True).create_order(ORDER)
        assert proxy.connections == 1
        assert len(kk.bodies) == 2


@pytest.mark.parametrize("name", ["reset after the body", "closed without an answer", "body cut"])
def test_a_request_lost_behind_a_tunnel_is_unknown(
    name: str, pem: Path, through_proxy: pytest.MonkeyPatch
) -> None:
    with SocketServer(UNKNOWN[name][0], tls=server_tls(pem)) as kk, SocketServer(tunnel_to(kk.port)) as proxy:
        through_proxy.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        error = post(kk.url, use_env_proxies=True, ca_bundle=str(pem))
        assert isinstance(error, KKUnknownOutcomeError)
        assert len(kk.bodies) == 1
