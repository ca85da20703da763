"""The commands to copy: what the shell and `kk` make of them."""

from __future__ import annotations

import argparse
import shlex

import pytest

from airflow_provider_kk.cli.ledger_command import add_arguments
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.sync.record_types import ORDERS, REFUNDS, RecordType, resolve_commands

OPTIONS = "--kk-conn-id kk_default --ledger-conn-id 'ware house'"


def parsed(line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    kk, ledger, *words = shlex.split(line)
    assert (kk, ledger) == ("kk", "ledger")
    return parser.parse_args(words)


def said(
    key: str, state: State, ids: tuple[str, ...], record_type: RecordType = ORDERS
) -> list[argparse.Namespace]:
    found = resolve_commands(key, state, ids, record_type, options=OPTIONS)
    assert found is not None
    return [parsed(one.line) for one in found.commands]


@pytest.mark.parametrize("number", ["A-1", "A 1", "it's", "-7", "--yes", "$(reboot)", "a;b"])
@pytest.mark.parametrize("ids", [(), ("1001", "1002")])
@pytest.mark.parametrize("state", [State.HELD, State.IN_DOUBT, State.SENDING])
def test_a_shell_and_kk_read_what_was_meant(number: str, ids: tuple[str, ...], state: State):
    created, never, *others = said(number, state, ids)
    for one in (created, never, *others):
        assert (one.action, one.number, one.record_type, one.why) == ("resolve", [number], ORDERS, "...")
        assert (one.kk_conn_id, one.ledger_conn_id) == ("kk_default", "ware house")
    assert created.created == (",".join(ids) or "ID[,ID...]")
    assert never.never_created
    assert never.not_mine == (",".join(ids) or None)
    assert [one.order_again for one in others] == [True] * bool(ids)


def test_a_refund_has_commands_of_its_own():
    created, never = said("1001-whole", State.HELD, (), REFUNDS)
    for one in (created, never):
        assert (one.action, one.number, one.record_type) == ("resolve", ["1001-whole"], REFUNDS)
    assert (created.created, never.never_created) == ("REFUND_NO", True)
    (created,) = said("1001-whole", State.HELD, ("7", "8"), REFUNDS)
    assert created.created == "7,8"
    (retry,) = said("1001-whole", State.REJECTED, (), REFUNDS)
    assert (retry.action, retry.record_type) == ("retry", REFUNDS)


def test_a_rejected_order_can_be_retried_and_a_created_one_needs_nothing():
    (retry,) = said("A-1", State.REJECTED, ())
    assert (retry.action, retry.number) == ("retry", ["A-1"])
    assert resolve_commands("A-1", State.CREATED, ("1",), ORDERS) is None
