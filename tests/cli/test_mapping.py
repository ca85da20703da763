"""`kk check` and `kk send` read shops' files by presets, paths, templates, constants and defaults."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_provider_kk.cli.main import main
from airflow_provider_kk.warehouse.presets import PRESETS
from tests.cli.files import write_csv
from tests.warehouse.test_presets import EXAMPLES, SHOPS

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sandbox.server import SandboxServer

SKU = "FWXW00290_WHT_M"


@pytest.mark.parametrize(
    "preset",
    list(PRESETS),
)
def test_a_preset_sends_its_example_in_one_command(
    ledger: SqlLedger, sandbox: SandboxServer, preset: str
) -> None:
    file, expected = SHOPS[preset]
    words = ["send", str(EXAMPLES / file), "--columns", preset, "--yes"]
    if preset == "etsy-csv":
        words += ["--default", "phone=='+1 617 555 0100'"]

    assert main(words) == 0

    found: dict[str, Counter[str]] = {}
    for one in sandbox.control.orders():
        found.setdefault(one["number"], Counter()).update(one["goods"])
    assert found == expected


def test_columns_help_shows_the_presets(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("check", "send"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--columns", "help"])

        assert not ended.value.code
        shown = capsys.readouterr().out
        assert all(f"{name}: " in shown for name in PRESETS)
        assert "\n  custom_order_number <- Name\n" in shown


HEAD = ("no", "First Name", "last", "to", "article", "quantity", "note")


@pytest.fixture
def file(tmp_path: Path) -> str:
    ship_to = '{"country": "FR", "street": "7 Rue Test", "town": "Paris", "code": "75001"}'
    return write_csv(tmp_path / "orders.csv", [("A-1", "Ida", "Test", ship_to, SKU, 1, "x")], HEAD)


MAPPED = [
    "custom_order_number=no", "recipient={first name} {last}", "country=to.country", "street1=to.street",
    "city=to.town", "zip=to.code", "sku=article", "phone=='+33 1'",
]  # fmt: skip


def options(columns: list[str]) -> list[str]:
    return [word for source in columns for word in ("--columns", source)]


def test_what_fills_each_field_is_shown_once(
    ledger: SqlLedger, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", file, *options(MAPPED), "--default", "province={city}"]) == 0

    logged = capsys.readouterr().err
    assert logged.count("recipient <- {first name} {last}; province <- {city}; street1 <- to.street") == 1
    assert "phone <- a constant" in logged
    assert "sku <- article; quantity <- quantity" in logged
    assert "ignored: note" in logged
    assert "+33 1" not in logged


def test_fields_without_a_column_are_named_for_the_whole_file(
    ledger: SqlLedger, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = [one for one in MAPPED if not one.startswith(("street1", "zip"))]

    assert main(["check", file, *options(columns), "--default", "province={city}"]) == 0

    captured = capsys.readouterr()
    assert "No column fills street1, zip." in captured.err
    assert "Order A-1 is valid, with a warning: address.zip" in captured.err
    assert "1 order with a warning, see above." in captured.out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--columns", "shopfy"], "did you mean 'shopify'"),
        (["--default", "province"], "is not FIELD=SOURCE"),
        (["--duplicate-rows", "drop"], "invalid choice"),
    ],
)
def test_a_wrong_option_is_a_usage_error(
    file: str, words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", file, *words])

    assert ended.value.code == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--columns", "recipient={first name"], "a brace without its pair"),
        (["--columns", "recipent=last"], "did you mean 'recipient'"),
        (["--columns", "phone=='+33"], "with both quotes"),
        (["--default", "provinz={city}"], "did you mean 'province'"),
    ],
)
def test_a_wrong_source_is_reported_in_a_sentence(
    ledger: SqlLedger, file: str, words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", file, *options(MAPPED), *words]) == 2

    assert why in capsys.readouterr().err


def test_a_column_that_is_not_there_is_named_with_what_was_meant(
    ledger: SqlLedger, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", file, *options([*MAPPED, "recipient={firstname} {last}"])]) == 2

    assert "no column firstname) (did you mean 'first name'?)" in capsys.readouterr().err
