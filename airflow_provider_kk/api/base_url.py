"""Check KK's base URL and the access token before they are used."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

PRODUCTION_URL = "https://developer.kakaclo.com"
"""KK's production base (page "Getting started"); paths start with `/openapi/`."""


BASE_ONLY = "must be the base URL only, without path and query: the provider adds /openapi/..."
DEFAULT_PORTS = {"https": 443, "http": 80}
_LABEL = r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,240}}$){_LABEL}(\.{_LABEL})*")


def checked_base_url(base_url: str) -> str:
    """Return the base as URLs are written, without a slash at its end.

    Raises ValueError unless it is HTTPS, or HTTP to this machine. No message repeats the text, which may hold
    a token by mistake.
    """
    try:
        parts = urlsplit(base_url)
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("must begin with https:// (or http:// for this machine)")
    if "@" in parts.netloc:
        raise ValueError(
            "must not contain a user or a token. Enter the access token as the connection's password"
        )
    if parts.query or parts.fragment:
        raise ValueError(BASE_ONLY)
    name = _host_name(parts.hostname or "")
    if parts.scheme == "http" and not is_loopback(name.strip("[]")):
        raise ValueError("plain HTTP is for this machine only (127.0.0.0/8, ::1, localhost). Use https://")
    try:
        port = checked_port(parts.port)
    except ValueError:
        raise ValueError("must have a whole number from 1 to 65535 as its port") from None
    return f"{parts.scheme}://{name}" + (f":{port}" if port else "") + parts.path.rstrip("/")


def checked_port(port: object) -> int | None:
    """Return a port; None for nothing or empty text. Raises ValueError for anything else."""
    if port is None or not (text := str(port).strip()):
        return None
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535):
        raise ValueError("must be a whole number from 1 to 65535")
    return int(text)


def _host_name(name: str) -> str:
    """Return a host's name as URLs are written."""
    name = name.removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        if not _HOST_NAME.fullmatch(name):
            raise ValueError("must have a valid host name") from None
        return name
    return f"[{address}]" if address.version == 6 else str(address)


def checked_token(token: str) -> str:
    """Return the access token. Raises ValueError, without showing it, when no header can hold it."""
    if not token:
        raise ValueError("the access token is missing: get one from KK's account pages")
    if re.search(r"[^\x21-\x7e]", token):
        raise ValueError(
            "the access token has spaces, line ends or other invalid characters: "
            "copy it again, without anything around it"
        )
    return token


def may_be_one_store(host: str, other: str) -> bool:
    """Return whether two hosts with ports may be the same KK. On this machine each port is a sandbox."""
    ports = []
    for place in (host, other):
        parts = urlsplit(f"//{place}")
        if is_loopback(parts.hostname or ""):
            ports.append(parts.port)
    return not ports or (len(ports) == 2 and ports[0] == ports[1])


def is_loopback(host: str) -> bool:
    """Return whether `host` (a name or an address, without a port) is this machine."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
