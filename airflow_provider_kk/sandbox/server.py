"""The sandbox as a server: in a thread of a test's process, or of `kk sandbox`.

Below Flask is an HTTP server with keep-alive, whole requests only, and sockets that break on command.
werkzeug's own handler ends the connection after each answer. KK keeps it open, and clients react differently
if a kept connection breaks. So this handler writes the answer itself, in one piece.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

try:
    from flask import Response
    from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
except ImportError as error:  # pragma: no cover
    raise ImportError("the sandbox needs Flask: pip install 'airflow-provider-kk[sandbox]'") from error

from airflow_provider_kk.sandbox.app import create_app, is_loopback
from airflow_provider_kk.sandbox.control import SandboxControl
from airflow_provider_kk.sandbox.faults import InjectedFault
from airflow_provider_kk.sandbox.kk import BREAKS, KK
from airflow_provider_kk.sandbox.settings import Settings
from airflow_provider_kk.sandbox.store import DEFAULT_BALANCE, SandboxStore

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

LARGEST_BODY = 10_000_000
DEFAULT_TOKEN = "sandbox-token"  # noqa: S105 - no secret: the local KK's


class Handler(WSGIRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    #: Seconds after which an idle connection is closed, as servers do.
    timeout = 75
    server: Server

    def finish(self) -> None:
        """End the connection, which may be broken already."""
        with contextlib.suppress(OSError):
            super().finish()

    def run_wsgi(self) -> None:
        """Read a whole request, pass it to Flask, and answer or break the connection."""
        body = self._body()
        if body is None:
            self.close_connection = True
            return
        environ = self.make_environ()
        breaks: list[InjectedFault] = []
        environ |= {"wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True, BREAKS: breaks}
        answer = Response.from_app(self.server.app, environ, buffered=True)
        answer.headers.update(
            {
                "Content-Length": str(len(answer.data)),
                "Date": formatdate(self.server.kk.now(), usegmt=True),
                "Server": "kk-sandbox",
                "Connection": "close" if self.close_connection else "keep-alive",
            }
        )
        head = f"HTTP/1.1 {answer.status}\r\n{answer.headers}".encode("latin-1")
        if not breaks:
            self.connection.sendall(head + answer.data)
            return
        self.close_connection = True
        with contextlib.suppress(OSError):
            _break_off(self.connection, breaks[0], head, answer.data, self.server.kk.stopped)

    def log(self, type: str, message: str, *args: Any) -> None:
        """Log nothing: the sandbox keeps its own log, and a URL may hold personal data."""

    def _body(self) -> bytes | None:
        """Return the body; None if it did not arrive as a whole, since no server acts on such a request."""
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return self._chunks()
        length = int(self.headers.get("Content-Length") or 0)
        if length > LARGEST_BODY:
            return None
        body = self.rfile.read(length)
        return body if len(body) == length else None

    def _chunks(self) -> bytes | None:
        body = b""
        while len(body) <= LARGEST_BODY:
            size = int(self.rfile.readline(64).split(b";")[0].strip() or b"0", 16)
            chunk = self.rfile.read(size)
            ended = self.rfile.readline(64)
            if not ended or len(chunk) < size:
                return None
            if size == 0:
                return body
            body += chunk
        return None


class Server(ThreadedWSGIServer):
    """A server with a thread for each connection, which can end all connections at once."""

    def __init__(self, host: str, port: int, app: WSGIApplication, kk: KK) -> None:
        self.connections: dict[socket.socket, threading.Thread] = {}
        self.kk = kk
        super().__init__(host, port, app, Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread. It is registered first, so that none stays open at the end."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="kk-sandbox", daemon=True
        )
        self.connections[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        """Remove a connection that has ended."""
        self.connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore callers that closed their connection, since that is no error of the sandbox."""

    def server_close(self) -> None:
        """Stop listening, close every connection and wait for its thread."""
        super().server_close()
        for connection, thread in list(self.connections.items()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=2)


def _break_off(
    connection: socket.socket, fault: InjectedFault, head: bytes, body: bytes, stopped: threading.Event
) -> None:
    """Send what the fault leaves of the answer, and end the connection: by RST for `reset`, else by FIN."""
    match fault.kind.effect:
        case "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            # Files of the socket keep it open, and a normal shutdown would come first.
            os.close(connection.detach())
            return
        case "cut_body":
            connection.sendall(head + body[: len(body) // 2])
        case "cut_headers":
            connection.sendall(head[: len(head) // 2])
        case "stall":
            stopped.wait(fault.options["seconds"])
        case "drip":
            for byte in head + body:
                connection.sendall(bytes([byte]))
                if stopped.wait(fault.options["interval_s"]):
                    return
    connection.shutdown(socket.SHUT_RDWR)


class SandboxServer:
    """A local KK while the `with` block lasts.

        with SandboxServer(rate_limit=False) as sandbox:
            sandbox.control.arm("drop_after_commit", times=1)

    Args:
        token: the access token that it accepts.
        host: a loopback address.
        port: 0 for any free one.
        file: the SQLite file that keeps orders, money and the clock; without it they are in memory.
        balance: dollars on a new account.
        seed: the seed of the faults' draws.
        clock: returns epoch seconds; for tests in virtual time.
        settings: the initial values of `settings.Settings`.

    Raises:
        ValueError: the host is not loopback, or a setting is unknown.
        OSError: from `start`, if the port is in use.
    """

    def __init__(
        self,
        *,
        token: str = DEFAULT_TOKEN,
        host: str = "127.0.0.1",
        port: int = 0,
        file: str | os.PathLike[str] | None = None,
        balance: float = DEFAULT_BALANCE / 100,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
        **settings: Any,
    ) -> None:
        if not is_loopback(host):
            raise ValueError(f"the sandbox serves loopback only, not {host!r}")
        self.token = token
        self._host, self._port = host, port
        self._settings = Settings()
        self._settings.change(**settings)
        self._account = file, round(balance * 100), self._settings
        self._clock, self._seed = clock, seed
        self._kk: KK | None = None
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base URL, `http://127.0.0.1:<port>`."""
        if self._server is None:
            raise RuntimeError("the sandbox is not running")
        name = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{name}:{self._server.port}"

    @property
    def control(self) -> SandboxControl:
        """Return the client that controls the sandbox."""
        return SandboxControl(self.url)

    def start(self) -> SandboxServer:
        """Start to serve. When this returns, requests are accepted."""
        self._kk = KK(SandboxStore(*self._account), self._settings, self._clock, self.token, self._seed)
        # Some versions of werkzeug end the process if a port is in use; a test needs an error.
        try:
            self._server = Server(self._host, self._port, create_app(self._kk), self._kk)
        except (SystemExit, OSError):
            self._kk.store.close()
            raise OSError(f"port {self._port} of {self._host} is in use. Choose another one") from None
        # The port stays the same over stop() and start(), since clients keep it.
        self._port = self._server.port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, name="kk-sandbox", daemon=True
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """End every connection, stall and thread. Committed data stays in the file."""
        if self._server is None or self._kk is None or self._thread is None:
            return
        self._kk.stopped.set()
        self._server.shutdown()
        self._thread.join(timeout=5)
        self._kk.store.close()
        self._server = self._kk = self._thread = None

    def __enter__(self) -> SandboxServer:
        return self.start()

    def __exit__(self, *_error: object) -> None:
        self.stop()
