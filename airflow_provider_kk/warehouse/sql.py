"""Describe how warehouses differ in the little SQL that is written to them, and how their drivers differ."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.sql.hooks.sql import DbApiHook

Fold = Callable[[str], str]


@dataclass(frozen=True)
class SqlDialect:
    """One kind of warehouse."""

    name: str
    #: Opening and closing quote of an identifier.
    quotes: tuple[str, str] = ('"', '"')
    #: What the warehouse makes of a name without quotes: `str` leaves it. None: not known, so plain names get
    #: no quotes.
    fold: Fold | None = str
    #: Column types of the table that results are appended to: short text, long text, point in time.
    types: tuple[str, str, str] = ("VARCHAR(40)", "VARCHAR(4000)", "TIMESTAMP")
    #: Whether a missing table is created; elsewhere its DDL is shown.
    creates_table: bool = False
    #: Rows of one INSERT or UPDATE. Five values each: SQLite before 3.32 takes 999, SQL Server 2,100.
    rows_per_statement: int = 199
    #: Text of a time takes an offset from UTC.
    time_has_offset: bool = True
    #: Type that a key is cast to before it is compared with text, where that is not done implicitly.
    key_as: str | None = None
    #: A text that equals none in other letters (A and a, A and Á) whatever a column's collation, and is still
    #: compared with a number as a number. Elsewhere the collation decides.
    exact: str = "{}"
    #: Parameters by name only, whatever the driver declares.
    named_parameters: bool = False
    #: Run on each new connection.
    setup: tuple[str, ...] = ()


DIALECTS = {
    "sqlite": SqlDialect(
        "SQLite",
        # In double quotes SQLite takes a column that does not exist for a text.
        quotes=("`", "`"),
        types=("TEXT", "TEXT", "TEXT"),
        creates_table=True,
        exact="{} COLLATE BINARY",
        # A ledger in the same file commits all the time.
        setup=("PRAGMA busy_timeout = 60000",),
    ),
    "postgres": SqlDialect(
        "PostgreSQL",
        fold=str.lower,
        types=("VARCHAR(40)", "VARCHAR(4000)", "TIMESTAMP WITH TIME ZONE"),
        creates_table=True,
    ),
    "mysql": SqlDialect(
        "MySQL",
        quotes=("`", "`"),
        # KK's messages hold letters that its default may not take.
        types=("VARCHAR(40)", "VARCHAR(4000) CHARACTER SET utf8mb4", "DATETIME(6)"),
        creates_table=True,
        time_has_offset=False,
        exact="CONVERT({} USING utf8mb4) COLLATE utf8mb4_bin",
    ),
    "mssql": SqlDialect(
        "SQL Server",
        quotes=("[", "]"),
        types=("VARCHAR(40)", "NVARCHAR(4000)", "DATETIMEOFFSET"),
    ),
    "redshift": SqlDialect("Redshift", fold=str.lower, types=("VARCHAR(40)", "VARCHAR(4000)", "TIMESTAMPTZ")),
    "snowflake": SqlDialect(
        "Snowflake",
        fold=str.upper,
        types=("VARCHAR(40)", "VARCHAR(4000)", "TIMESTAMP_TZ"),
        rows_per_statement=1_000,
    ),
    "duckdb": SqlDialect("DuckDB", creates_table=True),
    "gcpbigquery": SqlDialect(
        "BigQuery",
        quotes=("`", "`"),
        types=("STRING", "STRING", "TIMESTAMP"),
        rows_per_statement=1_000,
        key_as="STRING",
        named_parameters=True,
    ),
}
"""By the `conn_type` of Airflow's hooks."""
OTHER = SqlDialect(
    "this warehouse",
    fold=None,
    # Times are sent as text. A driver that sends its type, as PostgreSQL's for JDBC, puts it only into text.
    types=("VARCHAR(40)", "VARCHAR(4000)", "VARCHAR(40)"),
)


#: What pyodbc's `getinfo` is asked for: SQL_IDENTIFIER_QUOTE_CHAR, and SQL_IDENTIFIER_CASE with its answers.
_ODBC_QUOTE, _ODBC_CASE, _ODBC_FOLDS = 29, 28, {1: str.upper, 2: str.lower}


def dialect_of(hook: DbApiHook, connection: Any = None) -> SqlDialect:
    """Return the dialect of the warehouse that `hook` connects to.

    When its type is not known, an open `connection` by JDBC or ODBC is asked how it quotes names: `at` is a
    reserved word of HSQLDB and Derby. Else plain names get no quotes.
    """
    if found := DIALECTS.get(getattr(hook, "conn_type", None) or ""):
        return found
    try:
        quote, fold = _quoting(connection)
    except Exception:  # whatever the driver raises
        return OTHER
    return replace(OTHER, quotes=(quote, quote), fold=fold) if quote in ('"', "`") else OTHER


def _quoting(connection: Any) -> tuple[str, Fold]:
    """Return the quote of identifiers, and what the warehouse makes of one without quotes.

    Raises what the driver raises, or AttributeError when it has no way to ask.
    """
    if hasattr(connection, "jconn"):
        meta = connection.jconn.getMetaData()
        folds = ((meta.storesUpperCaseIdentifiers, str.upper), (meta.storesLowerCaseIdentifiers, str.lower))
        fold = next((fold for is_so, fold in folds if is_so()), str)
        return str(meta.getIdentifierQuoteString()), fold
    fold = _ODBC_FOLDS.get(connection.getinfo(_ODBC_CASE), str)
    return str(connection.getinfo(_ODBC_QUOTE)), fold


@dataclass(frozen=True)
class Name:
    """A table's or column's name, checked: parts of letters, digits and `_`, joined by dots.

    A part in double quotes is taken exactly as it is written. Any other means what it would mean without
    quotes in the warehouse's own SQL, reserved words included.
    """

    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: object, what: str, *, max_parts: int = 1) -> Name:
        """Parse a plain name. Raises ValueError for anything else; `what` is what the name is of."""
        part = r'[A-Za-z_][A-Za-z0-9_]*|"[A-Za-z0-9_ $-]+"'
        # Google's project ids have hyphens, and stand first of three.
        project = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)+\.(?=[^.]+\.[^.]+$)"
        pattern = rf"(?:{project}|(?:{part})\.)*(?:{part})"
        if not isinstance(text, str) or not re.fullmatch(pattern, text.strip(), re.ASCII):
            example = "'schema.table'" if max_parts > 1 else "'kk_order_ids'"
            raise ValueError(
                f"{what} must be a plain name such as {example}: letters, digits and _ "
                "(in double quotes to keep upper and lower case)"
            )
        parts = tuple(text.strip().split("."))
        if len(parts) > max_parts:
            raise ValueError(f"{what} has more than {max_parts} parts joined by dots")
        return cls(parts)

    def __str__(self) -> str:
        return ".".join(self.parts)

    def sql(self, dialect: SqlDialect) -> str:
        """Return the name as it stands in a statement."""
        return ".".join(_quoted(part, dialect) for part in self.parts)

    def folding(self, dialect: SqlDialect) -> str:
        """Return advice about upper and lower case if the warehouse folds the name; else empty."""
        parts = {part: part if part[0] == '"' else (dialect.fold or str)(part) for part in self.parts}
        if all(part == folded for part, folded in parts.items()):
            return ""
        quoted = ".".join(part if part == folded else f'"{part}"' for part, folded in parts.items())
        return (
            f". {self} is read as {'.'.join(parts.values())}. To keep upper and lower case, write it in "
            f"double quotes: '{quoted}'"
        )


def _quoted(part: str, dialect: SqlDialect) -> str:
    opening, closing = dialect.quotes
    if part.startswith('"'):
        return f"{opening}{part[1:-1]}{closing}"
    # Quoted after folding, a plain name means the same as without quotes, and may be a reserved word.
    return part if dialect.fold is None else f"{opening}{dialect.fold(part)}{closing}"


@dataclass
class Statement:
    """Builds one statement with its parameters, in the style that the driver takes."""

    style: str
    _values: list[str | None] = field(default_factory=list)

    def value(self, value: str | None) -> str:
        """Add a parameter; returns what stands for it in the statement."""
        self._values.append(value)
        return _PLACEHOLDERS[self.style].format(len(self._values))

    def values(self, row: tuple[str | None, ...]) -> str:
        """Add a row of parameters, in parentheses."""
        return f"({', '.join(map(self.value, row))})"

    @property
    def parameters(self) -> tuple[str | None, ...] | dict[str, str | None]:
        """The parameters that `execute` takes."""
        if self.style in ("named", "names"):
            return {f"p{index}": value for index, value in enumerate(self._values, 1)}
        return tuple(self._values)


_PLACEHOLDERS = {
    "qmark": "?",
    "format": "%s",
    "pyformat": "%s",
    "numeric": ":{}",
    "named": ":p{}",
    "names": "%(p{})s",
}

PERCENT_STYLES = ("format", "pyformat", "names")
"""Styles in which a % begins a parameter's place."""


def style_of(hook: DbApiHook, connection: Any) -> str:
    """Return the style of parameters of this connection: PEP 249's paramstyle, or `names` for `%(p1)s` alone.

    The driver's own `paramstyle` counts first; a hook's `placeholder` is Airflow's assumption without it.
    """
    if dialect_of(hook).named_parameters:
        return "names"
    module = type(connection).__module__
    while module:
        style = getattr(sys.modules.get(module), "paramstyle", None)
        if style in _PLACEHOLDERS:
            return str(style)
        module = module.rpartition(".")[0]
    return "qmark" if getattr(hook, "placeholder", "%s") == "?" else "format"


#: For each driver whose connections can yield other rows: a module, and the argument of `cursor()` with the
#: module's value of it for tuples.
_PLAIN = {
    "psycopg": ("psycopg.rows", "row_factory", "tuple_row"),
    "psycopg2": ("psycopg2.extensions", "cursor_factory", "cursor"),
    "MySQLdb": ("MySQLdb.cursors", "cursorclass", "Cursor"),
    "pymysql": ("pymysql.cursors", "cursor", "Cursor"),
}


def driver_of(connection: Any) -> str:
    """Return the top-level package of a connection's driver."""
    return type(connection).__module__.partition(".")[0]


def plain_cursor(connection: Any, **arguments: Any) -> Any:
    """Open a cursor that yields tuples, whatever rows the connection is set up to yield.

    A connection's `cursor` extra, such as `dictcursor`, is for other code. `arguments` win over those for
    tuples.
    """
    if driver_of(connection) in _PLAIN:
        module, argument, value = _PLAIN[driver_of(connection)]
        arguments = {argument: getattr(sys.modules[module], value), **arguments}
    return connection.cursor(**arguments)


def tuples(cursor: Any, rows: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return fetched rows as tuples, those too that a driver yields as dictionaries all the same."""
    names = [column[0] for column in cursor.description or ()]
    return [tuple(row[name] for name in names) if isinstance(row, Mapping) else tuple(row) for row in rows]


def leave_autocommit(hook: DbApiHook, connection: Any) -> bool:
    """Turn autocommit off, which is on by default with JDBC and where a connection asks for it.

    Returns whether changes now wait for a commit. They do not on a warehouse that has no transactions.
    """
    if not hook.get_autocommit(connection):
        return True
    with contextlib.suppress(Exception):  # whatever the driver raises
        hook.set_autocommit(connection, False)
    return not hook.get_autocommit(connection)
