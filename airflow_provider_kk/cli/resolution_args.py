"""What commands on the ledger share: how rows are printed, and who resolves an order, and why."""

from __future__ import annotations

import argparse
import getpass
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.cli.common import CommandError, add_ledger_options, print_line, write_raw
from airflow_provider_kk.sync.resolution import ResolutionRejected, ResolvedBy

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.compare import Finding
    from airflow_provider_kk.delivery.history import BrokenRule
    from airflow_provider_kk.delivery.model import Attempt, Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger


def add_resolution_options(parser: argparse.ArgumentParser) -> None:
    """Declare what each resolution takes."""
    parser.add_argument("--why", required=True, type=_text, help="the reason, kept in the ledger")
    parser.add_argument("--who", default=None, type=_text, help="your name; the default is your login")
    parser.add_argument("--yes", action="store_true", help="do not ask before several orders change")
    parser.add_argument("--json", action="store_true", help="what became of each, one JSON object a line")
    add_ledger_options(parser)


def _text(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty; say something that the next one on call can use")
    return text.strip()


def resolved_by_of(arguments: argparse.Namespace) -> ResolvedBy:
    """Return who resolves, and why.

    :raises CommandError: when that is not known.
    """
    try:
        return ResolvedBy(arguments.who or getpass.getuser(), arguments.why)
    except (KeyError, OSError) as error:  # a container's user without a name
        raise CommandError("your login has no name here: give --who") from error


def why(entry: Record) -> str:
    """Return what KK or the sync has said of an order."""
    return f"code {entry.code}: {entry.message}" if entry.code is not None else entry.message


def as_columns(row: Record | Attempt | Finding | BrokenRule, ledger: SqlLedger) -> dict[str, Any]:
    """Return a row for JSON, its fields named as the ledger's columns."""
    columns: dict[str, Any] = {}
    for name, value in asdict(row).items():
        columns |= value if name == "content" else {ledger.storage.jobs.column(name): value}
    return columns


def apply_each(
    entries: Sequence[Record], act: Callable[[Record], str], ledger: SqlLedger, *, as_json: bool
) -> tuple[int, int]:
    """Do it with each and say what became of it; how many were done and how many skipped."""
    done = skipped = 0
    for entry in entries:
        try:
            message, is_done = act(entry), True
        except ResolutionRejected as error:
            message, is_done = f"skipped, {error}", False
        done, skipped = done + is_done, skipped + (not is_done)
        if as_json:
            write_raw(json.dumps({ledger.storage.jobs.key: entry.key, "done": is_done, "message": message}))
        else:
            print_line(f"{entry.key}: {message}", file=None if is_done else sys.stderr)
    return done, skipped


def find_key(text: str, ledger: SqlLedger) -> str | None:
    """Return the key that a human has told by itself or by KK's id; None when there is none."""
    from airflow_provider_kk.delivery.sql.report import Report

    found = Report(ledger.storage).find(text, limit=1)
    return found[0].key if found else None


def require_known(numbers: Sequence[str], ledger: SqlLedger) -> list[Record]:
    """Return the rows of these numbers. KK's ids are not taken for them: a split has several.

    :raises CommandError: names those that the ledger does not know.
    """
    wanted = list(dict.fromkeys(numbers))
    known = ledger.look_up(wanted)
    unknown = [one for one in wanted if one not in known]
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        names = ", ".join([_whose(unknown[0], ledger), *unknown[1:]])
        raise CommandError(
            f"{names} {verb} not in the ledger of {ledger.account} at {ledger.host}. Nothing was done"
        )
    return [known[one] for one in wanted]


def _whose(text: str, ledger: SqlLedger) -> str:
    key = find_key(text, ledger)
    return f"{text} (KK's id of {key})" if key else text
