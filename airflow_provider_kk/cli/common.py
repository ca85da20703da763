"""Share code of the commands: the ledger's connection, tables, JSON lines, questions before a change."""

from __future__ import annotations

import argparse
import atexit
import logging
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from airflow_provider_kk.delivery.log import printable

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.sync.guards import Guards


KK_CONN_ID = "kk_default"
#: The id of a connection to a file.
_FILE = "file"
_CANNOT_RUN = 2
_AS_A_WORKER = "Run kk with the AIRFLOW_HOME and AIRFLOW_CONN_... variables of the workers"
#: Rows that `confirm` shows, and columns that the last cell of a table keeps.
_SHOWN = 20
_LEAST_WIDTH = 24
#: argument: its value and its help
_GUARDS = {
    "max_new_orders": ("N", "send nothing if there are more new orders (default: 1000)"),
    "max_order_units": ("N", "an order with more units is invalid (default: 100)"),
    "max_order_value": ("USD", "an order with more expensive goods is invalid; reads KK's prices"),
    "max_run_value": ("USD", "send nothing if all goods together cost more; reads KK's prices"),
}
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class CommandError(Exception):
    """A command cannot run; the text has the reason and what to do."""


class NoLedgerError(CommandError):
    """A command has no ledger or no connection."""


def add_ledger_options(parser: argparse.ArgumentParser) -> None:
    """Declare where the ledger is; the environment has defaults."""
    group = parser.add_argument_group("connections")
    group.add_argument(
        "--kk-conn-id",
        metavar="ID",
        default=os.environ.get("KK_CONN_ID") or KK_CONN_ID,
        help=f"connection to KK (default: $KK_CONN_ID or {KK_CONN_ID})",
    )
    group.add_argument(
        "--ledger-conn-id",
        "--ledger",
        metavar="ID_OR_FILE",
        default=os.environ.get("KK_LEDGER") or None,
        help="ledger: a connection or an SQLite file (default: $KK_LEDGER, or ledger_conn_id of the kk "
        "connection)",
    )
    group.add_argument(
        "--warehouse-conn-id",
        "--warehouse",
        metavar="ID_OR_FILE",
        default=os.environ.get("KK_WAREHOUSE") or None,
        help="warehouse: a connection or an SQLite file (default: $KK_WAREHOUSE). It is also the ledger's "
        "database if none is given",
    )


def add_output_options(parser: argparse.ArgumentParser) -> None:
    """Declare how `kk check` and `kk send` print their orders."""
    parser.add_argument(
        "--show",
        type=whole,
        default=100,
        metavar="N",
        help="list at most N orders with faults (default: 100)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object per order, the counts in the last"
    )


def add_guard_options(parser: argparse.ArgumentParser) -> None:
    """Declare the guards."""
    group = parser.add_argument_group("guards", "Limits for one run. 'none' removes a limit.")
    for name, (metavar, text) in _GUARDS.items():
        group.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            type=partial(_limit, name),
            default=argparse.SUPPRESS,
            metavar=metavar,
            help=text,
        )


def _limit(name: str, text: str) -> Any:
    from airflow_provider_kk.sync.guards import Guards

    limit: Any = int(text) if text.isascii() and text.isdigit() else text
    try:
        return getattr(Guards.checked(**{name: None if text == "none" else limit}), name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def guards_of(arguments: argparse.Namespace) -> Guards:
    """Return the guards of the arguments of `add_guard_options`."""
    from airflow_provider_kk.sync.guards import Guards

    return Guards(**{name: getattr(arguments, name) for name in _GUARDS if name in arguments})


def open_ledger_of(
    arguments: argparse.Namespace, *, create: bool = False, threads: int = 2, log: Log | None = None
) -> tuple[KKHook, SqlLedger]:
    """Open the ledger of the arguments of `add_ledger_options`.

    :param create: make it where there is none yet.
    :raises NoLedgerError, LedgerUnusableError: with what to fix.
    """
    from airflow_provider_kk.hooks.ledger_connection import ledger_behind

    hook, connection = _ledger_connection_of(arguments)
    if not create:
        _ledger_there(connection, hook).close()
    return hook, ledger_behind(connection, hook, threads=threads, log=log)


def read_ledger_of(arguments: argparse.Namespace) -> tuple[KKHook, SqlLedger]:
    """Open the ledger of the arguments of `add_ledger_options` to read it.

    :raises NoLedgerError, LedgerUnusableError: with what to fix.
    """
    hook, connection = _ledger_connection_of(arguments)
    return hook, _ledger_there(connection, hook)


def require_own_ledger(arguments: argparse.Namespace) -> None:
    """Require that the ledger is the one which the connection names.

    :raises NoLedgerError: another ledger does not know what was sent by that one.
    """
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.hooks.ledger_connection import database_of

    given, own = arguments.ledger_conn_id, KKHook(arguments.kk_conn_id).settings.ledger_conn_id
    if given and own and database_of(connection_to(given)) != database_of(connection_to(own)):
        raise NoLedgerError(
            f"connection {arguments.kk_conn_id!r} has its ledger in {own!r}, but {given!r} is another "
            "database. It does not know what was sent, so orders could be sent twice. Leave --ledger out, "
            "or correct ledger_conn_id in the connection's extra"
        )


def _ledger_connection_of(arguments: argparse.Namespace) -> tuple[KKHook, Any]:
    from airflow_provider_kk.hooks.kk import KKHook

    hook = KKHook(arguments.kk_conn_id)
    connection = ledger_connection(arguments, hook)
    if connection is None:
        raise NoLedgerError(
            f"connection {arguments.kk_conn_id!r} has no ledger_conn_id. Give --ledger-conn-id, or "
            "--warehouse-conn-id if the ledger is in the warehouse: a connection id or an SQLite file"
        )
    return hook, connection


def _ledger_there(connection: Any, hook: KKHook) -> SqlLedger:
    from airflow_provider_kk.hooks.ledger_connection import ledger_to_read

    ledger = ledger_to_read(connection, hook)
    if ledger is None:
        ledger_conn_id = connection.host if connection.conn_id == _FILE else repr(connection.conn_id)
        settings = hook.settings
        raise NoLedgerError(
            f"there is no ledger of account {settings.account} at {settings.host} in {ledger_conn_id}. The "
            "first sync creates it. If there was one, check --ledger-conn-id and --warehouse-conn-id"
        )
    return ledger


def ledger_connection(arguments: argparse.Namespace, hook: KKHook) -> Any | None:
    """Return the Airflow connection to the ledger of `add_ledger_options`; None without a ledger.

    :raises NoLedgerError, LedgerUnusableError: with what to fix.
    """
    from airflow_provider_kk.hooks.ledger_connection import resolve_ledger_conn_id

    warehouse = arguments.warehouse_conn_id
    if warehouse is not None and is_file(warehouse):
        ledger_conn_id = resolve_ledger_conn_id(hook, arguments.ledger_conn_id) or warehouse
    else:
        ledger_conn_id = resolve_ledger_conn_id(hook, arguments.ledger_conn_id, warehouse)
    return None if ledger_conn_id is None else connection_to(ledger_conn_id)


def connection_to(ledger_conn_id: str) -> Any:
    """Return the Airflow connection of this id, or one to this SQLite file.

    :raises NoLedgerError: when there is no such connection.
    """
    from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, Connection

    if is_file(ledger_conn_id):
        return Connection(conn_id=_FILE, conn_type="sqlite", host=str(Path(ledger_conn_id).absolute()))
    try:
        return BaseHook.get_connection(ledger_conn_id)
    except AirflowNotFoundException as error:
        raise NoLedgerError(
            f"{error}. {_AS_A_WORKER}. For an SQLite file, write its folder, too: ./{ledger_conn_id}"
        ) from error


def is_file(ledger_conn_id: str) -> bool:
    """Return whether this names a file, not the id of a connection."""
    return os.sep in ledger_conn_id or Path(ledger_conn_id).suffix in (".db", ".sqlite", ".sqlite3")


class StderrLog:
    """A log on standard error, since results go to standard output."""

    def __init__(self, name: str) -> None:
        self._name = name

    def info(self, msg: Any, /, *args: Any) -> None:
        """Print a message."""
        print_line(f"{self._name}: {msg % args}", file=sys.stderr)

    warning = error = info


def run_command(name: str, work: Callable[[], int], *, failed: int = _CANNOT_RUN) -> int:
    """Run a command and return its exit status. An error is printed as one sentence.

    The exit status is then 2, or `failed` when the ledger and KK could be asked.
    """
    with _only_ours_on_stdout(), quiet_airflow():
        from airflow.providers.common.compat.sdk import AirflowException, AirflowNotFoundException
        from sqlalchemy.exc import DBAPIError

        from airflow_provider_kk.api.errors import KKError
        from airflow_provider_kk.delivery.model import LedgerUnusableError
        from airflow_provider_kk.delivery.resolution import ResolutionRejected
        from airflow_provider_kk.delivery.sql.driver_errors import describe_error
        from airflow_provider_kk.hooks.connection import InvalidConnectionError
        from airflow_provider_kk.sync.resolution_checks import ResolutionUnavailable

        status = _CANNOT_RUN
        try:
            return work()
        except AirflowNotFoundException as error:
            fault = f"{error}. {_AS_A_WORKER}"
        except (NoLedgerError, InvalidConnectionError, LedgerUnusableError, ResolutionUnavailable) as error:
            fault = str(error)
        except (CommandError, ResolutionRejected) as error:
            fault, status = str(error), failed
        except KKError as error:
            fault = f"the request to KK failed: {error}"
        except AirflowException as error:
            # Such as a hook whose provider is not installed.
            fault = str(error)
            if fault.startswith("Unknown hook type"):
                kind = fault.split('"')[1] if fault.count('"') > 1 else "..."
                fault += f". Install Airflow's provider for it, such as apache-airflow-providers-{kind}"
        except DBAPIError as error:
            reason = describe_error(error)
            fault = f"the ledger's database cannot be used: {reason}. Fix it, then repeat the command"
        print_line(f"{name}: {fault}", file=sys.stderr)
        return status


_OUTPUT: ContextVar[TextIO | None] = ContextVar("where a command prints", default=None)


@contextmanager
def printing_to(file: TextIO) -> Iterator[None]:
    """Print there in the block, unless a call names a file."""
    token = _OUTPUT.set(file)
    try:
        yield
    finally:
        _OUTPUT.reset(token)


@contextmanager
def _only_ours_on_stdout() -> Iterator[None]:
    """Keep standard output for `write_raw`, since Airflow logs there, too.

    Enter it before Airflow's import, which keeps the standard output of that moment for its log.
    """
    try:
        with printing_to(sys.stdout), redirect_stdout(sys.stderr):
            yield
    finally:
        # Registered after Airflow's import, so it runs before what Airflow 2.11 logs there at exit.
        atexit.register(logging.disable)


def print_line(line: str = "", *, file: TextIO | None = None, style: str = "") -> None:
    """Print a line, as one: an order number from elsewhere may hold what moves a terminal's cursor.

    :param style: such as `red`, of the line on a terminal.
    """
    text = printable(line)
    if style and has_colours(file or _output()):
        from rich.color import ColorSystem
        from rich.style import Style

        text = Style.parse(style).render(text, color_system=ColorSystem.STANDARD)
    write_raw(text, file=file)


def has_colours(file: TextIO) -> bool:
    """Return whether a person sees what is printed there, on a terminal that may show colours."""
    return file.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def write_raw(text: str, *, file: TextIO | None = None) -> None:
    """Print what a program reads, such as JSON, as it is."""
    file = file or _output()
    print(text, file=file, flush=file is sys.stderr)


def _output() -> TextIO:
    return _OUTPUT.get() or sys.stdout


@contextmanager
def quiet_airflow(level: int = logging.INFO) -> Iterator[None]:
    """Log nothing up to a level."""
    before = logging.root.manager.disable
    logging.disable(level)
    try:
        yield
    finally:
        logging.disable(before)


def whole(text: str) -> int:
    """Read a number of orders, for argparse."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of orders. Write 0, 20, ...")
    return int(text)


def warn_of_pause(ledger: SqlLedger) -> None:
    """Print who has stopped all sending of the account, if anybody has."""
    if pause := ledger.storage.pause():
        text = str(pause)
        print_line(f"{text[0].upper()}{text[1:]}", file=sys.stderr)


def confirm(what: Sequence[str], question: str, *, yes: bool) -> None:
    """Print what will be done and ask whether to do it.

    :raises CommandError: when the answer is no, or there is nobody to ask.
    """
    if yes:
        return
    for line in what[:_SHOWN]:
        print_line(f"  {line}", file=sys.stderr)
    if len(what) > _SHOWN:
        print(f"  and {len(what) - _SHOWN} more", file=sys.stderr)
    if not sys.stdin.isatty():
        raise CommandError(
            f"{question} There is no terminal for an answer. To confirm, give --yes. Nothing was done"
        )
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was done")


def duration(text: str) -> float:
    """Read `90s`, `30m`, `2h`, `3d`, `1w` as seconds, for argparse."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration. Write 90s, 30m, 2h, 3d or 1w")
    return float(found[1]) * _UNITS[found[2]]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, wrapped: bool = False) -> None:
    """Print rows in columns; nothing when there are none.

    :param wrapped: on a terminal the last column goes on in the next line, where it is too long.
    """
    lines = [list(head), *[list(map(printable, row)) for row in rows]]
    if len(lines) == 1:
        return
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    if wrapped and _output().isatty():
        lines, widths = _wrapped(lines, widths)
    for line in lines:
        cells = zip(line, widths, strict=True)
        write_raw("  ".join(cell.ljust(width) for cell, width in cells).rstrip())


def _wrapped(lines: Sequence[Sequence[str]], widths: Sequence[int]) -> tuple[list[list[str]], list[int]]:
    """Continue the last column on further lines, or below the others where there is no room beside them."""
    columns = shutil.get_terminal_size().columns
    width = columns - sum(widths[:-1]) - 2 * len(widths) + 2
    parts: list[list[str]] = []
    for *cells, last in lines:
        blank = [""] * len(cells)
        if width >= _LEAST_WIDTH:
            first, *more = textwrap.wrap(last, width) or [""]
            parts += [[*cells, first], *([*blank, part] for part in more)]
        else:
            below = textwrap.wrap(last, columns - 4)
            parts += [[*cells, ""], *([f"    {part}", *blank] for part in below)]
    return parts, list(widths)
