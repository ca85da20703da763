"""What a whole answer proves, as a table."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kk.api.errors import (
    Fault,
    InvalidOrderError,
    KKAnswerError,
    KKAuthError,
    KKEndpointError,
    KKError,
    KKNotSentError,
    KKRateLimitedError,
    KKRejectedError,
    KKUnknownOutcomeError,
    Outcome,
)
from airflow_provider_kk.api.responses import Response, data_of, kk_order_ids, read_envelope


def answer(status: int, body: Any, **headers: str) -> Response:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Response(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


def refused(code: Any) -> dict[str, Any]:
    return {"code": code, "message": "unknown SKU", "data": None}


PROVEN: list[tuple[int, Any, type[KKError]]] = [
    (200, refused(20001), KKRejectedError),
    (200, refused("20001"), KKRejectedError),
    (200, refused(0), KKRejectedError),
    (200, refused(403), KKRejectedError),
    (302, refused(20001), KKRejectedError),
    (400, refused(20001), KKRejectedError),
    (404, refused(20001), KKRejectedError),
    (408, refused(20001), KKRejectedError),
    (422, refused(499), KKRejectedError),
    (200, refused(600), KKRejectedError),
    (200, refused(500000), KKRejectedError),
    (200, refused(401), KKAuthError),
    (400, refused("401"), KKAuthError),
    (401, b"", KKAuthError),
    (401, refused(401), KKAuthError),
    (403, b"<html>", KKAuthError),
    (404, b"not found", KKEndpointError),
    (405, b"", KKEndpointError),
    (429, b"", KKRateLimitedError),
    (429, refused(20001), KKRateLimitedError),
    (200, refused(429), KKRateLimitedError),
]

UNCLEAR: list[tuple[int, Any]] = [
    (500, refused(20001)),
    (500, refused(401)),
    (503, refused(429)),
    (599, {"code": 10000, "data": 1}),
    (200, refused(-1)),
    (200, refused(500)),
    (200, refused(599)),
    (400, refused(50000)),
    (200, refused(59999)),
    (302, {"code": 10000, "data": 1}),
    (400, {"code": 10000, "data": 1}),
    (302, b""),
    (400, b"bad request"),
    (408, b""),
    (200, b"12345"),
    (200, b"[]"),
    (200, b'{"code": 10000, "data": 1'),
    (200, b'{"code": 10000, "data": 1} {}'),
    (200, b"\xff\xfe\xfa"),
    (200, {"code": 10000.0, "data": 1}),
    (200, {"code": True}),
    (200, {"code": None}),
    (200, {"code": "ok"}),
    (200, {"message": "success"}),
]


@pytest.mark.parametrize("status", [401, 403])
def test_a_rejected_token_with_a_code_of_its_own(status: int) -> None:
    """For a call that changes something the code decides: it may be about this very order."""
    with pytest.raises(KKRejectedError):
        data_of(answer(status, refused(20001)), is_write=True)
    with pytest.raises(KKAuthError):
        data_of(answer(status, refused(20001)), is_write=False)


@pytest.mark.parametrize("status", [302, 400, 401, 403, 404, 429, 500])
def test_a_success_under_a_status_of_failure_proves_nothing(status: int) -> None:
    with pytest.raises(KKUnknownOutcomeError):
        data_of(answer(status, {"code": 10000, "data": 1}), is_write=True)


@pytest.mark.parametrize(("status", "body", "kind"), PROVEN)
def test_a_complete_response_proves_an_outcome(status: int, body: Any, kind: type[KKError]) -> None:
    for is_write in (True, False):
        with pytest.raises(KKError) as caught:
            data_of(answer(status, body), is_write=is_write)
        assert type(caught.value) is kind
        assert caught.value.http_status == status


@pytest.mark.parametrize(("status", "body"), UNCLEAR)
def test_any_other_response_leaves_a_write_unknown_and_a_read_failed(status: int, body: Any) -> None:
    with pytest.raises(KKUnknownOutcomeError):
        data_of(answer(status, body), is_write=True)
    with pytest.raises(KKAnswerError):
        data_of(answer(status, body), is_write=False)


@pytest.mark.parametrize("message", ["success", "Success!", "ok", "kk.api.200", "", None, 5, "error"])
@pytest.mark.parametrize("code", [10000, "10000"])
def test_success_is_the_code_never_the_text(code: Any, message: Any) -> None:
    assert data_of(answer(200, {"code": code, "message": message, "data": [1]}), is_write=True) == [1]


def test_a_rejection_has_code_and_message() -> None:
    with pytest.raises(KKRejectedError) as caught:
        data_of(answer(400, refused(20001)), is_write=True)
    error = caught.value
    assert (error.outcome, error.code, error.kk_message) == (Outcome.REJECTED, 20001, "unknown SKU")
    assert str(error) == "KK rejected the request (HTTP 400, code 20001): unknown SKU"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "soon"}, None),
        ({"retry_after": "-3"}, None),
        ({"retry_after": "Tue, 02 Jan 2024 03:05:05 GMT", "date": "Tue, 02 Jan 2024 03:04:05 GMT"}, 60.0),
        ({"retry_after": "Tue, 02 Jan 2024 03:04:05 GMT"}, 0.0),
        ({"retry_after": "Tue, 02 Jan 2024 03:05:05 GMT", "date": "nonsense"}, None),
    ],
)
def test_a_rate_limit_response_gives_its_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    with pytest.raises(KKRateLimitedError) as caught:
        data_of(answer(429, b"", **headers), is_write=True)
    assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize(
    ("data", "ids"),
    [
        (1000000371651, ["1000000371651"]),
        ("1000000371651", ["1000000371651"]),
        ("KK-7_a", ["KK-7_a"]),
        ("1, 2,3", ["1", "2", "3"]),
        ([1, "2"], ["1", "2"]),
        ([{"id": 1}, {"kkOrderId": "2"}, {"kkOrderIds": [3, 4]}], ["1", "2", "3", "4"]),
        ({"kkOrderIds": 1000000371651, "status": 0}, ["1000000371651"]),
        ({"kkOrderIds": "1,2", "status": 0}, ["1", "2"]),
        ({"id": 5, "status": 0}, ["5"]),
        ([1, 1, "1"], ["1"]),
        # None of these is an id, and one that is none spoils the rest: the answer was not understood.
        (None, []),
        (True, []),
        (0, []),
        (-5, []),
        ("", []),
        ("success", []),
        ("order created 5", []),
        ("1" * 33, []),
        ("1,,2", []),
        ([1, None], []),
        ([], []),
        ({}, []),
        ({"status": 0}, []),
        (1.5, []),
        ([[[[[1]]]]], []),
    ],
)
def test_every_form_of_the_created_ids_is_understood(data: Any, ids: list[str]) -> None:
    assert kk_order_ids(data) == ids


json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "kkOrderIds", "x"]), inner),
)


@given(json_data)
def test_ids_are_plausible_text_or_there_are_none(data: Any) -> None:
    for kk_id in kk_order_ids(data):
        assert isinstance(kk_id, str)
        assert 0 < len(kk_id) <= 32
        assert kk_id.isascii()


@given(st.binary() | json_data.map(lambda data: json.dumps(data).encode()))
def test_reading_an_envelope_never_raises(body: bytes) -> None:
    read_envelope(body)


@given(st.integers(1, 58))
def test_an_envelope_cut_anywhere_is_none(length: int) -> None:
    whole = b'{"code": 10000, "message": "success", "data": 1000000371651}'
    assert read_envelope(whole) is not None
    assert read_envelope(whole[:length]) is None


def test_nesting_without_end_is_no_envelope() -> None:
    assert read_envelope(b'{"code":' + b"[" * 10**6) is None


@pytest.mark.parametrize(
    "error",
    [
        KKRejectedError("no", http_status=200, code=1, kk_message="m"),
        KKRateLimitedError("slow", http_status=429, retry_after_s=3.0),
        KKNotSentError("gone"),
        InvalidOrderError((Fault("items[0].sku", "is required"),)),
    ],
)
def test_errors_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - made by the line before
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_every_error_names_its_outcome() -> None:
    kinds = {kind: kind("x").outcome for kind in KKError.__subclasses__()}
    assert kinds == {
        KKNotSentError: Outcome.NOT_SENT,
        KKRateLimitedError: Outcome.NOT_SENT,
        KKAuthError: Outcome.NOT_SENT,
        KKEndpointError: Outcome.NOT_SENT,
        KKRejectedError: Outcome.REJECTED,
        KKUnknownOutcomeError: Outcome.UNKNOWN,
        KKAnswerError: Outcome.NOT_SENT,
    }


def test_an_invalid_order_lists_every_fault() -> None:
    error = InvalidOrderError((Fault("address.country", "is required"), Fault("", "the order is not JSON")))
    assert str(error) == "invalid order: address.country: is required; the order is not JSON"


@pytest.mark.parametrize(
    ("status", "body", "headers", "said"),
    [
        (302, b"", {"location": "https://login.example.com/?token=s3cret"}, "redirects to login.example.com"),
        (307, b"", {"location": "/login?token=s3cret"}, "redirects to another path, "),
        (302, b"", {"location": "http://[s3cret"}, "redirects to another path, "),
        (302, b"", {"location": "https://the-token.example.com/"}, "redirects to ***.example.com, "),
        (
            200,
            b"<html>s3cret",
            {"content_type": "text/html; charset=utf-8"},
            "an HTML page instead of JSON: ",
        ),
        (200, b'{"s3cret": 1}', {"content_type": "application/json"}, "not JSON in KK's format"),
        (500, b"", {}, "without a body"),
    ],
)
def test_a_response_that_is_not_kks_is_described(
    status: int, body: bytes, headers: dict[str, str], said: str
) -> None:
    with pytest.raises(KKError) as caught:
        data_of(answer(status, body, **headers), is_write=False, secrets=["the-token"])
    assert f"(HTTP {status}, {said}" in str(caught.value)
    assert "s3cret" not in str(caught.value)
