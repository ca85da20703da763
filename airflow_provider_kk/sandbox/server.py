"""The sandbox as a server: in a thread of a test's process, or of `kk sandbox`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

try:
    import flask  # noqa: F401
except ImportError as error:  # pragma: no cover
    raise ImportError("the sandbox needs Flask: pip install 'airflow-provider-kk[sandbox]'") from error

from airflow_provider_kk.sandbox.app import create_app, is_loopback
from airflow_provider_kk.sandbox.control import SandboxControl
from airflow_provider_kk.sandbox.http_handler import Server
from airflow_provider_kk.sandbox.kk import KK
from airflow_provider_kk.sandbox.settings import Settings
from airflow_provider_kk.sandbox.store import DEFAULT_BALANCE, SandboxStore

DEFAULT_TOKEN = "sandbox-token"  # noqa: S105 - no secret: the local KK's


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
