"""A throwaway MariaDB out of Debian's packages (`scripts/install-test-packages` brings them)."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.postgres import free_port

if TYPE_CHECKING:
    import pytest

_START_S = 60
# With a binary log, as servers with replicas have it: it rules out some ways of writing.
_SETTINGS = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-log-file-size=8M",
    "--log-bin=binary-log",
    "--skip-name-resolve",
)


def find_server() -> str | None:
    """The server's program."""
    return shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def throwaway_mariadb(server: str) -> Iterator[str]:
    """The URL of an empty database on this machine, which is gone afterwards."""
    home = Path(tempfile.mkdtemp(prefix="mariadb-"))
    # It refuses to run as root.
    user = "nobody" if getpass.getuser() == "root" else None
    if user:
        shutil.chown(home, user)
    port, log = free_port(), home / "log"
    options = ("--no-defaults", f"--datadir={home / 'data'}", *_SETTINGS)
    with log.open("w") as out:
        install = ("mariadb-install-db", *options, "--auth-root-authentication-method=normal")
        subprocess.run(install, check=True, user=user, cwd=home, stdout=out, stderr=out)
        place = (f"--port={port}", "--bind-address=127.0.0.1", f"--socket={home / 'socket'}")
        process = subprocess.Popen([server, *options, *place], user=user, cwd=home, stdout=out, stderr=out)
    try:
        _wait_until_it_listens(process, port, log)
        yield f"mysql+pymysql://root@127.0.0.1:{port}/test"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        shutil.rmtree(home, ignore_errors=True)


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"MariaDB did not start: {log.read_text()}")


@contextmanager
def server_set(url: str, name: str, value: object) -> Iterator[None]:
    """A setting of the server's that sessions from now on have."""
    import sqlalchemy as sa

    engine = sa.create_engine(url)
    with engine.connect() as db:
        before = db.exec_driver_sql(f"SELECT @@global.{name}").scalar_one()
        db.exec_driver_sql(f"SET GLOBAL {name} = %s", (value,))
        try:
            yield
        finally:
            db.exec_driver_sql(f"SET GLOBAL {name} = %s", (before,))
    engine.dispose()


@contextmanager
def locked(url: str, monkeypatch: pytest.MonkeyPatch, *tables: str) -> Iterator[list[float]]:
    """Tables whose rows, and the gaps between, somebody holds until another is refused one and pauses.

    The server refuses at once, to who connects meanwhile. Yields the pauses.
    """
    import sqlalchemy as sa

    engine = sa.create_engine(url)
    pauses: list[float] = []
    with server_set(url, "innodb_lock_wait_timeout", 0), engine.connect() as holder:
        held = holder.begin()
        for table in tables:
            holder.exec_driver_sql(f"SELECT * FROM {table} FOR UPDATE")

        def let_go(seconds: float) -> None:
            pauses.append(seconds)
            held.rollback()

        with monkeypatch.context() as patch:
            patch.setattr(time, "sleep", let_go)
            yield pauses
    engine.dispose()
