"""Read orders for a command: from a file, or from a query on a warehouse."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.cli.common import CommandError, connection_to, print_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.warehouse.spool import Spool

PRESET, HELP = "preset", "help"
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
        action=_Columns,
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

    :raises CommandError: it or its columns cannot be used.
    """
    if bool(arguments.file) == bool(arguments.sql):
        raise CommandError("give either FILE or --sql")
    if arguments.var and not arguments.sql:
        raise CommandError("--var needs --sql")
    return (read_file if arguments.file else read_query)(arguments, log)


def read_file(arguments: argparse.Namespace, log: Log) -> Spool:
    """Take home all rows of the file of `add_source_options`.

    :raises CommandError: the file or its columns cannot be used.
    """
    from airflow_provider_kk.sync.load_orders import log_columns
    from airflow_provider_kk.warehouse import files
    from airflow_provider_kk.warehouse.mapping_arguments import ColumnsError
    from airflow_provider_kk.warehouse.match_columns import FILE, match_columns

    columns, defaults = dict(arguments.columns), dict(arguments.default)
    try:
        spool = files.read_file(
            arguments.file,
            check=lambda names: match_columns(names, columns, FILE, defaults=defaults),
            delimiter=arguments.delimiter,
            quoting=arguments.quoting,
            encoding=arguments.encoding,
            header_line=arguments.header_line,
            file_format=arguments.format,
            log=log,
            # Its words are names and streets: a person at a terminal may see some, a log not.
            show_guess=_show_guess if sys.stderr.isatty() else None,
        )
    except (files.FileError, ColumnsError) as error:
        raise CommandError(str(error)) from error
    log_columns(match_columns(spool.names, columns, defaults=defaults), log)
    return spool


def read_query(arguments: argparse.Namespace, log: Log) -> Spool:
    """Take home all rows of `--sql`, from `--warehouse`.

    :raises CommandError: the query, its columns or the warehouse cannot be used.
    """
    from airflow_provider_kk.cli.common import is_file
    from airflow_provider_kk.hooks.ledger_connection import hook_behind
    from airflow_provider_kk.sync.load_orders import log_columns
    from airflow_provider_kk.warehouse.mapping_arguments import ColumnsError
    from airflow_provider_kk.warehouse.match_columns import QUERY, match_columns
    from airflow_provider_kk.warehouse.query_rows import ReadError, read_rows

    warehouse = arguments.warehouse_conn_id
    columns, defaults = dict(arguments.columns), dict(arguments.default)
    if warehouse is None:
        raise CommandError("--sql needs --warehouse: a connection id or an SQLite file")
    if is_file(warehouse) and not Path(warehouse).is_file():
        raise CommandError(f"--warehouse: the file {warehouse} does not exist")
    hook = hook_behind(connection_to(warehouse))
    try:
        spool = read_rows(
            hook,
            statement_of(arguments),
            check=lambda names: match_columns(names, columns, QUERY, defaults=defaults),
            only_reads=True,
        )
    except ColumnsError as error:
        raise CommandError(str(error)) from error
    except ReadError as error:
        raise CommandError(f"the warehouse {warehouse!r} cannot be read: {error}") from error
    except Exception as error:  # whatever the warehouse's driver raises while it connects
        first = (str(error).strip().splitlines() or [""])[0]
        raise CommandError(
            f"the warehouse {warehouse!r} cannot be read: {type(error).__name__}: {first}"
        ) from error
    log_columns(match_columns(spool.names, columns, defaults=defaults), log)
    return spool


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


class _Columns(argparse.Action):
    """Collects sources of fields; `help` prints the presets."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: Any = None
    ) -> None:
        if values == (PRESET, HELP):
            from airflow_provider_kk.warehouse.mapping_arguments import describe_presets

            for line in describe_presets().splitlines():
                print_line(line)
            parser.exit()
        namespace.columns = [*namespace.columns, values]


def _mapping(text: str) -> tuple[str, str]:
    return _default(text) if "=" in text else (PRESET, _preset(text))


def _preset(name: str) -> str:
    from airflow_provider_kk.warehouse.mapping_arguments import ColumnsError, check_mapping

    try:
        if name != HELP:
            check_mapping(name, None, "fail")
    except ColumnsError as error:
        raise argparse.ArgumentTypeError(f"{error}. Or write FIELD=SOURCE") from None
    return name


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
