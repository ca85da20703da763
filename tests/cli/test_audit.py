"""`kk audit`: on a local KK, through the operators' own code and by hand."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_kk.cli.main import main
from airflow_provider_kk.delivery.resolution import order_again
from tests.cli.conftest import SKU, hold, record

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sandbox.server import SandboxServer

#: KK splits an order of these two: they lie in two countries.
SPLIT = {SKU: 2, "USTS00015_BLK_S": 1}


def post(ledger: SqlLedger, number: str, goods: Mapping[str, int] | None = None) -> str:
    """Really send an order to KK through delivery; its state."""
    from airflow_provider_kk.api.models import Order
    from airflow_provider_kk.delivery.attempt import attempt
    from airflow_provider_kk.delivery.model import Origin, Timing, order_job
    from airflow_provider_kk.hooks.kk import KKHook

    lines = [{"sku": sku, "quantity": pieces} for sku, pieces in (goods or {SKU: 1}).items()]
    address = {"country": "FR", "phone": "0102030405", "recipient": "Sample", "province": "Here"}
    order = Order.parse({"custom_order_number": number, "address": address, "items": lines})
    with KKHook().get_conn() as client, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "timing", Timing(timeout_s=5.0, lease_s=10.0, settle_window_s=0.01))
        seen = ledger.look_up([number]).get(number)
        done = attempt(
            order_job(order, client), seen, ledger, origin=Origin(), sync_id="s", kk_skew_s=lambda: 0.0
        )
    assert done is not None
    return done[0].state.value


def audited(
    sandbox: SandboxServer, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, dict[str | None, dict[str, Any]], dict[str, int]]:
    """The exit status, the findings by number, and the counts."""
    sandbox.control.advance(5)  # KK tells its time in whole seconds, and the youngest are left out
    time.sleep(0.05)
    capsys.readouterr()  # Airflow 2.11 logs to standard output what the test itself does
    status = main(["audit", "--json", *words])
    *lines, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return status, {line["custom_order_number"]: line for line in lines}, last["counts"]


def verdicts(findings: Mapping[str | None, Mapping[str, Any]]) -> dict[str | None, str]:
    return {key: one["verdict"] for key, one in findings.items()}


def test_all_agree_when_each_was_created_once_splits_included(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert post(ledger, "A-1") == "created"
    sandbox.control.set(answer="first")  # hides the further ids of a split
    assert post(ledger, "A-2", SPLIT) == "created"
    assert len(sandbox.control.orders("A-2")) == 2
    assert audited(sandbox, capsys) == (0, {}, {"agrees": 2})


def test_a_duplicate_from_a_replayed_post_is_named(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    sandbox.control.arm("duplicate_by_proxy", times=1)
    assert post(ledger, "A-2", SPLIT) == "created"
    status, findings, counts = audited(sandbox, capsys)
    assert (status, verdicts(findings), counts) == (1, {"A-2": "more"}, {"agrees": 1, "more": 1})
    assert len(findings["A-2"]["kk_ids"]) == 4
    assert findings["A-2"]["should_have"] == SPLIT


def test_the_table_ends_with_a_line_of_counts(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    sandbox.control.arm("duplicate_by_proxy", times=1)
    post(ledger, "A-2")
    sandbox.control.advance(5)
    capsys.readouterr()
    assert main(["audit"]) == 1
    head, row, last = capsys.readouterr().out.splitlines()
    assert head.startswith("order number")
    assert row.startswith("A-2")
    second = sandbox.control.orders("A-2")[1]["id"]
    assert f"KK has this order 2 times; the ledger does not have {second}" in row
    assert last.startswith("2 order numbers of account default")
    assert last.endswith("1 agree, 1 more")


def test_a_duplicate_that_was_refunded_at_kk_is_over(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow_provider_kk.hooks.kk import KKHook

    sandbox.control.set(pay_after_s=0.0, refund_after_s=1.0)
    sandbox.control.arm("duplicate_by_proxy", times=1)
    post(ledger, "A-1")
    assert audited(sandbox, capsys)[0] == 1
    (known,) = ledger.look_up(["A-1"])["A-1"].kk_order_ids
    (surplus,) = [one["id"] for one in sandbox.control.orders("A-1") if one["id"] != known]
    KKHook().refund_order(surplus, "ordered twice")
    assert audited(sandbox, capsys) == (0, {}, {"agrees": 1})


def test_half_a_split_that_kk_made_before_its_rejection_is_named(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    sandbox.control.arm("half_split", times=1)
    assert post(ledger, "A-2", SPLIT) == "rejected"
    status, findings, _ = audited(sandbox, capsys)
    assert (status, verdicts(findings)) == (1, {"A-2": "more"})
    assert findings["A-2"]["state"] == "rejected"


def test_hand_placed_orders_are_unclaimed_or_without_a_number(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.control.place({SKU: 1})
    assert audited(sandbox, capsys)[0] == 0
    sandbox.control.place({SKU: 1}, number="by-hand", age_s=10)
    status, findings, _ = audited(sandbox, capsys)
    assert (status, verdicts(findings)) == (1, {"by-hand": "unclaimed", None: "unnumbered"})


def test_an_order_that_kk_does_not_show_is_missing(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    record(ledger, "A-2", "created", ids=("999",))
    status, findings, _ = audited(sandbox, capsys)
    assert (status, verdicts(findings)) == (1, {"A-2": "missing"})


def test_a_second_generation_agrees_and_a_second_order_without_one_does_not(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    row = ledger.look_up(["A-1"])["A-1"]
    with pytest.MonkeyPatch.context() as patch:
        for clock, name in ((ledger, "now"), (ledger.clock, "wall")):
            patch.setattr(clock, name, lambda: row.settle_after + 1)  # the settle window has passed
        assert order_again(ledger, row, who="ann", why="lost parcel")
    assert post(ledger, "A-1") == "created"
    assert audited(sandbox, capsys)[0] == 0
    sandbox.control.place({SKU: 1}, number="A-1")
    status, findings, _ = audited(sandbox, capsys)
    assert (status, verdicts(findings)) == (1, {"A-1": "more"})
    assert findings["A-1"]["generation"] == 2


def test_orders_that_are_open_are_named_and_not_called_wrong(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.control.arm("drop_after_commit", times=1)
    assert post(ledger, "A-1") == "in_doubt"
    status, findings, _ = audited(sandbox, capsys)
    assert (status, verdicts(findings)) == (0, {"A-1": "open"})
    assert findings["A-1"]["state"] == "in_doubt"
    assert "settle window is open until" in findings["A-1"]["message"]


@pytest.mark.parametrize(
    "words", [["--since", "2h", "--until", "1h"], ["--since", "2001-01-01", "--until", "3d"]]
)
def test_a_period_without_orders_has_nothing_to_compare(
    ledger: SqlLedger, sandbox: SandboxServer, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    assert audited(sandbox, capsys, *words) == (0, {}, {})


def test_an_order_of_an_hour_ago_is_searched_in_its_own_hour(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    sandbox.control.place({SKU: 1}, number="old", age_s=5_400)
    status, findings, _ = audited(sandbox, capsys, "--since", "2h", "--until", "1h")
    assert (status, verdicts(findings)) == (1, {"old": "unclaimed"})


def test_an_inconclusive_audit_exits_with_2_and_the_reason(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    sandbox.control.advance(5)
    sandbox.control.arm("status_before_commit", method="GET", times=2)
    assert main(["audit"]) == 2
    assert "kk audit: the request to KK failed: " in capsys.readouterr().err
    sandbox.control.disarm()
    sandbox.control.reset()  # as the token of another store
    assert main(["audit"]) == 2
    assert "Check that the access token belongs to this store" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--since", "last week"],
            "--since 'last week' is not a time. Write 2026-01-31T08:00, or an age such as 6h",
        ),
        (["--since", "1h", "--until", "2h"], "the period is empty"),
        (["--kk-conn-id", "missing"], "missing"),
    ],
)
def test_wrong_arguments_are_reported_in_a_sentence(
    ledger: SqlLedger, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", *words]) == 2
    assert told in capsys.readouterr().err


def test_a_period_that_is_too_young_is_cut_with_a_message(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    sandbox.control.advance(5)
    assert main(["audit", "--until", "0s"]) == 0
    assert "this ends at" in capsys.readouterr().err


def test_its_progress_and_its_findings_hold_nothing_of_a_customer(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    sandbox.control.place({SKU: 1}, number="B-1", recipient="Jane Placeholder", zip="75001")
    sandbox.control.advance(5)
    for words in (["audit"], ["audit", "--json"]):
        assert main(words) == 1
        shown = capsys.readouterr()
        assert "Placeholder" not in shown.out + shown.err
        assert "75001" not in shown.out + shown.err


def test_history_of_real_attempts_breaks_no_rule(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    sandbox.control.arm("code_in_envelope", times=1)
    post(ledger, "A-2")
    record(ledger, "A-3", "unknown")
    hold(ledger, "A-4")
    capsys.readouterr()
    assert main(["audit", "--history"]) == 0
    assert "4 order numbers and 4 attempts of account default" in capsys.readouterr().out


def test_tampered_history_is_named(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    post(ledger, "A-2")
    with ledger.storage.database.write() as db:
        db.exec_driver_sql("DELETE FROM kk_order_attempt WHERE custom_order_number = 'A-2'")
    capsys.readouterr()
    assert main(["audit", "--history", "--json"]) == 1
    found, counts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (found["custom_order_number"], found["rule"]) == ("A-2", "attempts")
    assert counts == {"orders": 2, "attempts": 1, "broken_rules": 1}


def test_history_names_the_orders_above_the_daily_cap(
    ledger: SqlLedger,
    sandbox: SandboxServer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record(ledger, "A-3", "created", ids=("1",))
    record(ledger, "A-2", "rejected")  # buys nothing
    record(ledger, "A-1", "unknown")
    record(ledger, "A-0", "created", ids=("2",))

    def audit_with_cap(max_orders_per_day: int) -> tuple[int, list[dict[str, Any]]]:
        kk = json.loads(os.environ["AIRFLOW_CONN_KK_DEFAULT"])
        kk["extra"]["max_orders_per_day"] = max_orders_per_day
        monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(kk))
        capsys.readouterr()
        status = main(["audit", "--history", "--json"])
        return status, [json.loads(line) for line in capsys.readouterr().out.splitlines()[:-1]]

    assert audit_with_cap(3) == (0, [])
    status, found = audit_with_cap(2)
    assert status == 1
    assert [(one["custom_order_number"], one["rule"]) for one in found] == [("A-0", "daily cap")]
    assert "and max_orders_per_day is 2" in found[0]["message"]


def test_history_takes_no_period(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", "--history", "--since", "1d"]) == 2
    assert "Leave --since and --until out" in capsys.readouterr().err
