"""Files of the shop's orders, as `kk check` and `kk send` take them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.operators.shop import COLUMNS


def write_csv(path: Path, rows: Iterable[Sequence[Any]], head: Sequence[str] = COLUMNS) -> str:
    """Write a file as a spreadsheet does; its name."""
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return str(path)
