"""What a failed POST proves, against real sockets that break in every way known."""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import socket
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kk.api.errors import (
    KKAnswerError,
    KKError,
    KKNotSentError,
    KKUnknownOutcomeError,
    Outcome,
)
from airflow_provider_kk.api.proof import Exchange
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


def post(url: str, **settings: Any) -> KKError:
    """The error of one create, after checking that it gives nothing away."""
    with pytest.raises(KKError) as caught:
        client_for(url, **settings).create_order(ORDER)
    shown = "".join(traceback.format_exception(caught.value))
    held = [shown, repr(caught.value), repr(vars(caught.value)), repr(caught.value.__context__)]
    for secret in (TOKEN, "Lffsollia", "Rabelais", "67 93"):
        assert not any(secret in text for text in held)
    return caught.value


def after_the_body(data: bytes) -> Play:
    def play(visit: Visit) -> None:
        visit.read_request()
        visit.send(data)

    return play


def reset_at_the_first_byte(visit: Visit) -> None:
    visit.sock.recv(1)
    visit.reset()


def reset_after_the_body(visit: Visit) -> None:
    visit.read_request()
    visit.reset()


def redirect(status: str) -> Play:
    return answering(http("", status, headers="Location: /elsewhere\r\n"))


ENVELOPE = b'{"code": 10000, "message": "success", "data": 1000000371651}'

UNKNOWN: dict[str, tuple[Play, int]] = {
    "reset before the body was read": (reset_at_the_first_byte, 0),
    "reset after the body": (reset_after_the_body, 1),
    "closed without an answer": (after_the_body(b""), 1),
    "status line cut": (after_the_body(b"HTTP/1.1 20"), 1),
    "headers cut": (after_the_body(b"HTTP/1.1 200 OK\r\nContent-Len"), 1),
    "body cut": (after_the_body(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + ENVELOPE), 1),
    "body cut without a length": (after_the_body(b"HTTP/1.1 200 OK\r\n\r\n" + ENVELOPE[:-9]), 1),
    "chunk cut": (
        after_the_body(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n" + ENVELOPE[:20]),
        1,
    ),
    "chunks without an end": (
        after_the_body(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3c\r\n" + ENVELOPE + b"\r\n"),
        1,
    ),
    "no HTTP": (after_the_body(b"SSH-2.0-OpenSSH_9\r\n"), 1),
    "broken compression": (answering(http(b"\x1f\x8bnonsense", headers="Content-Encoding: gzip\r\n")), 1),
    "moved permanently": (redirect("301 Moved"), 1),
    "found elsewhere": (redirect("302 Found"), 1),
    "see other": (redirect("303 See Other"), 1),
    "temporary redirect": (redirect("307 Temporary Redirect"), 1),
    "permanent redirect": (redirect("308 Permanent Redirect"), 1),
    "request timeout": (answering(http("", "408 Request Timeout")), 1),
    "internal error with an envelope": (answering(http({"code": 20001, "message": "no"}, "500 Oops")), 1),
    "success in a failed status": (answering(http(CREATED, "503 Unavailable")), 1),
    "bad gateway": (answering(http("<html>bad gateway</html>", "502 Bad Gateway")), 1),
    "a page of HTML": (answering(http("<html>log in</html>")), 1),
    "a bare scalar": (answering(http("12345")), 1),
    "an empty body": (answering(http("")), 1),
    "a list": (answering(http("[10000]")), 1),
    "success without an id": (answering(http({"code": 10000, "message": "success", "data": None})), 1),
    "success with a sentence for an id": (answering(http({"code": 10000, "data": "it worked"})), 1),
    "a code of failure inside KK": (answering(http({"code": 50012, "message": "timeout"})), 1),
    "code -1": (answering(http({"code": -1, "message": "system busy"})), 1),
    "an answer too large": (answering(http(b'{"code": 10000, "data": "' + b"1" * 2**21 + b'"}')), 1),
    "a compressed answer too large": (
        answering(http(gzip.compress(b"1" * 2**24), headers="Content-Encoding: gzip\r\n")),
        1,
    ),
}


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


def stall(visit: Visit) -> None:
    visit.read_request()
    visit.linger(5)


def stall_inside_the_body(visit: Visit) -> None:
    visit.read_request()
    visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n" + ENVELOPE[:30])
    visit.linger(5)


@pytest.mark.parametrize(
    "play",
    [
        stall,
        stall_inside_the_body,
        dripping(http(CREATED)),
        dripping(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 500),
    ],
    ids=["stall", "stall inside the body", "drip from the first byte", "drip of the body"],
)
def test_the_deadline_is_for_the_whole_call_however_slowly_bytes_come(play: Play) -> None:
    with SocketServer(play) as server:
        began = time.monotonic()
        error = post(server.url, timeout_s=0.4)
        assert isinstance(error, KKUnknownOutcomeError)
        assert 0.3 < time.monotonic() - began < 1.0
        assert "deadline" in str(error)
        assert len(server.bodies) == 1


def test_a_missed_deadline_resets_the_connection() -> None:
    errors: list[int] = []
    done = threading.Event()

    def play(visit: Visit) -> None:
        visit.read_request()
        visit.linger(0.6)
        errors.append(visit.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        done.set()

    with SocketServer(play) as server:
        assert isinstance(post(server.url, timeout_s=0.3), KKUnknownOutcomeError)
        assert done.wait(5)
        assert errors[0] in (errno.ECONNRESET, errno.EPIPE), "an orderly end would let queued bytes arrive"


def test_a_socket_that_comes_after_the_deadline_is_shut_down_at_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, Exchange(time.monotonic()) as exchange:
        while not exchange.expired:
            time.sleep(0.01)
        exchange.watch(ours)
        theirs.settimeout(1)
        assert theirs.recv(1) == b""


def test_what_missed_the_deadline_does_not_land_later() -> None:
    received: list[int] = []
    done = threading.Event()

    def read_late(visit: Visit) -> None:
        visit.linger(0.8)
        size = 0
        with contextlib.suppress(OSError):
            while data := visit.sock.recv(2**20):
                size += len(data)
        received.append(size)
        done.set()

    remark = "x" * 2**24
    with SocketServer(read_late) as server:
        with pytest.raises(KKUnknownOutcomeError):
            client_for(server.url, timeout_s=0.4).create_order(ORDER | {"remark": remark})
        assert done.wait(5)
        assert received[0] < len(remark)


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
        assert isinstance(post(f"http://127.0.0.1:{port}", timeout_s=0.4), KKNotSentError)
        assert time.monotonic() - began < 1.0


def test_a_certificate_that_nobody_vouches_for_proves_that_nothing_was_sent(pem: Path) -> None:
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
    for _ in range(100):
        visit.send(b"\x02")
        visit.linger(0.05)


@pytest.mark.parametrize("play", [lambda visit: visit.linger(5), drip_a_handshake], ids=["stall", "drip"])
def test_a_handshake_that_never_ends_is_cut_at_the_deadline(play: Play) -> None:
    with SocketServer(play) as server:
        began = time.monotonic()
        assert isinstance(post(server.url.replace("http:", "https:"), timeout_s=0.4), KKNotSentError)
        assert time.monotonic() - began < 1.0


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
            back.join(5)

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
        dripping(b"HTTP/1.1 200 Connection established\r\n\r\n", 0.1),
    ],
    ids=["407", "502", "reset", "drip"],
)
def test_a_proxy_that_opens_no_tunnel_proves_that_nothing_was_sent(
    play: Play, through_proxy: pytest.MonkeyPatch
) -> None:
    with SocketServer(play) as proxy:
        through_proxy.setenv("HTTPS_PROXY", f"http://user:proxy-password@127.0.0.1:{proxy.port}")
        began = time.monotonic()
        error = post("https://kk.invalid", use_env_proxies=True, timeout_s=0.6)
        assert isinstance(error, KKNotSentError)
        assert time.monotonic() - began < 1.2
        assert "proxy-password" not in str(error)
        assert proxy.bodies == []


def test_a_proxy_that_cannot_be_reached_proves_that_nothing_was_sent(
    through_proxy: pytest.MonkeyPatch,
) -> None:
    through_proxy.setenv("HTTPS_PROXY", f"http://127.0.0.1:{free_port()}")
    assert isinstance(post("https://kk.invalid", use_env_proxies=True), KKNotSentError)


def test_a_socks_proxy_is_refused_before_anything_is_sent(through_proxy: pytest.MonkeyPatch) -> None:
    through_proxy.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    assert isinstance(post("https://kk.invalid", use_env_proxies=True), KKNotSentError)


def test_an_order_goes_through_a_proxy_only_when_asked_to(
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
    with (
        SocketServer(UNKNOWN[name][0], tls=server_tls(pem)) as kk,
        SocketServer(tunnel_to(kk.port)) as proxy,
    ):
        through_proxy.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        error = post(kk.url, use_env_proxies=True, ca_bundle=str(pem))
        assert isinstance(error, KKUnknownOutcomeError)
        assert len(kk.bodies) == 1


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_a_last_check_that_says_no_comes_after_the_connection_and_before_the_first_byte(
    tls: bool, pem: Path
) -> None:
    left: list[float] = []

    def no(remaining_s: float) -> None:
        left.append(remaining_s)
        raise RuntimeError("the lease is over")

    with SocketServer(answering(http(CREATED)), tls=server_tls(pem) if tls else None) as server:
        client = client_for(server.url, ca_bundle=str(pem))
        with pytest.raises(KKNotSentError, match="the lease is over") as caught:
            client.create_order(ORDER, last_check=no)
        assert isinstance(caught.value.__cause__, RuntimeError)
        assert len(left) == 1
        assert 4 < left[0] <= 5
        time.sleep(0.05)
        assert server.connections == 1
        assert server.bytes_seen == 0


def test_a_last_check_that_takes_all_the_time_sends_nothing() -> None:
    with SocketServer(answering(http(CREATED))) as server:
        client = client_for(server.url, timeout_s=0.3)
        with pytest.raises(KKNotSentError):
            client.create_order(ORDER, last_check=lambda _left: time.sleep(0.4))
        assert server.bodies == []


def test_a_last_check_that_agrees_lets_the_order_through() -> None:
    with SocketServer(answering(http(CREATED))) as server:
        assert client_for(server.url).create_order(ORDER, last_check=lambda _left: None) == ["1000000371651"]


def test_an_interruption_passes_through_as_it_is() -> None:
    class Terminated(BaseException):
        pass

    def interrupt(_left: float) -> None:
        raise Terminated

    with SocketServer(answering(http(CREATED))) as server, pytest.raises(Terminated):
        client_for(server.url).create_order(ORDER, last_check=interrupt)


EMPTY_LIST = http({"code": 10000, "message": "ok", "data": {"list": []}})


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


def test_a_read_on_a_connection_that_kk_closed_meanwhile_is_asked_again_once() -> None:
    with SocketServer(serve_one_and_drop_the_next) as server:
        client = client_for(server.url)
        client.list_orders()
        client.list_orders()
        assert server.connections == 2
        assert len(server.requests) == 3


def test_a_read_on_a_connection_made_anew_is_not_asked_again() -> None:
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


def option_of_the_other_end(visit: Visit, level: int, option: int) -> int:
    """A socket option of the client's end, which lives in this very process."""
    peer = visit.sock.getpeername()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(fd))) as sock:
            if sock.family == socket.AF_INET and sock.getsockname() == peer:
                return sock.getsockopt(level, option)
    raise AssertionError("the client's socket is not open")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
def test_the_kernel_is_told_the_deadline_too() -> None:
    limits_ms: list[int] = []

    def play(visit: Visit) -> None:
        while visit.read_request():
            limits_ms.append(option_of_the_other_end(visit, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
            visit.linger(0.2)
            visit.send(EMPTY_LIST)

    with SocketServer(play) as server:
        client = client_for(server.url, timeout_s=2)
        with pytest.raises(KKUnknownOutcomeError):
            client.create_order(ORDER, last_check=lambda _left: time.sleep(0.5))
        client.list_orders()
    assert 1000 < limits_ms[0] <= 1500
    assert 1800 < limits_ms[1] <= 2000


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
        assert done.wait(5)
        assert sent[0] < 2**25
