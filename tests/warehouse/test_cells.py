"""Promises of how values are kept and read."""

from __future__ import annotations

import datetime
import json
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kk.api.clean_text import CellError
from airflow_provider_kk.warehouse.cells import as_quantity, as_text
from airflow_provider_kk.warehouse.spool import Spool

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
scalars = (
    st.text()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.booleans()
    | st.binary()
    | st.text(st.characters(categories=["Cs", "L"]))
)
nested = st.lists(json_values, max_size=4) | st.dictionaries(st.text(), json_values, max_size=4)


def kept(*values: object) -> list[Any]:
    with Spool(["value"]) as spool:
        spool.add([(value,) for value in values])
        return list(spool.column(0))


@given(st.lists(scalars | nested, min_size=1, max_size=20))
def test_every_value_comes_back_as_it_went_in(values: list[Any]) -> None:
    assert list(map(repr, kept(*values))) == list(map(repr, values))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime.date(2024, 2, 29), "2024-02-29"),
        (datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=datetime.UTC), "2024-02-29T01:02:03+00:00"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (memoryview(b"W-1"), "W-1"),
        (1001, "1001"),
        (2**70, str(2**70)),
        (1001.0, "1001"),
        (-0.0, "0"),
        (Decimal("1001"), "1001"),
        (Decimal("1001.00"), "1001"),
        (Decimal("1E+3"), "1000"),
        ("  A 1\n", "A 1"),
        ("1001.0", "1001"),
    ],
)
def test_what_stands_for_a_text_is_that_text(value: object, text: str) -> None:
    assert [as_text(found, "zip") for found in kept(value)] == [text]


@pytest.mark.parametrize("value", [None, "", " \t", b"", float("nan"), Decimal("NaN")])
def test_what_holds_nothing_is_absent(value: object) -> None:
    assert [as_text(found, "zip") for found in kept(value)] in ([], [None])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (1.5, "a number with a fraction"),
        (Decimal("0.1"), "a number with a fraction"),
        (1e300, "a float too large to be exact"),
        (Decimal("1e999999"), "a number with too many"),
        (-5, "a negative number"),
        (10**40, "a number with too many"),
        (True, "True or False"),
        (["A"], "nested data"),
        (datetime.timedelta(1), "type timedelta"),
        (b"\xff\xfe", "binary data"),
    ],
)
def test_a_value_that_cannot_be_text_is_a_fault_without_the_value(value: object, why: str) -> None:
    with pytest.raises(CellError, match=why):
        as_text(kept(value)[0], "zip")


@given(st.integers(-(2**53), 2**53))
def test_whole_decimals_and_floats_are_quantities(number: int) -> None:
    values = [number, float(number), Decimal(number), Decimal(f"{number}.000")]

    assert {(as_quantity(value), type(as_quantity(value))) for value in kept(*values)} == {(number, int)}


def test_nested_values_of_a_warehouse_become_json() -> None:
    (found,) = kept([{"sku": uuid.UUID(int=1), "quantity": Decimal("3.0"), "on": datetime.date(2024, 1, 1)}])

    assert found == [{"sku": str(uuid.UUID(int=1)), "quantity": 3, "on": "2024-01-01"}]
    assert json.dumps(found)


def test_numbers_of_numpy_are_numbers() -> None:
    class Int64:
        def tolist(self) -> int:
            return 7

    assert kept(Int64()) == [7]
