"""Where orders come from at the command line: a file, or a query on a warehouse."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.cli.common import CommandError, connection_to, print_line

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.warehouse.spool import Spool

PRESET, HELP = "preset", "help"
FILES = """\
A CSV file names its columns in its first line, as the API does in snake_case:
custom_order_number, country, phone, recipient, province, street1, city, zip,
sku, quantity, ... and has a row for each order line. Its delimiter is found
out; cells stay the text that they are. A file called .jsonl or .ndjson has one
order as a JSON object on each line. `--columns` maps other names, and
`--columns help` shows presets for the files of shops."""


def add_file_options(parser: argparse.ArgumentParser) -> None:
    """Declare how a file is read."""
    parser.add_argument(
        "--columns",
        type=_mapping,
        action=_Columns,
        default=[],
        metavar="FIELD=SOURCE",
        help="where a field comes from: a column, a path such as ship_to.zip, a template such as "
        "'{first_name} {last_name}' or a constant such as \"='text'\"; or the name of a preset; may be "
        "repeated; `--columns help` shows the presets",
    )
    parser.add_argument(
        "--default",
        type=_default,
        action="append",
        default=[],
        metavar="FIELD=SOURCE",
        help="where a field comes from when it is blank, such as 'province={city}'; may be repeated",
    )
    parser.add_argument(
        "--duplicate-rows",
        choices=("fail", "keep"),
        default="fail",
        help="rows that are equal in every column: an error of their order (fail), or lines like any other",
    )
    parser.add_argument(
        "--delimiter", type=_delimiter, metavar="X", help="of a CSV file, or 'tab'; else found out"
    )
    parser.add_argument("--encoding", metavar="NAME", help="of the file (UTF-8); cp1252 for old spreadsheets")


def read_file(arguments: argparse.Namespace, log: Log) -> Spool:
    """Take home all rows of the file of `add_file_options`.

    :raises CommandError: says what is wrong with the file or its columns.
    """
    from airflow_provider_kk.sync.load_orders import log_columns
    from airflow_provider_kk.warehouse import files
    from airflow_provider_kk.warehouse.columns import FILE, ColumnsError, resolve

    columns, defaults = dict(arguments.columns), dict(arguments.default)
    try:
        spool = files.read_file(
            arguments.file,
            check=lambda names: resolve(names, columns, FILE, defaults=defaults),
            delimiter=arguments.delimiter,
            encoding=arguments.encoding,
        )
    except (files.FileError, ColumnsError) as error:
        raise CommandError(str(error)) from error
    log_columns(resolve(spool.names, columns, defaults=defaults), log)
    return spool


def read_query(arguments: argparse.Namespace, log: Log) -> Spool:
    """Take home all rows of `--sql`, from `--warehouse`.

    :raises CommandError: says what is wrong with the query, its columns or the warehouse.
    """
    from airflow_provider_kk.cli.common import is_file
    from airflow_provider_kk.hooks.database import hook_behind
    from airflow_provider_kk.sync.load_orders import log_columns
    from airflow_provider_kk.warehouse.columns import QUERY, ColumnsError, resolve
    from airflow_provider_kk.warehouse.read import ReadError, read_rows

    warehouse = arguments.warehouse_conn_id
    columns, defaults = dict(arguments.columns), dict(arguments.default)
    if warehouse is None:
        raise CommandError("--sql needs --warehouse: a connection id or a SQLite file")
    if is_file(warehouse) and not Path(warehouse).is_file():
        raise CommandError(f"there is no file {warehouse}")
    hook = hook_behind(connection_to(warehouse))
    try:
        spool = read_rows(
            hook,
            _statement(arguments.sql),
            check=lambda names: resolve(names, columns, QUERY, defaults=defaults),
            only_reads=True,
        )
    except ColumnsError as error:
        raise CommandError(str(error)) from error
    except ReadError as error:
        raise CommandError(f"{warehouse} cannot be read: {error}") from error
    except Exception as error:  # whatever the warehouse's driver raises while it connects
        first = (str(error).strip().splitlines() or [""])[0]
        raise CommandError(f"{warehouse} cannot be read: {type(error).__name__}: {first}") from error
    log_columns(resolve(spool.names, columns, defaults=defaults), log)
    return spool


def _statement(sql: str) -> str:
    if not sql.endswith(".sql"):
        return sql
    try:
        return Path(sql).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise CommandError(f"{sql} cannot be read: {type(error).__name__}") from error


class _Columns(argparse.Action):
    """Collects sources of fields; `help` prints the presets."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, values: Any, option: Any = None
    ) -> None:
        if values == (PRESET, HELP):
            from airflow_provider_kk.warehouse.columns import describe_presets

            print_line(describe_presets())
            parser.exit()
        namespace.columns = [*namespace.columns, values]


def _mapping(text: str) -> tuple[str, str]:
    return _default(text) if "=" in text else (PRESET, _preset(text))


def _preset(name: str) -> str:
    from airflow_provider_kk.warehouse.columns import ColumnsError, check_mapping

    try:
        if name != HELP:
            check_mapping(name, None, "fail")
    except ColumnsError as error:
        raise argparse.ArgumentTypeError(f"{error}; or write FIELD=SOURCE") from None
    return name


def _default(text: str) -> tuple[str, str]:
    field, sign, source = text.partition("=")
    if not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=SOURCE, e.g. province={{city}}")
    return field, source


def _delimiter(text: str) -> str:
    delimiter = "\t" if text in ("tab", "\\t") else text
    if len(delimiter) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not one character")
    return delimiter
