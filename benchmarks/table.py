"""The one table of a run."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Row:
    """One figure: what, how much, beside which peer (the command that was run), and what was asked for."""

    what: str
    ours: str
    peer: str = ""
    theirs: str = ""
    ratio: str = ""
    wanted: str = ""


HEADINGS = ("what", "ours", "peer", "the peer's", "ratio", "aimed at")


def markdown(rows: Sequence[Row]) -> str:
    cells = [HEADINGS, *((r.what, r.ours, r.peer, r.theirs, r.ratio, r.wanted) for r in rows)]
    lines = ["| " + " | ".join(line) + " |" for line in cells]
    return "\n".join([lines[0], "|---" * len(HEADINGS) + "|", *lines[1:]]) + "\n"


def report(rows: Sequence[Row], *, command: str) -> str:
    return (
        f"# What delivery costs\n\nWritten by `{command}` on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC: "
        f"{machine()}. All figures are of this one run; time on a machine that others use, too, is noisy, "
        "so the ratios and the CPU time count. Nothing fails for being slow.\n\n" + markdown(rows)
    )


def machine() -> str:
    import airflow

    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return (
        f"{os.cpu_count()} cores, {pages / 2**30:.0f} GB, load {os.getloadavg()[0]:.1f} at the end, "
        f"{platform.system()} {platform.machine()}, Python {platform.python_version()}, "
        f"Airflow {airflow.__version__}"
    )
