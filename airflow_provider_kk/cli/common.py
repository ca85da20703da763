"""What the commands share: the ledger's place, tables, times, and asking before many rows change."""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql_ledger import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook

_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class CannotError(Exception):
    """Says why a command cannot be carried out, and what to do."""


def add_place(parser: argparse.ArgumentParser) -> None:
    """Declare where the ledger is."""
    parser.add_argument("--kk-conn-id", default="kk_default", help="the Airflow connection to KK")
    parser.add_argument("--ledger-conn-id", help="the ledger's connection, else the kk connection's")
    parser.add_argument("--warehouse-conn-id", help="the warehouse, when the ledger lives there")


def open_place(arguments: argparse.Namespace) -> tuple[KKHook, SqlLedger]:
    """Open the ledger of the arguments of `add_place`.

    :raises CannotError, LedgerUnusableError: says what to mend.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    from airflow_provider_kk.hooks.connection import InvalidConnectionError
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.hooks.ledger import ledger_place, open_ledger

    hook = KKHook(arguments.kk_conn_id)
    try:
        place = ledger_place(hook, arguments.ledger_conn_id, arguments.warehouse_conn_id)
        if place is not None:
            return hook, open_ledger(hook, place, threads=2)
    except (AirflowNotFoundException, InvalidConnectionError) as error:
        raise CannotError(str(error)) from error
    else:
        raise CannotError(
            f"{arguments.kk_conn_id!r} names no ledger. Give --ledger-conn-id, or --warehouse-conn-id when "
            "the ledger lives in the warehouse"
        )


def guarded(name: str, work: Callable[[], int], *, failed: int = 1) -> int:
    """Do the work of a command; what it cannot do is told in a sentence, with `failed` as exit status."""
    from sqlalchemy.exc import DBAPIError

    from airflow_provider_kk.api.errors import KKError
    from airflow_provider_kk.delivery.database import LedgerUnusableError, told
    from airflow_provider_kk.hooks.resolving import NotTakenError

    try:
        with _quiet_airflow():
            return work()
    except (CannotError, NotTakenError, LedgerUnusableError) as error:
        print(f"{name}: {error}", file=sys.stderr)
    except KKError as error:
        print(f"{name}: KK cannot be asked: {error}", file=sys.stderr)
    except DBAPIError as error:
        print(f"{name}: the ledger's database cannot be used: {told(error)}", file=sys.stderr)
    return failed


@contextmanager
def _quiet_airflow() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # Airflow 2.11 logs to standard output, between the lines of `--json`
    try:
        yield
    finally:
        logging.disable(before)


def confirm(what: Sequence[str], question: str, *, yes: bool) -> None:
    """Show what will be done and ask whether to do it.

    :raises CannotError: when the answer is no, or there is nobody to ask.
    """
    if yes:
        return
    for line in what[:_SHOWN]:
        print(f"  {line}", file=sys.stderr)
    if len(what) > _SHOWN:
        print(f"  and {len(what) - _SHOWN} more", file=sys.stderr)
    if not sys.stdin.isatty():
        raise CannotError(f"{question} There is no terminal to ask at: give --yes to do it. Nothing was done")
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CannotError("nothing was done")


_SHOWN = 20


def duration(text: str) -> float:
    """Read `90s`, `30m`, `2h`, `3d`, `1w` as seconds, for argparse."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration; write 90s, 30m, 2h, 3d or 1w")
    return float(found[1]) * _UNITS[found[2]]


def time(epoch: float) -> str:
    """Return a time as people read it; empty for 0."""
    from airflow_provider_kk.delivery.log import utc

    return utc(epoch)


def goods_told(goods: Mapping[str, int]) -> str:
    """Return goods as people read them."""
    return ", ".join(f"{quantity} x {sku}" for sku, quantity in sorted(goods.items())) or "nothing"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns; nothing when there are none."""
    lines = [list(head), *[list(row) for row in rows]]
    if len(lines) == 1:
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
