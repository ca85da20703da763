"""Order numbers from elsewhere move no cursor and forge no line."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_kk.cli.main import main
from tests.cli.conftest import SKU, refuse
from tests.cli.files import write_csv
from tests.operators.shop import rows

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


def test_colours_and_a_progress_bar_are_on_a_terminal_only(
    ledger: SqlLedger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = write_csv(tmp_path / "orders.csv", rows(range(3)))
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")

    written = on_a_terminal("send", "--yes", name)
    assert "3/3" in written
    assert "\x1b[32m        3  created" in written
    assert is_plain(on_a_terminal("send", "--yes", "--json", name))
    monkeypatch.setenv("NO_COLOR", "1")
    assert is_plain(on_a_terminal("send", "--yes", name))


def is_plain(written: str) -> bool:
    """Whether what we write has no colours and no bar; Airflow 2.11 colours its own warnings."""
    ours = [line for line in written.splitlines() if "airflow/" not in line and "crypto.py" not in line]
    return "3/3" not in written and not any("\x1b[" in line for line in ours)


def on_a_terminal(*words: str) -> str:
    """What `kk` writes to a terminal, in a process of its own."""
    ours, theirs = os.openpty()
    done = subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_kk.cli.main", *words],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    try:
        while piece := os.read(ours, 65_536):
            written += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    done.wait()
    return written.decode()


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
