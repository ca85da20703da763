"""A throwaway MariaDB out of Debian's packages (`scripts/install-test-packages` brings them)."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.postgres import free_port

if TYPE_CHECKING:
    import pytest

#: Against a server that hangs; one that fails is noticed at once.
_START_S = 300
_STARTS = 3
_SETTINGS = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-log-file-size=8M",
    # A machine may have no kernel AIO left for one server more, and little memory.
    "--innodb-use-native-aio=0",
    "--innodb-buffer-pool-size=32M",
    # With a binary log, as servers with replicas have it: it rules out some ways of writing.
    "--log-bin=binary-log",
    "--skip-name-resolve",
)


def find_server() -> str | None:
    """The server's program."""
    return shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def throwaway_mariadb(server: str) -> Iterator[str]:
    """The URL of an empty database on this machine, which is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mariadb-") as name:
        home = Path(name)
        # Another user may not be allowed into our folder for temporary files.
        user = ["--user=root"] if getpass.getuser() == "root" else []
        options = ["--no-defaults", f"--datadir={home / 'data'}", f"--tmpdir={home}", *_SETTINGS, *user]
        # Without --force, it fails where not even localhost can be looked up.
        install = ["mariadb-install-db", *options, "--force", "--auth-root-authentication-method=normal"]
        done = subprocess.run(
            install,
            check=False,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        if done.returncode:
            raise RuntimeError(f"mariadb-install-db failed with {done.returncode}:\n{done.stdout}")
        process, port = _start([server, *options], home)
        try:
            yield f"mysql+pymysql://root@127.0.0.1:{port}/test"
        finally:
            process.kill()
            process.wait()


def _start(command: Sequence[str], home: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server; a port that was free may be taken by the time it is up."""
    log = home / "log"
    for _ in range(_STARTS):
        port = free_port()
        # No socket file: its path might be too long.
        place = (f"--port={port}", "--bind-address=127.0.0.1", "--socket=")
        with log.open("a") as out:
            process = subprocess.Popen([*command, *place], cwd=home, stdout=out, stderr=out)
        until = time.monotonic() + _START_S
        while process.poll() is None and time.monotonic() < until:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return process, port
            time.sleep(0.05)
        if process.poll() is None:
            process.kill()
            process.wait()
            break
    raise RuntimeError(f"MariaDB did not start:\n{log.read_text(errors='replace')}")


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
