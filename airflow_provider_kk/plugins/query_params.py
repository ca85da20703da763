"""What the address of a page asks for, checked: whatever is wrong there is told with HTTP 400."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from starlette.exceptions import HTTPException

from airflow_provider_kk.plugins.chart import DAY_S
from airflow_provider_kk.plugins.record_types import GROUPS

#: No ledger is older.
FIRST_DAY = date(2000, 1, 1)
_LAST_YEAR = 2199
#: As long as the longest that is asked for, a DAG's id.
_MAX_TEXT = 250


@dataclass(frozen=True)
class Period:
    """Whole days of UTC, both included."""

    since: date
    until: date

    @classmethod
    def parse(cls, since: str, until: str) -> Period:
        """Read two days as 2026-12-31; today where there is none, in any order."""
        today = datetime.now(UTC).date()
        last = _day("until", until) or today
        first = _day("since", since) or min(today, last)
        return cls(min(first, last), max(first, last))

    @property
    def begin(self) -> float:
        """Its first moment, epoch seconds."""
        return _midnight(self.since)

    @property
    def end(self) -> float:
        """The first moment behind it, epoch seconds."""
        return _midnight(self.until) + DAY_S

    @property
    def shortcuts(self) -> Mapping[str, tuple[date, date]]:
        """Periods that end today, by what people call them."""
        today = datetime.now(UTC).date()
        days = {"Today": 1, "7 days": 7, "30 days": 30, "365 days": 365}
        return {name: (today - timedelta(days=number - 1), today) for name, number in days.items()} | {
            "All": (FIRST_DAY, today)
        }


def text(name: str, value: str) -> str:
    """Return a text that a database takes."""
    if len(value) > _MAX_TEXT or not value.isprintable():
        raise HTTPException(400, f"{name}: at most {_MAX_TEXT} characters, all of which can be printed.")
    return value


def group(value: str) -> str:
    """Return a name of `GROUPS`, or nothing."""
    if value and value not in GROUPS:
        raise HTTPException(400, f"state: {value!r} is none of {', '.join(GROUPS)}.")
    return value


def page(value: str) -> int:
    """Return the number of a page; the first is 1."""
    if not re.fullmatch(r"[0-9]{0,6}", value, re.ASCII):
        raise HTTPException(400, "page: this is no number of a page.")
    return max(1, int(value or 1))


def _day(name: str, value: str) -> date | None:
    if not value:
        return None
    try:
        found = date.fromisoformat(value)
    except ValueError:
        found = None
    if found is None or not FIRST_DAY.year <= found.year <= _LAST_YEAR:
        raise HTTPException(400, f"{name}: {value!r} is no day as 2026-12-31, from 2000 to {_LAST_YEAR}.")
    return found


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()
