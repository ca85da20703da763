"""Check KK's base URL and the access token before they are used."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

PRODUCTION_URL = "https://developer.kakaclo.com"
"""KK's production base (page "Getting started"); paths start with `/openapi/`."""


def checked_base_url(base_url: str) -> str:
    """Return the base without a slash at its end. Raises ValueError unless HTTPS, or HTTP to this machine."""
    text = base_url.strip().rstrip("/")
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        raise ValueError("the base URL cannot be parsed: check its host and port") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("the base URL must not contain a user or password: pass the access token separately")
    if not host or parts.query or parts.fragment or re.search(r"[^\x21-\x7e]", text):
        raise ValueError(f"the base URL must look like {PRODUCTION_URL}")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise ValueError(
            f"the base URL must begin with https:// (http:// only to this machine, not to {host})"
        )
    return text


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
