"""`kk ledger`: what a human sees of the ledger, and what a human's word does to it."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING

import pytest

from airflow_provider_kk.cli.main import main
from airflow_provider_kk.delivery.sql.storage import refund_ledger
from tests.cli.conftest import SKU, hold, record, refuse, state

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sandbox.server import SandboxServer


def test_held_orders_are_listed(ledger: SqlLedger, capsys: pytest.CaptureFixture[str]) -> None:
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
    assert (row["custom_order_number"], row["state"], row["goods"]) == ("A-1", "held", {SKU: 1})


def test_an_order_is_shown_with_every_post_and_what_to_do(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(ledger, "A-1")
    assert main(["ledger", "show", "A-1"]) == 0
    shown = capsys.readouterr().out
    for fact in ("shop/run 7/sync try 2", "the connection was reset", "kk ledger resolve A-1 --created"):
        assert fact in shown


def test_an_order_is_shown_by_its_kk_order_id_too(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    record(ledger, "A-1", "created", ids=("9001", "9002"))
    assert main(["ledger", "show", "9002", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    for row in (*told["generations"], *told["attempts"]):
        assert (row["custom_order_number"], row["kk_order_ids"]) == ("A-1", ["9001", "9002"])
    for word in (["resolve", "--never-created"], ["retry"]):
        assert main(["ledger", *word, "9002", "--why", "x", "--yes"]) == 1
        assert "9002 (KK's id of A-1) is not in the ledger" in capsys.readouterr().err
    assert main(["ledger", "show", "900"]) == 1
    assert "900 is not in the ledger" in capsys.readouterr().err


def test_an_order_in_doubt_is_shown_to_be_reconciled_automatically(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    record(ledger, "A-1", "unknown", message="reset")
    assert main(["ledger", "show", "A-1"]) == 0
    assert "Every sync of the account reconciles it" in capsys.readouterr().out


def test_ids_are_accepted_when_kk_lists_them_under_this_number(
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


def test_ids_of_another_number_are_rejected(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(ledger, "A-1")
    (kk_order,) = sandbox.control.place({SKU: 1}, number="B-2")
    assert main(["ledger", "resolve", "A-1", "--created", str(kk_order), "--why", "seen"]) == 1
    assert "B-2" in capsys.readouterr().err
    assert main(["ledger", "resolve", "A-1", "--created", "999", "--why", "seen"]) == 1
    assert "A-1: skipped, KK lists no order '999'" in capsys.readouterr().err
    words = ["ledger", "resolve", "A-1", "--created", "999", "--why", "seen", "--json"]
    assert main(words) == 1
    assert json.loads(capsys.readouterr().out)["done"] is False
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
    assert "--never-created --why" not in capsys.readouterr().out
    assert main(["ledger", "resolve", "A-1", "--never-created", "--why", "I think so"]) == 1
    assert "KK has 7, 8 under A-1" in capsys.readouterr().err
    assert state(ledger, "A-1") == "held"


def test_order_again_needs_a_closed_order(ledger: SqlLedger, capsys: pytest.CaptureFixture[str]) -> None:
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
        (["list", "--state", "lost"], "--state lost does not exist"),
    ],
)
def test_an_impossible_resolution_is_reported_in_a_sentence(
    ledger: SqlLedger, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", *words]) == 1
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_ids_are_accepted_with_a_warning_only_when_their_goods_differ(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(ledger, "A-1")
    (kk_order,) = sandbox.control.place({SKU: 2}, number="A-1")
    words = ["ledger", "resolve", "A-1", "--created", kk_order, "--why", "seen"]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert f"the goods of A-1 are 1 x {SKU}, but those of these KK orders are 2 x {SKU}" in told
    assert "--yes" in told
    assert state(ledger, "A-1") == "held"
    assert main([*words, "--yes"]) == 0
    assert state(ledger, "A-1") == "created"


def test_ids_of_an_older_generation_are_rejected(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    (kk_order,) = sandbox.control.place({SKU: 1}, number="A-1")
    record(ledger, "A-1", "created", ids=(kk_order,))
    assert main(["ledger", "resolve", "A-1", "--order-again", "--why", "lost parcel"]) == 0
    hold(ledger, "A-1")
    assert main(["ledger", "resolve", "A-1", "--created", kk_order, "--why", "seen"]) == 1
    assert f"{kk_order} belongs to generation 1 of A-1" in capsys.readouterr().err
    assert state(ledger, "A-1") == "held"


def test_several_orders_are_resolved_only_after_a_yes(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in ("A-1", "A-2"):
        hold(ledger, number)
    words = ["ledger", "resolve", "A-1", "A-2", "--never-created", "--why", "not on the site"]

    assert main(words) == 1
    told = capsys.readouterr().err
    assert "A-1: held" in told
    assert "no terminal for an answer. To confirm, give --yes" in told

    answer_at_a_terminal(monkeypatch, "n")
    assert main(words) == 1
    assert "nothing was done" in capsys.readouterr().err
    assert {state(ledger, number) for number in ("A-1", "A-2")} == {"held"}

    answer_at_a_terminal(monkeypatch, "y")
    assert main(words) == 0
    assert {state(ledger, number) for number in ("A-1", "A-2")} == {"not_sent"}


def answer_at_a_terminal(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    terminal = io.StringIO(f"{answer}\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)


def test_of_several_orders_those_that_cannot_be_resolved_are_skipped_and_named(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(ledger, "A-1")
    refuse(ledger, "A-2")
    words = ["ledger", "resolve", "A-1", "A-2", "--never-created", "--why", "x", "--yes", "--json"]
    assert main(words) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["custom_order_number"], line["done"]) for line in lines] == [("A-1", True), ("A-2", False)]
    assert "kk ledger retry A-2" in lines[1]["message"]


@pytest.mark.parametrize(
    "words",
    [
        ["resolve", "A-1", "--never-created"],
        ["resolve", "A-1", "--never-created", "--why", " "],
        ["resolve", "A-1", "--why", "x"],
        ["retry", "A-1"],
        ["retry", "A-1", "--code", "sold out", "--why", "x"],
        ["list", "--older-than", "yesterday"],
    ],
)
def test_a_resolution_needs_a_reason_and_a_kind(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["ledger", *words])
    assert ended.value.code == 2


def test_a_container_user_without_a_name_must_give_who(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 50000")

    refuse(ledger, "A-1")
    monkeypatch.setattr("getpass.getuser", nameless)
    assert main(["ledger", "retry", "A-1", "--why", "restocked"]) == 1
    assert "Give --who" in capsys.readouterr().err
    assert main(["ledger", "retry", "A-1", "--why", "restocked", "--who", "ann"]) == 0


def test_the_list_is_narrowed_by_code_and_by_age(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(ledger, "A-1", 40_010)
    refuse(ledger, "A-2", 40_009)
    assert listed(["--code", "40009"], capsys) == ["A-2"]
    assert listed(["--older-than", "1h"], capsys) == []
    assert listed(["--older-than", "0s"], capsys) == ["A-1", "A-2"]
    assert listed(["--newer-than", "1h"], capsys) == ["A-1", "A-2"]
    assert listed(["--newer-than", "1h", "--older-than", "30m"], capsys) == []


def listed(words: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["ledger", "list", "--json", *words]) == 0
    return [json.loads(line)["custom_order_number"] for line in capsys.readouterr().out.splitlines()]


def test_the_list_leaves_out_what_was_ordered_again_and_reports_a_cut(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(ledger, "A-1")
    refuse(ledger, "A-2")
    assert main(["ledger", "list", "--limit", "1"]) == 0
    assert "There are more" in capsys.readouterr().out
    assert main(["ledger", "resolve", "A-1", "--order-again", "--why", "restocked"]) == 0
    capsys.readouterr()
    assert listed(["--state", "rejected"], capsys) == ["A-2"]


# Retry ---------------------------------------------------------------------------------------------


def test_a_retry_of_a_rejected_order_skips_its_backoff(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    before = refuse(ledger, "A-1")
    assert before.retry_after > ledger.now()
    assert main(["ledger", "retry", "A-1", "--why", "restocked", "--who", "ann"]) == 0
    after = ledger.look_up(["A-1"])["A-1"]
    assert after.state.value == "rejected"
    assert after.retry_after <= ledger.now()
    assert (after.settle_after, after.rejections) == (before.settle_after, before.rejections)
    assert after.resolved_by == "ann: restocked"
    shown = capsys.readouterr().out
    assert "A-1: the next sync that selects it sends it" in shown
    assert "KK's list is read first" in shown
    assert main(["ledger", "show", "A-1"]) == 0
    assert "retry after: now, after kk ledger retry" in capsys.readouterr().out


def test_a_retry_does_not_shorten_the_settle_window(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow_provider_kk.delivery.model import Timing

    ledger.timing = Timing(0.01, 0.02, 600)
    before = refuse_without_waiting(ledger, "A-1")
    assert main(["ledger", "retry", "A-1", "--why", "restocked"]) == 0
    assert "A-1: its settle window ends at " in capsys.readouterr().out
    assert ledger.look_up(["A-1"])["A-1"].settle_after == before.settle_after


def refuse_without_waiting(ledger: SqlLedger, number: str) -> Record:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda seconds: None)
        return refuse(ledger, number)


def test_orders_are_retried_by_their_code(ledger: SqlLedger, capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("A-1", "A-2"):
        refuse(ledger, number, 40_010)
    refuse(ledger, "B-1", 40_009)
    words = ["ledger", "retry", "--code", "40010", "--why", "restocked"]
    assert main(words) == 1
    assert "give --yes" in capsys.readouterr().err
    assert main([*words, "--yes", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["custom_order_number"] for line in lines} == {"A-1", "A-2"}
    assert ledger.look_up(["B-1"])["B-1"].retry_after > ledger.now()
    assert main(["ledger", "retry", "--all", "--why", "all mended", "--yes"]) == 0
    assert ledger.look_up(["B-1"])["B-1"].retry_after <= ledger.now()


def test_an_order_that_is_not_rejected_is_skipped_with_what_becomes_of_it(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(ledger, "A-1")
    record(ledger, "A-2", "unknown", message="reset")
    hold(ledger, "A-3")
    record(ledger, "A-4", "created", ids=("7",))
    assert main(["ledger", "retry", "A-1", "A-2", "A-3", "A-4", "--why", "x", "--yes"]) == 1
    shown = capsys.readouterr()
    assert "A-1: the next sync that selects it sends it" in shown.out
    assert "A-2: skipped, in doubt: KK may have it. Each sync of the account reconciles it" in shown.err
    assert "A-3: skipped, held" in shown.err
    assert "A-4: skipped, created" in shown.err
    assert "3 orders skipped" in shown.err
    assert [state(ledger, f"A-{n}") for n in (1, 2, 3, 4)] == ["rejected", "in_doubt", "held", "created"]


def test_an_order_that_moves_meanwhile_is_skipped(
    ledger: SqlLedger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(ledger, "A-1")
    refuse(ledger, "A-2")

    class Slow(io.StringIO):
        def isatty(self) -> bool:
            return True

        def readline(self, size: int | None = -1) -> str:
            record(ledger, "A-1", "created", ids=("7",))  # while the human thinks
            return "y\n"

    monkeypatch.setattr("sys.stdin", Slow())
    assert main(["ledger", "retry", "--all", "--why", "x"]) == 1
    shown = capsys.readouterr()
    assert "A-1: skipped, it changed meanwhile" in shown.err
    assert "A-2: the next sync that selects it sends it" in shown.out
    assert state(ledger, "A-1") == "created"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give order numbers, --code CODE or --all"),
        (["A-1", "--all"], "give order numbers, --code CODE or --all"),
        (["nobody"], "nobody is not in the ledger"),
        (["--code", "1"], "no order is rejected with code 1. Codes of the rejected orders: 40010 (1)"),
    ],
)
def test_a_retry_without_orders_is_a_usage_error(
    ledger: SqlLedger, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(ledger, "A-1")
    assert main(["ledger", "retry", *words, "--why", "x"]) == 1
    assert told in capsys.readouterr().err


def test_without_a_ledger_connection_it_names_the_argument_to_give(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kk = {"conn_type": "kk", "host": sandbox.url, "password": sandbox.token}
    monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(kk))
    assert main(["ledger", "list"]) == 2
    assert "--ledger-conn-id" in capsys.readouterr().err


def test_held_refunds_are_listed_apart_from_orders_with_their_commands(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(refund_ledger(ledger), "1000000371651-whole")

    assert main(["ledger", "list"]) == 0
    assert "1000000371651-whole" not in capsys.readouterr().out
    assert main(["ledger", "list", "--refunds"]) == 0
    assert "1000000371651-whole  held" in capsys.readouterr().out
    assert main(["ledger", "list", "--refunds", "--json"]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (row["refund_key"], row["refund_nos"]) == ("1000000371651-whole", [])
    assert main(["ledger", "show", "--refunds", "1000000371651-whole"]) == 0
    assert "resolve --refunds 1000000371651-whole --never-created" in capsys.readouterr().out
    assert main(["ledger", "retry", "--refunds", "1000000371651-whole", "--why", "x"]) == 1
    assert "1 refund skipped" in capsys.readouterr().err
    again = ["--order-again", "--why", "again"]
    assert main(["ledger", "resolve", "--refunds", "1000000371651-whole", *again]) == 1


@pytest.mark.parametrize("words", [["list"], ["show", "A-1"]])
def test_clock_that_is_off_is_named_where_an_order_in_doubt_waits_for_it(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    record(ledger, "A-1", "unknown", message="reset")
    assert main(["ledger", *words]) == 0
    assert "clock" not in capsys.readouterr().out

    sandbox.control.advance(7_200)
    assert main(["ledger", *words]) == 0
    assert re.search(
        r"The clock of KK is 7\d{3} s ahead of the clock of this machine. Orders in doubt wait up to "
        r"7\d{3} s longer because of it. Check the time of this machine first",
        capsys.readouterr().out,
    )


def test_kk_is_not_asked_for_its_clock_where_no_order_waits_for_it(
    ledger: SqlLedger, sandbox: SandboxServer
) -> None:
    hold(ledger, "A-1")
    before = len(sandbox.control.requests())
    assert main(["ledger", "list"]) == 0
    assert len(sandbox.control.requests()) == before
