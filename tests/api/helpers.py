"""A KK made of sockets, which breaks in a chosen way, and what the tests of this room share."""

from __future__ import annotations

import contextlib
import copy
import datetime
import ipaddress
import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from airflow_provider_kk.api.client import KKClient
from airflow_provider_kk.api.throttle import LocalBucket

TOKEN = "kk-secret-token-0123456789"
ORDER: dict[str, Any] = {
    "address": {
        "country": "FR",
        "city": "Orlafasns",
        "phone": "07 82 24 67 93",
        "recipient": "Lffsollia Odfsdlena",
        "street1": "7 rue  Rabelais",
        "province": "de Lofasfasire",
        "zip": "vsvs00v30",
    },
    "items": [{"sku": "FWXW00290_WHT_M", "quantity": 1}],
    "remark": "I don't want this order",
    "custom_order_number": "111",
    "sale_platform": "KA",
}
#: KK's own address, for tests without a server.
KK = "https://developer.kakaclo.com"
#: Stands for a field that is not there.
GONE = object()
CREATED = {"code": 10000, "message": "success", "data": 1000000371651}

Play = Callable[["Visit"], None]


def client_for(url: str, **settings: Any) -> KKClient:
    """A client that never waits for a place in a rate limit."""
    settings.setdefault("throttle", LocalBucket(burst=10**6, per_second=10**6))
    settings.setdefault("timeout_s", 60.0)
    return KKClient(url, TOKEN, **settings)


def ok(data: Any, message: str = "success", code: Any = 10000) -> dict[str, Any]:
    return {"code": code, "message": message, "data": data}


def as_text(value: Any) -> Any:
    """The same answer with each number as text."""
    if isinstance(value, dict):
        return {name: as_text(one) for name, one in value.items()}
    if isinstance(value, list):
        return [as_text(one) for one in value]
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of everything in an answer."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield (*path, name)
        yield from leaves(one, (*path, name))


def changed(order: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    copied = copy.deepcopy(order)
    parent: Any = copied
    for step in path[:-1]:
        parent = parent[step]
    if value is GONE:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return copied


def http(body: bytes | str | dict[str, Any], status: str = "200 OK", headers: str = "") -> bytes:
    """A whole HTTP answer."""
    data = json.dumps(body) if isinstance(body, dict) else body
    data = data.encode() if isinstance(data, str) else data
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{headers}\r\n".encode() + data


class Visit:
    """One connection, as a play sees it."""

    def __init__(self, server: SocketServer, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self._file = sock.makefile("rb")

    def read_request(self) -> str:
        """The request line of one whole request; empty when the other side has closed."""
        line = self._file.readline()
        self.server.bytes_seen += len(line)
        length = 0
        while (header := self._file.readline()).strip():
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        body = self._file.read(length)
        if line:
            self.server.requests.append(line.decode().strip())
            if length and len(body) == length:
                self.server.bodies.append(body)
        return line.decode().strip()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reset(self) -> None:
        """Close with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._file.close()
        self.sock.close()

    def linger(self, seconds: float) -> None:
        """Do nothing for a while, or until the test is over."""
        self.server.over.wait(seconds)


class SocketServer:
    """Runs `play` for each connection in a thread of its own, and counts what arrived.

    `played` counts the plays that came to their own end.
    """

    def __init__(self, play: Play, tls: ssl.SSLContext | None = None) -> None:
        self.play = play
        self.tls = tls
        self.connections = 0
        self.played = 0
        self.bytes_seen = 0
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _address = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(300)
        with contextlib.suppress(OSError, ValueError), sock:
            wrapped = self.tls.wrap_socket(sock, server_side=True) if self.tls else sock
            with wrapped:
                self.play(Visit(self, wrapped))
                self.played += 1


def answering(data: bytes) -> Play:
    """Reads one request after another and gives the same answer to each."""

    def play(visit: Visit) -> None:
        while visit.read_request():
            visit.send(data)

    return play


def dripping(data: bytes, pause_s: float = 0.05) -> Play:
    """Gives the answer a byte at a time."""

    def play(visit: Visit) -> None:
        visit.read_request()
        for byte in data:
            visit.send(bytes([byte]))
            visit.linger(pause_s)

    return play


def certificate(folder: Path) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one PEM file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kk.test")])
    now = datetime.datetime.now(datetime.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "kk.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + cert.public_bytes(serialization.Encoding.PEM)
    )
    return path


def server_tls(pem: Path) -> ssl.SSLContext:
    """The server's side of `certificate`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
