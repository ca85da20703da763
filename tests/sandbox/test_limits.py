"""Who may ask, how often, and from where."""

from __future__ import annotations

import pytest
import requests

from airflow_provider_kk.sandbox.server import SandboxServer
from tests.sandbox.caller import V1, Caller, order

NOON = 1_800_000_000.0


@pytest.mark.parametrize("token", [None, "Bearer wrong", "sandbox-token", "Bearer sandbox-token2"])
def test_a_wrong_token_gets_401_and_creates_nothing(kk, token):
    headers = {} if token is None else {"Authorization": token}
    answer = requests.post(kk.url + V1, json=order("A-1"), headers=headers, timeout=300)

    assert answer.status_code == 401
    assert kk.control.orders() == []
    assert kk.control.counts()["unauthorized"] == 1


@pytest.mark.parametrize(
    ("form", "status", "text"),
    [
        ("empty", 401, ""),
        ("html", 401, "<h1>"),
        ("envelope", 401, '"code"'),
        ("envelope_200", 200, '"code": 401'),
    ],
)
def test_the_body_of_a_401_is_not_documented_and_can_be_anything(kk, form, status, text):
    kk.control.set(unauthorized=form)
    answer = requests.get(kk.url + V1, timeout=300)

    assert answer.status_code == status
    assert text in answer.text


def test_rate_limit_is_a_burst_of_120_and_two_a_second():
    with SandboxServer(clock=lambda: NOON) as kk:
        caller = Caller(kk.url, kk.token)
        session = requests.Session()

        def ask():
            return session.get(kk.url + V1, headers=caller.headers, timeout=300).status_code

        assert [ask() for _ in range(122)] == [200] * 120 + [429] * 2

        kk.control.advance(1.5)
        assert [ask() for _ in range(4)] == [200] * 3 + [429]


def test_a_rate_limit_response_comes_with_or_without_retry_after_and_creates_nothing():
    with SandboxServer(rate_burst=1, rate_per_second=0.001) as kk:
        caller = Caller(kk.url, kk.token)
        caller.create(order("A-1"))
        assert "Retry-After" not in caller.post(order("A-2")).headers
        kk.control.set(retry_after_s=3)
        answer = caller.post(order("A-2"))

        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")
        assert len(kk.control.orders()) == 1
        assert kk.control.counts()["rate_limited"] == 2


def test_a_request_without_the_token_does_not_count_in_the_rate_limit():
    with SandboxServer(rate_burst=1, rate_per_second=0.001) as kk:
        requests.get(kk.url + V1, timeout=300)
        assert Caller(kk.url, kk.token).create(order("A-1"))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", "", "::"])  # noqa: S104 - is refused
def test_it_does_not_listen_beyond_loopback(host):
    with pytest.raises(ValueError, match="loopback"):
        SandboxServer(host=host)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 401),
        ("LOCALHOST:80", 401),
        ("127.0.0.1", 401),
        ("[::1]:99", 401),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example:80", 403),
    ],
)
def test_it_answers_to_loopback_names_only(kk, host, status):
    for path in (V1, "/", "/__sandbox__/orders", "/nowhere"):
        answer = requests.get(kk.url + path, headers={"Host": host}, timeout=300)
        assert (answer.status_code == 403) == (status == 403 or path.startswith("/__"))


def test_the_control_api_needs_a_header_that_no_foreign_page_can_send(kk):
    answer = requests.post(kk.url + "/__sandbox__/reset", json={}, timeout=300)
    assert answer.status_code == 403


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/openapi/v3/x", 404), ("DELETE", V1, 405)])
def test_what_kk_does_not_know_gets_a_web_page(kk, caller, method, path, status):
    answer = requests.request(method, kk.url + path, headers=caller.headers, timeout=300)

    assert answer.status_code == status
    assert answer.headers["Content-Type"].startswith("text/html")
