"""Read a file of orders as rows: CSV, JSON or JSON lines, each also in gzip.

CSV is read as spreadsheets and shops write it.
The layout of a file is detected and reported in one line of the log. No error repeats what stands in a cell.
"""

from __future__ import annotations

import codecs
import gzip
import io
import logging
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, TextIO, cast

from airflow_provider_kk.warehouse.csv_rows import CsvLayout, FileError, read_csv
from airflow_provider_kk.warehouse.json_rows import read_json, read_json_lines
from airflow_provider_kk.warehouse.mapping_arguments import Check

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.warehouse.spool import Spool

__all__ = ["FileError", "read_file"]

_log = logging.getLogger(__name__)
_JSON_LINES = (".jsonl", ".ndjson")
_GZIP = b"\x1f\x8b"
_MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
_CHUNK = 1 << 20

#: Shows a person how a guessed encoding reads the words that are not ASCII.
ShowGuess = Callable[[str, Sequence[str]], object]


def read_file(
    path: str,
    *,
    check: Check,
    delimiter: str | None = None,
    quoting: str = "auto",
    encoding: str | None = None,
    header_line: int | None = None,
    file_format: str | None = None,
    log: Log | None = None,
    show_guess: ShowGuess | None = None,
) -> Spool:
    """Read all rows of a file; a row's position is its row in a spreadsheet, or its line or place in JSON.

    :param delimiter: of a CSV file; else detected.
    :param quoting: `auto`, `none`, or `double`: a cell in double quotes may hold delimiters and lines.
    :param encoding: else by the file's byte order mark, else UTF-8.
    :param header_line: the line of a CSV file that names the columns, from 1; else detected.
    :param file_format: `csv`, `jsonl` or `json`; else detected.
    :param log: gets one line that describes the file.
    :param show_guess: is called for each encoding that a file without a known one may have.
    :raises FileError: when there is no such file, or it cannot be read with certainty.
    """
    log = log or _log
    with _failing_as_file_error(path):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise FileError(
                f"{path} is a directory, a pipe or a device. Save it as a file, because it is read more "
                "than once"
            )
        source = _Source(path)
        _reject_other_formats(source)
        encoding = _encoding_of(source, encoding, show_guess)
        with closing(source.text(encoding)) as file:
            kind = file_format or _format_of(file, source.name)
            file.seek(0)
            if kind == "csv":
                layout = CsvLayout(delimiter, quoting, header_line)
                spool, before, after = read_csv(file, check, layout, log)
            elif kind == "jsonl":
                spool, before, after = read_json_lines(file, check), "JSON lines", ""
            else:
                spool, before, after = read_json(file, check), "JSON", ""
    rows = "1 row" if spool.rows == 1 else f"{spool.rows:,} rows"
    encoding = encoding.removesuffix("-sig").upper() if encoding.startswith("utf") else encoding
    parts = ("gzip" if source.is_gzip else "", before, encoding, after, rows)
    log.info("%s: %s", Path(path).name, ", ".join(filter(None, parts)))
    return spool


class _Source:
    """A file on disk, plain or in gzip."""

    def __init__(self, path: str) -> None:
        self.path = path
        with open(path, "rb") as file:
            self.is_gzip = file.read(2) == _GZIP
        self.name = Path(path).stem if self.is_gzip and Path(path).suffix.lower() == ".gz" else path

    def open(self) -> IO[bytes]:
        return cast("IO[bytes]", gzip.open(self.path)) if self.is_gzip else open(self.path, "rb")

    def begin(self) -> bytes:
        with self.open() as file:
            return file.read(4_096)

    def text(self, encoding: str) -> TextIO:
        return io.TextIOWrapper(self.open(), encoding, newline="")


@contextmanager
def _failing_as_file_error(path: str) -> Iterator[None]:
    try:
        yield
    except UnicodeError:  # its text would hold what surrounds the byte
        fault = f"{path} is not text in the given --encoding: give another one, or leave it out"
    except (gzip.BadGzipFile, EOFError, zlib.error):
        fault = f"{path} is a damaged or incomplete gzip file: download or copy it again"
    except OSError as error:
        fault = f"{path} cannot be read: {error.strerror or type(error).__name__}"
    else:
        return
    raise FileError(fault)


# Formats -------------------------------------------------------------------------------------------

_PANDAS = (
    "convert it, for example: python -c \"import pandas; pandas.{}('{{}}', dtype_backend='pyarrow')"
    ".to_csv('orders.csv', index=False)\""
)
_SPREADSHEET = "open it in a spreadsheet program and save it as CSV (UTF-8)"
#: First bytes, what they stand for, and how the file becomes one that is read.
_BINARY = (
    (b"PAR1", "a Parquet file", _PANDAS.format("read_parquet")),
    (b"ARROW1", "an Arrow (Feather) file", _PANDAS.format("read_feather")),
    (b"ORC", "an ORC file", _PANDAS.format("read_orc")),
    (b"Obj\x01", "an Avro file", "write its records as JSON lines, e.g. with `avro cat --format json`"),
    (
        b"SQLite format 3\0",
        "a SQLite database",
        "give a query and the file: --sql 'SELECT ...' --warehouse {}",
    ),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel workbook (.xls)", _SPREADSHEET),
    (b"%PDF", "a PDF document", "export the orders as CSV where the document comes from"),
    (b"{\\rtf", "a rich text document", "save it as plain text, or export the orders as CSV"),
    (b"BZh", "a bzip2 archive", "unpack it: bunzip2 {}"),
    (b"\xfd7zXZ\0", "an xz archive", "unpack it: unxz {}"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it: unzstd {}"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "unpack it, and give the file in it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it, and give the file in it"),
    (b"\x89PNG", "an image", "export the orders as CSV"),
    (b"\xff\xd8\xff", "an image", "export the orders as CSV"),
    (b"GIF8", "an image", "export the orders as CSV"),
)
_MARKUP = re.compile(rb"\s*<(!doctype|html|head|body|table|meta|\?xml|!--|[a-z]+[:\s>])", re.IGNORECASE)


def _reject_other_formats(source: _Source) -> None:
    begin = source.begin()
    if begin.startswith(b"PK\x03\x04"):
        raise FileError(f"{source.path} is {_zip_contents(source)}")
    for mark, what, advice in _BINARY:
        # A text may begin with these letters, too: as the name of its first column.
        if begin.startswith(mark) and not (
            mark.isalnum() and begin[:64].isascii() and b"\0" not in begin[:64]
        ):
            raise FileError(f"{source.path} is {what}: {advice.format(source.path)}")
    if _MARKUP.match(begin.removeprefix(b"\xef\xbb\xbf")):
        raise FileError(
            f"{source.path} is an HTML page or XML, maybe a sign-in page instead of the download: "
            f"download it again, or {_SPREADSHEET}"
        )


def _zip_contents(source: _Source) -> str:
    try:
        with zipfile.ZipFile(source.path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        names = []
    if any(name.startswith(("xl/", "content.xml")) for name in names):
        return f"a workbook of a spreadsheet program: {_SPREADSHEET}"
    return f"a zip file or a workbook: unpack it and give the file in it, or {_SPREADSHEET}"


_JSON_BEGIN = re.compile(r'\s*(\[\s*(\{\s*["}]|\])|\{\s*["}])')


def _format_of(file: TextIO, name: str) -> str:
    """Return the format of a text, by its first characters and, for JSON lines, its name."""
    if Path(name).suffix.lower() in _JSON_LINES:
        return "jsonl"
    begin = file.read(4_096)
    if not _JSON_BEGIN.match(begin):
        if Path(name).suffix.lower() == ".json":
            raise FileError(
                f"{name} does not begin like JSON: write a list of orders, [{{...}}], or give --format"
            )
        return "csv"
    if begin.lstrip().startswith("["):
        return "json"
    file.seek(0)
    return "jsonl" if _has_an_object_a_line(file) else "json"


def _has_an_object_a_line(file: TextIO) -> bool:
    lines = (line.strip() for line in file if line.strip())
    first, second = next(lines), next(lines, "")
    return first.endswith("}") and second.startswith("{")


# Encodings -----------------------------------------------------------------------------------------

#: What exports are written in, and so worth a look beside the guesses.
_COMMON = ("cp1252", "cp1250", "cp1251", "mac_roman", "cp932", "gb18030", "big5", "cp949", "cp850")
_GUESSES = 6
_SHOWN = 4
_SAMPLE = 200_000
_FEWEST_SIGNS = 5


def _encoding_of(source: _Source, given: str | None, show_guess: ShowGuess | None) -> str:
    """Return the encoding to read a file with.

    Without a byte order mark only UTF-8 is certain. A guess is never used: on a few names and addresses,
    charset-normalizer is wrong too often, even where it finds a single encoding, and what it reads then are
    other letters, not an error.
    """
    begin = source.begin()
    marked = next((name for mark, name in _MARKS if begin.startswith(mark)), None)
    if given is None:
        if found := marked or _unmarked_utf_16(begin) or ("utf-8-sig" if _is_utf_8(source)[0] else None):
            return found
        raise _unknown_encoding(source, show_guess)
    try:
        io.TextIOWrapper(io.BytesIO(), given)
    except LookupError:
        raise FileError(f"--encoding {given!r} does not exist. Give one such as cp1252 or utf-8") from None
    name = codecs.lookup(given).name
    if name.startswith("utf"):
        return marked if marked and marked.removesuffix("-sig") == name.removesuffix("-sig") else name
    is_utf_8, is_ascii = _is_utf_8(source)
    if is_utf_8 and not is_ascii:
        raise FileError(f"{source.path} is UTF-8, and {given} would read other letters: leave --encoding out")
    _reject_signs_for_letters(source, given)
    return given


def _unmarked_utf_16(begin: bytes) -> str | None:
    """Return UTF-16 for a text of mostly ASCII, such as a header, in which every other byte is zero."""
    for name, zeros, others in (
        ("utf-16-le", begin[1::2], begin[::2]),
        ("utf-16-be", begin[::2], begin[1::2]),
    ):
        if len(zeros) > 1 and zeros.count(0) > len(zeros) / 2 and not others.count(0):
            return name
    return None


def _is_utf_8(source: _Source) -> tuple[bool, bool]:
    """Return whether a file is UTF-8, and whether it is plain ASCII without escapes to other letters."""
    is_ascii = True
    try:
        with source.text("utf-8") as file:
            while chunk := file.read(_CHUNK):
                # ISO-2022-JP and its like are ASCII throughout, with escape sequences.
                if "\x1b$" in chunk:
                    return False, False
                is_ascii = is_ascii and chunk.isascii()
    except UnicodeDecodeError:
        return False, False
    return True, is_ascii


def _unknown_encoding(source: _Source, show_guess: ShowGuess | None) -> FileError:
    lines = _non_ascii_lines(source)
    others = [
        number for number, line in lines if b"\x1b" in line or line.decode(errors="ignore").encode() != line
    ]
    if others and len(others) * 2 <= len(lines):
        return FileError(
            f"line {others[0]} is not UTF-8, but other lines are: the file has two encodings. Fix "
            "that line, or export the file again"
        )
    sample = b"".join(line for _, line in lines)
    guesses = _guesses(sample)
    if show_guess is not None:
        for guess in guesses:
            show_guess(guess, _non_ascii_parts(sample.decode(guess, "replace")))
    names = ", ".join(guesses) or "none"
    return FileError(
        f"{source.path} is not UTF-8, and its encoding is unknown. Encodings that may fit: {names}. "
        "On a terminal, `kk check` prints some words in each of them. Give the right one as --encoding, or "
        "save the file as CSV (UTF-8)"
    )


def _reject_signs_for_letters(source: _Source, given: str) -> None:
    """Stop when many letters become signs: Chinese in cp1252 is full of ± and ¾."""
    text = b"".join(line for _, line in _non_ascii_lines(source)).decode(given, "replace")
    others = [character for character in text if not character.isascii()]
    signs = sum("\xa1" <= character <= "\xbf" and not character.isalpha() for character in others)
    if signs >= _FEWEST_SIGNS and signs > len(others) / 4:
        raise FileError(
            f"{source.path} is unlikely to be {given}: many letters would be signs such as \xb1 or \xbe. "
            "Give another --encoding, or leave it out to see those that may fit"
        )


def _non_ascii_lines(source: _Source) -> list[tuple[int, bytes]]:
    """Return lines with other letters than those of ASCII, with their numbers, as far as a sample goes."""
    found, size = [], 0
    with source.open() as file:
        for number, line in enumerate(file, 1):
            if not line.isascii() or b"\x1b" in line:
                found.append((number, line))
                size += len(line)
            if size > _SAMPLE:
                break
    return found


def _guesses(sample: bytes) -> list[str]:
    from charset_normalizer import from_bytes

    found: dict[str, str] = {}  # how the sample reads -> encoding
    for match in from_bytes(sample):
        fitting = match.could_be_from_charset
        found.setdefault(str(match), next((name for name in _COMMON if name in fitting), match.encoding))
    for name in _COMMON:
        try:
            found.setdefault(sample.decode(name), name)
        except UnicodeDecodeError:
            continue
    return list(dict.fromkeys(found.values()))[:_GUESSES]


def _non_ascii_parts(text: str) -> list[str]:
    """Return some words with letters that are not ASCII, to recognise an encoding, without their rows."""
    parts = re.findall(r"[^\W\d_]+|[^\x00-\x7f]+", text)
    return list(dict.fromkeys(part for part in parts if not part.isascii()))[:_SHOWN]
