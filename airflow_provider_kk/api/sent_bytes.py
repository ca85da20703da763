"""Connections that note whether a byte of a request was handed to the socket.

The type of an exception does not prove whether KK may have the order; this does. Bytes of TLS and of a
proxy's CONNECT do not count, since no request is in them.
"""

from __future__ import annotations

import os
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from math import inf
from types import TracebackType
from typing import Any, Self

from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidProxyURL
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import allowed_gai_family
from urllib3.util.retry import Retry


class BeforeSendFailed(Exception):
    """`before_send` or the deadline failed before the first byte, as in `reason`. No byte was sent."""

    def __init__(self, reason: Exception) -> None:
        super().__init__("the check before sending failed")
        self.reason = reason


class TrackedRequest:
    """One request: its deadline, and what is proven of it. Used as a context manager.

    At the deadline the socket is shut down and closed abortively (SO_LINGER 0), so that nothing of the
    request arrives later.
    """

    def __init__(
        self, deadline: float, *, fresh: bool = False, before_send: Callable[[float], None] | None = None
    ) -> None:
        self.deadline = deadline
        """On the monotonic clock."""
        self.fresh = fresh
        """Whether it must not use a connection that has served before."""
        self.begun = False
        """Whether it was given to an adapter."""
        self.tracked = False
        """Whether our adapter sent it; otherwise `bytes_handed` proves nothing."""
        self.bytes_handed = False
        self.reused = False
        self.answered = False
        self.expired = False
        self._before_send = before_send
        self._handle: socket.socket | None = None
        self._lock = threading.Lock()

    @property
    def remaining_s(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    @property
    def met_a_closed_connection(self) -> bool:
        """Whether it used a kept connection that the other end had closed."""
        return self.reused and not self.answered and not self.expired

    def __enter__(self) -> Self:
        self._outer = _current.set(self)
        _deadlines.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._outer)
        _deadlines.discard(self)
        with self._lock:
            if self._handle is not None:
                if kind is not None:
                    _make_abortive(self._handle)
                self._handle.close()
                self._handle = None

    def watch(self, sock: Any) -> None:
        """Keep a handle on the connection that outlives TLS wrapping and closing by others."""
        with self._lock:
            if self._handle is None:
                self._handle = socket.socket(fileno=os.dup(sock.fileno()))
        if self.expired:
            self.expire()

    def before_first_byte(self, sock: Any, *, reused: bool) -> None:
        """Run the last checks while nothing is sent. Raises BeforeSendFailed to keep it so."""
        self.watch(sock)
        self.reused = reused
        try:
            self._require_time()
            if self._before_send is not None:
                self._before_send(self.remaining_s)
            self._require_time()
        except Exception as reason:
            raise BeforeSendFailed(reason) from None
        self._limit_delivery()
        self.bytes_handed = True

    def before_more_bytes(self) -> None:
        """Raise TimeoutError after the deadline, so that half a request is not completed later."""
        self._require_time()
        self._limit_delivery()

    def _require_time(self) -> None:
        if self.expired or self.remaining_s <= 0:
            raise TimeoutError("no time left before the deadline")

    def _limit_delivery(self) -> None:
        """Let the kernel give up at the deadline, too, if this process dies with bytes in its buffers."""
        option = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is not None and self._handle is not None:
            with suppress(OSError):
                self._handle.setsockopt(socket.IPPROTO_TCP, option, max(1, int(self.remaining_s * 1000)))

    def expire(self) -> None:
        """End the request at once; what was sent of it arrives no later."""
        self.expired = True
        with self._lock:
            if self._handle is not None:
                _make_abortive(self._handle)
                with suppress(OSError):
                    self._handle.shutdown(socket.SHUT_RDWR)


class _Deadlines:
    """Ends requests at their deadlines, from one thread: one for each costs a tenth of an order's CPU.

    It has no lock: a signal's handler that raises, as Airflow's at a task's timeout, may leave it locked.
    """

    def __init__(self) -> None:
        self.reset()
        # A forked process has none of its parent's threads.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Watch nothing."""
        self._requests: set[TrackedRequest] = set()
        self._earlier: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._next = inf
        self._is_watched = False

    def add(self, request: TrackedRequest) -> None:
        """Watch a request."""
        self._requests.add(request)
        if not self._is_watched:
            # Requests that begin at the same time may start two threads, which does no harm.
            threading.Thread(target=self._watch, name="kk-deadlines", daemon=True).start()
            self._is_watched = True
        elif request.deadline < self._next:
            self._earlier.put(None)

    def discard(self, request: TrackedRequest) -> None:
        """Watch a request no more."""
        self._requests.discard(request)

    def _watch(self) -> None:
        try:
            while True:
                self._expire_due()
        finally:  # the next request starts another thread
            self._is_watched = False

    def _expire_due(self) -> None:
        self._next = inf  # before the requests are read, so that one that is added after that is noticed
        requests, now = self._requests.copy(), time.monotonic()
        due = [request for request in requests if request.deadline <= now]
        for request in due:
            self._requests.discard(request)
            request.expire()
        if due:
            return
        self._next = next_deadline = min((request.deadline for request in requests), default=inf)
        with suppress(queue.Empty):
            self._earlier.get(timeout=None if next_deadline == inf else next_deadline - now)


_deadlines = _Deadlines()


class TrackingAdapter(HTTPAdapter):
    """Requests' adapter with tracking connections, without retries. Use it inside a TrackedRequest."""

    def __init__(self) -> None:
        super().__init__(
            pool_maxsize=32,
            max_retries=Retry(0, read=False, redirect=False, respect_retry_after_header=False),
        )

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Use tracking pools for direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **proxy_kwargs: Any) -> Any:
        """Use tracking pools behind a proxy. Raises InvalidProxyURL for SOCKS, which they cannot speak."""
        if not proxy.lower().startswith(("http://", "https://")):
            raise InvalidProxyURL("only http:// and https:// proxies can be used")
        manager = super().proxy_manager_for(proxy, **proxy_kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager

    def send(self, *args: Any, **kwargs: Any) -> Any:
        """Send as requests does, and note that this adapter did."""
        _current.get().tracked = True
        return super().send(*args, **kwargs)


_current: ContextVar[TrackedRequest] = ContextVar("kk_request")


class _TrackingConnection(HTTPConnection):
    """A connection that notes the first byte of each request."""

    _connecting = False
    _has_served = False

    def connect(self) -> None:
        self._connecting = True
        try:
            super().connect()
        finally:
            self._connecting = False

    def close(self) -> None:
        super().close()
        self._has_served = False

    def send(self, data: Any) -> None:
        request = _current.get()
        if self._connecting:
            pass
        elif request.bytes_handed:
            request.before_more_bytes()
        else:
            if self.sock is None:
                self.connect()
            request.before_first_byte(self.sock, reused=self._has_served)
            self._has_served = True
        super().send(data)

    def _new_conn(self) -> socket.socket:
        # Ours instead of urllib3's, which allows the whole timeout for each address of a name.
        try:
            addresses = socket.getaddrinfo(
                self._dns_host, self.port, allowed_gai_family(), socket.SOCK_STREAM
            )
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        request = _current.get()
        failure: OSError = OSError("the host name has no address")
        for family, kind, protocol, _name, address in addresses:
            if request.remaining_s <= 0:
                raise ConnectTimeoutError(self, "no connection before the deadline")
            sock = socket.socket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
                sock.settimeout(request.remaining_s)
                sock.connect(address)
            except OSError as error:
                sock.close()
                failure = error
                continue
            request.watch(sock)
            return sock
        if isinstance(failure, TimeoutError):
            raise ConnectTimeoutError(self, "no connection before the deadline") from failure
        raise NewConnectionError(self, f"no connection: {failure}") from failure


class _TLSConnection(_TrackingConnection, HTTPSConnection):
    pass


class _TrackingPool(HTTPConnectionPool):
    ConnectionCls = _TrackingConnection

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn = super()._get_conn(timeout)
        # A request that meets the server's idle close looks like one that was processed.
        if _current.get().fresh and not conn.is_closed:
            conn.close()
        return conn


class _PlainPool(_TrackingPool):
    def _validate_conn(self, conn: Any) -> None:
        # As the TLS pool does, so that a failure to connect comes before the request begins.
        super()._validate_conn(conn)
        if conn.is_closed:
            conn.connect()


class _TLSPool(_TrackingPool, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


_POOLS = {"http": _PlainPool, "https": _TLSPool}


def _make_abortive(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
