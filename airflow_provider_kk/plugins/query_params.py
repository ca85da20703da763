"""The parameters in the address of a page, checked: a wrong value gives HTTP 400 with its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.exceptions import HTTPException

from airflow_provider_kk.delivery.sql.report import SORTS, RowFilter
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.plugins.chart import DAY_S

#: The first day of a period; no ledger is older.
FIRST_DAY = date(2000, 1, 1)
_LAST_YEAR = 2199
#: Characters of the longest parameter, a DAG's id.
_MAX_TEXT = 250
#: Characters of the address of a list with all of its filters.
_MAX_BACK = 1_500
_BACK = re.compile(r"(orders|refunds|order|refund|runs)([/?][^#\\]*)?")
#: A code of KK that fits the ledger's column.
_CODE = re.compile(r"-?[0-9]{1,9}", re.ASCII)
NEWEST_FIRST = "-time"

#: The groups of the page and their ledger states, in the order of the chart's columns.
GROUPS: dict[str, tuple[State, ...]] = {
    "created": (State.CREATED,),
    "rejected": (State.REJECTED,),
    "in doubt": (State.SENDING, State.IN_DOUBT),
    "held": (State.HELD,),
    "invalid": (State.INVALID,),
    "not sent": (State.NOT_SENT,),
}


def group_of(state: State) -> str:
    """Return the group of a state."""
    return next(name for name, states in GROUPS.items() if state in states)


def by_group(by_state: Mapping[State, int]) -> dict[str, int]:
    """Add up counts of states by group."""
    return {name: sum(by_state.get(state, 0) for state in states) for name, states in GROUPS.items()}


@dataclass(frozen=True)
class Period:
    """A period of whole days in UTC, both included."""

    since: date
    until: date

    @classmethod
    def parse(cls, since: str, until: str) -> Period:
        """Parse two days such as 2026-12-31, in any order; an empty one is today."""
        today = datetime.now(UTC).date()
        last = _day("until", until) or today
        first = _day("since", since) or min(today, last)
        return cls(min(first, last), max(first, last))

    @property
    def begin(self) -> float:
        """The start of the period, epoch seconds."""
        return _midnight(self.since)

    @property
    def end(self) -> float:
        """The end of the period, exclusive, epoch seconds."""
        return _midnight(self.until) + DAY_S

    @property
    def shortcuts(self) -> Mapping[str, Period]:
        """Periods that end today, by their labels."""
        today = datetime.now(UTC).date()
        days = {"Today": 1, "7 days": 7, "30 days": 30, "365 days": 365}
        return {name: Period(today - timedelta(days=number - 1), today) for name, number in days.items()} | {
            "All": Period(FIRST_DAY, today)
        }


@dataclass
class ListQuery:
    """The query of a list: filter, sort order and page, from the parameters of its address.

    :raises HTTPException: a value is wrong.
    """

    kk_conn_id: str = ""
    since: str = ""
    until: str = ""
    state: str = ""
    dag: str = ""
    country: str = ""
    code: str = ""
    q: str = ""
    sort: str = ""
    page: str = ""

    def __post_init__(self) -> None:
        """Check all values."""
        self.period = Period.parse(self.since, self.until)
        self.number = page_number(self.page)
        self.country, self.code = self.country.strip().upper(), self.code.strip()
        self.dag, self.q = text("dag", self.dag).strip(), text("q", self.q).strip()
        self.sort = self.sort or NEWEST_FIRST
        if self.code and not _CODE.fullmatch(self.code):
            raise HTTPException(400, "code: this is not a code of KK. Use a whole number such as 40010.")
        if self.country and not re.fullmatch("[A-Z]{2}", self.country):
            raise HTTPException(400, "country: this is not a country code. Use two letters such as FR.")
        if self.sort.removeprefix("-") not in SORTS:
            raise HTTPException(400, f"sort: use one of {', '.join(SORTS)}.")
        if self.state and self.state not in GROUPS:
            raise HTTPException(400, f"state: use one of {', '.join(GROUPS)}, not {self.state!r}.")

    @property
    def selection(self) -> RowFilter:
        """The filter for the ledger, with all states. A search includes all days."""
        selection = RowFilter(
            text=self.q,
            dag_id=self.dag,
            country=self.country,
            code=int(self.code) if self.code else None,
        )
        return selection if self.q else replace(selection, since=self.period.begin, until=self.period.end)

    @property
    def states(self) -> tuple[State, ...]:
        """The ledger's states in the list."""
        return GROUPS[self.state] if self.state else tuple(State)

    @property
    def column(self) -> str:
        """The sort column of the list, one of `SORTS`."""
        return self.sort.removeprefix("-")

    @property
    def is_descending(self) -> bool:
        """Whether the list is sorted in descending order."""
        return self.sort.startswith("-")

    @property
    def filters(self) -> dict[str, str]:
        """The filters of the list without its period, by their names in the address."""
        given = {"state": self.state, "dag": self.dag, "country": self.country, "code": self.code}
        return {name: value for name, value in given.items() if value}

    @property
    def fields(self) -> dict[str, Any]:
        """All values without the page, by their names in the address; default values are empty."""
        return {
            "kk_conn_id": self.kk_conn_id,
            "since": self.period.since,
            "until": self.period.until,
            **self.filters,
            "q": self.q,
            "sort": "" if self.sort == NEWEST_FIRST else self.sort,
        }

    def address(self, **changes: Any) -> str:
        """Return the query of this list's address with some values changed, on page 1 unless that changes."""
        return address_query(**{**self.fields, **changes})


def address_query(**values: Any) -> str:
    """Return the query of an address, without empty values."""
    return "?" + urlencode({name: value for name, value in values.items() if value})


def back(value: str) -> str:
    """Return the address of the previous page, which must be a part of this site; empty if there is none."""
    if not value:
        return ""
    if len(value) > _MAX_BACK or not value.isprintable() or ".." in value or not _BACK.fullmatch(value):
        raise HTTPException(400, "back: this is not the address of a list, order or run here.")
    return value


def text(name: str, value: str) -> str:
    """Check that a database accepts a text, and return it."""
    if len(value) > _MAX_TEXT or not value.isprintable():
        raise HTTPException(400, f"{name}: use at most {_MAX_TEXT} printable characters.")
    return value


def page_number(value: str) -> int:
    """Return the number of a page; the first is 1."""
    if not re.fullmatch(r"[0-9]{0,6}", value, re.ASCII):
        raise HTTPException(400, "page: this is not a page number. Use a whole number from 1.")
    return max(1, int(value or 1))


def _day(name: str, value: str) -> date | None:
    if not value:
        return None
    try:
        found = date.fromisoformat(value)
    except ValueError:
        found = None
    if found is None or not FIRST_DAY.year <= found.year <= _LAST_YEAR:
        raise HTTPException(
            400, f"{name}: use a day from 2000 to {_LAST_YEAR} such as 2026-12-31, not {value!r}."
        )
    return found


def _midnight(day: date) -> float:
    return datetime.combine(day, time(), UTC).timestamp()
