"""Check an Airflow connection of type `kk`: return its settings, or one error with all faults, and test it.

Every way to make a connection ends here: `AIRFLOW_CONN_*` as JSON or URI, the form, a secrets backend,
`airflow connections add`. Forms and URIs yield text where JSON yields numbers, and forms save untouched
fields as null or empty text, so both count as absent. Needs no Airflow.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from airflow_provider_kk.api.base_url import (
    BASE_ONLY,
    DEFAULT_PORTS,
    PRODUCTION_URL,
    checked_base_url,
    checked_port,
    checked_token,
    is_loopback,
)
from airflow_provider_kk.api.errors import (
    Fault,
    KKAnswerError,
    KKAuthError,
    KKEndpointError,
    KKError,
    KKNotSentError,
    KKRateLimitedError,
    KKRejectedError,
)
from airflow_provider_kk.api.throttle import LocalBucket
from airflow_provider_kk.provider_info import CONN_FIELDS

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.delivery.sql.bucket import LedgerBucket
    from airflow_provider_kk.delivery.sql.storage import SqlLedger


T = TypeVar("T")

# KK's lists lag up to 5 minutes behind.
LIST_LAG_S = 300.0
#: A longer unknown name may be a token in the wrong place, so messages show only its beginning.
_LONGEST_SHOWN = 16
_BEGIN_SHOWN = 6


@dataclass(frozen=True, kw_only=True)
class ConnectionSettings:
    """The settings of a connection of type `kk`, checked and with their defaults.

    `host` is the host name, with its port where that is not the scheme's own; with `account` it is the key
    of ledger and rate limit. `account_is_explicit`: the connection itself names the account, which a second
    one to the same host must.
    """

    host: str
    base_url: str
    token: str = field(repr=False)
    api_version: str = "v1"
    sale_platform: str | None = None
    address_key: str = "orderAddresses"
    account: str = "default"
    account_is_explicit: bool = False
    ledger_conn_id: str | None = None
    timeout_s: float = 30.0
    lease_s: float = 120.0
    settle_window_s: float = 600.0
    rate_limit_burst: int = 120
    rate_limit_per_second: float = 2.0
    max_orders_per_day: int | None = None
    use_env_proxies: bool = False
    order_url: str | None = None

    def shared_bucket(self, ledger: SqlLedger) -> LedgerBucket:
        """Return KK's rate limit as all workers share it through the account's ledger."""
        from airflow_provider_kk.delivery.sql.bucket import LedgerBucket

        return LedgerBucket(ledger, burst=self.rate_limit_burst, per_second=self.rate_limit_per_second)

    def local_bucket(self) -> LocalBucket:
        """Return KK's rate limit for this process alone."""
        return LocalBucket(self.rate_limit_burst, self.rate_limit_per_second)


class InvalidConnectionError(ValueError):
    """Names every fault of a connection that cannot be used, never its token."""

    def __init__(self, conn_id: str, faults: tuple[Fault, ...]) -> None:
        super().__init__(conn_id, faults)
        self.conn_id = conn_id
        self.faults = faults

    def __str__(self) -> str:
        return f"Invalid connection {self.conn_id!r}: " + "; ".join(map(str, self.faults))


def parse_connection(connection: Any) -> ConnectionSettings:
    """Check a connection of Airflow and fill in its defaults.

    A longer `timeout_s` lengthens the defaults of `lease_s` and `settle_window_s` along with it. Raises
    InvalidConnectionError.
    """
    faults = _Faults()
    scheme = faults.read("schema", lambda: _scheme(connection.schema), None)
    port = faults.read("port", lambda: checked_port(connection.port), None)
    base_url = faults.read("host", lambda: _base_url(connection.host, scheme, port), "")
    token = faults.read("password", lambda: _token(connection), "")
    extras = _extras(connection.extra, faults)
    timeout_s = extras.get("timeout_s", ConnectionSettings.timeout_s)
    # A sandbox on this machine may list without delay. A wrong host causes no second fault.
    is_remote = base_url != "" and not is_loopback(urlsplit(base_url).hostname or "")
    for name, least, why, is_required in (
        ("lease_s", 2 * timeout_s, "2 x timeout_s", True),
        ("settle_window_s", LIST_LAG_S + timeout_s, "300 + timeout_s", is_remote),
    ):
        extras.setdefault(name, max(getattr(ConnectionSettings, name), least))
        if is_required and extras[name] < least:
            faults.found.append(Fault(f"extra.{name}", f"must be at least {least:g} ({why})"))
    if faults.found:
        raise InvalidConnectionError(connection.conn_id, tuple(faults.found))
    return ConnectionSettings(
        host=base_url.partition("://")[2],
        base_url=base_url,
        token=token,
        account_is_explicit="account" in extras,
        **extras,
    )


def _scheme(schema: str | None) -> str | None:
    """Read the schema, which selects plain HTTP in a URI: `kk://:token@127.0.0.1:8080/http`."""
    scheme = (schema or "").strip().lower() or None
    if scheme is not None and scheme not in DEFAULT_PORTS:
        raise ValueError("must be empty, http or https")
    return scheme


def _base_url(host: str | None, scheme: str | None, port: int | None) -> str:
    text = (host or "").strip() or PRODUCTION_URL
    if "://" not in text:
        is_bare_ipv6 = text.count(":") > 1 and not text.startswith("[")
        text = f"{scheme or 'https'}://" + (f"[{text}]" if is_bare_ipv6 else text)
    base_url = checked_base_url(text)
    parts = urlsplit(base_url)
    if parts.path:
        raise ValueError(BASE_ONLY)
    if scheme is not None and parts.scheme != scheme:
        raise ValueError(f"begins with {parts.scheme}, but the connection's schema is {scheme}")
    if parts.port is not None and port not in (None, parts.port):
        raise ValueError(f"has port {parts.port}, but the connection's port is {port}")
    port = parts.port or port
    base_url = base_url.removesuffix(f":{port}")
    return base_url if port in (None, DEFAULT_PORTS[parts.scheme]) else f"{base_url}:{port}"


def _token(connection: Any) -> str:
    token = (connection.password or "").strip()
    if not token:
        instead = ". Enter it as the password, not as the login" if connection.login else ""
        raise ValueError(f"the access token is missing{instead}")
    if token.lower().startswith("bearer "):
        raise ValueError("must be the access token only, without the word Bearer")
    return checked_token(token)


class _Faults:
    """Collects what is wrong, so that one error can name it all."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def read(self, path: str, parse: Callable[[], T], otherwise: T) -> T:
        """Return what `parse` returns; `otherwise` when it raises a ValueError, which is a fault."""
        try:
            return parse()
        except ValueError as error:
            self.found.append(Fault(path, str(error)))
            return otherwise


def _extras(extra: str | None, faults: _Faults) -> dict[str, Any]:
    """Return the values of the extras. Null and empty text are absent, and so is what has a fault."""
    nothing: dict[str, object] = {}
    given = faults.read("extra", lambda: _object(extra), nothing)
    given = {name: value for name, value in given.items() if value is not None and str(value).strip()}
    faults.found += [_unknown(name) for name in given if name not in CONN_FIELDS]
    values = {}
    for name in [name for name in CONN_FIELDS if name in given]:
        try:
            values[name] = _value(name, given[name])
        except ValueError as error:
            faults.found.append(Fault(f"extra.{name}", str(error)))
    return values


def _object(extra: str | None) -> dict[str, object]:
    if not extra or not extra.strip():
        return {}
    try:
        values = json.loads(extra)
    except ValueError:
        raise ValueError("is not JSON") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError('must be a JSON object such as {"account": "shop-1"}')
    return values


def _unknown(name: str) -> Fault:
    if near := difflib.get_close_matches(name, CONN_FIELDS, n=1):
        return Fault(f"extra.{name}", f"is unknown. Did you mean {near[0]}?")
    shown = name if len(name) <= _LONGEST_SHOWN else f"{name[:_BEGIN_SHOWN]}***"
    return Fault(f"extra.{shown}", f"is unknown. Known are {', '.join(CONN_FIELDS)}")


def _value(name: str, value: object) -> object:
    """Read an extra by the schema of its field in the connection form."""
    schema: Any = CONN_FIELDS[name]["schema"]
    kind = schema["type"][0]
    if kind == "boolean":
        return _flag(value)
    if kind == "integer":
        return _whole(value)
    if kind == "number":
        return _number(value, schema.get("maximum", math.inf))
    if "enum" in schema:
        return _choice(value, schema["enum"])
    text = _text(value, schema["maxLength"])
    if name == "order_url" and not (text.startswith(("https://", "http://")) and "{kk_order_id}" in text):
        raise ValueError("must be an http(s) URL that contains {kk_order_id}")
    return text


def _text(value: object, max_length: int) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be text")
    text = str(value).strip()
    if len(text) > max_length or not re.fullmatch(r"[ -~]+", text):
        raise ValueError(f"must be at most {max_length} printable ASCII characters")
    return text


def _choice(value: object, choices: list[str]) -> str:
    text = str(value).strip()
    if text not in choices:
        raise ValueError(f"must be {' or '.join(choices)}")
    return text


def _number(value: object, at_most: float) -> float:
    number = _float(value)
    if number is None or not math.isfinite(number):
        raise ValueError("must be a number")
    if number <= 0:
        raise ValueError("must be above 0")
    if number > at_most:
        raise ValueError(f"must be at most {at_most:g}")
    return number


def _whole(value: object) -> int:
    number = _float(value)
    if number is None or not number.is_integer() or number < 1:
        raise ValueError("must be a whole number of 1 or more")
    return int(number)


def _float(value: object) -> float | None:
    """Read JSON numbers, and text as forms and URIs hold it. JSON's true is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _flag(value: object) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError("must be true or false")


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
    fix = next((text for kind, text in _FIX.items() if isinstance(error, kind)), "{url}: {error}")
    if isinstance(error, KKNotSentError):
        reason = str(error)
        fix = next(text for name, text in _FIX_CONNECTION.items() if name in reason) + " ({error})"
    return fix.format(url=settings.base_url, version=settings.api_version, error=error)
