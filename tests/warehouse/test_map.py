"""Promises of making orders of rows."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kk.warehouse import map as mapping
from airflow_provider_kk.warehouse.columns import ColumnsError
from airflow_provider_kk.warehouse.map import ParsedOrder, parse_orders
from airflow_provider_kk.warehouse.read import read_rows
from airflow_provider_kk.warehouse.spool import Spool
from tests.warehouse.conftest import Warehouse

HEADER = {"country": "FR", "phone": "07 82 24 67 93", "recipient": "Lou Blanc", "province": "Idf"}


def line(
    number: object = "A", sku: object = "S", quantity: object = 1, **header: object
) -> dict[str, object]:
    return {"custom_order_number": number, **HEADER, **header, "sku": sku, "quantity": quantity}


def whole(number: object = "A", items: object = None, **header: object) -> dict[str, object]:
    items = [{"sku": "S", "quantity": 1}] if items is None else items
    return {"custom_order_number": number, **HEADER, **header, "items": items}


def mapped(rows: Sequence[dict[str, object]], columns: dict[str, str] | None = None) -> list[ParsedOrder]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with Spool(names) as spool:
        spool.add([[row.get(name) for name in names] for row in rows])
        return list(parse_orders(spool, columns))


def goods(candidate: ParsedOrder) -> Counter[tuple[str, int]]:
    assert candidate.order, candidate.faults
    return Counter((item.sku, item.quantity) for item in candidate.order.items)


def paths(candidate: ParsedOrder) -> list[str]:
    return [fault.path for fault in candidate.faults]


def test_rows_of_one_number_are_the_lines_of_one_order() -> None:
    first, second = mapped([line("B", "X"), line("A", "Y", 2), line("B", "Z", 3)])

    assert (first.number, first.position, first.rows) == ("B", 1, 2)
    assert goods(first) == {("X", 1): 1, ("Z", 3): 1}
    assert (second.number, goods(second)) == ("A", {("Y", 2): 1})


def test_two_equal_lines_are_two_lines() -> None:
    (order,) = mapped([line(), line()])

    assert goods(order) == {("S", 1): 2}


def test_lines_that_are_equal_in_every_column_are_counted_as_duplicate_rows() -> None:
    doubled = mapped([line(), line("B"), line(), line("B", quantity=2), line(), line("C"), line("C", "")])
    told_apart = mapped([line(line_id=1), line(line_id=2), line(line_id=1)])

    assert [(one.number, one.doubled) for one in doubled] == [("A", 2), ("B", 0), ("C", 0)]
    assert [one.doubled for one in told_apart] == [1]
    assert [one.doubled for one in mapped([whole(), whole()])] == [0]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_row_can_carry_all_lines_of_its_order(as_json: bool) -> None:
    items: Any = [{"sku": "S", "quantity": 1}, {"SKU": "T", "QUANTITY": 3.0}]

    (order,) = mapped([whole(items=json.dumps(items) if as_json else items)])

    assert goods(order) == {("S", 1): 1, ("T", 3): 1}


def test_order_level_columns_reach_the_order() -> None:
    extra = {"remark": "Leave\nit", "sale_platform": "Shopify", "channel_type": "Express", "street1": "7 rue"}
    extra |= {"zip": 75001.0, "vat": Decimal("12"), "country": " fr "}

    (found,) = mapped([line(**extra)])

    assert found.order
    assert (found.order.remark, found.order.sale_platform) == ("Leave\nit", "Shopify")
    assert (found.order.channel_type, found.order.address.street1) == ("Express", "7 rue")
    assert (found.order.address.zip, found.order.address.vat) == ("75001", "12")
    assert found.order.address.country == "FR"


@pytest.mark.parametrize("number", [1001, 1001.0, Decimal("1001"), Decimal("1001.00"), " 1001 ", b"1001"])
def test_a_number_is_the_same_in_every_type(number: object) -> None:
    (order,) = mapped([line("1001"), line(number)])

    assert (order.number, order.rows, order.faults) == ("1001", 2, ())


def test_every_fault_of_an_order_is_reported_at_once_with_its_column() -> None:
    columns = {"country": "SHIP_TO", "quantity": "QTY", "custom_order_number": "ORDER_NO"}
    row: dict[str, object] = {
        "order_no": "é" * 41, "ship_to": "Congo", "phone": None, "recipient": "Lou", "province": "x" * 33
    }  # fmt: skip

    (order,) = mapped([row | {"sku": "S", "qty": 0}, row | {"sku": None, "qty": "many"}], columns)

    told = {fault.path: fault.message for fault in order.faults}
    assert set(told) == {
        "custom_order_number", "address.country", "address.phone", "address.province",
        "items[0].quantity", "items[1].sku", "items[1].quantity",
    }  # fmt: skip
    assert told["address.country"].endswith("(column SHIP_TO)")
    assert told["items[1].quantity"].endswith("(column QTY) (row 2)")
    assert "column" not in told["items[1].sku"]
    assert order.number == "é" * 41
    assert order.order is None


def test_faults_inside_items_name_the_column_that_holds_them() -> None:
    (order,) = mapped(
        [{"custom_order_number": "A", **HEADER, "lines": [{"sku": "S", "quantity": 0}]}], {"items": "LINES"}
    )

    (fault,) = order.faults
    assert (fault.path, fault.message[-14:]) == ("items[0].quantity", "(column LINES)")


@pytest.mark.parametrize(
    ("row", "path"),
    [
        (line(phone=1.5), "address.phone"),
        (line(zip=True), "address.zip"),
        (line(remark=["x"]), "remark"),
        (line(quantity=1.5), "items[0].quantity"),
        (line(quantity=True), "items[0].quantity"),
        (line(quantity=float("nan")), "items[0].quantity"),
        (line(quantity=[1]), "items[0].quantity"),
        (line(sku=0.5), "items[0].sku"),
        (line(recipient="\ud800"), "address.recipient"),
        (whole(items="[{'sku': 'S', 'quantity': 1}]"), "items"),
        (whole(items={"sku": "S", "quantity": 1}), "items"),
        (whole(items="[]"), "items"),
        (whole(items=" "), "items"),
        (whole(items=3), "items"),
        (whole(items=[{"sku": "S", "quantity": 1, "price": 3}]), "items[0].price"),
        (whole(items=[{"sku": "S", "quantity": 1.5}]), "items[0].quantity"),
        (whole(items=["S"]), "items[0]"),
        (whole(items="[" * 100_000), "items"),
    ],
)
def test_an_odd_cell_is_one_fault_of_its_order_alone(row: dict[str, object], path: str) -> None:
    good = whole("B") if "items" in row else line("B")

    bad, fine = mapped([row, good])

    assert (bad.order, paths(bad)) == (None, [path])
    assert fine.faults == ()


def test_no_fault_repeats_a_customers_data() -> None:
    row = line(
        phone="\x07" + "06 11", recipient="Ada Secret" * 9, province="", street1=["Elm Street"], zip="Q" * 40
    )

    told = str(mapped([row, row | {"city": "Springfield"}]))

    for value in ("06 11", "Ada", "Elm", "QQ", "Springfield"):
        assert value not in told


@pytest.mark.parametrize("number", [None, "", "  ", float("nan"), 1.5, True, ["A"], "\ud800"])
def test_each_row_without_a_readable_number_is_an_invalid_order_of_its_own(number: object) -> None:
    candidates = mapped([line(number), line("A"), line(number)])

    assert [candidate.number for candidate in candidates] == [None, "A", None]
    assert [candidate.position for candidate in candidates] == [1, 2, 3]
    assert paths(candidates[0]) == paths(candidates[2]) == ["custom_order_number"]


def test_lines_with_different_headers_are_different_orders_and_none_is_sent() -> None:
    rows = [line(city="Lyon"), line(city="Nice"), line("B"), line(city="Lyon", sku="T", quantity=0)]

    lyon, nice, fine = mapped(rows, None)

    assert (lyon.rows, nice.rows, fine.faults) == (2, 1, ())
    assert (lyon.number, nice.number, lyon.order, nice.order) == ("A", "A", None, None)
    assert paths(nice) == ["address.city"]
    assert paths(lyon) == ["address.city", "items[1].quantity"], "its own faults are told too"
    assert "row 1 and row 2" in nice.faults[0].message
    assert lyon.digest == nice.digest, "one number is remembered once"


def test_a_header_that_cannot_be_read_is_a_different_header() -> None:
    candidates = mapped([line(remark=None), line(remark=True)])

    assert [paths(candidate) for candidate in candidates] == [["remark"], ["remark", "remark"]]


def test_headers_that_differ_in_blanks_or_in_the_countrys_case_are_the_same() -> None:
    (order,) = mapped([line(country="fr", city=""), line(country=" FR", city=None)])

    assert order.faults == ()


def test_a_duplicate_row_counts_once_with_a_warning() -> None:
    items = [{"sku": "S", "quantity": 1}, {"sku": "T", "quantity": 2}]

    (order,) = mapped([whole(items=items), whole(items=json.dumps(items[::-1]))])

    assert (order.rows, order.repeated, goods(order)) == (2, 1, {("S", 1): 1, ("T", 2): 1})


def test_two_whole_rows_of_one_number_with_other_lines_are_both_invalid() -> None:
    candidates = mapped([whole(), whole(items=[{"sku": "S", "quantity": 2}])])

    assert [paths(candidate) for candidate in candidates] == [["items"], ["items"]]


def test_a_number_on_every_row_is_one_invalid_order_and_not_held_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mapping, "MAX_ROWS_PER_ORDER", 3)

    candidates = mapped([line("TEST")] * 5 + [line("B")] * 3)

    assert [(found.number, found.rows, bool(found.order)) for found in candidates] == [
        ("TEST", 5, False), ("B", 3, True)
    ]  # fmt: skip
    assert "is on 5 rows" in candidates[0].faults[0].message


def test_a_digest_identifies_the_same_invalid_row_and_no_other() -> None:
    def digest(*rows: dict[str, object]) -> str:
        return mapped(rows)[0].digest

    known = digest(line(None, phone=""), line("B"))

    assert digest(line(" ", phone=None, loaded_at="today")) == known
    assert digest(line(None, phone="1")) != known
    assert digest(line("A", "S", 0), line("A", "T")) == digest(line("A", "T"), line("A", "S", 0))


def test_columns_that_do_not_fit_fail_before_the_first_order() -> None:
    with Spool(["order_no"]) as spool, pytest.raises(ColumnsError):
        parse_orders(spool)


def test_ignored_columns_are_known_for_the_log() -> None:
    with Spool([*line(), "loaded_at", "order_no"]) as spool:
        assert spool.ignored_columns() == ("loaded_at", "order_no")
        assert spool.ignored_columns({"custom_order_number": "order_no"}) == (
            "custom_order_number",
            "loaded_at",
        )


def test_bigquerys_nameless_records_are_an_error_with_a_solution() -> None:
    nameless = [{"v": {"f": [{"v": "S"}, {"v": "1"}]}}]

    with pytest.raises(ColumnsError, match=r"TO_JSON_STRING\(items\) AS items"):
        mapped([whole(items=[]), whole(items=nameless)])


def test_parsed_orders_can_be_read_again_after_an_unfinished_pass() -> None:
    with Spool(list(line())) as spool:
        spool.add([list(line(number).values()) for number in "ABC"])
        halfway = parse_orders(spool)
        next(halfway)

        assert [found.number for found in parse_orders(spool)] == ["A", "B", "C"]
        assert [found.number for found in halfway] == ["B", "C"]


def test_orders_come_out_of_every_warehouse(each_warehouse: Warehouse) -> None:
    columns = "custom_order_number, country, phone, recipient, province, sku, quantity"
    texts = ", ".join(f"{name} VARCHAR(64)" for name in columns.split(", ")[:-1])
    each_warehouse.execute(f"CREATE TABLE order_line ({texts}, quantity NUMERIC(10, 2))")
    values = [
        f"('{number}', 'FR', '06', 'Lou', 'Idf', '{sku}', {n})" for number, sku, n in ("AX2", "BX1", "AY3")
    ]
    each_warehouse.execute(f"INSERT INTO order_line ({columns}) VALUES {', '.join(values)}")

    with read_rows(each_warehouse.hook, f"SELECT {columns} FROM order_line ORDER BY sku DESC") as spool:
        orders = {found.number: goods(found) for found in parse_orders(spool)}

    assert orders == {"A": {("X", 2): 1, ("Y", 3): 1}, "B": {("X", 1): 1}}


numbers = st.text(st.characters(codec="utf-8"), max_size=5) | st.none() | st.integers(0, 9) | st.just(2.5)
some_lines = st.lists(
    st.builds(
        line,
        number=numbers | st.sampled_from(["A", "B", "C"]),
        sku=st.sampled_from(["S", "T", None]),
        quantity=st.sampled_from([1, 2.0, Decimal("3.0"), 0, "x"]),
        city=st.sampled_from([None, "", "Lyon", "Nice"]),
    ),
    max_size=15,
)


def content(candidates: Sequence[ParsedOrder]) -> Counter[object]:
    """What candidates say, without where they stood."""
    return Counter(
        (found.number, found.rows, found.digest, found.order is None, len(found.faults))
        for found in candidates
    )


@given(some_lines, st.randoms(use_true_random=False))
def test_any_order_of_the_rows_gives_the_same_orders(
    rows: list[dict[str, object]], randomness: random.Random
) -> None:
    shuffled = rows.copy()
    randomness.shuffle(shuffled)

    assert content(mapped(shuffled or [line()])) == content(mapped(rows or [line()]))


@given(some_lines)
def test_no_row_is_lost_and_none_counts_twice(rows: list[dict[str, object]]) -> None:
    candidates = mapped([*rows, line("last")])

    assert sum(found.rows for found in candidates) == len(rows) + 1
    assert [found.position for found in candidates if found.order] == sorted(
        found.position for found in candidates if found.order
    )
    sent = [found.number for found in candidates if found.order]
    assert len(sent) == len(set(sent))
    assert sum(len(found.order.items) for found in candidates if found.order) == sum(
        found.rows for found in candidates if found.order
    )
    assert all(bool(found.order) != bool(found.faults) for found in candidates)


@given(st.lists(st.sampled_from("ABC"), min_size=1), st.randoms(use_true_random=False))
def test_orders_come_in_the_sequence_of_their_first_rows(
    letters: list[str], randomness: random.Random
) -> None:
    found = [candidate.number for candidate in mapped([line(letter) for letter in letters])]

    assert found == list(dict.fromkeys(letters))
