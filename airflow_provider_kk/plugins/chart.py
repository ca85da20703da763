"""The chart of orders over time, as numbers that a template draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from airflow_provider_kk.delivery.log import utc

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
#: What a column may stand for, in seconds.
_STEPS = (
    *(minutes * MINUTE_S for minutes in (5, 10, 15, 30)),
    *(hours * HOUR_S for hours in (1, 3, 6, 12)),
    *(days * DAY_S for days in (1, 7, 28, 91, 364)),
)
_MOST_COLUMNS = 62
#: Columns are as wide as the page, in percent, so that texts stay readable on a phone; heights are pixels.
WIDTH, HEIGHT = 100.0, 130
#: A rate limit that is further away says nothing of these orders, and would press all columns flat.
_LIMIT_IN_SIGHT = 4
#: A column's number stands above it.
_ROOM = 1.25


class Segment(NamedTuple):
    """A part of a column."""

    name: str
    y: float
    height: float


@dataclass(frozen=True)
class Column:
    """The orders of a step: where it stands and what it says."""

    x: float
    width: float
    label: str
    counts: dict[str, int]
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Chart:
    """A stacked column for each step, and the rate limit as a line where it is in sight."""

    columns: tuple[Column, ...]
    names: tuple[str, ...]
    most: int
    step_label: str
    limit: float | None
    """KK's rate limit in a step; None where it is far above the columns."""
    limit_y: float

    @property
    def highest(self) -> Column | None:
        """The first of the highest columns; None when all are empty."""
        highest = max(self.columns, key=lambda column: sum(column.counts.values()))
        return highest if highest.segments else None


def step_for(since: float, until: float) -> int:
    """Return how many seconds a column stands for, so that a period has few enough of them."""
    return next((step for step in _STEPS if (until - since) / step <= _MOST_COLUMNS), _STEPS[-1])


def draw(
    series: Mapping[str, Mapping[int, int]], since: float, until: float, step_s: int, limit_per_second: float
) -> Chart:
    """Lay the chart out; `series` gives by name how many orders there are in each step."""
    number = max(1, -int(-(until - since) // step_s))
    names = tuple(series)
    rows = [{name: series[name].get(step, 0) for name in names} for step in range(number)]
    most = max(sum(row.values()) for row in rows)
    limit = limit_per_second * step_s
    in_sight = limit if limit <= _LIMIT_IN_SIGHT * max(most, 1) else None
    top = max(max(most, 1) * _ROOM, (in_sight or 0.0) * 1.05)
    width = WIDTH / number
    columns = [
        Column(
            round(step * width, 3),
            round(width * 0.86, 3),
            _begin_label(since + step * step_s, step_s),
            row,
            _stack(row, names, top),
        )
        for step, row in enumerate(rows)
    ]
    limit_y = 0.0 if in_sight is None else round(HEIGHT * (1 - in_sight / top), 2)
    return Chart(tuple(columns), names, most, _step_label(step_s), in_sight, limit_y)


def _stack(row: Mapping[str, int], names: Sequence[str], top: float) -> tuple[Segment, ...]:
    segments, y = [], float(HEIGHT)
    for name in names:
        if row[name]:
            # Rounded before it is stood on: no gap between two parts.
            bottom, y = y, round(y - HEIGHT * row[name] / top, 2)
            segments.append(Segment(name, y, round(bottom - y, 2)))
    return tuple(segments)


def _begin_label(begin: float, step_s: int) -> str:
    day_and_time = utc(begin).removesuffix(":00 UTC")
    return day_and_time[:10] if step_s >= DAY_S else day_and_time


def _step_label(step_s: int) -> str:
    for size, name in ((DAY_S, "day"), (HOUR_S, "hour"), (MINUTE_S, "minute")):
        if step_s % size == 0:
            number = step_s // size
            return f"1 {name}" if number == 1 else f"{number} {name}s"
    raise AssertionError("unreachable")
