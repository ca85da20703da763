"""The chart of orders over time, as numbers that a template draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from airflow_provider_kk.delivery.log import utc

HOUR_S, DAY_S = 3_600, 86_400
#: The possible periods of a column in seconds, and their labels.
_STEPS = {
    **{minutes * 60: f"{minutes} minutes" for minutes in (5, 10, 15, 30)},
    **{HOUR_S: "1 hour", 3 * HOUR_S: "3 hours", 6 * HOUR_S: "6 hours", 12 * HOUR_S: "12 hours"},
    **{DAY_S: "1 day", 7 * DAY_S: "7 days", 28 * DAY_S: "28 days", 91 * DAY_S: "91 days"},
    364 * DAY_S: "364 days",
}
_MOST_COLUMNS = 62
#: Widths are in percent of the page, so that texts stay readable on a phone. Heights are in pixels.
WIDTH, HEIGHT = 100.0, 130
#: A rate limit above this multiple of the highest column is left out, since it would make columns flat.
_LIMIT_IN_SIGHT = 4
#: Space above the highest column for its number.
_ROOM = 1.25


class Segment(NamedTuple):
    """A part of a column."""

    name: str
    y: float
    height: float


@dataclass(frozen=True)
class Column:
    """The orders of a step: position, label and counts."""

    x: float
    width: float
    label: str
    counts: dict[str, int]
    segments: tuple[Segment, ...]


@dataclass(frozen=True)
class Chart:
    """A stacked column for each step, and the rate limit as a line if it is near the columns."""

    columns: tuple[Column, ...]
    most: int
    step_label: str
    limit: float | None
    """KK's rate limit in a step; None if it is far above the columns."""
    limit_y: float

    @property
    def highest(self) -> Column | None:
        """The first of the highest columns; None if all are empty."""
        highest = max(self.columns, key=lambda column: sum(column.counts.values()))
        return highest if highest.segments else None


def step_for(since: float, until: float) -> int:
    """Return the seconds of a column, so that a period has at most 62 columns."""
    return next((step for step in _STEPS if (until - since) / step <= _MOST_COLUMNS), max(_STEPS))


def draw(
    series: Mapping[str, Mapping[int, int]], since: float, until: float, step_s: int, limit_per_second: float
) -> Chart:
    """Compute the chart; `series` has the number of orders in each step, by name."""
    number = max(1, -int(-(until - since) // step_s))
    rows = [{name: counts.get(step, 0) for name, counts in series.items()} for step in range(number)]
    most = max(sum(row.values()) for row in rows)
    limit = limit_per_second * step_s
    in_sight = limit if limit <= _LIMIT_IN_SIGHT * max(most, 1) else None
    top = max(max(most, 1) * _ROOM, (in_sight or 0.0) * 1.05)
    width = WIDTH / number
    columns = [
        Column(
            round(step * width, 3),
            round(width * 0.86, 3),
            utc(since + step * step_s)[: 10 if step_s >= DAY_S else 16],
            row,
            _stack(row, top),
        )
        for step, row in enumerate(rows)
    ]
    limit_y = 0.0 if in_sight is None else round(HEIGHT * (1 - in_sight / top), 2)
    return Chart(tuple(columns), most, _STEPS[step_s], in_sight, limit_y)


def _stack(row: Mapping[str, int], top: float) -> tuple[Segment, ...]:
    segments, y = [], float(HEIGHT)
    for name, count in row.items():
        if count:
            # Rounded before the next part is put on it, so that there is no gap between them.
            bottom, y = y, round(y - HEIGHT * count / top, 2)
            segments.append(Segment(name, y, round(bottom - y, 2)))
    return tuple(segments)
