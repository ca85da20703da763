"""Promises of finding the fields of an order among a statement's columns."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from airflow_provider_kk.warehouse.columns import FILE, Columns, ColumnsError, resolve

LINES = ["custom_order_number", "country", "phone", "recipient", "province", "sku", "quantity"]
ITEMS = ["custom_order_number", "country", "phone", "recipient", "province", "items"]


def values(columns: Columns, row: Sequence[object]) -> dict[str, object]:
    """What each field reads from a row."""
    cells = columns.binder.complete([row[index] for index in columns.binder.indexes])
    return {name: source.read(cells) for name, source in columns.fields.items()}


def test_columns_are_found_in_upper_and_lower_case() -> None:
    found = resolve([name.upper() for name in LINES])

    assert values(found, range(7)) == dict(zip(LINES, range(7), strict=True))
    assert not found.one_row_per_order
    assert resolve(ITEMS).one_row_per_order


def test_other_columns_are_ignored_and_named() -> None:
    assert resolve(["loaded_at", *LINES, "loaded_at"]).ignored == ("loaded_at", "loaded_at")


def test_columns_are_mapped_whatever_their_case() -> None:
    found = resolve(["order_no", *LINES[1:]], {"Custom_Order_Number": "ORDER_NO"})

    assert values(found, range(7))["custom_order_number"] == 0
    assert found.mapped == {"custom_order_number": "ORDER_NO"}


def test_a_mapped_column_goes_before_one_of_our_name() -> None:
    found = resolve([*LINES, "order_no"], {"custom_order_number": "order_no"})

    assert values(found, range(8))["custom_order_number"] == 7
    assert found.ignored == ("custom_order_number",)


def test_a_column_that_is_mapped_elsewhere_no_longer_counts_under_its_own_name() -> None:
    found = resolve([*LINES, "city"], {"remark": "city"})

    assert "city" not in found.fields


def test_what_is_mapped_decides_between_lines_and_items() -> None:
    assert resolve([*LINES, "items"], {"sku": "sku"}).ignored == ("items",)
    assert resolve([*LINES, "items"], {"items": "items"}).one_row_per_order


@pytest.mark.parametrize(
    ("names", "columns", "why"),
    [
        (LINES[:-1], {}, r"no column quantity \(or items.*It returns: custom_order_number, country"),
        (
            LINES[1:],
            {},
            r'no column custom_order_number\..*=\{"custom_order_number": "<your column>", .*Without street1',
        ),
        ([], {}, "It returns: no column"),
        ([*LINES, "SKU"], {}, "returns sku more than once"),
        (LINES, {"recipent": "name"}, "'recipent' is no field of an order, did you mean 'recipient'"),
        (LINES, {"xyz": "name"}, "'xyz' is no field of an order; the fields are custom_order_number"),
        (LINES, {"recipient": "name"}, "columns maps recipient -> name, but the statement returns"),
        (LINES, {"recipient": ""}, "'recipient' must name a column"),
        ([*LINES, "items"], {}, "returns both items and sku, quantity"),
        ([*LINES, "items"], {"items": "items", "sku": "sku"}, "returns both"),
    ],
)
def test_columns_that_do_not_fit_are_one_error(names: list[str], columns: dict[str, str], why: str) -> None:
    with pytest.raises(ColumnsError, match=why):
        resolve(names, columns)


def test_a_file_without_a_header_shows_no_personal_data() -> None:
    row = ["A-1", "FR", "+33 100", "Zelda Marked", "Ile", "Secret Street", "FWXW00290_WHT_M", "22"]
    for names in (row, [f"{cell}?" for cell in row[1:]], [*row[:2], *row[3:]]):
        with pytest.raises(ColumnsError, match="Its first line seems to be no header") as raised:
            resolve(names, {}, FILE)
        assert [cell for cell in names if cell in str(raised.value)] == []
        with pytest.raises(ColumnsError, match="Its first line seems to be no header") as raised:
            resolve(names, {"phone": "PHONE"}, FILE)
        assert [cell for cell in names if cell in str(raised.value)] == []


def test_of_a_file_s_header_is_shown_what_can_be_a_name() -> None:
    with pytest.raises(ColumnsError, match=r"It has: Größe, Order-No, \*\*\*, zip code\. What"):
        resolve(["Größe", "Order-No", "x@y.z", "zip code"], {}, FILE)
