"""The access token and the customers stay where they belong, whatever goes wrong."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_kk.sandbox.server import SandboxServer
from tests.operators.shop import ADDRESS, PRIVATE, QUICK, nonzero, number, rows

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop

TOKEN = "tok-7c1f9a-do-not-tell"


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(token=TOKEN) as server:
        yield server


def files_with(folder: Path, *words: str) -> list[str]:
    """The files, of any kind, that hold one of these words."""
    return [
        f"{path.relative_to(folder)}: {word}"
        for path in folder.rglob("*")
        if path.is_file()
        for word in words
        if word.encode() in path.read_bytes()
    ]


def test_neither_token_nor_customers_are_in_logs_xcoms_files_or_ledger(shop: Shop):
    ledger = shop.path / "ledger.db"
    shop.home.connections["ledger"] = {"conn_type": "sqlite", "host": str(ledger)}
    shop.connect(**QUICK, ledger_conn_id="ledger")
    shop.warehouse.add(*rows(range(12)))
    # Each of these makes somebody say something about an order.
    long_name = ADDRESS | {
        "recipient": "Zebulon " * 9,
        "street1": "Rue des Licornes " * 9,
        "country": "Licornes",
    }
    shop.warehouse.add(("S-INVALID", *long_name.values(), "FWXW00290_WHT_M", 1))
    shop.warehouse.add(("S-UNKNOWN", *ADDRESS.values(), "NO_SUCH_SKU", 1))
    recalled = ", ".join(str(part) for part in rows([3])[0])
    shop.sandbox.control.arm("code_in_envelope", number=number(3), message=f"not to {recalled}", times=1)
    shop.sandbox.control.arm("drop_after_commit", number=number(4), times=1)
    shop.sandbox.control.arm("status_before_commit", number=number(5), times=1, body="envelope")
    shop.sandbox.control.arm("html_200_after_commit", number=number(6), times=1)

    result = shop.run(shop.dag(write_back="outcome"))

    summary = result.xcoms["sync"]["return_value"]
    assert nonzero(summary) == {"created": 9, "adopted": 2, "rejected": 2, "invalid": 1}, result.log
    assert result.state == "failed"
    assert "not to" in json.dumps(summary["rejections"])
    with closing(sqlite3.connect(ledger)) as db:
        everything = "\n".join(db.iterdump())
    assert number(3) in everything
    for told in (result.log, json.dumps(result.xcoms), everything):
        assert [word for word in (TOKEN, *PRIVATE) if word in told] == []
    assert files_with(shop.home.path, TOKEN, *PRIVATE) == []
    assert files_with(shop.path, TOKEN) == []


def test_a_wrong_token_stops_the_sync_after_a_handful_of_requests(shop: Shop):
    shop.warehouse.add(*rows(range(40)))
    shop.home.connections["kk_default"] |= {"password": "tok-0000-outdated"}

    result = shop.run(shop.dag())

    assert result.state == "failed"
    assert shop.sandbox.control.counts()["requests"] <= 3
    assert shop.sandbox.control.counts()["creates"] == 0
    assert nonzero(result.xcoms["sync"]["return_value"]) == {"not_sent": 40}
    (said, *_) = [line for line in result.log.splitlines() if "Nothing more is sent" in line]
    assert "access token" in said
    assert "tok-0000-outdated" not in result.log
    assert files_with(shop.home.path, "tok-0000-outdated") == []
