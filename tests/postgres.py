"""A throwaway PostgreSQL out of Debian's packages (`scripts/install-test-packages` brings them)."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def find_binaries() -> Path | None:
    """The newest installed version's folder of programs."""
    found = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


@contextmanager
def throwaway_postgres(
    binaries: Path, *, settings: str = "-c fsync=off", copy_of: int | None = None
) -> Iterator[str]:
    """The URL of an empty database on this machine, which is gone afterwards.

    Options in `settings` win over what SQL sets; `copy_of` is the port of one whose standby it shall be.
    """
    home = Path(tempfile.mkdtemp(prefix="postgres-"))
    # It refuses to run as root.
    user = "postgres" if getpass.getuser() == "root" else None
    if user:
        shutil.chown(home, user)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [str(binaries / program), "-D", str(home / "data"), *arguments],
            check=True,
            user=user,
            cwd=home,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )

    port = free_port()
    if copy_of is None:
        run("initdb", "-U", "postgres", "-A", "trust", "-N")
    else:
        source = f"host=127.0.0.1 port={copy_of} user=postgres"
        run("pg_basebackup", "-R", "-N", "-c", "fast", "-d", source)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} {settings}"
    run("pg_ctl", "-w", "-l", str(home / "log"), "-o", options, "start")
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
