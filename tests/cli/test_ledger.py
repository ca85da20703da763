"""`kk ledger`: what a human sees of the ledger, and what a human's word does to it."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_kk.cli.main import main

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql_ledger import SqlLedger
    from airflow_provider_kk.sandbox.server import SandboxServer

SKU = "FWXW00290_WHT_M"


@pytest.fixture
def ledger(tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlLedger]:
    """A ledger whose windows are so short that they are over at once."""
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.hooks.ledger import open_ledger

    extra = {"ledger_conn_id": "ledger", "timeout_s": 0.01, "lease_s": 0.02, "settle_window_s": 0.01}
    kk = {"conn_type": "kk", "host": sandbox.url, "password": sandbox.token, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(kk))
    place = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(place))
    ledger = open_ledger(KKHook(), "ledger", threads=1)
    # Reading KK's list takes longer than a POST may take here.
    monkeypatch.setenv(
        "AIRFLOW_CONN_KK_DEFAULT", json.dumps({**kk, "extra": {**extra, "timeout_s": 5, "lease_s": 10}})
    )
    yield ledger
    ledger.close()


def hold(ledger: SqlLedger, number: str) -> None:
    """Let an order be in doubt, and then be given to a human."""
    from airflow_provider_kk.delivery.job import Job
    from airflow_provider_kk.delivery.rows import Answer, Origin
    from airflow_provider_kk.delivery.states import Event

    job = Job(number, "1:x", {SKU: 1}, "FR", "", send=lambda check: [], redact=str)
    claim = ledger.begin(job, None, origin=Origin("shop", "run 7", "sync", -1, 2), sync_id="s")
    assert claim is not None
    row = ledger.record(claim, Answer(Event.UNKNOWN, message="the connection was reset"))
    ledger.hold(row, Event.GIVEN_UP, "not in KK's list")
    time.sleep(0.1)  # until the settle window is over


def state(ledger: SqlLedger, number: str) -> str:
    return ledger.look_up([number])[number].state.value


def test_what_waits_for_a_human_is_listed(ledger: SqlLedger, capsys: pytest.CaptureFixture[str]) -> None:
    hold(ledger, "A-1")
    assert main(["ledger", "list"]) == 0
    shown = capsys.readouterr().out
    assert "A-1" in shown
    assert "not in KK's list" in shown
    assert "1 order of account" in shown


def test_the_list_as_json_is_a_line_for_each_order(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(ledger, "A-1")
    assert main(["ledger", "list", "--state", "held", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    row = json.loads(line)
    assert (row["key"], row["state"], row["goods"]) == ("A-1", "held", {SKU: 1})


def test_an_order_is_shown_with_every_post_and_what_to_do(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(ledger, "A-1")
    assert main(["ledger", "show", "A-1"]) == 0
    shown = capsys.readouterr().out
    for fact in ("shop/run 7/sync try 2", "the connection was reset", "kk ledger resolve A-1 --created"):
        assert fact in shown


def test_ids_are_believed_when_kk_lists_them_under_this_number(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(ledger, "A-1")
    (kk_order,) = sandbox.control.place({SKU: 1}, number="A-1")
    assert (
        main(["ledger", "resolve", "A-1", "--created", str(kk_order), "--why", "seen", "--who", "ann"]) == 0
    )
    entry = ledger.look_up(["A-1"])["A-1"]
    assert (entry.state.value, entry.kk_order_ids, entry.resolved_by) == (
        "created",
        (str(kk_order),),
        "ann: seen",
    )


def test_ids_of_another_number_are_refused(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(ledger, "A-1")
    (kk_order,) = sandbox.control.place({SKU: 1}, number="B-2")
    assert main(["ledger", "resolve", "A-1", "--created", str(kk_order), "--why", "seen"]) == 1
    assert "B-2" in capsys.readouterr().err
    assert main(["ledger", "resolve", "A-1", "--created", "999", "--why", "seen"]) == 1
    assert "KK lists no order '999'" in capsys.readouterr().err
    assert state(ledger, "A-1") == "held"


def test_an_order_that_was_never_created_is_free_to_be_sent(ledger: SqlLedger) -> None:
    hold(ledger, "A-1")
    assert main(["ledger", "resolve", "A-1", "--never-created", "--why", "not on the site"]) == 0
    assert state(ledger, "A-1") == "not_sent"


def test_an_order_of_which_kk_gave_ids_was_not_never_created(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow_provider_kk.delivery.states import Event

    hold(ledger, "A-1")
    ledger.hold(ledger.look_up(["A-1"])["A-1"], Event.CONFLICT, "conflict: twice the goods", ["7", "8"])
    assert main(["ledger", "show", "A-1"]) == 0
    assert "--never-created" not in capsys.readouterr().out
    assert main(["ledger", "resolve", "A-1", "--never-created", "--why", "I think so"]) == 1
    assert "KK has 7, 8 under A-1" in capsys.readouterr().err
    assert state(ledger, "A-1") == "held"


def test_a_number_is_ordered_again_only_when_it_is_closed(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(ledger, "A-1")
    assert main(["ledger", "resolve", "A-1", "--order-again", "--why", "lost parcel"]) == 1
    assert "resolve it first" in capsys.readouterr().err
    assert main(["ledger", "resolve", "A-1", "--never-created", "--why", "x"]) == 0
    assert main(["ledger", "resolve", "A-1", "--order-again", "--why", "lost parcel"]) == 0
    assert [one.generation for one in ledger.generations("A-1")] == [1, 2]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["show", "nobody"], "nobody is not in the ledger"),
        (["list", "--kk-conn-id", "missing"], "missing"),
        (["list", "--state", "lost"], "no such state: lost"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(
    ledger: SqlLedger, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", *words]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_without_a_place_for_the_ledger_it_says_which_argument_to_give(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kk = {"conn_type": "kk", "host": sandbox.url, "password": sandbox.token}
    monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(kk))
    assert main(["ledger", "list"]) == 1
    assert "--ledger-conn-id" in capsys.readouterr().err


def test_the_ddl_makes_the_tables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "ddl", "--dialect", "sqlite"]) == 0
    with sqlite3.connect(":memory:") as db:
        db.executescript(capsys.readouterr().out)
        names = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert names == {"kk_account", "kk_order", "kk_order_attempt", "kk_sync_run"}
