"""Read orders for a command: from a file, or from a query on a warehouse."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_provider_kk.cli.common import CommandError, connection_to, is_file, print_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.run_queue import RunQueue
    from airflow_provider_kk.sync.deliver import Delivery
    from airflow_provider_kk.warehouse.mapping_arguments import Check
    from airflow_provider_kk.warehouse.match_columns import Columns
    from airflow_provider_kk.warehouse.spool import Spool

#: As warehouse/files.py has them, which is not loaded for `--help`.
FORMATS, QUOTING = ("csv", "jsonl", "json"), ("auto", "none", "double")
FILES = """\
A CSV file has the names of its columns in its first line, as KK's API has them in
snake_case: custom_order_number, country, phone, recipient, province, street1,
city, zip, sku, quantity, ... It has one row per order line. A .json file is a list
of orders. A .jsonl or .ndjson file has one order per line, as a JSON object. All of
them may be compressed by gzip. Format, delimiter, quoting, encoding and header
line are detected and printed. For other column names, use `--columns`; for the
presets of shops, see `--columns help`."""


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Declare the file or the query with the orders, and how it is read."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="a .csv, .json or .jsonl file")
    parser.add_argument(
        "--sql", metavar="SELECT", help="instead of a file: a SELECT, or the path of a .sql file"
    )
    parser.add_argument(
        "--var",
        type=_variable,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of {{ NAME }} in --sql, a Jinja template. May be repeated",
    )
    parser.add_argument(
        "--columns",
        type=_mapping,
        action="append",
        default=[],
        metavar="FIELD=SOURCE",
        help="source of a field: a column, a path such as ship_to.zip, a template such as "
        "'{first_name} {last_name}' or a constant such as \"='text'\". Or a preset, see `--columns help`. "
        "May be repeated",
    )
    parser.add_argument(
        "--default",
        type=_default,
        action="append",
        default=[],
        metavar="FIELD=SOURCE",
        help="source of a field if it is blank, such as 'province={city}', or a constant such as "
        "\"phone=='+33 1'\". May be repeated",
    )
    parser.add_argument(
        "--duplicate-rows",
        choices=("fail", "keep"),
        default="fail",
        help="rows that are equal in every column: fail makes their order invalid, keep counts each as a "
        "line (default: fail)",
    )
    parser.add_argument("--format", choices=FORMATS, help="format of the file (default: detected)")
    parser.add_argument(
        "--delimiter",
        type=_delimiter,
        metavar="X",
        help="delimiter of a CSV file, or 'tab' (default: detected)",
    )
    parser.add_argument(
        "--quoting",
        choices=QUOTING,
        default="auto",
        help="quoting of a CSV file: none if quotes are part of the text, double if a quoted cell may span "
        "lines, auto stops where this is uncertain (default: auto)",
    )
    parser.add_argument(
        "--encoding", metavar="NAME", help="encoding of the file (default: by its byte order mark, or UTF-8)"
    )
    parser.add_argument(
        "--header-line",
        type=_line,
        metavar="N",
        help="line number of a CSV file's header (default: detected)",
    )


def read_source(arguments: argparse.Namespace, log: Log) -> Spool:
    """Take home all rows of the file or the query that was given.

    :raises CommandError: it, its columns or the warehouse cannot be used.
    """
    from airflow_provider_kk.sync.load_orders import log_columns
    from airflow_provider_kk.warehouse.mapping_arguments import ColumnsError
    from airflow_provider_kk.warehouse.match_columns import FILE, QUERY, match_columns

    if bool(arguments.file) == bool(arguments.sql):
        raise CommandError("give either FILE or --sql")
    if arguments.var and not arguments.sql:
        raise CommandError("--var needs --sql")
    columns, defaults = dict(arguments.columns), dict(arguments.default)

    def check(names: Sequence[str]) -> Columns:
        return match_columns(names, columns, FILE if arguments.file else QUERY, defaults=defaults)

    try:
        spool = _read_file(arguments, check, log) if arguments.file else _read_query(arguments, check)
    except ColumnsError as error:
        raise CommandError(str(error)) from error
    log_columns(check(spool.names), log)
    return spool


def _read_file(arguments: argparse.Namespace, check: Check, log: Log) -> Spool:
    from airflow_provider_kk.warehouse import files

    try:
        return files.read_file(
            arguments.file,
            check=check,
            delimiter=arguments.delimiter,
            quoting=arguments.quoting,
            encoding=arguments.encoding,
            header_line=arguments.header_line,
            file_format=arguments.format,
            log=log,
            # Its words are names and streets: a person at a terminal may see some, a log not.
            show_guess=_show_guess if sys.stderr.isatty() else None,
        )
    except files.FileError as error:
        raise CommandError(str(error)) from error


def _read_query(arguments: argparse.Namespace, check: Check) -> Spool:
    from airflow_provider_kk.hooks.ledger_connection import hook_behind
    from airflow_provider_kk.warehouse.mapping_arguments import ColumnsError
    from airflow_provider_kk.warehouse.query_rows import ReadError, read_rows

    warehouse = arguments.warehouse_conn_id
    if warehouse is None:
        raise CommandError("--sql needs --warehouse: a connection id or an SQLite file")
    if is_file(warehouse) and not Path(warehouse).is_file():
        raise CommandError(f"--warehouse: the file {warehouse} does not exist")
    hook, statement = hook_behind(connection_to(warehouse)), statement_of(arguments)
    try:
        return read_rows(hook, statement, check=check, only_reads=True)
    except ColumnsError:
        raise
    except ReadError as error:
        fault = str(error)
    except Exception as error:  # whatever the warehouse's driver raises while it connects
        first = (str(error).strip().splitlines() or [""])[0]
        fault = f"{type(error).__name__}: {first}"
    raise CommandError(f"the warehouse {warehouse!r} cannot be read: {fault}")


def enqueue_source(
    arguments: argparse.Namespace,
    spool: Spool,
    run_queue: RunQueue,
    log: Log,
    delivery: Delivery | None = None,
    *,
    api_version: str | None,
) -> int:
    """Check the orders of `read_source` and add them to a run queue; see `enqueue_orders`."""
    from airflow_provider_kk.sync.load_orders import enqueue_orders

    return enqueue_orders(
        run_queue,
        spool,
        dict(arguments.columns),
        log,
        delivery,
        api_version=api_version,
        defaults=dict(arguments.default),
        duplicate_rows=arguments.duplicate_rows,
    )


def statement_of(arguments: argparse.Namespace) -> str:
    """Return the statement of `--sql`, its Jinja rendered with `--var`.

    :raises CommandError: with what the template lacks.
    """
    sql: str = arguments.sql
    if sql.endswith(".sql"):
        try:
            sql = Path(sql).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeError) as error:
            raise CommandError(f"{arguments.sql} cannot be read: {type(error).__name__}") from error
    if not any(mark in sql for mark in ("{{", "{%", "{#")):
        return sql
    from jinja2 import StrictUndefined, TemplateError
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
    try:
        return environment.from_string(sql).render(dict(arguments.var))
    except TemplateError as error:
        fault = str(error.message)
    except Exception as error:  # whatever the template's own expressions raise
        fault = f"{type(error).__name__}: {error}"
    raise CommandError(
        f"--sql is a Jinja template that cannot be rendered: {fault}. Airflow's variables, such as ds, do "
        "not exist outside of a task. Give each as --var NAME=VALUE"
    )


def _show_guess(encoding: str, examples: Sequence[str]) -> None:
    print_line(f"  --encoding {encoding} reads: {'  '.join(examples)}", file=sys.stderr)


def _mapping(text: str) -> tuple[str, str]:
    """Read FIELD=SOURCE or the name of a preset; `help` prints the presets and exits."""
    from airflow_provider_kk.warehouse.mapping_arguments import ColumnsError, check_mapping, describe_presets

    if "=" in text:
        return _default(text)
    if text == "help":
        for line in describe_presets().splitlines():
            print_line(line)
        sys.exit()
    try:
        check_mapping(text, None, "fail")
    except ColumnsError as error:
        raise argparse.ArgumentTypeError(f"{error}. Or write FIELD=SOURCE") from None
    return "preset", text


def _default(text: str) -> tuple[str, str]:
    field, sign, source = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=SOURCE, e.g. province={{city}}")
    return field, source


def _variable(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, e.g. ds=2026-11-28")
    return name, value


def _line(text: str) -> int:
    if not text.isdecimal() or not 0 < len(text) <= 6 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a line number. The first line is 1")
    return int(text)


def _delimiter(text: str) -> str:
    delimiter = "\t" if text in ("tab", "\\t") else text
    if len(delimiter) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one character")
    return delimiter
