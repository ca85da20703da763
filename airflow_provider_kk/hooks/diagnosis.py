"""Describe in one sentence what works or what to fix, for the Test button of a connection."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from airflow_provider_kk.api.errors import (
    KKAnswerError,
    KKAuthError,
    KKEndpointError,
    KKError,
    KKNotSentError,
    KKRateLimitedError,
    KKRejectedError,
)

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.hooks.connection import ConnectionSettings

_WRONG_CLOCK_S = 60

_FIX: dict[type[KKError], str] = {
    KKAuthError: "{url} rejects the access token: enter a valid one from KK's account pages as the password",
    KKEndpointError: "{url} answers, but has no KK API {version}: check the host and api_version",
    KKRateLimitedError: "{url} answers, but the account's rate limit is used up: try again in a minute",
    KKRejectedError: "{url} answers, but rejects the request for orders: {error}",
    KKAnswerError: "{url} returns no valid answer: check that the host is KK's and that KK is up ({error})",
}

# By the name of the exception at the bottom.
_FIX_CONNECTION: dict[str, str] = {
    "gaierror": "the host name of {url} cannot be resolved: check the host and DNS",
    "SSL": "{url} has no valid certificate or does not speak TLS: check host, port and certificates",
    "ConnectionRefusedError": "nothing listens at {url}: check host and port",
    "": "{url} cannot be reached: check host, network, firewall and use_env_proxies",
}


def diagnose(settings: ConnectionSettings, client: KKClient) -> tuple[bool, str]:
    """Ask KK for one order of the last day; see `KKHook.test_connection`."""
    try:
        client.list_orders(created_from=datetime.now(UTC) - timedelta(days=1), page_size=1)
    except KKError as error:
        return False, fix_for(error, settings)
    works = f"{settings.base_url} accepts the access token and lists orders (API {settings.api_version})"
    skew_s = client.clock_skew_s
    if skew_s is not None and abs(skew_s) > _WRONG_CLOCK_S:
        works += f", but its clock and this machine's differ by {abs(skew_s):.0f} s: check the time here"
    return True, works


def fix_for(error: KKError, settings: ConnectionSettings) -> str:
    """Describe in one sentence how to fix an error of KK's."""
    return _fix_for(error).format(url=settings.base_url, version=settings.api_version, error=error)


def _fix_for(error: KKError) -> str:
    if isinstance(error, KKNotSentError):
        reason = str(error)
        sentence = next(text for name, text in _FIX_CONNECTION.items() if name in reason)
        return sentence + " ({error})"
    return next((text for kind, text in _FIX.items() if isinstance(error, kind)), "{url}: {error}")
