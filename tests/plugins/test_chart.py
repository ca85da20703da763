"""The chart's layout: columns, their parts, and the rate limit's line."""

from __future__ import annotations

import pytest

from airflow_provider_kk.plugins.chart import DAY_S, HEIGHT, draw, step_for

SINCE = 1_800_000_000.0


@pytest.mark.parametrize("days", [1, 2, 3, 7, 30, 31, 365, 3_660, 20_000])
def test_a_period_of_any_length_has_distinguishable_columns(days: int):
    assert 20 <= days * DAY_S / step_for(SINCE, SINCE + days * DAY_S) <= 62


def test_the_parts_of_a_column_stand_on_each_other_in_proportion():
    chart = draw({"created": {1: 30}, "held": {1: 10}}, SINCE, SINCE + DAY_S, 1_800, 0.02)
    created, held = chart.columns[1].segments
    assert created.y + created.height == pytest.approx(HEIGHT)
    assert held.y + held.height == pytest.approx(created.y)
    assert created.height == pytest.approx(3 * held.height, rel=0.01)
    assert chart.highest is chart.columns[1]
    assert [column.segments for column in chart.columns[2:]] == [()] * 46


def test_a_rate_limit_in_sight_is_drawn_to_scale():
    chart = draw({"created": {0: 20}}, SINCE, SINCE + DAY_S, 1_800, 40 / 1_800)
    (created,) = chart.columns[0].segments
    assert chart.limit == pytest.approx(40)
    assert HEIGHT - chart.limit_y == pytest.approx(2 * created.height, rel=0.01)


def test_a_rate_limit_far_above_is_not_drawn():
    chart = draw({"created": {0: 20}}, SINCE, SINCE + DAY_S, 1_800, 2.0)
    assert chart.limit is None
    assert chart.columns[0].segments[0].height > HEIGHT / 2


def test_columns_fill_the_width_in_percent():
    columns = draw({"created": {}}, SINCE, SINCE + DAY_S, 1_800, 2.0).columns
    assert columns[0].x == 0
    assert columns[-1].x + columns[-1].width <= 100


def test_a_period_without_orders_is_a_chart_too():
    chart = draw({"created": {}}, SINCE, SINCE + DAY_S, 1_800, 2.0)
    assert chart.highest is None
    assert chart.most == 0
