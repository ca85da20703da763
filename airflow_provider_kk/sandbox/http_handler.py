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
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from flask import Response, request
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from airflow_provider_kk.sandbox.faults import InjectedFault
from airflow_provider_kk.sandbox.json_values import envelope

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from airflow_provider_kk.sandbox.kk import KK
    from airflow_provider_kk.sandbox.settings import Settings


#: The key of the WSGI environment with the list of faults that break the request's connection.
BREAKS = "kk_sandbox.breaks"
LARGEST_BODY = 10_000_000


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


PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"


def suffer(fault: InjectedFault, answer: Response, settings: Settings) -> Response:
    """Return the answer to a request with a fault; `answer` is the answer without it."""
    options = fault.options
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
            return unauthorized(settings.unauthorized)
        case "refuse":
            status = options["status"] or settings.rejection_status
            return rejected(options["code"], options["message"], status)
        case "answer":
            return answer
        case _:
            request.environ[BREAKS].append(fault)
            return answer


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


def unauthorized(form: str) -> Response:
    """Return the answer to a wrong token in a form of `Settings.unauthorized`."""
    match form:
        case "empty":
            return Response("", 401)
        case "html":
            return html(401, "401 Unauthorized")
        case _:
            return rejected(401, "Unauthorized", 200 if form == "envelope_200" else 401)
