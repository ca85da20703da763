"""Check an Airflow connection of type `kk`: return its settings, or one error with all faults.

Every way to make a connection ends here: `AIRFLOW_CONN_*` as JSON or URI, the form, a secrets backend,
`airflow connections add`. Forms and URIs yield text where JSON yields numbers, and forms save untouched
fields as null or empty text, so both count as absent. Needs no Airflow.
"""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar
from urllib.parse import SplitResult, urlsplit

from airflow_provider_kk.api.base_url import PRODUCTION_URL, checked_token, is_loopback
from airflow_provider_kk.api.errors import Fault
from airflow_provider_kk.provider_info import CONN_FIELDS

if TYPE_CHECKING:
    from airflow_provider_kk.api.throttle import LocalBucket
    from airflow_provider_kk.delivery.sql.bucket import LedgerBucket
    from airflow_provider_kk.delivery.sql.storage import SqlLedger


T = TypeVar("T")

DEFAULT_ACCOUNT = "default"
# KK's lists lag up to 5 minutes behind.
LIST_LAG_S = 300.0
DAY_S = 86_400.0
#: A longer unknown name may be a token in the wrong place, so messages show only its beginning.
_LONGEST_SHOWN = 16
_BEGIN_SHOWN = 6


class AirflowConnection(Protocol):
    """The attributes of Airflow's `Connection` on 2.11 and 3.x."""

    conn_id: str
    host: str | None
    schema: str | None
    login: str | None
    password: str | None
    port: Any

    @property
    def extra(self) -> str | None:
        """The extras as JSON text."""


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
    account: str = DEFAULT_ACCOUNT
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
        from airflow_provider_kk.api.throttle import LocalBucket

        return LocalBucket(self.rate_limit_burst, self.rate_limit_per_second)


class InvalidConnectionError(ValueError):
    """Names every fault of a connection that cannot be used, never its token."""

    def __init__(self, conn_id: str, faults: tuple[Fault, ...]) -> None:
        super().__init__(conn_id, faults)
        self.conn_id = conn_id
        self.faults = faults

    def __str__(self) -> str:
        return f"Invalid connection {self.conn_id!r}: " + "; ".join(map(str, self.faults))


def parse_connection(connection: AirflowConnection) -> ConnectionSettings:
    """Check a connection and fill in its defaults.

    A longer `timeout_s` lengthens the defaults of `lease_s` and `settle_window_s` along with it. Raises
    InvalidConnectionError.
    """
    faults = _Faults()
    scheme = faults.read("schema", lambda: _scheme(connection.schema), None)
    port = faults.read("port", lambda: _port(connection.port), None)
    endpoint = faults.read("host", lambda: _endpoint(connection.host, scheme, port), _NOWHERE)
    token = faults.read("password", lambda: _token(connection), "")
    extras = _Extras(connection.extra, faults)
    account = extras.read("account", _text(64), None)
    timeout_s = extras.read("timeout_s", _number(at_most=900.0), 30.0)
    shortest_s = LIST_LAG_S + timeout_s
    settings = ConnectionSettings(
        host=endpoint.host,
        base_url=endpoint.base_url,
        token=token,
        api_version=extras.read("api_version", _choice("api_version"), "v1"),
        sale_platform=extras.read("sale_platform", _text(64), None),
        address_key=extras.read("address_key", _choice("address_key"), "orderAddresses"),
        account=account or DEFAULT_ACCOUNT,
        account_is_explicit=account is not None,
        ledger_conn_id=extras.read("ledger_conn_id", _text(250), None),
        timeout_s=timeout_s,
        lease_s=extras.read(
            "lease_s", _number(2 * timeout_s, "2 x timeout_s", at_most=DAY_S), max(120.0, 2 * timeout_s)
        ),
        settle_window_s=extras.read(
            "settle_window_s",
            _number(0.0 if endpoint.is_local else shortest_s, "300 + timeout_s", at_most=DAY_S),
            max(600.0, shortest_s),
        ),
        rate_limit_burst=extras.read("rate_limit_burst", _whole, 120),
        rate_limit_per_second=extras.read("rate_limit_per_second", _number(), 2.0),
        max_orders_per_day=extras.read("max_orders_per_day", _whole, None),
        use_env_proxies=extras.read("use_env_proxies", _flag, False),
        order_url=extras.read("order_url", _order_url, None),
    )
    if faults.found:
        raise InvalidConnectionError(connection.conn_id, tuple(faults.found))
    return settings


class _Endpoint(NamedTuple):
    base_url: str
    host: str
    is_local: bool


# Stands in for a wrong host, so that it causes no second fault.
_NOWHERE = _Endpoint("", "", is_local=True)
_PORT_OF = {"https": 443, "http": 80}
_LABEL = r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,240}}$){_LABEL}(\.{_LABEL})*")


def _scheme(schema: str | None) -> str | None:
    """Read the schema, which selects plain HTTP in a URI: `kk://:token@127.0.0.1:8080/http`."""
    scheme = (schema or "").strip().lower() or None
    if scheme is not None and scheme not in _PORT_OF:
        raise ValueError("must be empty, http or https")
    return scheme


def _port(port: object) -> int | None:
    text = "" if port is None else str(port).strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535):
        raise ValueError("must be a whole number from 1 to 65535")
    return int(text)


def _endpoint(host: str | None, scheme: str | None, port: int | None) -> _Endpoint:
    # No message repeats the text, which may hold a token by mistake.
    parts = _split((host or "").strip() or PRODUCTION_URL, scheme)
    if "@" in parts.netloc:
        raise ValueError(
            "must not contain a user or a token. Enter the access token as the connection's password"
        )
    if parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError("must be the base URL only, without path and query: the provider adds /openapi/...")
    if scheme is not None and parts.scheme != scheme:
        raise ValueError(f"begins with {parts.scheme}, but the connection's schema is {scheme}")
    name = _name(parts)
    is_local = is_loopback(name.strip("[]"))
    if parts.scheme == "http" and not is_local:
        raise ValueError("plain HTTP is for this machine only (127.0.0.0/8, ::1, localhost). Use https://")
    port = _one_port(parts, port)
    host = name if port in (None, _PORT_OF[parts.scheme]) else f"{name}:{port}"
    return _Endpoint(f"{parts.scheme}://{host}", host, is_local)


def _split(text: str, scheme: str | None) -> SplitResult:
    if "://" not in text:
        is_bare_ipv6 = text.count(":") > 1 and not text.startswith("[")
        text = f"{scheme or 'https'}://" + (f"[{text}]" if is_bare_ipv6 else text)
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in _PORT_OF:
        raise ValueError("must begin with https:// (or http:// for this machine)")
    return parts


def _name(parts: SplitResult) -> str:
    """Return the host's name as a URL writes it."""
    name = (parts.hostname or "").removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        if not _HOST_NAME.fullmatch(name):
            raise ValueError("is not a host name") from None
        return name
    return f"[{address}]" if address.version == 6 else str(address)


def _one_port(parts: SplitResult, field_port: int | None) -> int | None:
    try:
        url_port = parts.port
    except ValueError:
        raise ValueError("its port must be a whole number from 1 to 65535") from None
    if url_port is not None and field_port not in (None, url_port):
        raise ValueError(f"has port {url_port}, but the connection's port is {field_port}")
    return field_port if url_port is None else _port(url_port)


def _token(connection: AirflowConnection) -> str:
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


class _Extras:
    """The extras by name. Null and empty text are absent; a wrong value is a fault and gives the default."""

    def __init__(self, extra: str | None, faults: _Faults) -> None:
        self._faults = faults
        nothing: dict[str, object] = {}
        values = faults.read("extra", lambda: _object(extra), nothing)
        self._values = {name: value for name, value in values.items() if not _is_absent(value)}
        faults.found += [_unknown(name) for name in self._values if name not in CONN_FIELDS]

    def read(self, name: str, parse: Callable[[object], T], default: T) -> T:
        """Return what `parse` makes of an extra's value."""
        if name not in self._values:
            return default
        return self._faults.read(f"extra.{name}", lambda: parse(self._values[name]), default)


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


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _unknown(name: str) -> Fault:
    if near := difflib.get_close_matches(name, CONN_FIELDS, n=1):
        return Fault(f"extra.{name}", f"is unknown. Did you mean {near[0]}?")
    shown = name if len(name) <= _LONGEST_SHOWN else f"{name[:_BEGIN_SHOWN]}***"
    return Fault(f"extra.{shown}", f"is unknown. Known are {', '.join(CONN_FIELDS)}")


def _text(max_length: int) -> Callable[[object], str]:
    def read(value: object) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise ValueError("must be text")
        text = value.strip()
        if len(text) > max_length or not re.fullmatch(r"[ -~]+", text):
            raise ValueError(f"must be at most {max_length} printable ASCII characters")
        return text

    return read


def _order_url(value: object) -> str:
    url = _text(500)(value)
    if not url.startswith(("https://", "http://")) or "{kk_order_id}" not in url:
        raise ValueError("must be an http(s) URL that contains {kk_order_id}")
    return url


def _choice(name: str) -> Callable[[object], str]:
    """Read one of the values that the connection form offers."""
    schema = CONN_FIELDS[name]["schema"]
    choices = schema["enum"] if isinstance(schema, dict) else []

    def read(value: object) -> str:
        text = str(value).strip()
        if text not in choices:
            raise ValueError(f"must be {' or '.join(choices)}")
        return text

    return read


def _number(
    least: float = 0.0, why_least: str = "", *, at_most: float = math.inf
) -> Callable[[object], float]:
    """Read a number above zero, from `least` (`why_least` is the reason) to `at_most`."""

    def read(value: object) -> float:
        number = _float(value)
        if number is None or not math.isfinite(number):
            raise ValueError("must be a number")
        if number <= 0:
            raise ValueError("must be above 0")
        if number < least:
            raise ValueError(f"must be at least {least:g} ({why_least})")
        if number > at_most:
            raise ValueError(f"must be at most {at_most:g}")
        return number

    return read


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
