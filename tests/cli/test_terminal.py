"""Order numbers from elsewhere move no cursor and forge no line."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_kk.cli.main import main
from tests.cli.conftest import SKU, refuse

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sandbox.server import SandboxServer

EVIL = "\x1b[31mA-1\x9b2K\n2 orders: 2 created"
SHOWN = r"\x1b[31mA-1\x9b2K\n2 orders: 2 created"


def is_clean(*told: str) -> bool:
    return not any(one in text for text in told for one in ("\x1b", "\x9b", "\n2 orders: 2 created"))


def test_a_number_in_a_file_is_shown_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "orders.jsonl"
    address = {"country": "FR", "phone": "1", "recipient": "x", "province": "y"}
    file.write_text(json.dumps({"custom_order_number": EVIL, **address, "sku": SKU, "quantity": 1}))

    main(["check", str(file)])

    told = capsys.readouterr()
    assert SHOWN in told.out
    assert is_clean(told.out, told.err)


def test_a_number_in_the_ledger_is_shown_escaped(
    ledger: SqlLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(ledger, EVIL, message=EVIL)
    capsys.readouterr()

    for words in (["list"], ["show", EVIL], ["retry", EVIL, "--yes", "--why", "x"], ["show", f"no {EVIL}"]):
        main(["ledger", *words])
        told = capsys.readouterr()
        assert SHOWN in told.out + told.err, words
        assert is_clean(told.out, told.err), words


def test_a_number_in_kk_s_list_is_shown_escaped(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.control.place({SKU: 1}, number=EVIL)
    sandbox.control.advance(5)
    capsys.readouterr()

    main(["audit"])

    told = capsys.readouterr()
    assert SHOWN in told.out
    assert is_clean(told.out, told.err)


def test_a_number_in_the_warehouse_forges_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    from airflow_provider_kk.delivery.log import OrderLog
    from airflow_provider_kk.delivery.run_queue import RunResult, RunStatus

    log = OrderLog(logging.getLogger(__name__))

    one = RunResult(1, "#1", RunStatus.INVALID, True, (), None, "is odd", name=EVIL)

    one.warn(log)
    log.flush()

    assert caplog.messages == [f"Order {SHOWN} (row 1) is invalid: is odd"]
