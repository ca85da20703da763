"""`kk send`: a file's orders are at KK once each, by the delivery that syncs use, killed or not."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_kk.cli.main import main
from tests.cli.files import write_csv
from tests.operators import shop
from tests.operators.shop import (
    PATIENT,
    PRIVATE,
    QUICK,
    each_is_there_once,
    ids_at_kk,
    ids_in_ledger,
    kk_connection,
    nonzero,
    number,
    rows,
)

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer

SKU = "FWXW00290_WHT_M"
BAD = ("A-1", *shop.ADDRESS.values(), SKU, 0)
Sent = Callable[..., tuple[int, dict[str, dict[str, Any]], dict[str, Any]]]


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
def connect(sandbox: SandboxServer, ledger: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes `kk_default` anew, with these extras; its ledger is a file."""

    def connect(**extra: Any) -> None:
        kk = kk_connection(sandbox, ledger_conn_id="ledger", **extra)
        monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(kk))
        place = {"conn_type": "sqlite", "host": str(ledger)}
        monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(place))

    sandbox.control.set(rate_limit=False)
    connect()
    return connect


@pytest.fixture
def file(tmp_path: Path, connect: None) -> Path:
    return tmp_path / "orders.csv"


@pytest.fixture
def sent(capsys: pytest.CaptureFixture[str]) -> Sent:
    """Run `kk send --yes --json`: the exit status, the orders by number, and the summary."""

    def send(*words: str) -> tuple[int, dict[str, dict[str, Any]], dict[str, Any]]:
        capsys.readouterr()
        status = main(["send", "--yes", "--json", *words])
        *orders, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return status, {one["custom_order_number"]: one for one in orders}, last["summary"]

    return send


def states(ledger: Path) -> set[str]:
    with closing(sqlite3.connect(ledger)) as db:
        return {state for (state,) in db.execute("SELECT state FROM kk_order")}


def creates(sandbox: SandboxServer) -> int:
    return int(sandbox.control.counts()["creates"])


# Guards --------------------------------------------------------------------------------------------


def test_too_many_new_orders_send_nothing_and_the_message_names_the_option(
    sandbox: SandboxServer, file: Path, sent: Sent, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write_csv(file, rows(range(6)))

    status = main(["send", "--yes", "--json", "--max-new-orders", "5", name])
    streams = capsys.readouterr()
    allowed = sent("--max-new-orders", "6", name)

    assert status == 2
    assert nonzero(json.loads(streams.out.splitlines()[-1])["summary"]) == {"not_sent": 6}
    assert "6 orders (S-0000, S-0001, S-0002 and 3 more) would be sent" in streams.err
    assert "--max-new-orders 6" in streams.err
    assert nonzero(allowed[2]) == {"created": 6}
    each_is_there_once(sandbox, range(6))


def test_send_asks_for_no_confirmation_when_a_guard_is_exceeded(
    sandbox: SandboxServer, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["send", "--max-run-value", "0.01", write_csv(file, rows(range(2)))])

    printed = capsys.readouterr().err
    assert status == 2
    assert "2  not sent, because a guard stops the run" in printed
    assert "more than max_run_value=0.01 allows" in printed
    assert "nothing was sent, because a guard is exceeded" in printed
    assert creates(sandbox) == 0


def test_guards_of_send_are_for_each_call(sandbox: SandboxServer, file: Path, sent: Sent) -> None:
    name = write_csv(file, rows(range(6)))
    sandbox.control.arm("auth", times=1, number=number(0))

    first = sent("--max-new-orders", "3", "--limit", "3", name)
    second = sent("--max-new-orders", "3", "--limit", "3", name)

    assert (first[0], first[2]["created"], first[2]["not_sent"]) == (1, 2, 1)
    assert second[2]["created"] >= 3
    assert len({one["number"] for one in sandbox.control.orders()}) == 5


@pytest.mark.parametrize(
    ("option", "limit", "part"),
    [("--max-order-units", "3", "max_order_units=3"), ("--max-order-value", "0.01", "max_order_value=0.01")],
)
def test_order_that_exceeds_a_guard_is_invalid(
    sandbox: SandboxServer, file: Path, sent: Sent, option: str, limit: str, part: str
) -> None:
    status, orders, summary = sent(option, limit, write_csv(file, rows([3])))

    assert (status, nonzero(summary)) == (1, {"invalid": 1})
    assert part in orders[number(3)]["message"]
    assert nonzero(sent(option, "none", str(file))[2]) == {"created": 1}


@pytest.mark.parametrize("limit", ["0", "-1", "x", "1.5"])
def test_option_of_a_guard_that_is_no_count_is_an_error(
    file: Path, limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exited:
        main(["send", "--max-new-orders", limit, write_csv(file, rows([1]))])

    assert exited.value.code == 2
    assert "must be a whole number from 1" in capsys.readouterr().err


# Sending -------------------------------------------------------------------------------------------


def test_a_file_is_sent_once_and_known_the_second_time(
    sandbox: SandboxServer, file: Path, ledger: Path, sent: Sent
) -> None:
    name = write_csv(file, rows(range(20)))

    status, orders, summary = sent(name)
    again = sent(name)

    assert (status, nonzero(summary)) == (0, {"created": 20})
    assert (again[0], nonzero(again[2])) == (0, {"already_created": 20})
    each_is_there_once(sandbox, range(20))
    told = {key: sorted(one["kk_order_ids"]) for key, one in orders.items()}
    assert told == ids_at_kk(sandbox) == ids_in_ledger(ledger)


def test_rate_limit_of_a_clock_that_was_ahead_is_waited_for_no_longer_than_it_lasts(
    sandbox: SandboxServer,
    file: Path,
    ledger: Path,
    sent: Sent,
    caplog: pytest.LogCaptureFixture,
) -> None:
    sent(write_csv(file, rows(range(1))))
    with closing(sqlite3.connect(ledger)) as db, db:
        db.execute("UPDATE kk_account SET bucket_tat = bucket_tat + 86400")

    status, _orders, summary = sent(write_csv(file, rows(range(5))))

    assert (status, nonzero(summary)) == (0, {"created": 4, "already_created": 1})
    assert [text for text in caplog.messages if "A clock was ahead" in text] == [
        text for text in caplog.messages if text.startswith("The rate limit of account default was used up")
    ]
    assert len([text for text in caplog.messages if "A clock was ahead" in text]) == 1


def test_json_lines_are_sent_too(sandbox: SandboxServer, file: Path, sent: Sent) -> None:
    file = file.with_suffix(".jsonl")
    file.write_text("".join(f"{json.dumps(shop.order(n))}\n" for n in range(5)))

    assert nonzero(sent(str(file))[2]) == {"created": 5}
    each_is_there_once(sandbox, range(5))


def test_a_query_is_sent_once_and_known_the_second_time(
    sandbox: SandboxServer, file: Path, ledger: Path, sent: Sent
) -> None:
    warehouse = shop.Warehouse(file.with_name("shop.db"))
    warehouse.add(*rows(range(5)))
    statement = file.with_name("orders.sql")
    statement.write_text(shop.SELECT + " WHERE custom_order_number <> '{{ without }}'")
    query = ["--sql", str(statement), "--var", f"without={number(4)}", "--warehouse", str(warehouse.path)]

    status, _, summary = sent(*query)
    second = sent(*query)
    third = sent("--sql", shop.SELECT, "--warehouse", str(warehouse.path))

    assert (status, nonzero(summary)) == (0, {"created": 4})
    assert (second[0], nonzero(second[2])) == (0, {"already_created": 4})
    assert (third[0], nonzero(third[2])) == (0, {"already_created": 4, "created": 1})
    each_is_there_once(sandbox, range(5))
    # The ledger is that of the kk connection, not the warehouse.
    assert [row for row in warehouse.execute("SELECT name FROM sqlite_master") if "kk" in row[0]] == []


def test_a_query_that_fails_on_its_way_sends_nothing(
    sandbox: SandboxServer, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warehouse = shop.Warehouse(file.with_name("shop.db"))
    warehouse.add(*rows(range(3)))
    after = f"{shop.SELECT} WHERE custom_order_number < 'Z' OR json('no json') > 1"
    warehouse.execute("UPDATE order_line SET custom_order_number = 'Z' WHERE rowid = 3")
    before = warehouse.execute("SELECT * FROM order_line")

    for sql in (after, f"{shop.SELECT}; {shop.SELECT}", "DELETE FROM order_line"):
        assert main(["send", "--yes", "--sql", sql, "--warehouse", str(warehouse.path)]) == 2, sql

    assert creates(sandbox) == 0
    assert warehouse.execute("SELECT * FROM order_line") == before


def test_invalid_orders_stop_no_other_and_fail_until_they_are_fixed(
    sandbox: SandboxServer, file: Path, sent: Sent
) -> None:
    name = write_csv(file, [*rows(range(3)), BAD])

    for _ in range(2):
        status, orders, summary = sent(name)
        assert (status, nonzero(summary)) == (1, {"created": 3, "invalid": 1})
        assert [fault["field"] for fault in orders["A-1"]["faults"]] == ["items[0].quantity"]
    write_csv(file, rows(range(3)))

    status, _, summary = sent(name)
    assert (status, nonzero(summary)) == (0, {"already_created": 3})


def test_a_lost_response_is_adopted_not_resent(
    sandbox: SandboxServer, file: Path, connect: Callable[..., None], sent: Sent
) -> None:
    connect(**QUICK)
    sandbox.control.arm("drop_after_commit", number=number(1))

    status, _, summary = sent(write_csv(file, rows(range(3))))

    assert (status, nonzero(summary)) == (0, {"created": 2, "adopted": 1})
    each_is_there_once(sandbox, range(3))


def test_on_absence_hold_holds_an_absent_order(
    sandbox: SandboxServer, file: Path, connect: Callable[..., None], sent: Sent
) -> None:
    connect(**QUICK)
    sandbox.control.arm("drop_before_commit", number=number(1))

    status, _, summary = sent(write_csv(file, rows(range(3))), "--on-absence", "hold")

    assert (status, nonzero(summary)) == (1, {"created": 2, "held": 1})


def test_a_reused_number_sends_nothing(sandbox: SandboxServer, file: Path, sent: Sent) -> None:
    assert sent(write_csv(file, rows(range(2))))[0] == 0

    other = [(number(0), *row[1:]) for row in rows([1])]

    assert nonzero(sent(write_csv(file, other))[2]) == {"changed": 1}
    each_is_there_once(sandbox, range(2))


def test_orders_that_are_not_delivered_since_another_file_fail_this_one_too(
    sandbox: SandboxServer, file: Path, sent: Sent, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.control.arm("code_in_envelope", number=number(1), code=40_010)
    before = {"created": 1, "rejected": 1, "invalid": 1}
    assert nonzero(sent(write_csv(file, [*rows([0, 1]), BAD]))[2]) == before

    for words, undelivered in ((rows([0]), 0), (rows([0, 1]), 1), ([BAD], 1)):
        other = write_csv(file, words)
        assert sent(other)[0] == main(["check", other]) == undelivered, other
    assert main(["send", "--yes", write_csv(file, rows([1, 0]))]) == 1
    assert "kk send: 1 order not at KK since an earlier run: 1 rejected" in capsys.readouterr().err


def test_limit_leaves_other_orders_for_later(sandbox: SandboxServer, file: Path, sent: Sent) -> None:
    name = write_csv(file, rows(range(5)))

    status, _, summary = sent(name, "--limit", "2")

    assert (status, nonzero(summary)) == (0, {"created": 2, "postponed": 3})
    assert creates(sandbox) == 2


def test_limit_holds_for_each_call_though_a_bad_order_fails_them_all(
    sandbox: SandboxServer, file: Path, sent: Sent
) -> None:
    name = write_csv(file, [*rows(range(5)), BAD])

    for created, postponed in ((2, 3), (4, 1), (5, 0)):
        status, _, summary = sent(name, "--limit", "2")
        assert status == 1
        assert (summary["created"], summary["postponed"], summary["invalid"]) == (created, postponed, 1)
    each_is_there_once(sandbox, range(5))


def test_nothing_is_sent_while_kk_rejects_the_token(
    sandbox: SandboxServer, file: Path, sent: Sent, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write_csv(file, rows(range(3)))
    sandbox.control.arm("auth", method=None)

    status, _, summary = sent(name)
    sandbox.control.disarm()

    assert (status, nonzero(summary)) == (1, {"not_sent": 3})
    assert sent(name)[0] == 0
    each_is_there_once(sandbox, range(3))


def test_no_customer_is_named_and_the_ledger_records_who_sent(
    sandbox: SandboxServer, file: Path, ledger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.control.arm("code_in_envelope", number=number(1), code=40_010)

    assert main(["send", "--yes", write_csv(file, [*rows(range(3)), BAD])]) == 1
    assert main(["ledger", "show", number(0)]) == 0

    captured = capsys.readouterr()
    assert "kk send " in captured.out
    assert "order   kkOrderIds" in captured.out
    assert not any(word in captured.out + captured.err for word in PRIVATE)
    assert not any(word.encode() in ledger.read_bytes() for word in PRIVATE)


# Asking --------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("answer", "status", "orders"), [("y\n", 0, 3), ("n\n", 2, 0), ("\n", 2, 0)])
def test_it_previews_and_asks_for_confirmation(
    sandbox: SandboxServer,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    status: int,
    orders: int,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(answer))

    assert main(["send", write_csv(file, rows(range(3)))]) == status

    told = capsys.readouterr().err
    assert "3  would be sent" in told
    assert "Send 3 orders? [y/N]" in told
    assert creates(sandbox) == orders


@pytest.mark.parametrize("options", [(), ("--yes",)])
def test_warnings_of_orders_are_printed_once(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    without_zip = ["" if cell == shop.ADDRESS["zip"] else cell for cell in rows([2])[0]]

    assert main(["send", *options, write_csv(file, [without_zip])]) == 0

    assert capsys.readouterr().err.count("valid, with a warning") == 1


def test_without_a_terminal_nothing_is_sent_without_yes(
    sandbox: SandboxServer, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))

    assert main(["send", write_csv(file, rows(range(3)))]) == 2

    assert "give --yes" in capsys.readouterr().err
    assert creates(sandbox) == 0


def test_without_a_ledger_connection_nothing_is_sent(
    sandbox: SandboxServer, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(kk_connection(sandbox)))
    name = write_csv(file, rows(range(3)))

    assert main(["send", "--yes", name]) == 2
    assert "Give --ledger" in capsys.readouterr().err
    assert creates(sandbox) == 0
    place = ["--ledger", f"{file.parent}/new.db"]
    assert main(["send", "--yes", name, *place]) == 0
    assert main(["ledger", "show", number(0), *place]) == 0
    each_is_there_once(sandbox, range(3))


# Stopping and dying ----------------------------------------------------------------------------------


def start(file: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "airflow_provider_kk.cli.main", "send", file, "--yes"]
    return subprocess.Popen(
        words, env=os.environ.copy(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for_creates(sandbox: SandboxServer, least: int) -> None:
    until = time.monotonic() + 600
    while creates(sandbox) < least and time.monotonic() < until:
        time.sleep(0.02)
    assert creates(sandbox) >= least


@pytest.mark.parametrize("name_of_signal", ["SIGTERM", "SIGINT"])
def test_a_stop_records_requests_in_flight_and_others_are_sent_later(
    sandbox: SandboxServer, file: Path, ledger: Path, sent: Sent, name_of_signal: str
) -> None:
    name = write_csv(file, rows(range(60)))
    sandbox.control.set(latency_s=1)
    child = start(name)
    wait_for_creates(sandbox, 8)

    child.send_signal(signal.Signals[name_of_signal])
    out, err = child.communicate(timeout=600)

    assert child.returncode == 1, err
    assert f"not sent, because {name_of_signal} was received. A retry, or the next run, continues" in err
    assert "not sent" in out
    assert states(ledger) == {"created"}
    # Eight were on their way at once, none of them answered yet.
    assert 8 <= len(ids_in_ledger(ledger)) == len(ids_at_kk(sandbox)) < 60
    sandbox.control.set(latency_s=0)
    status, _, summary = sent(name)
    # It is the same sync, which has come through by now.
    assert (status, nonzero(summary)) == (0, {"created": 60})
    each_is_there_once(sandbox, range(60))


def test_crash_in_the_middle_loses_nothing_and_makes_no_duplicate(
    sandbox: SandboxServer, file: Path, ledger: Path, connect: Callable[..., None], sent: Sent
) -> None:
    connect(**QUICK)
    name = write_csv(file, rows(range(60)))
    sandbox.control.set(latency_s=0.3)
    child = start(name)
    wait_for_creates(sandbox, 12)

    child.send_signal(signal.SIGKILL)
    child.communicate(timeout=600)

    assert child.returncode == -signal.SIGKILL
    assert "sending" in states(ledger)
    sandbox.control.set(latency_s=0)
    connect(**PATIENT)
    status, _, summary = sent(name)
    assert status == 0
    assert summary["created"] + summary["adopted"] == summary["selected"] == 60
    each_is_there_once(sandbox, range(60))


def test_another_ledger_than_the_connections_own_sends_nothing(
    sandbox: SandboxServer,
    file: Path,
    ledger: Path,
    tmp_path: Path,
    sent: Sent,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name = write_csv(file, rows(range(2)))

    assert main(["send", name, "--yes", "--ledger", str(tmp_path / "other.db")]) == 2
    assert "could be sent twice" in capsys.readouterr().err
    assert (creates(sandbox), (tmp_path / "other.db").exists()) == (0, False)

    assert sent(name, "--ledger", str(ledger))[0] == 0
