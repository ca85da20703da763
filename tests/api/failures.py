"""Ways in which a KK made of sockets fails a request, and the error that a create ends with."""

from __future__ import annotations

import gzip
import traceback
from typing import Any

import pytest

from airflow_provider_kk.api.errors import KKError
from tests.api.helpers import CREATED, ORDER, TOKEN, Play, Visit, answering, client_for, http


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


EMPTY_LIST = http({"code": 10000, "message": "ok", "data": {"list": []}})


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
