"""One HTTP request to KK: a total deadline, proof of bytes sent, no redirect.

Only a GET is repeated, once, if KK had closed the kept connection. `client` repeats requests after HTTP 429.

TLS is always verified. Proxies, .netrc and certificates of the environment are not used unless configured.
"""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any

import requests
from requests.utils import get_environ_proxies

from airflow_provider_kk import __version__
from airflow_provider_kk.api.base_url import checked_base_url, checked_token
from airflow_provider_kk.api.errors import KKAnswerError, KKError, KKNotSentError, KKUnknownOutcomeError
from airflow_provider_kk.api.responses import Response
from airflow_provider_kk.api.sent_bytes import BeforeSendFailed, TrackedRequest, TrackingAdapter

MAX_LIST_BYTES = 32 * 2**20
"""The most that is read of the answer to a read, decoded."""
MAX_RECEIPT_BYTES = 2**20
"""The most that is read of the answer to a write, decoded."""


@dataclass(frozen=True)
class Request:
    """One call of KK. `is_write`: it must never happen twice unnoticed."""

    method: str
    path: str
    params: Mapping[str, str] | None = None
    body: Mapping[str, Any] | None = None
    is_write: bool = False
    before_send: Callable[[float], None] | None = None


class Transport:
    """Sends calls to one base URL with one token. Safe for many threads.

    `timeout_s` is for a whole call, from name resolution to the answer's last byte. With `use_env_proxies`
    the environment's proxies (CONNECT only) and REQUESTS_CA_BUNDLE are used. `ca_bundle` is a file of
    certificates to trust instead of the usual ones. Raises ValueError for an invalid base URL or token.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        *,
        timeout_s: float = 30.0,
        use_env_proxies: bool = False,
        ca_bundle: str | None = None,
    ) -> None:
        try:
            self.base_url = checked_base_url(base_url.strip())
        except ValueError as error:
            raise ValueError(f"the base URL {error}") from None
        self.requests = 0
        self.clock_skew_s: float | None = None
        self._token = checked_token(token)
        self._timeout_s = timeout_s
        self._use_env_proxies = use_env_proxies
        self._ca_bundle = ca_bundle
        self._lock = threading.Lock()
        self._session = _Session()

    def send(self, call: Request) -> Response:
        """Return the whole answer to `call`, whatever its status.

        Raises KKNotSentError when no byte of the request reached the socket. Later, without a whole answer,
        it raises KKUnknownOutcomeError for a write, else KKAnswerError.
        """
        deadline = time.monotonic() + self._timeout_s
        tracked = TrackedRequest(deadline, fresh=call.method != "GET", before_send=call.before_send)
        result = self._attempt(call, tracked)
        if isinstance(result, KKAnswerError) and call.method == "GET" and tracked.met_a_closed_connection:
            # KK had closed the kept connection meanwhile: a read is retried once.
            result = self._attempt(call, TrackedRequest(deadline, fresh=True, before_send=call.before_send))
        if isinstance(result, KKError):
            # Raised outside of any handler, since errors of requests carry the headers and the body.
            raise result
        return result

    def close(self) -> None:
        """Close kept connections."""
        self._session.close()

    def _attempt(self, call: Request, tracked: TrackedRequest) -> Response | KKError:
        try:
            request = self._prepared(call)
            options = self._options()
        except Exception as error:
            return KKNotSentError(
                f"nothing was sent, because the request cannot be made: {self._reason(error)}"
            )
        with self._lock:
            self.requests += 1
        try:
            with tracked:
                # For other adapters: the deadline of ours comes first.
                timeout_s = max(0.0, tracked.remaining_s) + 1.0
                tracked.begun = True
                response = self._session.send(
                    request, stream=True, allow_redirects=False, timeout=timeout_s, **options
                )
                tracked.answered = True
                with response:
                    body = _read(response, MAX_RECEIPT_BYTES if call.is_write else MAX_LIST_BYTES)
                headers = {name.lower(): value for name, value in response.headers.items()}
                if tracked.expired and headers.keys().isdisjoint(("content-length", "transfer-encoding")):
                    # The end of the connection is the end of such a body, and the deadline ends it too.
                    raise TimeoutError
        except Exception as error:
            return self._failure(call, tracked, error)
        self._note_clock(headers.get("date"))
        return Response(response.status_code, headers, body)

    def _prepared(self, call: Request) -> requests.PreparedRequest:
        headers = {
            "Authorization": f"Bearer {self._token}",
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": f"airflow-provider-kk/{__version__}",
        }
        data = None
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(call.body, ensure_ascii=False, allow_nan=False).encode()
        url = self.base_url + call.path
        return requests.Request(call.method, url, headers=headers, params=call.params, data=data).prepare()

    def _options(self) -> dict[str, Any]:
        proxies: dict[str, str] = {}
        verify: str | bool = self._ca_bundle or True
        if self._use_env_proxies and self.base_url.startswith("https:"):
            proxies = get_environ_proxies(self.base_url, no_proxy=None)
            verify = self._ca_bundle or os.environ.get("REQUESTS_CA_BUNDLE") or True
        return {"proxies": proxies, "verify": verify}

    def _failure(self, call: Request, tracked: TrackedRequest, error: Exception) -> KKError:
        if isinstance(error, BeforeSendFailed):
            refusal = KKNotSentError(f"not sent, because the check before sending failed: {error.reason}")
            refusal.__cause__ = error.reason
            return refusal
        reason = (
            f"it took longer than timeout_s={self._timeout_s:g}" if tracked.expired else self._reason(error)
        )
        if _proven_unsent(tracked, error):
            return KKNotSentError(f"KK cannot be reached, so nothing was sent: {reason}")
        if call.is_write:
            return KKUnknownOutcomeError(
                f"KK's answer is missing or incomplete, so KK may have executed the request: {reason}"
            )
        return KKAnswerError(f"KK's answer is missing or incomplete: {reason}")

    def _reason(self, error: BaseException) -> str:
        text = _innermost(error).replace(self._token, "***")
        return re.sub(r"[\x00-\x1f\x7f]+", " ", text)[:300]

    def _note_clock(self, date: str | None) -> None:
        try:
            self.clock_skew_s = parsedate_to_datetime(date or "").timestamp() - time.time()
        except (ValueError, OverflowError):
            return


class _Session(requests.Session):
    """A session without cookies, redirects and settings of the environment."""

    def __init__(self) -> None:
        super().__init__()
        self.trust_env = False
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        for scheme in ("https://", "http://"):
            self.mount(scheme, TrackingAdapter())

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        # Without this, requests reads the whole body of a redirect, however long.
        return None


class _TooLarge(Exception):
    pass


def _read(response: requests.Response, max_bytes: int) -> bytes:
    body = bytearray()
    for chunk in response.iter_content(16_384):
        body += chunk
        if len(body) > max_bytes:
            raise _TooLarge(f"the answer is larger than {max_bytes} bytes")
    return bytes(body)


def _proven_unsent(tracked: TrackedRequest, error: Exception) -> bool:
    if tracked.tracked:
        return not tracked.bytes_handed
    # Another adapter, as in tests, does not track bytes: trust its error.
    return not tracked.begun or isinstance(error, requests.exceptions.ConnectTimeout)


def _innermost(error: BaseException) -> str:
    """Describe the innermost cause, which is the reason; the others only wrap it."""
    seen = {id(error)}
    while (below := _below(error)) is not None and id(below) not in seen:
        seen.add(id(below))
        error = below
    # The texts of other errors may repeat what was sent.
    text = isinstance(error, OSError | _TooLarge) and not isinstance(error, requests.RequestException)
    return f"{type(error).__name__}: {error}" if text else type(error).__name__


def _below(error: BaseException) -> BaseException | None:
    candidates = (getattr(error, "reason", None), error.__cause__, error.__context__, *error.args)
    return next((below for below in candidates if isinstance(below, BaseException)), None)
