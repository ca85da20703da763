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

#: Against a server that hangs; one that fails is noticed at once.
_START_S = 300
_STARTS = 3


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
    # It refuses to run as root, and our folder for temporary files may be closed to another user.
    user = "postgres" if getpass.getuser() == "root" else None
    home = Path(tempfile.mkdtemp(prefix="postgres-", dir=_open_folder() if user else None))
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

    if copy_of is None:
        run("initdb", "-U", "postgres", "-A", "trust", "-N")
    else:
        source = f"host=127.0.0.1 port={copy_of} user=postgres"
        run("pg_basebackup", "-R", "-N", "-c", "fast", "-d", source)
    for tries_left in reversed(range(_STARTS)):
        port = free_port()
        # No socket file: its path might be too long.
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' {settings}"
        try:
            run("pg_ctl", "-w", "-t", str(_START_S), "-l", str(home / "log"), "-o", options, "start")
            break
        except subprocess.CalledProcessError as error:
            # A port that was free may be taken by the time it is up.
            if not tries_left:
                log = (home / "log").read_text(errors="replace")
                raise RuntimeError(f"PostgreSQL did not start:\n{log}") from error
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
        shutil.rmtree(home, ignore_errors=True)


def _open_folder() -> str:
    """A folder for temporary files that other users can get into."""
    own = Path(tempfile.gettempdir())
    is_open = all(folder.stat().st_mode & 0o001 for folder in (own, *own.parents))
    return str(own if is_open else Path("/tmp"))  # noqa: S108 - only a folder of a random name is made there


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
