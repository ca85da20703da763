"""A sync of statuses against a KK that is alive: lists that lag, shift and repeat while orders are added."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Iterator
from decimal import Decimal
from math import ceil
from pathlib import Path
from typing import Any

import pytest
import requests
import sqlalchemy as sa

from airflow_provider_kk.api.client import KKClient
from airflow_provider_kk.api.models import KKOrder
from airflow_provider_kk.delivery.clock import Stop
from airflow_provider_kk.delivery.sql.database import pool_arguments
from airflow_provider_kk.delivery.sql.storage import sql_ledger
from airflow_provider_kk.sandbox.server import SandboxServer
from airflow_provider_kk.sync.sync_statuses import StatusSync, StoppedError
from airflow_provider_kk.warehouse.merge_statuses import StatusRows, rows_of
from airflow_provider_kk.warehouse.status_tables import StatusTables
from tests.api.helpers import TOKEN, client_for

CN, OTHER_CN, US = "FWXW00290_WHT_M", "FWTS00104_RED_L", "USTS00015_BLK_M"
HOUR, DAY = 3600, 86_400
HOST, ACCOUNT = "kk.test", "shop"
LOG = logging.getLogger("tests.status")


class KKClock:
    """KK's clock is this worker's too."""

    def __init__(self, sandbox: SandboxServer) -> None:
        self._sandbox = sandbox

    def wall(self) -> float:
        return self._sandbox.control.now()

    monotonic = wall

    def sleep(self, seconds: float, stop: Any) -> None:
        raise AssertionError("nothing is slept through here")


class Shop:
    """A KK with a life of its own, and the tables that follow it."""

    def __init__(self, sandbox: SandboxServer, path: Path) -> None:
        self.sandbox = sandbox
        self.control = sandbox.control
        self.rng = random.Random(42)
        engine = sa.create_engine(f"sqlite:///{path / 'shop.db'}", **pool_arguments("sqlite", 2))
        self.ledger = sql_ledger(engine, HOST, ACCOUNT, clock=KKClock(sandbox))
        self.ledger.storage.open("kk", settle_window_s=600)
        self.tables = StatusTables(sa.create_engine(f"sqlite:///{path / 'shop.db'}"), HOST, ACCOUNT)
        self.tables.create()
        self.orders = 0
        self.stop = Stop()

    def add(self, count: int) -> None:
        for _ in range(count):
            self.orders += 1
            goods = self.rng.choice([{CN: 1}, {CN: 1, OTHER_CN: 2}, {CN: 1, US: 1}])
            self.control.place(goods, number=f"S-{self.orders}")

    def sync(self, client: KKClient, overlap_s: float = 900) -> StatusSync:
        sync = StatusSync(client, self.tables, self.ledger, overlap_s, LOG, self.stop)
        sync.run()
        return sync

    def client(self) -> KKClient:
        return client_for(self.sandbox.url, api_version="v2")

    def changed_since(self, epoch: float) -> int:
        """How many orders have changed between a time and ten minutes ago."""
        until = self.control.now() - 600
        return sum(epoch < one["updated_at"] <= until for one in self.control.orders())

    def at_kk(self) -> dict[str, StatusRows]:
        found: dict[str, StatusRows] = {}
        for page in range(1, 1_000):
            answer = requests.get(
                f"{self.sandbox.url}/openapi/v2/order/orders",
                params={"pageNumber": page, "pageSize": 250},
                headers={"Authorization": f"Bearer {self.sandbox.token}"},
                timeout=10,
            )
            orders = json.loads(answer.text, parse_float=Decimal)["data"]["list"]
            if not orders:
                break
            found.update(
                (rows.order.kk_order_id, rows) for one in orders if (rows := rows_of(KKOrder.read(one)))
            )
        return found

    def in_tables(self) -> dict[str, StatusRows]:
        numbers = [f"S-{n}" for n in range(1, self.orders + 1)]
        found = self.tables.of_numbers(numbers)
        return {rows.order.kk_order_id: rows for group in found.values() for rows in group}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with SandboxServer(rate_limit=False, token=TOKEN) as sandbox:
        shop = Shop(sandbox, tmp_path)
        yield shop
        shop.ledger.close()
        shop.tables.close()


NEXT = {"paid": "packed", "packed": "shipped", "shipped": "delivered"}


class RestlessClient(KKClient):
    """Each time before it asks for a page, something happens at KK."""

    shop: Shop

    def list_orders(self, **given: Any) -> Any:
        shop = self.shop
        shop.add(shop.rng.randint(0, 2))
        waiting = [one for one in shop.control.orders() if one["state"] in NEXT]
        for one in shop.rng.sample(waiting, min(3, len(waiting))):
            shop.control.move(one["id"], NEXT[one["state"]])
        shop.control.advance(1)
        return super().list_orders(**given)


@pytest.mark.parametrize("sort", ["created", "updated"])
def test_after_quiet_the_tables_equal_kks_state_row_by_row(shop: Shop, sort: str) -> None:
    shop.control.set(sort=sort, list_lag_s=240, update_lag_s=240, repeat_every=50, pack_after_s=3 * HOUR,
                     ship_after_s=2 * HOUR, second_parcel_after_s=HOUR, deliver_after_s=6 * HOUR)  # fmt: skip
    figures = []
    synced_until = 0.0
    shop.add(800)
    for _ in range(7):
        shop.control.advance(5 * HOUR)
        shop.add(40)
        restless = RestlessClient(shop.sandbox.url, shop.sandbox.token, api_version="v2", throttle=Free())
        restless.shop = shop
        changed = shop.changed_since(synced_until)
        with restless:
            sync = shop.sync(restless)
            figures.append((changed, restless.requests))
        synced_until = shop.tables.synced_until().timestamp()  # type: ignore[union-attr]
        assert sync.summary.odd == 0
    shop.control.set(list_lag_s=0, update_lag_s=0, repeat_every=0)
    shop.control.advance(100 * DAY)
    with shop.client() as client:
        shop.sync(client)

    assert shop.in_tables() == shop.at_kk()
    assert sum(changed for changed, _ in figures) > 2_000
    for changed, asked in figures:
        assert asked <= 1.2 * (ceil(changed / 250) + 1), figures


class Free:
    """A rate limit that nobody has."""

    def acquire(self, stop: object = None, *, to_send: bool = False) -> None:
        pass

    def back_off(self, retry_after_s: float | None) -> None:
        raise AssertionError("nobody was too fast")


def test_a_stopped_sync_keeps_what_it_has_and_continues_later(shop: Shop) -> None:
    shop.add(20)
    shop.control.advance(HOUR)
    shop.stop.set("the worker shuts down")
    with shop.client() as client:
        with pytest.raises(StoppedError, match="shuts down"):
            shop.sync(client)
        assert len(shop.in_tables()) == len(shop.at_kk())
        shop.stop = Stop()
        assert shop.sync(client).summary.changed == 0


def test_a_watermark_in_the_future_hides_no_change_from_the_sync(shop: Shop) -> None:
    shop.add(1)
    shop.control.advance(5 * DAY)
    with shop.client() as client:
        shop.sync(client)
        shop.control.advance(-3 * DAY)
        shop.add(1)
        shop.control.advance(1300)
        assert shop.sync(client).summary.orders >= 1
    assert len({rows.order.custom_order_number for rows in shop.in_tables().values()}) == 2
