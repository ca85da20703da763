"""Large pages for the memory of this process: to fork it, and to end what was forked, takes half as long."""

from __future__ import annotations

import ctypes
from pathlib import Path

_MADV_HUGEPAGE, _MADV_COLLAPSE = 14, 25
_SIZE = 2 << 20


def use_huge_pages() -> None:
    """Ask the kernel to join this process's own memory into large pages; one that cannot does nothing."""
    libc = ctypes.CDLL(None)
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, rights, _offset, _device, inode, *_name = line.split()
        if rights != "rw-p" or inode != "0":
            continue
        begin, end = (int(address, 16) for address in addresses.split("-"))
        begin, end = -(-begin // _SIZE) * _SIZE, end // _SIZE * _SIZE
        if end > begin:
            for advice in (_MADV_HUGEPAGE, _MADV_COLLAPSE):
                libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice)
