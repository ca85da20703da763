"""The HTTP server below Flask: keep-alive, whole requests only, and sockets that break on command.

werkzeug's own handler ends the connection after each answer. KK keeps it open, and clients react differently
if a kept connection breaks. So this handler writes the answer itself, in one piece.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from flask import Response, request
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.test import run_wsgi_app

from airflow_provider_kk.sandbox.faults import InjectedFault
from airflow_provider_kk.sandbox.json_values import envelope

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from airflow_provider_kk.sandbox.settings import Settings


#: The key of the WSGI environment with the effects of a request on its own socket.
EFFECTS = "kk_sandbox.effects"
LARGEST_BODY = 10_000_000

#: A function of the socket and the whole answer (head and body), after which the connection ends.
Effect = Callable[[socket.socket, bytes, bytes], None]


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
        environ["wsgi.input"] = io.BytesIO(body)
        environ["wsgi.input_terminated"] = True
        effects: list[Effect] = []
        environ[EFFECTS] = effects
        parts, status, headers = run_wsgi_app(self.server.app, environ, buffered=True)
        answer = b"".join(parts)
        head = self._head(status, headers, answer)
        if not effects:
            self.connection.sendall(head + answer)
            return
        self.close_connection = True
        with contextlib.suppress(OSError):
            effects[0](self.connection, head, answer)

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

    def _head(self, status: str, headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
        kept = [(name, value) for name, value in headers if name.lower() not in ("content-length", "date")]
        kept += [
            ("Content-Length", str(len(body))),
            ("Date", formatdate(self.server.now(), usegmt=True)),
            ("Server", "kk-sandbox"),
            ("Connection", "close" if self.close_connection else "keep-alive"),
        ]
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in kept)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Server(ThreadedWSGIServer):
    """A server with a thread for each connection, which can end all connections at once."""

    def __init__(self, host: str, port: int, app: WSGIApplication, now: Callable[[], float]) -> None:
        self.connections: dict[socket.socket, threading.Thread] = {}
        self.now = now
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

    def end_connections(self) -> None:
        """Close every connection and wait for its thread."""
        for connection, thread in list(self.connections.items()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=2)


def drop(connection: socket.socket, head: bytes, body: bytes) -> None:
    """Close the connection normally (FIN), without an answer."""
    connection.shutdown(socket.SHUT_RDWR)


def reset(connection: socket.socket, head: bytes, body: bytes) -> None:
    """Close the connection abruptly (RST)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Files of the socket keep it open, and a normal shutdown would come first.
    os.close(connection.detach())


def cut_body(connection: socket.socket, head: bytes, body: bytes) -> None:
    """Send half of the body, then close the connection."""
    connection.sendall(head + body[: len(body) // 2])
    connection.shutdown(socket.SHUT_RDWR)


def cut_headers(connection: socket.socket, head: bytes, body: bytes) -> None:
    """Send half of the headers, then close the connection."""
    connection.sendall(head[: len(head) // 2])
    connection.shutdown(socket.SHUT_RDWR)


def stall(seconds: float, stopped: threading.Event) -> Effect:
    """Send nothing, then close the connection after `seconds`, or as soon as `stopped` is set."""

    def effect(connection: socket.socket, head: bytes, body: bytes) -> None:
        stopped.wait(seconds)
        drop(connection, head, body)

    return effect


def drip(interval_s: float, stopped: threading.Event) -> Effect:
    """Send the right answer, a byte at a time."""

    def effect(connection: socket.socket, head: bytes, body: bytes) -> None:
        for byte in head + body:
            connection.sendall(bytes([byte]))
            if stopped.wait(interval_s):
                return
        connection.shutdown(socket.SHUT_RDWR)

    return effect


PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"


def suffer(fault: InjectedFault, answer: Response, settings: Settings, stopped: threading.Event) -> Response:
    """Return the answer to a request with a fault; `answer` is the answer without it."""
    options = fault.options
    if effect := _break_of(fault, stopped):
        request.environ[EFFECTS].append(effect)
        return answer
    match fault.kind.effect:
        case "status":
            return _server_error(options["status"], options["body"])
        case "html_200":
            return html(200, "Please wait")
        case "garbage":
            return Response('{"code": 10000, "message": "succ', 200, mimetype="application/json")
        case "rate_limit":
            return rate_limited(options["retry_after_s"])
        case "redirect":
            location = options["location"] or request.full_path.rstrip("?")
            return Response("", options["status"], {"Location": location})
        case "auth":
            return unauthorized(settings)
        case "refuse":
            status = options["status"] or settings.rejection_status
            return rejected(options["code"], options["message"], status)
        case _:
            return answer


def _break_of(fault: InjectedFault, stopped: threading.Event) -> Effect | None:
    match fault.kind.effect:
        case "stall":
            return stall(fault.options["seconds"], stopped)
        case "drip":
            return drip(fault.options["interval_s"], stopped)
        case effect:
            return _BREAKS.get(effect)


_BREAKS: dict[str, Effect] = {
    "drop": drop,
    "reset": reset,
    "cut_body": cut_body,
    "cut_headers": cut_headers,
}


def as_json(data: Any, status: int = 200) -> Response:
    """Return a JSON answer."""
    return Response(json.dumps(data), status, mimetype="application/json")


def rejected(code: int, message: str, status: int) -> Response:
    """Return an envelope with another code than success."""
    return as_json(envelope(None, code, message), status)


def html(status: int, title: str) -> Response:
    """Return a web page such as proxies and web servers send."""
    return Response(PAGE.format(title), status, mimetype="text/html")


def _server_error(status: int, body: str) -> Response:
    """Return a 5xx answer in one of the forms of gateways, frameworks and KK itself."""
    if body == "html":
        return html(status, f"{status} Server Error")
    if body == "json":
        return as_json({"timestamp": 1700000000000, "status": status, "error": "Server Error"}, status)
    return rejected(status, "system error", status)


def rate_limited(retry_after_s: float | None) -> Response:
    """Return HTTP 429; without `Retry-After` for None or a negative time."""
    answer = rejected(429, "Too Many Requests", 429)
    if retry_after_s is not None and retry_after_s >= 0:
        answer.headers["Retry-After"] = f"{retry_after_s:g}"
    return answer


def unauthorized(settings: Settings) -> Response:
    """Return the answer to a wrong token; KK does not document the body."""
    match settings.unauthorized:
        case "empty":
            return Response("", 401)
        case "html":
            return html(401, "401 Unauthorized")
        case "envelope_200":
            return rejected(401, "Unauthorized", 200)
        case _:
            return rejected(401, "Unauthorized", 401)
