# ruff: noqa: RUF001
"""Rows whose cells are damaged: the meant order, a fault or a warning, and never another order."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kk.warehouse.map import ParsedOrder, parse_orders
from airflow_provider_kk.warehouse.spool import Spool
from tests.damages import DamagedCell, clean_rows, damaged_cells, is_about, spellings_of

ROW = {
    "custom_order_number": "1007",
    "country": "FR",
    "phone": "+33 1 00",
    "recipient": "Ida Test",
    "province": "IDF",
    "zip": "02134",
    "sku": "FWXW00290_WHT_M",
    "quantity": "1",
}


def parsed(*rows: dict[str, Any]) -> Sequence[ParsedOrder]:
    names = list(rows[0])
    with Spool(names) as spool:
        spool.add([[row[name] for name in names] for row in rows])
        return list(parse_orders(spool))


@given(clean_rows(), damaged_cells())
def test_a_damaged_row_is_the_meant_order_or_a_fault_or_has_a_warning(
    row: dict[str, str], cell: DamagedCell
) -> None:
    row[cell.field] = cell.clean
    (meant,) = parsed(row)
    (found,) = parsed(row | {cell.field: cell.value})
    named = [is_about(path, cell.field) for path, _ in found.faults or found.warnings]

    assert meant.order is not None
    assert named == ([] if cell.outcome == "same" else [True]), (cell, found.faults, found.warnings)
    if cell.outcome == "same":
        assert (found.order, found.number) == (meant.order, meant.number)
    if cell.outcome == "fault":
        assert found.order is None
    if cell.outcome in ("blank", "warning"):
        assert found.order is not None


@given(clean_rows(), st.data())
def test_rows_of_one_order_may_spell_its_cells_differently(row: dict[str, str], data: st.DataObject) -> None:
    cell = data.draw(damaged_cells().filter(lambda one: one.outcome == "same" and one.field != "sku"))
    row[cell.field] = cell.clean

    (found,) = parsed(row | {"sku": "A"}, row | {"sku": "B", cell.field: cell.value})

    assert found.faults == ()
    assert found.order is not None
    assert [item.sku for item in found.order.items] == ["A", "B"]


def test_a19_all_spellings_of_an_order_number_are_one_order() -> None:
    spellings = [*spellings_of(1007)]
    rows = (ROW | {"custom_order_number": one, "sku": f"S{n}"} for n, one in enumerate(spellings))
    (found,) = parsed(*rows)

    assert (found.number, found.faults) == ("1007", ())
    assert found.order is not None
    assert len(found.order.items) == len(spellings)


@pytest.mark.parametrize("number", ["nan", "None", "NULL", r"\N", "<NA>", "#N/A", "3.37824E+10", "1,007"])
def test_a05_rows_without_a_certain_number_are_faults(number: str) -> None:
    rows = parsed(ROW | {"custom_order_number": number})

    assert [fault.path for one in rows for fault in one.faults] == ["custom_order_number"]


def test_a05_a_required_cell_that_counts_as_blank_is_named_as_the_reason() -> None:
    (found,) = parsed(ROW | {"province": "None"})

    assert "is required" in found.faults[0].message
    assert "the text 'None' counts as blank" in found.faults[0].message


def test_rows_whose_number_is_missing_are_not_one_order() -> None:
    assert len(parsed(ROW | {"custom_order_number": "nan"}, ROW | {"custom_order_number": "nan"})) == 2


def test_a16_a_country_name_and_its_code_are_one_order_with_a_warning() -> None:
    (found,) = parsed(ROW, ROW | {"country": "Frankreich", "sku": "B"})

    assert found.order is not None
    assert found.order.address.country == "FR"
    assert str(found.warnings[0]) == "address.country: 'Frankreich' is read as FR"


def test_a26_composed_and_decomposed_rows_are_one_order() -> None:
    name = "José Ångström"

    (found,) = parsed(
        *(ROW | {"recipient": unicodedata.normalize(form, name), "sku": form} for form in ("NFC", "NFD"))
    )

    assert found.order is not None
    assert found.order.address.recipient == unicodedata.normalize("NFC", name)


def test_cells_of_items_are_read_by_the_same_rules() -> None:
    row = {name: value for name, value in ROW.items() if name not in ("sku", "quantity")}
    items = [{"sku": "'A\u200b", "quantity": "2,00"}, {"sku": "B", "quantity": "1.000"}]

    (good,) = parsed(row | {"items": items[:1]})
    (bad,) = parsed(row | {"items": items})

    assert good.order is not None
    assert [(one.sku, one.quantity) for one in good.order.items] == [("A", 2)]
    assert [fault.path for fault in bad.faults] == ["items[1].quantity"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"custom_order_number": "1007"}, {"custom_order_number": "1007.0"}),
        ({"custom_order_number": "1007"}, {"custom_order_number": "'1007"}),
        ({"recipient": "Ida Test"}, {"recipient": "Ida\u00a0Test "}),
        ({"quantity": "1"}, {"quantity": "1.0"}),
        ({"quantity": 1}, {"quantity": Decimal("1.00")}),
        ({"price": "5"}, {"price": "5.00"}),
        ({"price": "nan"}, {"price": None}),
    ],
)
def test_equal_rows_in_two_spellings_are_a_fault_and_not_twice_the_goods(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    (found,) = parsed(ROW | {"price": "5"} | one, ROW | {"price": "5"} | other)

    assert found.order is None
    assert "equal in every column" in found.faults[0].message


@pytest.mark.parametrize(
    ("one", "other"), [("7", "7.0"), ("7", 7), (7.0, "'7"), ("L-1", "L-1\u200b"), ("７", "7")]
)
def test_a_line_id_in_two_spellings_is_one_line(one: object, other: object) -> None:
    (found,) = parsed(
        ROW | {"line_id": one, "loaded": "Monday"}, ROW | {"line_id": other, "loaded": "Sunday"}
    )
    lines = json.dumps([{"sku": "A", "quantity": 1, "line_id": each} for each in (one, other)])
    (in_items,) = parsed({k: v for k, v in ROW.items() if k not in ("sku", "quantity")} | {"items": lines})

    assert [fault.message.partition(" on ")[0] for fault in found.faults] == ["has one line_id"]
    assert [fault.message.partition(" on ")[0] for fault in in_items.faults] == ["has one line_id"]
