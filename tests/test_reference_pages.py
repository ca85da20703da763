"""The reference pages of docs/ name exactly what the code has: commands, columns, metrics, states."""

from __future__ import annotations

import re

import pytest

from airflow_provider_kk.api.fulfilment import FulfilmentStatus
from airflow_provider_kk.delivery.states import State
from tests.test_public_interface import commands, ledger_tables, metric_names, warehouse_tables
from tests.test_readme import PAGES, codes, section, table

COMMANDS = commands()
COLUMNS = ledger_tables() | warehouse_tables()
#: Described by their differences from the tables of orders, or in a sentence.
DESCRIBED_IN_PROSE = {"kk_refund", "kk_refund_attempt", "kk_results", "kk_status_sync"}


def part(page: str, heading: str) -> str:
    """What stands below a heading of the second level."""
    (found,) = re.findall(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", PAGES[page], re.M | re.S)
    return found


@pytest.mark.parametrize("command", COMMANDS)
def test_the_cli_page_names_every_option_and_argument(command: str):
    text = part("docs/cli.md", command)
    named = set(re.findall(r"`(--[a-z][a-z-]*)", text)) | {
        name for name in codes(text) if name in ("FILE", "NUMBER", "number")
    }
    assert named == COMMANDS[command]


def test_the_cli_page_has_every_command():
    assert set(re.findall(r"^## (kk .*)$", PAGES["docs/cli.md"], re.M)) == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(set(COLUMNS) - DESCRIBED_IN_PROSE))
def test_the_tables_page_describes_every_column(name: str):
    rows = table(section("docs/tables.md", name))
    assert {column for row in rows for column in codes(row[0])} == COLUMNS[name]


def test_the_tables_page_describes_every_column_of_append_write_back():
    rows = table(section("docs/tables.md", "Results of append write-back"))
    assert {codes(row[0])[0] for row in rows} == COLUMNS["kk_results"]


@pytest.mark.parametrize("table_name", ["kk_refund", "kk_refund_attempt"])
def test_refunds_differ_from_orders_only_as_described(table_name: str):
    like = COLUMNS[table_name.replace("refund", "order")]
    renamed = {"custom_order_number": "refund_key", "kk_order_ids": "refund_nos"}
    assert {renamed.get(name, name) for name in like} == COLUMNS[table_name]


def test_the_metrics_page_has_every_metric():
    assert set(re.findall(r"`(kk\.[a-z._]+)`", PAGES["docs/metrics.md"])) == set(metric_names())


def test_the_states_page_has_every_state_of_the_ledger_and_of_fulfilment():
    rows = table(section("docs/states-and-counts.md", "States of the ledger"))
    assert {codes(row[0])[0] for row in rows} == {state.value for state in State}
    fulfilment = section("docs/states-and-counts.md", "Fulfilment statuses")
    (line,) = re.findall(r"^(`created`, `waiting_payment`.*)\.$", fulfilment, re.M)
    assert codes(line) == [status.value for status in FulfilmentStatus]
