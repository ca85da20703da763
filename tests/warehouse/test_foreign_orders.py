"""Each file of tests/foreign as a whole: the orders that are sent or held back, or the message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kk.warehouse.files import FileError, read_file
from airflow_provider_kk.warehouse.map import parse_orders
from airflow_provider_kk.warehouse.mapping_arguments import ColumnsError
from airflow_provider_kk.warehouse.match_columns import FILE, match_columns

FOREIGN = Path(__file__).parents[1] / "foreign"
PHONE = {"phone": "='+1 617'"}
MAGENTO = {
    "custom_order_number": "increment_id",
    "recipient": "{shipping_firstname} {shipping_lastname}",
    "phone": "shipping_telephone",
    "street1": "shipping_street",
    "city": "shipping_city",
    "province": "shipping_region",
    "zip": "shipping_postcode",
    "country": "shipping_country_id",
    "quantity": "qty_ordered",
}
#: File, columns, numbers that are sent, numbers that are held back.
ORDERS: list[tuple[str, Any, str, str]] = [
    ("a01_shopify_multi.csv", "shopify-csv", "#1001 #1002", ""),
    ("a02_shopify_apostrophe.csv", "shopify-csv", "#1002", ""),
    ("a03_shopify_no_phone.csv", "shopify-csv", "#1003", ""),
    ("a04_excel_numbers.csv", None, "E-2 E-3", "E-1 E-4 E-5"),
    ("a05_pandas_floats.csv", None, "", "1001 1002 1003"),
    ("a06_german_excel.csv", None, "G-2 G-3", "G-1"),
    ("a06b_sep_line.csv", None, "G-1", ""),
    ("a06c_title_above.csv", None, "G-1", ""),
    ("a06d_utf16_tab.txt", None, "G-9", ""),
    ("a06e_empty_first_line.tsv", None, "G-9", ""),
    ("a06f_mixed_line_ends.csv", None, "M-1 M-2 M-3 M-4", ""),
    ("a08b_trailing_delimiter.csv", None, "C-1 C-2", ""),
    ("a09_odoo_blank_parent.csv", "odoo-csv", "S00012 S00013", ""),
    ("a10_ebay.csv", "ebay-csv", "12-00001-00001 12-00002-00002", ""),
    ("a11_etsy.csv", "etsy-csv", "3001000001 3001000002", ""),
    ("a12_woo.csv", "woocommerce-csv", "2001", ""),
    ("a14_shopify_api.jsonl", "shopify", "#1004 #1005", ""),
    ("a14b_shopify_api.json", "shopify", "#1004 #1005", ""),
    ("a14c_lines.json", None, "J-1 J-2", ""),
    ("a15_text.csv", None, "T-2 T-4 T-5 T-6 T-7 T-8 T-9 T-10 T-11 T-12", "T-1 T-3"),
    ("a17c_orders.csv.gz", None, "Z-1", ""),
    ("a18_magento.csv", MAGENTO, "", "000000123"),
    ("a19_number_day1.csv", None, "1007", ""),
    # Its two rows are equal, but for the spelling of their number.
    ("a19_number_day2.csv", None, "", "1007"),
    ("a20_pasted_twice.csv", None, "", "DUP-1"),
    ("a20b_append_only.csv", None, "", "DUP-2"),
    ("a22_title_in_quotes.txt", {"custom_order_number": "order-id"}, "111-1", ""),
    ("a22b_open_quote_at_end.txt", {"custom_order_number": "order-id"}, "111-1 111-2", ""),
    ("a23_phone_no_digit.csv", None, "", "W-1 W-2 W-3"),
    ("a25_no_street.csv", None, "N-1", ""),
    ("a26_nfc.csv", None, "NF-1", ""),
    ("a26_nfd.csv", None, "NF-1", ""),
]


def outcome(name: str, columns: Any) -> tuple[list[str | None], list[str | None]]:
    """The numbers of a file's orders that are sent, and of those that are held back."""
    defaults = PHONE if columns in ("shopify", "shopify-csv", "etsy-csv") else None
    check = lambda names: match_columns(names, columns, FILE, defaults=defaults)  # noqa: E731
    with read_file(str(FOREIGN / name), check=check) as spool:
        found = list(parse_orders(spool, columns, defaults=defaults))
    return [one.number for one in found if one.order], [one.number for one in found if not one.order]


@pytest.mark.parametrize(("name", "columns", "sent", "held"), ORDERS, ids=[one[0] for one in ORDERS])
def test_a_foreign_file_is_the_meant_orders_or_faults(name: str, columns: Any, sent: str, held: str) -> None:
    assert outcome(name, columns) == (sent.split(), held.split())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a08_shifted_row.csv", "row 3 has 12 cells"),
        ("a13_bigcommerce.csv", "has the lines of an order as text"),
        ("a14d_duplicate_keys.jsonl", "'quantity' twice"),
        ("a14e_two_lines.jsonl", "'quantity' twice"),
        ("a17_parquet.parquet", "is a Parquet file"),
        ("a17b_old_excel.xls", "is an old Excel workbook"),
        ("a17d_duplicate_header.csv", "has no column custom_order_number, recipient"),
        ("a17e_html.csv", "is an HTML page"),
        ("a21b_items_count.csv", "both items and sku, quantity"),
        ("a27_gbk.csv", "is not UTF-8"),
    ],
)
def test_a_foreign_file_that_cannot_be_read_with_certainty_stops(name: str, message: str) -> None:
    with pytest.raises((FileError, ColumnsError), match=message):
        outcome(name, None)
