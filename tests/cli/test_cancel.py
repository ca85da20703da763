"""`kk cancel`: an order at KK is refunded as a whole, once, and only before it ships."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_kk.cli.main import main
from airflow_provider_kk.delivery.states import Event
from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.sync import resolution
from airflow_provider_kk.sync.record_types import ORDERS
from airflow_provider_kk.sync.resolution import ResolutionRequest, ResolvedBy, apply_resolutions
from tests.cli.conftest import hold, record, refuse
from tests.cli.test_audit import SPLIT, post

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sandbox.server import SandboxServer

pytestmark = pytest.mark.usefixtures("paid")


@pytest.fixture
def paid(sandbox: SandboxServer) -> None:
    sandbox.control.set(pay_after_s=0.0, refund_after_s=1.0)


def cancel(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit status, and what became of each order."""
    capsys.readouterr()
    status = main(["cancel", *words, "--why", "bought twice", "--yes", "--json"])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return status, {line["custom_order_number"]: line for line in lines}


def refunds(sandbox: SandboxServer) -> list[dict[str, Any]]:
    return [one for one in sandbox.control.requests() if one["path"].endswith("/refund")]


def test_cancelled_order_is_refunded_once(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    post(ledger, "A-2")
    status, done = cancel(capsys, "A-1")
    assert (status, done["A-1"]["done"]) == (0, True)
    assert cancel(capsys, "A-1")[0] == 0
    assert len(refunds(sandbox)) == 1
    assert main(["ledger", "show", "A-1"]) == 0
    kk_id = sandbox.control.orders("A-1")[0]["id"]
    assert f"\nrefund {kk_id}-whole: created 2" in capsys.readouterr().out
    sandbox.control.advance(5)
    states = {number: sandbox.control.orders(number)[0]["state"] for number in ("A-1", "A-2")}
    assert states == {"A-1": "refunded", "A-2": "paid"}
    assert cancel(capsys, "A-1")[0] == 0
    assert len(refunds(sandbox)) == 1


def test_all_splits_of_an_order_are_cancelled(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1", SPLIT)
    assert cancel(capsys, "A-1")[0] == 0
    assert len(refunds(sandbox)) == 2


def test_shipped_order_is_not_cancelled(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    post(ledger, "A-2")
    sandbox.control.move(sandbox.control.orders("A-1")[0]["id"], "shipped")
    status, done = cancel(capsys, "A-1", "A-2")
    assert status == 1
    assert "it is shipped, and KK refunds only unshipped orders" in done["A-1"]["message"]
    assert done["A-2"]["done"]
    assert len(refunds(sandbox)) == 1


def test_lost_response_of_a_cancellation_is_not_asked_for_twice(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    sandbox.control.arm("drop_after_commit", times=1)
    status, done = cancel(capsys, "A-1")
    assert status == 1
    assert "the refund of A-1 is in doubt" in done["A-1"]["message"]
    assert cancel(capsys, "A-1")[0] == 1
    assert len(refunds(sandbox)) == 1


@pytest.mark.parametrize("state", ["rejected", "held", "in doubt"])
def test_order_that_is_not_created_is_not_cancelled(
    state: str, ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    if state == "rejected":
        refuse(ledger, "A-1")
    elif state == "held":
        hold(ledger, "A-1")
    else:
        record(ledger, "A-1", "unknown")
    status, done = cancel(capsys, "A-1")
    assert status == 1
    assert done["A-1"]["message"].startswith(f"skipped, A-1 is {state}")
    assert refunds(sandbox) == []


def test_nothing_is_cancelled_while_kk_cannot_be_read(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post(ledger, "A-1")
    post(ledger, "A-2")
    sandbox.control.arm("auth", method=None)
    assert main(["cancel", "A-1", "A-2", "--why", "x", "--yes"]) == 2
    shown = capsys.readouterr()
    assert "KK cannot be read" in shown.err
    assert "A-2" not in shown.out
    assert refunds(sandbox) == []


def test_an_order_that_kk_cannot_be_asked_about_does_not_keep_the_others(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(ledger, "A-1")
    post(ledger, "A-2")
    post(ledger, "A-3")
    sandbox.control.arm("auth", method=None, times=1)
    status, done = cancel(capsys, "A-1", "A-2", "A-3")
    assert status == 1
    assert "KK cannot be read" in done["A-2"]["message"]
    assert done["A-3"]["done"]


def test_unknown_order_is_named(ledger: SqlLedger, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cancel", "B-9", "--why", "x", "--yes"]) == 2
    assert "B-9 is not in the ledger" in capsys.readouterr().err


def test_order_that_a_colleague_changes_between_its_check_and_its_cancellation_stays(
    ledger: SqlLedger, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(ledger, "A-1")
    request = ResolutionRequest(ORDERS, "cancel", {"A-1": ledger.look_up(["A-1"])["A-1"].version})

    def colleague(record: Record, hook: KKHook, ledger: SqlLedger) -> None:
        assert ledger.hold(record, Event.CONFLICT, "conflict") is not None

    monkeypatch.setattr(resolution.checks, "require_cancellable", colleague)
    by = ResolvedBy("anna", "bought twice")
    (result,) = apply_resolutions(request, by, KKHook(), ledger, lambda doubt: True)
    assert not result.is_done
    assert "changed meanwhile" in result.message
    assert refunds(sandbox) == []
