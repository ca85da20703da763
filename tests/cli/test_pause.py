"""`kk pause` and `kk resume`: who, why and when, and what the other commands say meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_kk.cli.main import main
from tests.cli.test_audit import post

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sandbox.server import SandboxServer

HEADER = "custom_order_number,country,phone,recipient,province,sku,quantity\n"


@pytest.fixture
def orders(tmp_path: Path) -> str:
    file = tmp_path / "orders.csv"
    rows = (f"A-{n},FR,0102030405,Sample,Here,FWXW00290_WHT_M,1\n" for n in range(3))
    file.write_text(HEADER + "".join(rows))
    return str(file)


def test_pause_postpones_what_kk_send_would_send(
    orders: str, ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pause", "--why", "wrong query", "--who", "ann"]) == 0
    assert main(["pause", "--why", "again", "--who", "bea"]) == 0
    assert main(["send", orders, "--yes"]) == 1
    said = capsys.readouterr()
    assert "3  postponed" in said.out
    assert "by ann: wrong query" in said.err
    assert sandbox.control.orders() == []
    assert main(["resume", "--why", "fixed"]) == 0
    assert main(["send", orders, "--yes"]) == 0
    assert len(sandbox.control.orders()) == 3


def test_ledger_list_begins_with_the_pause(ledger: SqlLedger, capsys: pytest.CaptureFixture[str]) -> None:
    main(["pause", "--why", "wrong query", "--who", "ann"])
    capsys.readouterr()
    assert main(["ledger", "list"]) == 0
    assert capsys.readouterr().err.startswith("Sending is paused since")
    main(["resume"])
    capsys.readouterr()
    main(["ledger", "list"])
    assert "paused" not in capsys.readouterr().err


def test_cancel_works_while_all_is_paused(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.control.set(pay_after_s=0.0)
    post(ledger, "A-1")
    main(["pause", "--why", "wrong query"])
    assert main(["cancel", "A-1", "--why", "wrong query", "--yes"]) == 0


def test_resume_without_a_pause_says_so(ledger: SqlLedger, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume"]) == 0
    assert "was not paused" in capsys.readouterr().out


def test_pause_needs_a_reason(ledger: SqlLedger, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["pause"])
    assert stopped.value.code == 2
