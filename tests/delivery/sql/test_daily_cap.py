"""The daily cap by the database's own clock, which other tests of the cap replace."""

from __future__ import annotations

import time

import pytest
import sqlalchemy as sa

from airflow_provider_kk.delivery.model import AttemptResult, Content, DailyCapError, Job, Origin
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.sql.database import pool_arguments
from airflow_provider_kk.delivery.sql.storage import sql_ledger
from airflow_provider_kk.delivery.states import Event


def test_daily_cap_holds_by_the_clock_of_the_database(each_ledger_url: str) -> None:
    engine = sa.create_engine(each_ledger_url, **pool_arguments(each_ledger_url.partition(":")[0], 2))
    ledger = sql_ledger(engine, "kk.test", "default", max_orders_per_day=2)
    ledger.storage.open("kk_default", settle_window_s=600)

    def claim(key: str, outcome: str, kk_skew_s: float = 0.0) -> None:
        job = Job(key, Content("1:x", {"SKU": 1}, "FR"), send=lambda check: [], redact=str)
        claimed = ledger.claim(job, None, origin=Origin(), sync_id="s", kk_skew_s=kk_skew_s)
        assert claimed is not None
        ids = ("1",) if outcome == "created" else ()
        ledger.record(claimed, AttemptResult(Event(outcome), ids, None, ""))

    claim("A", "created")
    claim("B", "rejected")  # has bought nothing
    claim("C", "unknown")
    for kk_skew_s in (0.0, 3_600.0, -3_600.0):
        with pytest.raises(DailyCapError) as capped:
            claim("D", "created", kk_skew_s)
    assert capped.value.until == pytest.approx(time.time() + 86_400, abs=600)
    assert ledger.look_up(["D"]) == {}

    with engine.begin() as db:  # the first order is a day old
        attempt = tables.attempt
        old = attempt.update().where(attempt.c.custom_order_number == "A")
        db.execute(old.values(settle_after=attempt.c.settle_after - 86_400))
    claim("D", "created")
    with pytest.raises(DailyCapError):
        claim("E", "created")
    ledger.close()
