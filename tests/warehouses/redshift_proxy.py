"""A PostgreSQL that redshift_connector can log in to.

A proxy drops the startup parameters that only Redshift knows, and gives Redshift's version for Debian's.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_KNOWN = (b"user", b"database")
_VERSION = b"server_version\0"


@contextmanager
def redshift_proxy(port: int) -> Iterator[int]:
    """The port of a proxy before the PostgreSQL on `port`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_serve, args=(listener, port), daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)


def _serve(listener: socket.socket, port: int) -> None:
    with suppress(OSError):  # it is shut down
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=_requests, args=(client, server), daemon=True).start()
            threading.Thread(target=_responses, args=(server, client), daemon=True).start()


def _requests(client: socket.socket, server: socket.socket) -> None:
    body = _read(client, _length(client))
    names_and_values = body[4:].split(b"\0")
    pairs = zip(names_and_values[::2], names_and_values[1::2], strict=False)
    known = b"".join(b"%s\0%s\0" % pair for pair in pairs if pair[0] in _KNOWN)
    server.sendall(_message(body[:4] + known + b"\0"))
    _copy(client, server)


def _responses(server: socket.socket, client: socket.socket) -> None:
    kind = b""
    while kind != b"Z":  # ready for queries
        kind = _read(server, 1)
        body = _read(server, _length(server))
        if kind == b"S" and body.startswith(_VERSION):
            body = _VERSION + b"8.0.2\0"
        client.sendall(kind + _message(body))
    _copy(server, client)


def _length(source: socket.socket) -> int:
    (length,) = struct.unpack("!i", _read(source, 4))
    return int(length) - 4


def _message(body: bytes) -> bytes:
    return struct.pack("!i", len(body) + 4) + body


def _read(source: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = source.recv(size - len(found))
        if not part:
            raise EOFError("the connection was closed while it began")
        found += part
    return found


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):  # either side is gone
        while part := source.recv(65536):
            target.sendall(part)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
