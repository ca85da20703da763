"""Errors of database drivers: their text without values of rows, their class, and retries."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

_HIDDEN = "***"
_MAX_LENGTH = 300
#: SQLSTATEs of RAISE and SIGNAL: a function or trigger made the text, which may have any value.
_RAISED = ("P0", "45")
#: The class of faults of the statement itself: its syntax, its names, its rights.
_OF_STATEMENT = "42"
#: PostgreSQL's further lines, which repeat the statement with its parameters, or rows.
_ADDED = re.compile(r"(LINE \d+|DETAIL|CONTEXT|QUERY|WHERE|STATEMENT):|\s*\^")
#: An opening quote, not the one in "can't"; or a value without quotes, as BigQuery has it after a colon.
_QUOTED = re.compile(
    r"""(?<![^\W_])(["'`])(.*?)\1(?!\w)|(?<![^\W_])["'`].*"""
    r"""|(?<=\bvalue:).*|(?<=\bvalue\ )(?!["'`]|too\b|out\b|in\b|of\b|is\b|for\b).*""",
    re.IGNORECASE,
)
#: The start of a text of Snowflake's driver: its number, the SQLSTATE, the query's id.
_NUMBERED = re.compile(r"(\d{6}) \(([0-9A-Z]{5})\): (?:(?:[0-9a-f]{8}(?:-[0-9a-f]{4,12}){4}|None): )?")
#: The next part of that text for a wrong statement. Not all of these errors have SQLSTATE 42.
_COMPILATION = "SQL compilation error"
#: A phone number, also one that SQL computed with.
_DIGITS = re.compile(r"\+?\d(?:[ ()./-]*\d){5,}")


def describe_error(error: BaseException) -> str:
    """Return an error's class, and the text of the driver for errors of the ledger's database, in one line.

    The ledger has no personal data. The text of any other error may have some.
    """
    cause = getattr(error, "orig", None)
    if not isinstance(cause, BaseException):
        return type(error).__name__
    lines = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {lines[0][:_MAX_LENGTH]}"


def redact_db_error(error: BaseException, sql: str, *names: str) -> str:
    """Return the error's class, leading number, SQLSTATE and text in one line, without values of rows.

    The text is cut at the first quoted part that is neither in the statement `sql` nor one of the columns'
    `names`, and at the word `value`. Long numbers are hidden. Further lines, such as PostgreSQL's hint, are
    kept only if the statement itself is wrong.
    """
    state, text = sqlstate(error), _text(error).strip()
    title = type(error).__name__ + (f" ({state})" if state else "")
    if numbered := _NUMBERED.match(text):
        title = f"{type(error).__name__} {numbered[1]} ({numbered[2]})"
        text = text[numbered.end() :]
    if state.startswith(_RAISED):
        return f"{title}: the text is hidden, since it may hold values"
    lines = [line for line in text.splitlines() if line.strip() and not _ADDED.match(line)]
    if state.startswith(_OF_STATEMENT) or text.startswith(_COMPILATION):
        # Hints have names of the catalogue that are not in the statement.
        known = [line.strip() if line.startswith("HINT:") else _cut(line, sql, names) for line in lines]
    else:
        known = [_cut(line, sql, names) for line in lines[:1]]
    return f"{title}: {' '.join(known)[:_MAX_LENGTH]}" if known else title


def is_of_statement(error: BaseException) -> bool:
    """Return whether the statement itself is wrong, so that a retry does not help; False if unknown."""
    if state := sqlstate(error):
        return state.startswith(_OF_STATEMENT) or f": {_COMPILATION}" in _text(error)
    if number(error) in _MYSQLS_OF_STATEMENT or type(error).__name__ in _DUCKDBS_OF_STATEMENT:
        return True
    return type(error).__module__ == "sqlite3" and bool(_SQLITES_OF_STATEMENT.search(str(error)))


#: Unknown column, syntax, unknown table.
_MYSQLS_OF_STATEMENT = (1054, 1064, 1146)
#: Classes of errors: DuckDB has neither numbers nor SQLSTATEs.
_DUCKDBS_OF_STATEMENT = ("BinderException", "CatalogException", "ParserException")
_SQLITES_OF_STATEMENT = re.compile(r"no such (column|table|function)|syntax error|incomplete input")


def _text(error: BaseException) -> str:
    if text := _fields(error).get("M"):
        return str(text)
    # As text, some errors are their message in quotes with a number.
    bare = [getattr(error, "message", None), getattr(error, "msg", None), *error.args[1:2]]
    return next((text for text in bare if text and isinstance(text, str)), str(error))


def _fields(error: BaseException) -> Mapping[str, object]:
    """Return the fields of PostgreSQL's message by letter, which only redshift_connector raises."""
    first = error.args[0] if error.args else None
    return first if isinstance(first, Mapping) else {}


def number(error: BaseException) -> int | None:
    """Return the error number, which MySQL's and SQL Server's drivers have as first argument."""
    first = error.args[0] if error.args else None
    return first if isinstance(first, int) else None


def sqlstate(error: BaseException) -> str:
    """Return an error's SQLSTATE; empty if it has none.

    PEP 249 defines no place for it: it is an attribute, or in the first argument, which is Java's error with
    JDBC.
    """
    found: list[object] = [getattr(error, "sqlstate", None), getattr(error, "pgcode", None)]
    found += [_fields(error).get("C"), *error.args[:1]]
    found += [str(place.getSQLState()) for place in (error, *error.args[:1]) if hasattr(place, "getSQLState")]
    for state in found:
        if isinstance(state, str) and re.fullmatch(r"[0-9A-Z]{5}", state):
            return state
    # Snowflake's driver has it at the start of the text.
    numbered = _NUMBERED.match(_text(error).strip())
    return numbered[2] if numbered else ""


def _cut(line: str, sql: str, names: tuple[str, ...]) -> str:
    line = " ".join(line.split())
    for found in _QUOTED.finditer(line):
        if not _is_known(found[2], sql, names):
            # Cut to the end, since a value may contain quotes.
            line = line[: found.start()] + _HIDDEN
            break
    return _DIGITS.sub(lambda number: number[0] if number[0] in sql else _HIDDEN, line)


def _is_known(part: str | None, sql: str, names: tuple[str, ...]) -> bool:
    if not part:
        return False
    if part.lower() in map(str.lower, names):
        return True
    # A warehouse may write the database and the schema before a table's name.
    own = part if re.search(r"\s", part) else part.rpartition(".")[2]
    return any(
        re.search(rf"(?<!\w){re.escape(text)}(?!\w)", sql, re.IGNORECASE) for text in (part, own) if text
    )


T = TypeVar("T")

#: Long enough for a database to restart, so that KK's response is not lost.
RETRY_PAUSES_S = (0.1, 0.5, 2.0, 5.0, 10.0)

#: A lock timeout and a deadlock, in MySQL. SQL Server's deadlock is also 1205.
_MYSQLS_UNDONE = (1205, 1213)
#: The standard's serialization failure, PostgreSQL's deadlock and its lock timeout.
_UNDONE = ("40001", "40P01", "55P03")
#: No socket, no connection, no such host (during a failover); KILL QUERY and MariaDB's max_statement_time.
_MYSQLS_PASSING = (2002, 2003, 2005, 1317, 1969)
#: Lost connections; full disks and too many sessions; interventions of an operator. Their texts are
#: localized.
_PASSING = ("08", "53", "57")
#: --read-only, and InnoDB's own read-only mode. By number, since the text of other errors may quote a row.
_MYSQLS_READ_ONLY = (1290, 1836)
_READ_ONLY = ("25006",)

_TRANSIENT_TEXT = re.compile("locked|deadlock|timeout|connection|server closed|shutting down|shutdown|disk")


def retry(work: Callable[[], T], is_retryable: Callable[[Exception], bool]) -> T:
    """Run `work`, and retry it after pauses while its error is retryable."""
    for pause_s in RETRY_PAUSES_S:
        try:
            return work()
        except Exception as error:
            if not is_retryable(error):
                raise
        time.sleep(pause_s)
    return work()


def is_serialization_failure(error: BaseException) -> bool:
    """Return whether the database rolled a transaction back because of another one, so that a retry helps."""
    return _is_one_of(error, _MYSQLS_UNDONE, _UNDONE)


def takes_no_writes(error: BaseException) -> bool:
    """Return whether the server is read-only, as before or after a failover."""
    return _is_one_of(error, _MYSQLS_READ_ONLY, _READ_ONLY)


def _is_one_of(error: BaseException, numbers: Sequence[int], states: tuple[str, ...]) -> bool:
    cause = getattr(error, "orig", None) or error  # SQLAlchemy wraps the driver's own error
    return number(cause) in numbers or sqlstate(cause).startswith(states)


def is_transient(error: Exception) -> bool:
    """Return whether a retry may help, as after a lost connection, a lock, a full disk or a failover."""
    from sqlalchemy.exc import DBAPIError, IntegrityError

    if not isinstance(error, DBAPIError) or isinstance(error, IntegrityError) or error.orig is None:
        return False  # its text quotes keys, which may contain any of these words
    if error.connection_invalidated or error.statement is None:
        return True  # without a statement it failed to connect or to commit
    if is_serialization_failure(error) or takes_no_writes(error):
        return True
    if _is_one_of(error, _MYSQLS_PASSING, _PASSING):
        return True
    return bool(_TRANSIENT_TEXT.search(str(error.orig).lower()))
