"""Promises of finding the fields of an order among a statement's columns."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from airflow_provider_kk.warehouse.field_sources import Binder
from airflow_provider_kk.warehouse.mapping_arguments import ColumnsError
from airflow_provider_kk.warehouse.match_columns import FILE, Columns, match_columns

LINES = ["custom_order_number", "country", "phone", "recipient", "province", "sku", "quantity"]
ITEMS = ["custom_order_number", "country", "phone", "recipient", "province", "items"]


def values(columns: Columns, row: Sequence[object]) -> dict[str, object]:
    """What each field reads from a row."""
    cells = columns.binder.complete([row[index] for index in columns.binder.indexes])
    return {name: source.read(cells) for name, source in columns.fields.items()}


def test_columns_are_found_in_upper_and_lower_case() -> None:
    found = match_columns([name.upper() for name in LINES])

    assert values(found, range(7)) == dict(zip(LINES, range(7), strict=True))
    assert not found.one_row_per_order
    assert match_columns(ITEMS).one_row_per_order


def test_other_columns_are_ignored_and_named() -> None:
    assert match_columns(["loaded_at", *LINES, "loaded_at"]).ignored == ("loaded_at", "loaded_at")


def test_columns_are_mapped_whatever_their_case() -> None:
    found = match_columns(["order_no", *LINES[1:]], {"Custom_Order_Number": "ORDER_NO"})

    assert values(found, range(7))["custom_order_number"] == 0
    assert found.mapped == {"custom_order_number": "ORDER_NO"}


def test_a_mapped_column_goes_before_one_of_our_name() -> None:
    found = match_columns([*LINES, "order_no"], {"custom_order_number": "order_no"})

    assert values(found, range(8))["custom_order_number"] == 7
    assert found.ignored == ("custom_order_number",)


def test_a_column_that_is_mapped_elsewhere_no_longer_counts_under_its_own_name() -> None:
    found = match_columns([*LINES, "city"], {"remark": "city"})

    assert "city" not in found.fields


def test_what_is_mapped_decides_between_lines_and_items() -> None:
    assert match_columns([*LINES, "items"], {"sku": "sku"}).ignored == ("items",)
    assert match_columns([*LINES, "items"], {"items": "items"}).one_row_per_order


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
        (LINES, {"recipent": "name"}, "'recipent' is not a field of an order \\(did you mean 'recipient'"),
        (LINES, {"xyz": "name"}, "'xyz' is not a field of an order. The fields are custom_order_number"),
        (LINES, {"recipient": "name"}, "columns maps recipient -> name, but the statement returns"),
        (LINES, {"recipient": ""}, "'recipient' must name a column"),
        ([*LINES, "items"], {}, "returns both items and sku, quantity"),
        ([*LINES, "items"], {"items": "items", "sku": "sku"}, "returns both"),
    ],
)
def test_columns_that_do_not_fit_are_one_error(names: list[str], columns: dict[str, str], why: str) -> None:
    with pytest.raises(ColumnsError, match=why):
        match_columns(names, columns)


JSON_LINES = ["id", "ship_to", "line_items", "First Name", "last_name", "a.b"]
ORDER = {
    "custom_order_number": "SHOP-{id}",
    "country": "ship_to.country",
    "phone": "='+33 1'",
    "recipient": "{first name} {LAST_NAME}",
    "province": "ship_to.regions[0].name",
    "zip": "ship_to.codes.1",
    "city": "a.b",
    "items": "line_items",
    "items.sku": "product.sku",
}
ROW = [
    7,
    {"country": "FR", "regions": [{"name": "IDF"}], "codes": ["x", "75001"]},
    '[{"product": {"sku": "S"}}]',
    "Ida",
    " Test ",
    "Paris",
]


def test_sources_are_columns_paths_templates_and_constants() -> None:
    found = match_columns(JSON_LINES, ORDER)

    read = values(found, ROW)

    assert read["items"] == ROW[2]
    assert found.in_items["items.sku"].read({"product": {"sku": "S"}}) == "S"
    assert found.in_items["items.quantity"].read({"Quantity": 2}) == 2
    assert {name: value for name, value in read.items() if name != "items"} == {
        "custom_order_number": "SHOP-7", "country": "FR", "phone": "+33 1", "recipient": "Ida Test",
        "province": "IDF", "city": "Paris", "zip": "75001",
    }  # fmt: skip


def test_a_path_into_json_text_reads_as_into_an_object() -> None:
    row = [json.dumps(cell) if isinstance(cell, dict) else cell for cell in ROW]

    assert values(match_columns(JSON_LINES, ORDER), row) == values(match_columns(JSON_LINES, ORDER), ROW)


@pytest.mark.parametrize(
    ("first", "last", "recipient"),
    [("Ida", None, "Ida"), ("", "Test", "Test"), (" ", None, None), ("Ida ", "  Test", "Ida Test")],
)
def test_a_blank_part_of_a_template_leaves_no_gap(
    first: str | None, last: str | None, recipient: str | None
) -> None:
    row = [*ROW[:3], first, last, ROW[5]]

    assert values(match_columns(JSON_LINES, ORDER), row)["recipient"] == recipient


@pytest.mark.parametrize(
    ("template", "filled"),
    [("{{{id}}}", "{7}"), ("{a}, {id}", "7"), ("{id}, {a}", "7"), ("{id} c/o {a}", "7"), ("no {a}", None)],
)
def test_braces_are_escaped_and_separators_leave_with_blanks(template: str, filled: str | None) -> None:
    binder = Binder(["id", "a"])
    read = binder.bind(template)

    assert read([(7, None)[index] for index in binder.indexes]) == filled


@pytest.mark.parametrize("name", ["ship_to.zip", "{zip}", "{zip", "='zip'", "zip [0]"])
def test_a_column_whose_name_is_the_whole_source_goes_first(name: str) -> None:
    binder = Binder([name, "zip", "ship_to"])

    assert binder.bind(name)(("75001",)) == "75001"
    assert binder.indexes == [0]


def test_defaults_name_fields_and_columns_and_are_shown() -> None:
    names = [*LINES[:4], "Ship City", "sku", "quantity", "phone 2"]
    columns = {"city": "Ship City", "street1": "='at home'"}

    found = match_columns(names, columns, defaults={"province": "{city}", "phone": "phone 2"})

    assert found.lines() == (
        "custom_order_number <- custom_order_number",
        "country <- country",
        "phone <- phone, else phone 2",
        "recipient <- recipient",
        "province <- {city}",
        "street1 <- a constant",
        "city <- Ship City",
        "sku <- sku",
        "quantity <- quantity",
    )


@pytest.mark.parametrize(
    ("columns", "defaults", "why"),
    [
        ({"recipient": "{first_nam}"}, {}, r"no column first_nam\) \(did you mean 'first name'"),
        ({"recipient": "{first name} {x}"}, {}, r"recipient -> \{first name\} \{x\} \(no column x\)"),
        ({"country": "shipto.country"}, {}, "country -> shipto.country"),
        ({"recipient": "{first name"}, {}, "the source of recipient has a brace without its pair"),
        ({"recipient": "{}"}, {}, "without the name of a column"),
        ({"recipient": "{{x}}"}, {}, "names no column in braces"),
        ({"recipient": "='x"}, {}, "with both quotes"),
        ({"custom_order_number": "='1'"}, {}, "cannot be a constant"),
        ({"items.skus": "sku"}, {}, "did you mean 'items.sku'"),
        (
            {},
            {"province": "{citty}"},
            r"names no column or field citty.* Write a fixed text as \"='\.\.\.'\"\. It returns",
        ),
        ({}, {"province": "{province}"}, "defaults: province"),
        ({}, {"provinz": "{city}"}, "did you mean 'province'"),
        ("shopfy", {}, "there is no preset 'shopfy' \\(did you mean 'shopify'"),
        ({"preset": "magento"}, {}, "The presets are shopify, shopify-csv"),
    ],
)
def test_wrong_sources_are_named_with_what_was_meant(
    columns: str | dict[str, str], defaults: dict[str, str], why: str
) -> None:
    if isinstance(columns, dict) and "preset" not in columns:
        columns = {**ORDER, "province": "First Name", **columns}
        if "province" in defaults:
            del columns["province"]
    with pytest.raises(ColumnsError, match=why):
        match_columns(JSON_LINES, columns, defaults=defaults)


def test_a_path_into_items_needs_items() -> None:
    with pytest.raises(
        ColumnsError, match=r"columns maps items\.sku, but the statement returns no column items"
    ):
        match_columns(LINES[:-2], {"items.sku": "x"})


def test_a_default_of_a_line_beside_items_is_an_error() -> None:
    with pytest.raises(ColumnsError, match="the statement returns both items and quantity"):
        match_columns(ITEMS, defaults={"quantity": "='1'"})


def test_line_id_is_found_by_its_name() -> None:
    assert "line_id" in match_columns([*LINES, "line_id"]).fields
    assert match_columns([*ITEMS, "line_id"]).ignored == ("line_id",)


def test_a_file_without_a_header_shows_no_personal_data() -> None:
    row = ["A-1", "FR", "+33 100", "Zelda Marked", "Ile", "Secret Street", "FWXW00290_WHT_M", "22"]
    for names in (row, [f"{cell}?" for cell in row[1:]], [*row[:2], *row[3:]]):
        with pytest.raises(ColumnsError, match="Its first line does not look like a header") as raised:
            match_columns(names, {}, FILE)
        assert [cell for cell in names if cell in str(raised.value)] == []
        with pytest.raises(ColumnsError, match="Its first line does not look like a header") as raised:
            match_columns(names, {"phone": "PHONE"}, FILE)
        assert [cell for cell in names if cell in str(raised.value)] == []


def test_of_a_file_s_header_is_shown_what_can_be_a_name() -> None:
    with pytest.raises(ColumnsError, match=r"It has: Größe, Order-No, \*\*\*, zip code\. The fields"):
        match_columns(["Größe", "Order-No", "x@y.z", "zip code"], {}, FILE)
