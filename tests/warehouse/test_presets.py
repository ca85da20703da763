"""Shops' exports are the meant orders by a preset, or faults: never other orders."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_kk.warehouse.field_sources import parse_source
from airflow_provider_kk.warehouse.files import read_file
from airflow_provider_kk.warehouse.map import ParsedOrder, parse_orders
from airflow_provider_kk.warehouse.mapping_arguments import (
    ADDRESS_FIELDS,
    FIELDS,
    IN_ITEMS,
    ColumnsError,
    describe_presets,
)
from airflow_provider_kk.warehouse.match_columns import FILE, match_columns
from airflow_provider_kk.warehouse.presets import PRESETS
from tests.airflow.support import REPOSITORY
from tests.warehouse.test_map import mapped

FOREIGN = REPOSITORY / "tests" / "foreign"
EXAMPLES = REPOSITORY / "docs" / "examples"
TEE, CAP = "FWXW00290_WHT_M", "FWTS00104_BLK_S"
PHONE = {"phone": "='000'"}
#: Preset -> its example, and the goods of each order in it.
SHOPS: dict[str, tuple[str, dict[str, dict[str, int]]]] = {
    "shopify": ("shopify.jsonl", {"#1001": {TEE: 2, CAP: 1}, "#1002": {TEE: 1}}),
    "shopify-csv": ("shopify.csv", {"#1001": {TEE: 2, CAP: 1}, "#1002": {TEE: 1}}),
    "woocommerce": ("woocommerce.jsonl", {"2001": {TEE: 2, CAP: 1}, "2002": {TEE: 1}}),
    "woocommerce-csv": ("woocommerce.csv", {"2001": {TEE: 2, CAP: 1}}),
    "amazon-tsv": ("amazon.txt", {"111-0000001-0000001": {TEE: 1, CAP: 2}}),
    "etsy-csv": ("etsy.csv", {"3001000001": {TEE: 2}, "3001000002": {TEE: 1}}),
    "ebay-csv": ("ebay.csv", {"12-00001-00001": {TEE: 1}, "12-00002-00002": {TEE: 1, CAP: 2}}),
    "odoo-csv": ("odoo.csv", {"S00012": {TEE: 2, CAP: 1}, "S00013": {TEE: 1}}),
}


def orders(path: Path, columns: Any = None, **options: Any) -> dict[str | None, ParsedOrder]:
    """What a file's orders amount to, by number."""
    defaults = options.get("defaults")
    with read_file(
        str(path), check=lambda names: match_columns(names, columns, FILE, defaults=defaults)
    ) as spool:
        found = list(parse_orders(spool, columns, **options))
    assert len({one.number for one in found}) == len(found)
    return {one.number: one for one in found}


def goods(found: ParsedOrder) -> dict[str, int]:
    assert found.order, found.faults
    return Counter({item.sku: item.quantity for item in found.order.items})


@pytest.mark.parametrize(
    "preset",
    list(PRESETS),
)
def test_a_preset_reads_its_example(preset: str) -> None:
    file, expected = SHOPS[preset]

    found = orders(EXAMPLES / file, preset, defaults=PHONE if preset == "etsy-csv" else None)

    assert {number: goods(one) for number, one in found.items()} == expected
    for one in found.values():
        assert one.order
        assert one.order.address.street1
        assert one.order.address.city
        assert one.order.address.zip
        # A country's name is shown with the code that it became.
        assert {warning.path for warning in one.warnings} <= {"address.country"}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_has_known_fields_and_sources_only(preset: str) -> None:
    data = PRESETS[preset]
    for name, sources in [*data.columns.items(), *data.defaults.items()]:
        assert name in (*FIELDS, *IN_ITEMS)
        for source in (sources,) if isinstance(sources, str) else sources:
            parse_source(source)


def test_every_preset_is_described_with_what_it_maps() -> None:
    text = describe_presets()

    for name, preset in PRESETS.items():
        assert f"{name}: {preset.about}" in text
    assert "recipient           <- Shipping Name" in text


def test_what_is_given_goes_before_the_preset() -> None:
    columns = {"preset": "shopify-csv", "phone": "='0'", "recipient": "Email"}

    found = orders(EXAMPLES / "shopify.csv", columns)["#1002"]

    assert found.order
    assert (found.order.address.phone, found.order.address.recipient) == ("0", "otto@example.com")


def test_a_preset_that_does_not_fit_the_file_names_what_is_missing() -> None:
    with pytest.raises(ColumnsError, match="columns maps custom_order_number -> Name"):
        orders(EXAMPLES / "ebay.csv", "shopify-csv")
    with pytest.raises(ColumnsError, match=r"has no column phone.*--columns phone=.='\.\.\.'"):
        orders(EXAMPLES / "etsy.csv", "etsy-csv")


@pytest.mark.parametrize("as_text", [False, True])
def test_shopifys_json_columns_may_be_text_and_hold_other_keys(as_text: bool) -> None:
    import json

    columns: dict[str, Any] = {
        "shipping_address": {"name": "Ida", "phone": "1", "city": "Gent", "country_code": "BE", "zip": 9000,
                             "address1": "Teststraat 1", "latitude": 51.05},
        "line_items": [{"id": 1, "sku": "S", "quantity": 3, "current_quantity": 2, "tax_lines": [1]},
                       {"id": 2, "sku": "S", "quantity": 1}],
    }  # fmt: skip
    if as_text:
        columns = {name: json.dumps(value) for name, value in columns.items()}

    (found,) = mapped([{"name": "#1", "total_price": 1.5, **columns}], "shopify")

    assert found.order
    assert [(item.sku, item.quantity) for item in found.order.items] == [("S", 2), ("S", 1)]
    assert (found.order.address.province, found.order.address.zip, found.warnings) == ("Gent", "9000", ())


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([{"id": 1, "sku": None, "quantity": 1}], "items[0].sku"),
        ([{"id": 1, "sku": "S", "quantity": 1, "current_quantity": 0}], "items[0].quantity"),
        ([{"id": 1, "sku": "S", "quantity": 1}, {"id": 1, "sku": "T", "quantity": 1}], "items"),
        ([{"id": 1, "sku": {"a": 1}, "quantity": 1}], "items[0].sku"),
        (["S"], "items[0]"),
        ({"sku": "S"}, "items"),
        ([], "items"),
        (None, "items"),
    ],
)
def test_a_shopify_line_that_cannot_be_sent_is_a_fault(lines: Any, fault: str) -> None:
    address = {"name": "Ida", "phone": "1", "city": "Gent", "country_code": "BE"}

    (found,) = mapped([{"name": "#1", "shipping_address": address, "line_items": lines}], "shopify")

    assert [one.path for one in found.faults] == [fault]


# Inputs as they came -------------------------------------------------------------------------------


def test_shopifys_export_has_the_address_on_the_first_row_only() -> None:
    found = orders(FOREIGN / "a01_shopify_multi.csv", "shopify-csv")
    by_hand = {
        "custom_order_number": "Name", "recipient": "Shipping Name", "street1": "Shipping Address1",
        "city": "Shipping City", "zip": "Shipping Zip", "country": "Shipping Country",
        "province": "Shipping Province", "phone": "Shipping Phone", "sku": "Lineitem sku",
        "quantity": "Lineitem quantity",
    }  # fmt: skip

    for one in (found, orders(FOREIGN / "a01_shopify_multi.csv", by_hand)):
        assert {number: goods(order) for number, order in one.items()} == {
            "#1001": {TEE: 2, CAP: 1}, "#1002": {TEE: 1}
        }  # fmt: skip


def test_shopifys_export_without_phone_and_province() -> None:
    file = FOREIGN / "a03_shopify_no_phone.csv"

    assert [fault.path for fault in orders(file, "shopify-csv")["#1003"].faults] == ["address.phone"]
    order = orders(file, "shopify-csv", defaults=PHONE)["#1003"].order
    assert order
    assert (order.address.phone, order.address.province) == ("000", "Amsterdam")


def test_odoos_lines_without_a_number_fill_down_or_stop_the_order_above() -> None:
    file = FOREIGN / "a09_odoo_blank_parent.csv"
    filled = orders(file, "odoo-csv")
    assert {number: goods(one) for number, one in filled.items()} == {
        "S00012": {TEE: 2, CAP: 1}, "S00013": {TEE: 1}
    }  # fmt: skip

    by_hand = {
        name: source for name, source in PRESETS["odoo-csv"].columns.items() if isinstance(source, str)
    }
    by_hand |= {"recipient": "Delivery Address/Name", "phone": "Delivery Address/Phone"}
    found = orders(file, {name: by_hand[name] for name in by_hand if name != "street2"})
    # Without the preset, it is not known that 2.000 is 2.
    assert [fault.path for fault in found["S00012"].faults] == ["items", "items[0].quantity"]
    assert "row 3, below row 2 of this order" in found["S00012"].faults[0].message
    assert found[None].order is None
    assert [fault.path for fault in found["S00013"].faults] == ["items[0].quantity"]


def test_ebays_summary_rows_and_footer_are_no_lines() -> None:
    found = orders(FOREIGN / "a10_ebay.csv", "ebay-csv")

    assert {number: goods(one) for number, one in found.items()} == SHOPS["ebay-csv"][1]


def test_ebays_summary_row_is_a_line_without_sku_where_no_preset_marks_it() -> None:
    columns = {
        "custom_order_number": "Order Number", "recipient": "Ship To Name", "phone": "Ship To Phone",
        "street1": "Ship To Address 1", "city": "Ship To City", "province": "Ship To State",
        "zip": "Ship To Zip", "country": "='US'", "sku": "Custom Label", "quantity": "Quantity",
    }  # fmt: skip

    found = orders(FOREIGN / "a10_ebay.csv", columns)

    assert goods(found["12-00001-00001"]) == {TEE: 1}
    assert [fault.path for fault in found["12-00002-00002"].faults] == ["items[0].sku"]


def test_etsys_export_needs_a_phone() -> None:
    found = orders(FOREIGN / "a11_etsy.csv", "etsy-csv", defaults=PHONE)

    assert {number: goods(one) for number, one in found.items()} == SHOPS["etsy-csv"][1]


def test_woocommerces_export_has_two_names_and_brackets() -> None:
    found = orders(FOREIGN / "a12_woo.csv", "woocommerce-csv")["2001"]

    assert goods(found) == {TEE: 2, CAP: 1}
    assert found.order
    assert found.order.address.recipient.startswith("Ida O")


def test_shopifys_orders_as_its_api_gives_them() -> None:
    found = orders(FOREIGN / "a14_shopify_api.jsonl", "shopify", defaults=PHONE)

    assert {number: goods(one) for number, one in found.items()} == {
        "#1004": {TEE: 2, CAP: 1}, "#1005": {TEE: 2, CAP: 1}
    }  # fmt: skip


def test_a_line_of_quantity_0_is_a_fault_that_names_row_and_column() -> None:
    columns = {
        "custom_order_number": "increment_id", "recipient": "{shipping_firstname} {shipping_lastname}",
        "street1": "shipping_city", "city": "shipping_city", "province": "shipping_region",
        "zip": "shipping_postcode", "country": "shipping_country_id", "phone": "shipping_telephone",
        "quantity": "qty_ordered",
    }  # fmt: skip

    (fault,) = orders(FOREIGN / "a18_magento.csv", columns)["000000123"].faults

    assert str(fault) == "items[1].quantity: must be at least 1 (column qty_ordered) (row 3)"


def test_rows_pasted_twice_are_a_fault_unless_they_are_kept() -> None:
    file = FOREIGN / "a20_pasted_twice.csv"

    (fault,) = orders(file)["DUP-1"].faults
    assert "equal in every column (row 2 and row 4; row 3 and row 5)" in fault.message
    kept = orders(file, duplicate_rows="keep")["DUP-1"]
    assert kept.order
    assert [(item.sku, item.quantity) for item in kept.order.items] == [(TEE, 1), (CAP, 2)] * 2
    assert [warning.path for warning in kept.warnings] == ["items"]


def test_a_line_loaded_twice_is_a_fault_with_line_id_and_a_warning_without() -> None:
    file = FOREIGN / "a20b_append_only.csv"

    for duplicate_rows in ("fail", "keep"):
        (fault,) = orders(file, duplicate_rows=duplicate_rows)["DUP-2"].faults
        assert "has one line_id on several rows (row 2 and row 3)" in fault.message
    # A column that is mapped elsewhere no longer counts under its own name.
    found = orders(file, {"remark": "line_id"})["DUP-2"]
    assert found.order
    assert "has a SKU on several lines" in found.warnings[0].message


def test_a_column_items_that_is_a_count_is_left_out_by_mapping_sku_and_quantity() -> None:
    file = FOREIGN / "a21b_items_count.csv"

    with pytest.raises(ColumnsError, match="map them: --columns sku=sku --columns quantity=quantity"):
        orders(file)
    assert goods(orders(file, {"sku": "sku", "quantity": "quantity"})["V-2"]) == {TEE: 1}


def test_a_footer_leaves_the_order_above_it_valid() -> None:
    found = orders(FOREIGN / "a24_footer_total.csv")

    assert goods(found["Y-1"]) == {TEE: 1}
    assert found[None].faults[0].path == "custom_order_number"


def test_an_order_without_street_city_and_zip_has_warnings() -> None:
    found = orders(FOREIGN / "a25_no_street.csv")["N-1"]

    assert found.order
    assert [warning.path for warning in found.warnings] == ["address.street1", "address.city", "address.zip"]
    needed = [name for name in ADDRESS_FIELDS if name in ("country", "phone", "recipient", "province")]
    columns = match_columns(["custom_order_number", *needed, "sku", "quantity"])
    assert columns.unfilled == ("street1", "city", "zip")


def test_a_row_with_a_sku_is_a_line_also_where_its_mark_is_blank() -> None:
    columns = {"preset": "ebay-csv", "country": "='US'"}
    names = ["Order Number", "Ship To Name", "Ship To Phone", "Ship To City", "Ship To Country",
             "Item Number", "Custom Label", "Quantity"]  # fmt: skip
    first = dict(zip(names, ["1", "Ida", "0", "Boston", "US", "", "", "3"], strict=True))
    line = dict(zip(names, ["1", *[""] * 4, "", "S", "2"], strict=True))
    footer = dict(zip(names, ["of today", *[""] * 7], strict=True))

    (found,) = mapped([first, line, footer], columns)

    assert goods(found) == {"S": 2}


@pytest.mark.parametrize(
    ("is_test", "is_fault"),
    [(True, True), ("true", True), (1, True), (False, False), (None, False), (0, False)],
)
def test_a_test_order_of_shopifys_api_is_a_fault(is_test: object, is_fault: bool) -> None:
    row = {**json.loads((EXAMPLES / SHOPS["shopify"][0]).read_text().splitlines()[0]), "test": is_test}

    (found,) = mapped([row], "shopify", defaults=PHONE)

    assert [one.path for one in found.faults] == (["custom_order_number"] if is_fault else [])


@pytest.mark.parametrize(
    ("preset", "cells", "outcome"),
    [
        ("shopify-csv", {"Cancelled at": "2026-11-20 10:00:00 +0100"}, "fault"),
        ("shopify-csv", {"Financial Status": "refunded"}, "fault"),
        ("shopify-csv", {"Financial Status": "partially_refunded"}, "fault"),
        ("shopify-csv", {"Payment Method": "(for testing) Bogus Gateway"}, "fault"),
        ("shopify-csv", {"Payment Method": "Cash"}, "none"),
        ("shopify-csv", {"Fulfillment Status": "fulfilled"}, "warning"),
        ("shopify-csv", {"Fulfillment Status": "unfulfilled", "Cancelled at": ""}, "none"),
        ("woocommerce-csv", {"Order Status": "Cancelled"}, "fault"),
        ("woocommerce-csv", {"Order Status": "Completed"}, "warning"),
        ("etsy-csv", {"Date Shipped": "11/20/26"}, "warning"),
        ("odoo-csv", {"Status": "Cancelled"}, "fault"),
    ],
)
def test_an_order_that_was_cancelled_is_a_fault_and_one_that_shipped_has_a_warning(
    preset: str, cells: dict[str, str], outcome: str
) -> None:
    with (EXAMPLES / SHOPS[preset][0]).open(newline="") as file:
        row = next(csv.DictReader(file))

    (found,) = mapped([row | cells], preset, defaults=PHONE)

    assert (found.order is None) == (outcome == "fault")
    assert [one.path for one in found.faults] == (["custom_order_number"] if outcome == "fault" else [])
    assert ("custom_order_number" in dict(found.warnings)) == (outcome == "warning")


@pytest.mark.parametrize(("needs_shipping", "is_warned"), [("true", False), ("false", True), ("", False)])
def test_a_line_that_needs_no_shipping_is_a_warning(needs_shipping: str, is_warned: bool) -> None:
    with (EXAMPLES / SHOPS["shopify-csv"][0]).open(newline="") as file:
        first, second, *_ = csv.DictReader(file)
    column = "Lineitem requires shipping"
    rows = [first | {column: "true"}, second | {column: needs_shipping}]

    (found,) = mapped(rows, "shopify-csv")

    assert found.order
    assert ("items" in dict(found.warnings)) == is_warned
