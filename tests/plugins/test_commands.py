"""The commands to copy: what the shell and `kk` make of them."""

from __future__ import annotations

import argparse
import shlex

import pytest

from airflow_provider_kk.cli.ledger import add_arguments
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.plugins.commands import commands
from airflow_provider_kk.plugins.places import Place

PLACE = Place("kk_default", "ware house")


def parsed(line: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    kk, ledger, *words = shlex.split(line)
    assert (kk, ledger) == ("kk", "ledger")
    return parser.parse_args(words)


@pytest.mark.parametrize("number", ["A-1", "A 1", "it's", "-7", "--yes", "$(reboot)", "a;b"])
@pytest.mark.parametrize("ids", [(), ("1001", "1002")])
def test_a_shell_and_kk_read_what_was_meant(number: str, ids: tuple[str, ...]):
    created, never = (parsed(one.line) for one in commands(number, State.HELD, ids, PLACE.options))
    for said in (created, never):
        assert said.number == [number]
        assert (said.kk_conn_id, said.ledger_conn_id) == ("kk_default", "ware house")
        assert said.why == "..."
    assert created.created == (",".join(ids) or "ID[,ID...]")
    assert never.never_created
    assert never.not_mine == (",".join(ids) or None)


def test_a_rejected_order_can_be_asked_for_again_and_a_created_one_needs_nothing():
    (retry,) = commands("A-1", State.REJECTED, (), PLACE.options)
    assert parsed(retry.line).action == "retry"
    assert commands("A-1", State.CREATED, ("1",), PLACE.options) == []
