"""A network of this test's own that can be cut: two namespaces, KK in one and its callers in the other.

Both ends have an address of 127.0.0.0/8, on an Ethernet device instead of `lo` (which stays down there), so
that the sandbox serves it, a client may use plain HTTP, and each TCP socket really crosses the cable.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

CALLERS_ADDRESS, KK_ADDRESS = "127.9.0.1", "127.9.0.2"

#: How the network is cut: the end at which it is done, the command for it, and the one that heals it.
CUTS = {
    # The cable is pulled: the callers' device has lost its carrier.
    "cable": ("kk", "link set dev kk0 down", "link set dev kk0 up"),
    # Nobody knows the way any more: each packet is an error at once.
    "route": ("callers", f"route add blackhole {KK_ADDRESS}/32", f"route del blackhole {KK_ADDRESS}/32"),
    # Packets leave and nothing ever comes back.
    "silence": ("kk", f"address del {KK_ADDRESS}/24 dev kk0", f"address add {KK_ADDRESS}/24 dev kk0"),
}

_NUMBERS = itertools.count()


class NoNamespacesError(Exception):
    """This machine, or this user, cannot make network namespaces."""


class Cable:
    """Two namespaces and the cable between them, while the `with` block lasts.

    Raises NoNamespacesError from `__enter__`.
    """

    def __init__(self, cut: str) -> None:
        name = f"kk-{os.getpid()}-{next(_NUMBERS)}"
        self._ends = {"kk": f"{name}-kk", "callers": f"{name}-callers"}
        self._cut_at, self._cut, self._heal = CUTS[cut]

    def __enter__(self) -> Self:
        try:
            self._lay()
        except (OSError, subprocess.CalledProcessError) as error:
            self.__exit__()
            reason = getattr(error, "stderr", None) or error
            raise NoNamespacesError(f"network namespaces cannot be made: {reason}") from error
        return self

    def __exit__(self, *_error: object) -> None:
        for namespace in self._ends.values():
            with suppress(OSError, subprocess.CalledProcessError):
                _ip(f"netns del {namespace}")

    def cut(self) -> None:
        _ip(f"-n {self._ends[self._cut_at]} {self._cut}")

    def recover(self) -> None:
        _ip(f"-n {self._ends[self._cut_at]} {self._heal}")

    @contextmanager
    def at(self, end: str) -> Iterator[None]:
        """What this thread opens or starts inside the block is at this end: `kk` or `callers`."""
        with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{self._ends[end]}") as there:
            _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home.fileno())

    def undelivered(self, port: int, at_least: int) -> int:
        """How many of the callers' sockets hold so many bytes for this port, their owners alive or not."""
        with self.at("callers"), open("/proc/thread-self/net/tcp") as table:
            rows = [line.split() for line in table.readlines()[1:]]
        # row[2] is the other end's address and port, row[4] the bytes to be sent and those to be read.
        to_port = [row for row in rows if row[2].endswith(f":{port:04X}")]
        return sum(int(row[4].split(":")[0], 16) >= at_least for row in to_port)

    def _lay(self) -> None:
        kk, callers = self._ends["kk"], self._ends["callers"]
        _ip(f"netns add {kk}")
        _ip(f"netns add {callers}")
        _ip(f"-n {callers} link add kk0 type veth peer name kk0 netns {kk}")
        for end, address in (("kk", KK_ADDRESS), ("callers", CALLERS_ADDRESS)):
            with self.at(end), open(_ROUTE_LOCALNET, "w") as file:
                file.write("1")
            _ip(f"-n {self._ends[end]} address add {address}/24 dev kk0")
            _ip(f"-n {self._ends[end]} link set dev kk0 up")


def _ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True)  # noqa: S607 - where ip is differs


def _enter(namespace: int) -> None:
    # os.setns came with Python 3.12.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_CLONE_NEWNET = 0x40000000
_ROUTE_LOCALNET = "/proc/sys/net/ipv4/conf/kk0/route_localnet"
