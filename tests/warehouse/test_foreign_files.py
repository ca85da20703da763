"""Files as shops, marketplaces and spreadsheets really write them are read as they are meant, or rejected.

Their inputs are in tests/foreign; all people in them are invented.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from airflow_provider_kk.warehouse.files import FileError, read_file
from airflow_provider_kk.warehouse.mapping_arguments import NUMBER, ColumnsError
from airflow_provider_kk.warehouse.match_columns import FILE, match_columns
from airflow_provider_kk.warehouse.spool import RowKey

FOREIGN = Path(__file__).parents[1] / "foreign"
HEAD = [NUMBER, "recipient", "phone", "street1", "city", "province", "zip", "country", "sku", "quantity"]
FIELDS = {
    "order-id": "custom_order_number",
    "quantity-purchased": "quantity",
    "recipient-name": "recipient",
    "buyer-phone-number": "phone",
    "ship-state": "province",
    "ship-country": "country",
}
AMAZON = {ours: theirs for theirs, ours in FIELDS.items()}
Rows = list[dict[str, Any]]
Write = Callable[..., str]


def any_names(_names: Sequence[str]) -> None:
    """Accept every header."""


def read(path: str | Path, columns: dict[str, str] | None = None, **options: Any) -> Rows:
    """The rows of a file by their column names, without empty cells."""
    check = any_names if columns is None else lambda names: match_columns(names, columns, FILE)
    with read_file(str(path), check=check, **options) as spool:
        width = range(len(spool.names))
        return [
            {name: cell for name, cell in zip(spool.names, row.cells, strict=True) if cell is not None}
            for _, group in spool.groups(RowKey("each row", (), lambda _: None), width)
            for row in group
        ]


def fault_of(path: str | Path, columns: dict[str, str] | None = None, **options: Any) -> str:
    with pytest.raises((FileError, ColumnsError)) as raised:
        read(path, columns, **options)
    return str(raised.value)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str | bytes, name: str = "orders.csv", encoding: str = "utf-8") -> str:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
        return str(path)

    return write


# What is detected ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "described"),
    [
        ("a01_shopify_multi.csv", "comma-separated, double quotes, UTF-8, header in line 1, 3 rows"),
        ("a06_german_excel.csv", "semicolon-separated, double quotes, UTF-8, header in line 1, 3 rows"),
        ("a06b_sep_line.csv", "semicolon-separated, double quotes, UTF-8, header in line 2, 1 row"),
        ("a06c_title_above.csv", "semicolon-separated, double quotes, UTF-8, header in line 3, 1 row"),
        ("a06d_utf16_tab.txt", "tab-separated, double quotes, UTF-16, header in line 1, 1 row"),
        ("a06e_empty_first_line.tsv", "tab-separated, double quotes, UTF-8, header in line 2, 1 row"),
        ("a06f_mixed_line_ends.csv", "comma-separated, double quotes, UTF-8, header in line 1, 4 rows"),
        ("a07_amazon_quotes.txt", "tab-separated, no quoting, UTF-8, header in line 1, 4 rows"),
        ("a08b_trailing_delimiter.csv", "comma-separated, double quotes, UTF-8, header in line 1, 2 rows"),
        ("a09_odoo_blank_parent.csv", "comma-separated, double quotes, UTF-8, header in line 1, 3 rows"),
        ("a10_ebay.csv", "comma-separated, double quotes, UTF-8, header in line 2, 4 rows"),
        ("a14_shopify_api.jsonl", "JSON lines, UTF-8, 2 rows"),
        ("a14b_shopify_api.json", "JSON, UTF-8, 2 rows"),
        ("a14c_lines.json", "JSON lines, UTF-8, 2 rows"),
        ("a17c_orders.csv.gz", "gzip, comma-separated, double quotes, UTF-8, header in line 1, 1 row"),
        ("a18_magento.csv", "comma-separated, double quotes, UTF-8, header in line 1, 2 rows"),
        ("a22_title_in_quotes.txt", "tab-separated, no quoting, UTF-8, header in line 1, 1 row"),
        ("a22b_open_quote_at_end.txt", "tab-separated, no quoting, UTF-8, header in line 1, 2 rows"),
    ],
)
def test_a_file_is_described_in_one_line_of_the_log(
    name: str, described: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    read(FOREIGN / name, log=logging.getLogger(__name__))

    assert caplog.messages[-1] == f"{name}: {described}"


def test_quotes_of_titles_in_a_tab_file_swallow_no_rows() -> None:
    rows = read(FOREIGN / "a07_amazon_quotes.txt", AMAZON)

    assert [(row["order-id"][:11], row["recipient-name"], row["quantity-purchased"]) for row in rows] == [
        ("111-0000001", "Anna Alpha", "1"),
        ("111-0000002", "Bert Beta", "1"),
        ("111-0000003", "Carl Gamma", "7"),
        ("111-0000004", "Dora Delta", "1"),
    ]
    (titled,) = read(FOREIGN / "a22_title_in_quotes.txt")
    assert titled["product-name"] == '"Best" mug, 12" high'
    assert [row["order-id"] for row in read(FOREIGN / "a22b_open_quote_at_end.txt")] == ["111-1", "111-2"]


def test_a_tab_file_whose_quoted_fields_all_end_with_a_quote_is_unquoted(write: Write) -> None:
    path = write('a\tb\n1\t"say ""hi"""\n"2"\tposter 12"\n')

    assert read(path) == [{"a": "1", "b": 'say "hi"'}, {"a": "2", "b": 'poster 12"'}]


def test_a_tab_file_with_quoted_columns_and_an_open_quote_is_rejected_until_quoting_is_given(
    write: Write,
) -> None:
    path = write('"id"\t"title"\tnote\n"1"\t"mug"\t"ring\ntwice"\n')

    assert "line 2 has a cell that begins with a quote and does not end with one" in fault_of(path)
    assert read(path, quoting="double") == [{"id": "1", "title": "mug", "note": "ring\ntwice"}]


@pytest.mark.parametrize("delimiter", [",", ";", "|"])
def test_an_open_quote_in_a_csv_file_swallows_no_rows(write: Write, delimiter: str) -> None:
    rows = ['A-1,"Retro lamp,1', "A-2,Plain tee,1", 'A-3,Poster 12",7', "A-4,Mug,1"]
    path = write("\n".join(["id,title,quantity", *rows]).replace(",", delimiter))

    assert "row 2 spans 3 lines that look like rows of their own" in fault_of(path)
    assert [row["id"] for row in read(path, quoting="none")] == ["A-1", "A-2", "A-3", "A-4"]


def test_a_quoted_cell_may_go_on_over_lines_that_are_no_rows() -> None:
    first, second = read(FOREIGN / "a18_magento.csv")

    assert first["shipping_street"] == second["shipping_street"] == "1 First St\nApt 2"


def test_quoting_that_is_given_is_certain(write: Write) -> None:
    path = write('id,note\n1,"ring\n2,please"\n')

    assert "look like rows of their own" in fault_of(path)
    assert read(path, quoting="double") == [{"id": "1", "note": "ring\n2,please"}]


@pytest.mark.parametrize("mark", ["sep=;", "SEP=;", '"sep=;"'])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_separator_line_names_the_delimiter(write: Write, mark: str, end: str) -> None:
    path = write(f"\ufeff{mark}{end}a,b;c{end}1,5;2{end}")

    assert read(path) == [{"a,b": "1,5", "c": "2"}]


def test_lines_above_the_header_are_found_by_the_columns(write: Write) -> None:
    head, row = ";".join(HEAD), "A-1;Ida;1;Street 1, back;City;P;02134;US;S;1"
    path = write(f"Shop;28.11.2026, 10:00\n\n{head}\n{row}\n")

    assert [one["zip"] for one in read(path, {})] == ["02134"]
    assert [one["zip"] for one in read(path, header_line=3)] == ["02134"]
    assert "file is empty" in fault_of(path, header_line=9)
    without = write(f"Shop;28.11.2026\nx;{head}\nx;{row}\n", "others.csv")
    assert "Line 1 was read as the header" in fault_of(without, {"sku": "none"})


def test_no_row_as_wide_as_an_order_is_taken_for_a_title(write: Write) -> None:
    other = ";".join(f"Column {n}" for n in range(len(HEAD)))
    row = "A-1;Ida;1;Street 1;City;P;02134;US;S;1"
    path = write(f"{other}\n{row}\n\n{';'.join(HEAD)}\n{row}\n")

    assert "no column" in fault_of(path, {})
    assert len(read(path, {}, header_line=4)) == 1


def test_names_in_quotes_that_belong_to_the_text_are_checked_as_they_are(write: Write) -> None:
    head = "\t".join([*HEAD[:-1], f'"{HEAD[-1]}"'])
    path = write(f'{head}\n{chr(9).join("x" * 9)}\t"1\n')

    assert "no column quantity" in fault_of(path, {})


# Widths ----------------------------------------------------------------------------------------------


def test_a_shifted_row_stops_the_file_and_the_same_surplus_in_all_rows_does_not() -> None:
    assert "row 3 has 12 cells, but the header has 11 columns" in fault_of(FOREIGN / "a08_shifted_row.csv")
    assert [row["street1"] for row in read(FOREIGN / "a08b_trailing_delimiter.csv")] == ["1 Rue Test"] * 2


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ("1,2,3\n1,2,3,\n", 3),  # a surplus in one row
        ("1,2,3,\n1,2,3\n", 3),
        ("1,2,3,\n1,2,3,,\n", 3),
        ("1,2,3,4\n", 2),
        ("Test, Ida,3,\n", 2),  # all rows have a surplus, by the comma of a name
        ("1,2\n", 2),
        ("1,2,3\n\n1,2\n1,2,3\n", 4),
        ("1,2,3\n\n1,2\n", 4),
        ("1,2,3\n\n1", 4),  # the download was cut off
    ],
)
def test_a_row_with_other_cells_than_the_header_stops_the_file(write: Write, rows: str, row: int) -> None:
    assert f"row {row} has" in fault_of(write(f"a,b,c\n{rows}"))


def test_a_header_may_end_with_delimiters_and_its_rows_may_not(write: Write) -> None:
    assert read(write("a,b,,\n1,2\n")) == read(write("a,b,,\n1,2,,\n")) == [{"a": "1", "b": "2"}]
    assert "row 2 has 3 cells" in fault_of(write("a,b,\nTest,Ida,2\n"))


def test_a_footer_is_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    rows = read(FOREIGN / "a10_ebay.csv", log=logging.getLogger(__name__))

    assert [row["Sales Record Number"] for row in rows] == ["501", "502", "502", "502"]
    assert "The rows from 9 on, after an empty one, have too few cells for an order" in caplog.text


def test_a_footer_of_full_width_is_a_row(write: Write) -> None:
    assert len(read(FOREIGN / "a24_footer_total.csv")) == 2


def test_columns_of_one_name_are_rejected() -> None:
    columns = {
        "custom_order_number": "Order ID",
        "recipient": "Name",
        "province": "State",
        "street1": "Address",
    }

    assert "more than once" in fault_of(FOREIGN / "a17d_duplicate_header.csv", columns)


# Encodings -------------------------------------------------------------------------------------------

ENCODED = [
    ("a07b_amazon_latin1.txt", "latin-1", "Jörg Größe"),
    ("a07b_amazon_latin1.txt", "cp1252", "Jörg Größe"),
    ("a07c_amazon_sjis.txt", "cp932", "見本 太郎"),
]


@pytest.mark.parametrize(("name", "encoding", "recipient"), ENCODED)
def test_an_encoding_that_is_given_is_used(name: str, encoding: str, recipient: str) -> None:
    assert [row["recipient-name"] for row in read(FOREIGN / name, encoding=encoding)] == [recipient]


@pytest.mark.parametrize(
    ("name", "right", "word"),
    [
        ("a07b_amazon_latin1.txt", "cp1252", "Größe"),
        ("a07c_amazon_sjis.txt", "cp932", "太郎"),
        ("a27_gbk.csv", "gb18030", "样本"),
    ],
)
def test_an_unknown_encoding_is_rejected_with_several_candidates_and_how_they_read(
    name: str, right: str, word: str
) -> None:
    shown: dict[str, Sequence[str]] = {}

    fault = fault_of(FOREIGN / name, show_guess=shown.__setitem__)

    assert next(iter(shown)) == right
    assert word in shown[right]
    assert len(shown) > 2
    assert all(encoding in fault for encoding in shown)
    assert not any(word in fault for words in shown.values() for word in words)


def test_an_encoding_that_makes_signs_of_letters_is_rejected(write: Write) -> None:
    assert "is unlikely to be cp1252" in fault_of(FOREIGN / "a27_gbk.csv", encoding="cp1252")
    assert [row["city"] for row in read(FOREIGN / "a27_gbk.csv", encoding="gb18030")] == ["上海"]
    few = write("a,b\n1,12½ Main St 3° «x»\n", encoding="cp1252")
    assert read(few, encoding="cp1252") == [{"a": "1", "b": "12½ Main St 3° «x»"}]


@pytest.mark.parametrize(
    ("encoding", "given"),
    [
        ("cp932", "latin-1"),
        ("gb18030", "cp1252"),
        ("cp1252", "utf-8"),
        ("cp1252", "cp932"),
        ("utf-8", "cp1252"),
    ],
)
def test_an_encoding_in_which_the_file_is_no_text_is_rejected(
    write: Write, encoding: str, given: str
) -> None:
    text = {"cp932": "見本 太郎ソ表", "gb18030": "上海市浦东新区丂"}.get(encoding, "Jörg Größe \u2013")
    path = write(f"a,b\n1,{text}\n", encoding=encoding)

    assert "ncoding" in fault_of(path, encoding=given)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-32", "utf-8-sig"])
def test_unicode_is_read_with_and_without_a_mark(write: Write, encoding: str) -> None:
    path = write("a,b\n1,Zoë 見本\n", encoding=encoding)

    assert read(path) == [{"a": "1", "b": "Zoë 見本"}]


@pytest.mark.parametrize("given", ["utf-8", "UTF8", "utf_8", "utf-16"])
def test_a_mark_is_no_part_of_the_first_name_whatever_encoding_is_given(write: Write, given: str) -> None:
    path = write("a,b\n1,2\n", encoding="utf-16" if "16" in given else "utf-8-sig")

    assert read(path, encoding=given) == [{"a": "1", "b": "2"}]


def test_escapes_of_iso_2022_are_no_text_in_utf_8(write: Write) -> None:
    path = write("a,b\n1,見本\n", encoding="iso2022_jp")

    assert "iso2022_jp" in fault_of(path)
    assert read(path, encoding="iso2022_jp") == [{"a": "1", "b": "見本"}]


def test_a_line_in_another_encoding_than_the_others_is_named(write: Write) -> None:
    lines = [b"a,b\n", *["1,Größe\n".encode()] * 3, "2,Größe\n".encode("cp1252")]

    assert "line 5 is not UTF-8, but other lines are" in fault_of(write(b"".join(lines)))


# Formats ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a17_parquet.parquet", "is a Parquet file: convert it"),
        ("a17b_old_excel.xls", "is an old Excel workbook (.xls): open it in a spreadsheet program"),
        ("a17e_html.csv", "is an HTML page"),
    ],
)
def test_other_formats_are_named_with_a_way_to_convert_them(name: str, says: str) -> None:
    assert says in fault_of(FOREIGN / name)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"SQLite format 3\x00", "--sql 'SELECT ...' --warehouse"),
        (b"Obj\x01\x04\x14avro.codec", "an Avro file"),
        (b"ORC\x08\x03\x10\xff\x00", "an ORC file"),
        (b"ARROW1\x00\x00", "an Arrow"),
        (b"%PDF-1.7", "a PDF"),
        (b"BZh91AY&SY\x00", "bunzip2"),
        (b"\x28\xb5\x2f\xfd\x00", "unzstd"),
        (b"\xfd7zXZ\x00", "unxz"),
        (b"  \n<table><tr>", "HTML page or XML"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>", "HTML page or XML"),
        (b"PK\x03\x04", "zip file or a workbook"),
        (b"\x1f\x8b\x08\x00", "damaged or incomplete gzip file"),
    ],
)
def test_formats_are_recognised_by_their_first_bytes_whatever_the_name(
    write: Write, content: bytes, says: str
) -> None:
    assert says in fault_of(write(content))


def test_a_text_that_begins_as_another_format_is_read(write: Write) -> None:
    assert read(write("ORCODE,b\n1,2\n")) == [{"ORCODE": "1", "b": "2"}]


@pytest.mark.parametrize("name", ["orders.csv", "orders.jsonl", "orders.json"])
def test_gzip_of_each_format_is_read_and_a_cut_one_rejected(write: Write, name: str) -> None:
    content = {"csv": "a,b\n1,2\n", "jsonl": '{"a": "1", "b": "2"}\n', "json": '[{"a": "1", "b": "2"}]'}
    packed = gzip.compress(content[name.partition(".")[2]].encode())

    assert read(write(packed, f"{name}.gz")) == [{"a": "1", "b": "2"}]
    assert "damaged or incomplete" in fault_of(write(packed[:-9], f"{name}.gz"))


def test_the_format_can_be_given(write: Write) -> None:
    path = write('{"a": "1"}\n', "orders.txt")

    assert read(path, file_format="csv", delimiter=":") == []
    assert read(path) == read(path, file_format="jsonl") == read(path, file_format="json") == [{"a": "1"}]


# JSON ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '[{"n": 1.10, "b": [1, {"c": 2}]}, {"n": 9007199254740993}]',
        '{"orders": [{"n": 1.10, "b": [1, {"c": 2}]}, {"n": 9007199254740993}], "count": 2, "next": null}',
        '{"n": 1.10, "b": [1, {"c": 2}]}\n\n{"n": 9007199254740993}\n',
    ],
)
@pytest.mark.parametrize("indent", [False, True])
def test_lists_wrapped_lists_and_lines_of_json_are_read_with_exact_numbers(
    write: Write, text: str, indent: bool
) -> None:
    if indent and "\n" not in text:
        text = json.dumps(json.loads(text, parse_float=str), indent=2).replace('"1.10"', "1.10")
    rows = read(write(text, "orders.json"))

    assert [row["n"] for row in rows] == [Decimal("1.10"), 9007199254740993]
    assert str(rows[0]["n"]) == "1.10"


def test_a_single_order_with_a_list_of_lines_is_one_order(write: Write) -> None:
    order = dict.fromkeys(HEAD[:8], "x") | {
        "items": [{"sku": "S", "quantity": 1}, {"sku": "T", "quantity": 2}]
    }

    (row,) = read(write(json.dumps(order, indent=1), "order.json"), {})

    assert row["items"] == order["items"]


def test_the_list_of_orders_is_found_by_its_columns_among_others(write: Write) -> None:
    order = dict.fromkeys(HEAD, "x")
    text = json.dumps({"links": [{"rel": "next"}], "orders": [order, order], "errors": []})

    assert read(write(text, "orders.json"), {}) == [order, order]
    text = json.dumps({"orders": [order], "archived": [order]})
    assert "several lists of orders" in fault_of(write(text, "orders.json"), {})
    assert "no column" in fault_of(write(json.dumps({"links": [{"rel": "next"}]}), "orders.json"), {})


@pytest.mark.parametrize("name", ["a14d_duplicate_keys.jsonl", "a14e_two_lines.jsonl"])
def test_a_key_twice_in_an_object_is_rejected_with_its_line(name: str) -> None:
    assert "line 1 has 'quantity' twice in one JSON object" in fault_of(FOREIGN / name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[{"a": 1}, {"a": 1, "a": 1}]', "order 2 of the list has 'a' twice"),
        ('[{"a": {"b": [{"c": 1, "c": 2}]}}]', "order 1 of the list has 'c' twice"),
        ('{"orders": [{"a": 1}], "orders": []}', "the file has 'orders' twice"),
        ('[{"a": 1}, 5]', "order 2 of the list is not a JSON object"),
        ('[{"a": 1}, {"a": ', "order 2 of the list is not JSON, or the file is cut off"),
        ('[{"a": 1}', "after order 1 of the list"),
        ('[{"a": 1}] [{"a": 2}]', "the file continues after the list"),
        ('[{"zip": 02134}]', "order 1 of the list is not JSON"),
        ("[]", "the file is empty"),
        ("Zebulon", "does not begin like JSON"),
    ],
)
def test_json_that_is_no_list_of_orders_is_rejected_by_its_place(write: Write, text: str, says: str) -> None:
    fault = fault_of(write(text, "orders.json"))

    assert says in fault
    assert "Zebulon" not in fault


def test_a_list_is_read_in_pieces(write: Write) -> None:
    rows = [{"n": n, "text": "é" * 5_000} for n in range(300)]

    assert read(write(json.dumps(rows, ensure_ascii=False), "orders.json")) == rows


def test_further_fields_of_an_address_stay_in_its_column(write: Write) -> None:
    address = {"zip": "1", "id": 7, "name": "x"}
    (row,) = read(write(json.dumps({"id": 8, "address": address}), "orders.jsonl"))

    assert row == {"id": 8, "address": address, "zip": "1"}


# What needs the user -----------------------------------------------------------------------------------


def test_lines_as_text_in_one_cell_are_named_with_an_example() -> None:
    fault = fault_of(FOREIGN / "a13_bigcommerce.csv", {"custom_order_number": "Order ID"})

    assert "the column Product Details has the lines of an order as text" in fault
    assert "re.findall" in fault


def test_the_script_of_the_docs_makes_rows_of_lines_in_one_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (FOREIGN.parents[1] / "docs/howto-csv.md").read_text()
    (script,) = re.findall(r"```python\n(import csv.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bigcommerce.csv").write_bytes((FOREIGN / "a13_bigcommerce.csv").read_bytes())

    exec(compile(script, "docs/howto-csv.md", "exec"), {})  # noqa: S102 - our own page

    rows = read("orders.csv")
    assert [(row["Order ID"], row["sku"], row["quantity"]) for row in rows] == [
        ("301", "FWXW00290_WHT_M", "2"),
        ("301", "FWTS00104_BLK_S", "1"),
    ]


def test_a_column_items_that_is_a_count_is_resolved_by_mapping_sku_and_quantity() -> None:
    fault = fault_of(FOREIGN / "a21b_items_count.csv", {})

    assert "map them: --columns sku=sku --columns quantity=quantity" in fault
    assert read(FOREIGN / "a21b_items_count.csv", {"sku": "sku", "quantity": "quantity"})


# Any table ---------------------------------------------------------------------------------------------

CELLS = st.one_of(
    st.sampled_from(
        ["", '"', '""', 'Poster 12"', '"Retro lamp', '"Best" mug', "Test, Ida", " Ida", "sep=;", "a|b"]
    ),
    st.text(st.sampled_from("ab1,;|\t\"' \néß見Я\u00a0"), max_size=6),
)
TABLES = st.lists(
    st.tuples(st.from_regex(r"[A-Z]-[0-9]{1,3}", fullmatch=True), *[CELLS] * 4), min_size=1, max_size=6
)
LAYOUTS = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from(",;|\t"),
        "quoting": st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONE]),
        "encoding": st.sampled_from(
            ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252", "cp1251", "cp932", "gb18030", "mac_roman"]
        ),
        "end": st.sampled_from(["\n", "\r\n", "\r"]),
        "above": st.sampled_from(["", "\n", "Orders\n\n"]),
    }
)
NAMES = ("id", "name", "title", "street", "note")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TABLES, LAYOUTS)
@example(
    [("A-1", '"Retro', "", "", ""), ("A-2", "x", "", "", ""), ("A-3", '12"', "", "", "")],
    {"delimiter": ",", "quoting": csv.QUOTE_NONE, "encoding": "utf-8", "end": "\n", "above": ""},
)
def test_any_table_is_read_as_it_was_written_or_rejected(
    tmp_path: Path, table: list[tuple[str, ...]], layout: dict[str, Any]
) -> None:
    # In a tab file without certain quoting, a cell that holds a whole row is one.
    assume(not any("\n" in cell and cell.count("\t") >= len(NAMES) - 1 for row in table for cell in row))
    if layout["quoting"] == csv.QUOTE_NONE:  # nobody could know that these quotes are part of the text
        edge = re.escape(layout["delimiter"])
        balanced = re.compile(rf'(?:^|{edge})\s*"(?:[^"]|"")*"\s*(?:$|{edge})')
        assume(not any(balanced.search(layout["delimiter"].join(row)) for row in table))
        # nor that the same surplus in all rows is no trailing delimiter
        assume(any(layout["delimiter"] not in "".join(row) for row in table))
    written = _written([NAMES, *table], layout["delimiter"], layout["quoting"], layout["end"])
    try:
        content = (layout["above"] + written).encode(layout["encoding"])
    except UnicodeEncodeError:
        return
    if not layout["encoding"].startswith("utf") and not content.isascii() and _is_utf_8(content):
        return  # One or two letters may be UTF-8 by chance; nothing in the file says that they are others.
    path = tmp_path / "orders.csv"
    path.write_bytes(content)

    try:
        rows = read(path)
    except FileError:
        return

    meant = [
        {name: cell.strip() for name, cell in zip(NAMES, row, strict=True) if cell.strip()} for row in table
    ]
    assert rows == meant


def _written(rows: list[tuple[str, ...]], delimiter: str, quoting: int, end: str) -> str:
    """The rows as a program writes them; without quoting, as one that does not care."""
    if quoting == csv.QUOTE_NONE:
        return "".join(delimiter.join(row) + end for row in rows)
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


def _is_utf_8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


VALUES = st.recursive(
    st.one_of(st.booleans(), st.integers(), st.text(st.sampled_from('ab"\\{}[],:\né見\u2028'), max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("xyz"), inner, max_size=2)
    ),
    max_leaves=4,
)
ORDERS = st.lists(
    st.fixed_dictionaries({"id": st.integers()}, optional=dict.fromkeys("abc", VALUES)), min_size=1
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ORDERS, st.sampled_from([None, 1]), st.booleans(), st.sampled_from(["utf-8", "utf-16"]), st.data())
def test_any_list_of_json_is_read_as_it_was_written_and_rejected_when_it_is_cut(
    tmp_path: Path, orders: Rows, indent: int | None, is_ascii: bool, encoding: str, data: st.DataObject
) -> None:
    text = json.dumps(orders, indent=indent, ensure_ascii=is_ascii)
    path = tmp_path / "orders.json"

    path.write_bytes(text.encode(encoding))
    assert read(path) == orders
    cut = data.draw(st.integers(0, len(text) - 1))
    path.write_bytes(text[:cut].encode(encoding))
    assert fault_of(path)


@pytest.mark.parametrize("header", ["id,name,city,province\n", "\ufeffID,Name , City,PROVINCE\n"])
def test_a_header_that_is_repeated_is_left_out_with_a_warning(
    write: Write, header: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(f"id,name,city,province\nA-1,Ann,Austin,Texas\n{header}A-2,Bob,Austin,Texas\n")

    assert [row["id"] for row in read(path, log=logging.getLogger(__name__))] == ["A-1", "A-2"]
    assert "Rows that repeat the header are left out: 3" in caplog.messages


def test_a_second_header_with_other_columns_stops_the_reading(write: Write) -> None:
    path = write("id,name,city,province\nA-1,Ann,Austin,Texas\nid,name,province,city\nA-2,Bob,Texas,Austin\n")

    assert "row 3 names the columns once more" in fault_of(path)


def test_a_cell_that_is_a_column_name_is_no_header(write: Write) -> None:
    path = write("id,name,city,province\nid,Ann,Austin,Texas\nA-2,name,Austin,Texas\n")

    assert [row["id"] for row in read(path)] == ["id", "A-2"]


def test_rows_below_what_seemed_to_be_a_footer_stop_the_reading(write: Write) -> None:
    path = write("id,name,city,province\nA-1,Ann,Austin,Texas\n\nRefunds\n\nA-2,Bob,Austin,Texas\n")

    assert "row 4 has too few cells for an order, but row 6 below it has enough" in fault_of(path)
