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

from airflow_provider_kk.api.errors import Fault
from airflow_provider_kk.warehouse import map as mapping
from airflow_provider_kk.warehouse.map import ParsedOrder, parse_orders
from airflow_provider_kk.warehouse.mapping_arguments import ColumnsError
from airflow_provider_kk.warehouse.query_rows import read_rows
from airflow_provider_kk.warehouse.spool import Spool
from tests.warehouse.conftest import Warehouse

#: HEADER has no street, city and zip.
NO_ADDRESS = tuple(
    Fault(f"address.{field}", "is blank: KK accepts the order, but the parcel may not arrive")
    for field in ("street1", "city", "zip")
)
HEADER = {"country": "FR", "phone": "07 82 24 67 93", "recipient": "Lou Blanc", "province": "Idf"}


def line(
    number: object = "A", sku: object = "S", quantity: object = 1, **header: object
) -> dict[str, object]:
    return {"custom_order_number": number, **HEADER, **header, "sku": sku, "quantity": quantity}


def whole(number: object = "A", items: object = None, **header: object) -> dict[str, object]:
    items = [{"sku": "S", "quantity": 1}] if items is None else items
    return {"custom_order_number": number, **HEADER, **header, "items": items}


def mapped(
    rows: Sequence[dict[str, object]], columns: str | dict[str, str] | None = None, **options: Any
) -> list[ParsedOrder]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with Spool(names) as spool:
        spool.add([[row.get(name) for name in names] for row in rows])
        return list(parse_orders(spool, columns, **options))


def goods(candidate: ParsedOrder) -> Counter[tuple[str, int]]:
    assert candidate.order, candidate.faults
    return Counter((item.sku, item.quantity) for item in candidate.order.items)


def paths(candidate: ParsedOrder) -> list[str]:
    return [fault.path for fault in candidate.faults]


def test_rows_of_one_number_are_the_lines_of_one_order() -> None:
    first, second = mapped([line("B", "X"), line("A", "Y", 2), line("B", "Z", 3)])

    assert (first.number, first.position) == ("B", 1)
    assert goods(first) == {("X", 1): 1, ("Z", 3): 1}
    assert (second.number, goods(second)) == ("A", {("Y", 2): 1})


def test_two_equal_lines_are_two_lines() -> None:
    (order,) = mapped([line(line_id=1), line(line_id=2)])

    assert (goods(order), order.warnings) == ({("S", 1): 2}, NO_ADDRESS)


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
    (order,) = mapped([line("1001"), line(number, "T")])

    assert (order.number, order.faults) == ("1001", ())


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
    assert paths(candidates[1]) == ["items"], "the third row may be a line of it"


def test_lines_with_different_headers_are_different_orders_and_none_is_sent() -> None:
    rows = [line(city="Lyon"), line(city="Nice"), line("B"), line(city="Lyon", sku="T", quantity=0)]

    lyon, nice, fine = mapped(rows, None)

    assert fine.faults == ()
    assert (lyon.number, nice.number, lyon.order, nice.order) == ("A", "A", None, None)
    assert paths(nice) == ["address.city"]
    assert paths(lyon) == ["address.city", "items[1].quantity"], "its own faults are told too"
    assert "row 1 and row 2" in nice.faults[0].message
    assert lyon.digest == nice.digest, "one number is remembered once"


def test_a_header_that_cannot_be_read_is_a_fault_of_the_whole_order() -> None:
    candidates = mapped([line(remark=None), line(sku="T", remark=True)])

    assert [paths(candidate) for candidate in candidates] == [["remark"]]


def test_headers_that_differ_in_blanks_or_in_the_countrys_case_are_the_same() -> None:
    (order,) = mapped([line(country="fr", city=""), line(sku="T", country=" FR", city=None)])

    assert order.faults == ()


def test_a_row_that_repeats_a_whole_order_counts_once() -> None:
    items = [{"sku": "S", "quantity": 1}, {"sku": "T", "quantity": 2}]

    (order,) = mapped([whole(items=items), whole(items=json.dumps(items[::-1]))])

    assert goods(order) == {("S", 1): 1, ("T", 2): 1}


def test_two_whole_rows_of_one_number_with_other_lines_are_both_invalid() -> None:
    candidates = mapped([whole(), whole(items=[{"sku": "S", "quantity": 2}])])

    assert [paths(candidate) for candidate in candidates] == [["items"], ["items"]]


def test_a_number_on_every_row_is_one_invalid_order_and_not_held_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mapping, "MAX_ROWS_PER_ORDER", 3)

    candidates = mapped([line("TEST")] * 5 + [line("B", sku) for sku in "STU"])

    assert [(found.number, bool(found.order)) for found in candidates] == [("TEST", False), ("B", True)]
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
        (found.number, found.digest, found.order is None, len(found.faults)) for found in candidates
    )


def is_numbered(row: dict[str, object]) -> bool:
    return mapped([row])[0].number is not None


@given(some_lines, st.randoms(use_true_random=False))
def test_any_order_of_numbered_rows_gives_the_same_orders(
    rows: list[dict[str, object]], randomness: random.Random
) -> None:
    rows = [line(), *filter(is_numbered, rows)]
    shuffled = rows.copy()
    randomness.shuffle(shuffled)

    assert content(mapped(shuffled)) == content(mapped(rows))


@given(some_lines)
def test_no_row_is_lost_and_none_counts_twice(rows: list[dict[str, object]]) -> None:
    candidates = mapped([*rows, line("last")])

    sent = {found.number: found for found in candidates if found.order}
    assert len(sent) == sum(1 for found in candidates if found.order)
    assert all(bool(found.order) != bool(found.faults) for found in candidates)
    for number, found in sent.items():
        own = [row for row in rows if mapped([row])[0].number == number] or [line("last")]
        assert goods(found) == Counter((row["sku"], int(row["quantity"])) for row in own)  # type: ignore[call-overload]
    numbers = {mapped([row])[0].number for row in rows} - {None}
    assert numbers <= {found.number for found in candidates}
    unnumbered = sum(1 for row in rows if not is_numbered(row))
    assert unnumbered == sum(1 for found in candidates if found.number is None)


@given(st.lists(st.sampled_from("ABC"), min_size=1))
def test_orders_come_in_the_sequence_of_their_first_rows(letters: list[str]) -> None:
    found = [candidate.number for candidate in mapped([line(letter) for letter in letters])]

    assert found == list(dict.fromkeys(letters))


# Rows of one order ---------------------------------------------------------------------------------

FULL = {"street1": "7 rue", "city": "Lyon", "zip": "69001"}


def test_blank_cells_agree_with_the_orders_other_rows() -> None:
    blank = dict.fromkeys([*HEADER, *FULL])

    for rows in ([line(**FULL), line(sku="T", **blank)], [line(sku="T", **blank), line(**FULL)]):
        (order,) = mapped(rows)
        assert goods(order) == {("S", 1): 1, ("T", 1): 1}
        assert order.order
        assert (order.order.address.city, order.order.address.recipient) == ("Lyon", "Lou Blanc")
        assert order.warnings == ()


def test_blank_cells_do_not_hide_a_conflict() -> None:
    found = mapped([line(city="Lyon"), line(sku="T", city=None), line(sku="U", city="Nice")])

    assert {path for one in found for path in paths(one)} == {"address.city"}
    assert [one.order for one in found] == [None] * len(found)


def test_rows_equal_in_every_column_are_a_fault_unless_kept() -> None:
    rows = [line(), line("B"), line(), line("B", quantity=2), line(), line("C"), line("C", "T")]

    first, second, third = mapped(rows)
    kept, *_ = mapped(rows, duplicate_rows="keep")

    assert paths(first) == ["items"]
    assert "(row 1, row 3 and row 5)" in first.faults[0].message
    assert goods(second) == {("S", 1): 1, ("S", 2): 1}
    assert [warning.path for warning in second.warnings if warning not in NO_ADDRESS] == ["items"]
    assert (third.faults, third.warnings) == ((), NO_ADDRESS)
    assert goods(kept) == {("S", 1): 3}


def test_equal_rows_that_a_column_tells_apart_are_lines_with_a_warning() -> None:
    (order,) = mapped([line(loaded_at=1), line(loaded_at=2)])

    assert goods(order) == {("S", 1): 2}
    assert "has a SKU on several lines" in order.warnings[-1].message


@pytest.mark.parametrize("duplicate_rows", ["fail", "keep"])
def test_a_line_id_that_is_there_twice_is_a_fault(duplicate_rows: str) -> None:
    twice, apart, partly = mapped(
        [
            line(line_id=1, loaded_at=1), line(line_id=1.0, loaded_at=2),
            line("B", line_id="x"), line("B", line_id="y"),
            line("C", line_id=None, loaded_at=1), line("C", line_id="y", loaded_at=1),
        ],
        duplicate_rows=duplicate_rows,
    )  # fmt: skip

    assert "has one line_id on several rows (row 1 and row 2)" in twice.faults[0].message
    assert (apart.faults, apart.warnings) == ((), NO_ADDRESS)
    assert (partly.faults, len(partly.warnings)) == ((), 4)


def test_an_equal_row_with_a_line_id_is_not_advised_to_select_one() -> None:
    with_id, without_id = mapped([line(line_id=1), line(line_id=1), line("B"), line("B")])

    assert "equal in every column" in with_id.faults[0].message
    assert "select a line_id" not in with_id.faults[0].message
    assert "select a line_id" in without_id.faults[0].message


def test_line_ids_of_other_orders_do_not_matter() -> None:
    assert [found.faults for found in mapped([line(line_id=1), line("B", line_id=1)])] == [(), ()]


def test_line_id_inside_items() -> None:
    one, two = {"sku": "S", "quantity": 1, "line_id": 1}, {"sku": "S", "quantity": 1, "LINE_ID": 2}

    apart, twice, unnamed = mapped(
        [whole(items=[one, two]), whole("B", [one, one]), whole("C", [{"sku": "S", "quantity": 1}] * 2)]
    )

    assert (goods(apart), apart.warnings) == ({("S", 1): 2}, NO_ADDRESS)
    assert "has one line_id on several lines" in twice.faults[0].message
    assert "has a SKU on several lines" in unnamed.warnings[-1].message


def test_goods_without_a_number_stop_the_order_above_them() -> None:
    first, unnamed, last, also_unnamed = mapped(
        [line("A", city="Lyon"), line(None, "T", city="Lyon"), line("B", city="Nice"), line(None, "U")]
    )

    for found, rows in ((first, (2, 1)), (last, (4, 3))):
        assert f"row {rows[0]}, below row {rows[1]} of this order" in found.faults[0].message
    assert (unnamed.number, also_unnamed.number) == (None, None)
    assert (unnamed.order, also_unnamed.order) == (None, None)


def test_a_whole_order_without_a_number_leaves_the_others_valid() -> None:
    assert [bool(found.order) for found in mapped([whole(), whole(None), whole("B")])] == [True, False, True]


def test_goods_without_a_number_stop_the_order_below_that_has_the_same_header() -> None:
    _, _, same = mapped([line(None, city="Lyon"), line(None, "T", city="Lyon"), line("A", "U", city="Lyon")])
    above, _, other = mapped([line("B", city="Nice"), line(None, city="Nice"), line("A", city="Lyon")])

    assert "row 1, above row 3 of this order" in same.faults[0].message
    assert (bool(above.faults), other.faults) == (True, ())


BLANK = dict.fromkeys(["custom_order_number", *HEADER, "sku", "quantity"])


@pytest.mark.parametrize(
    ("footer", "stops"),
    [
        ({"sku": "Total", "quantity": 1}, False),
        ({"sku": "TOTAL:", "quantity": 1}, False),
        ({"quantity": 2}, False),
        ({"phone": "Total"}, False),
        ({"sku": "T", "quantity": 1}, True),
        ({"sku": "T"}, True),
        ({"quantity": 2, "recipient": "Ida"}, True),
    ],
)
def test_a_footer_is_no_line_of_the_last_order(footer: dict[str, object], stops: bool) -> None:
    for columns in ({}, {"channel_type": "='Standard'"}):
        order, end = mapped([line(), BLANK | footer], columns)

        assert (bool(order.faults), end.number, end.order) == (stops, None, None)


def test_a_quantity_without_sku_and_number_between_orders_stops_the_order_above() -> None:
    assert [bool(found.faults) for found in mapped([line(), BLANK | {"quantity": 2}, line("B")])] == [
        True, True, False
    ]  # fmt: skip


def test_rows_without_anything_that_is_read_are_no_orders() -> None:
    skipped: list[int] = []

    found = mapped([line(), BLANK | {"note": "Report of today"}, BLANK, line("B")], on_skipped=skipped.append)

    assert [(one.number, one.faults) for one in found] == [("A", ()), ("B", ())]
    assert skipped == [2, 3]


def test_a_default_fills_blanks_only_and_after_the_rows_are_put_together() -> None:
    rows = [line(phone="1", city="Lyon"), line(sku="T", phone=None), line("B", phone=" ", city="Nice")]
    defaults = {"phone": "='000'", "street1": "{city}"}

    first, second = mapped(rows, defaults=defaults)

    assert first.order
    assert second.order
    assert (first.order.address.phone, first.order.address.street1) == ("1", "Lyon")
    assert (second.order.address.phone, second.order.address.street1) == ("000", "Nice")


def test_an_unmapped_sku_of_a_left_join_is_a_fault_that_names_row_and_field() -> None:
    (order,) = mapped([line(), line(sku=None, quantity=3)], {"sku": "sku"})

    assert [str(fault) for fault in order.faults] == ["items[1].sku: is required (row 2)"]


def test_numbers_can_be_templates_and_paths() -> None:
    rows = [{**line(), "id": {"n": 7}}, {**line(sku="T"), "id": '{"n": 7}'}, {**line(), "id": None}]

    first, unnamed = mapped(rows, {"custom_order_number": "SHOP-{id.n}"})

    assert (first.number, paths(first)) == ("SHOP-7", ["items"])
    assert unnamed.number is None


def test_json_that_cannot_be_read_is_a_fault_of_each_field_in_it() -> None:
    columns = {"city": "ship.city", "zip": "ship.zip"}

    broken, twice, good = mapped(
        [
            {**line("A"), "ship": "{city"},
            {**line("B"), "ship": '{"city": "Lyon", "city": "Nice"}'},
            {**line("C"), "ship": '{"city": "Lyon", "zip": "1"}'},
        ],
        columns,
    )

    assert [fault.path for fault in broken.faults] == ["address.city", "address.zip"]
    assert "is JSON with a key twice" in twice.faults[0].message
    assert good.order


# Damaged tables ------------------------------------------------------------------------------------

meant_orders = st.dictionaries(
    st.sampled_from(["A-1", "A-2", "B-7", "10"]),
    st.lists(st.tuples(st.sampled_from("STUV"), st.integers(1, 9)), min_size=1, max_size=4),
    min_size=1,
)


def table(meant: dict[str, list[tuple[str, int]]]) -> list[dict[str, object]]:
    """One row for each line, with an address of the order's own."""
    return [
        line(number, sku, quantity, **FULL, recipient=f"To {number}")
        | {"loaded": f"{number} {index}"}
        for number, lines in meant.items()
        for index, (sku, quantity) in enumerate(lines)
    ]  # fmt: skip


@given(meant_orders, st.data(), st.sampled_from(["fail", "keep"]))
def test_a_damaged_table_yields_the_meant_orders_or_faults(
    meant: dict[str, list[tuple[str, int]]], data: st.DataObject, duplicate_rows: str
) -> None:
    rows = table(meant)
    original = list(range(len(rows)))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(rows) - 1))
        damage = data.draw(st.sampled_from(["blank", "twice", "numberless", "sku", "header", "empty row"]))
        # A copy that differs from its row is a line of its own.
        is_copied = original.count(original[at]) > 1
        if damage == "blank" and not is_copied:
            name = data.draw(st.sampled_from([*HEADER, *FULL]))
            rows[at] = rows[at] | {name: ""}
        elif damage == "header" and not is_copied:
            rows[at] = rows[at] | dict.fromkeys([*HEADER, *FULL])
        elif damage == "twice" and duplicate_rows == "fail":
            rows.insert(at, rows[at])
            original.insert(at, original[at])
        elif damage == "numberless":
            rows[at] = rows[at] | {"custom_order_number": None}
        elif damage == "sku":
            rows[at] = rows[at] | {"sku": None}
        elif damage == "empty row":
            rows.insert(at, dict.fromkeys(rows[at]))
            original.insert(at, -1)

    for found in mapped(rows, duplicate_rows=duplicate_rows):
        if found.order is not None:
            assert found.order.address.recipient == f"To {found.number}"
            own = meant[found.number or ""]
            assert goods(found) == Counter(own), "other goods than meant"


def test_nan_inside_nested_data_is_blank() -> None:
    row = {**line(), "ship": {"zip": float("nan"), "city": "Paris"}}

    (found,) = mapped([row], {"zip": "ship.zip", "city": "{ship.city} {ship.zip}"})

    assert found.order is not None
    assert (found.order.address.zip, found.order.address.city) == (None, "Paris")


@pytest.mark.parametrize("blank", [None, "", "None", "nan"])
def test_a_blank_part_of_a_number_is_a_fault_since_it_would_be_another_number(blank: str | None) -> None:
    rows = [line() | {"shop": "7", "id": "1"}, line() | {"shop": "7", "id": blank}]

    whole_one, other = mapped(rows, {"custom_order_number": "{shop}-{id}"})

    assert whole_one.number == "7-1"
    assert other.order is None
    assert other.faults[0].path == "custom_order_number"


def test_a_blank_part_of_a_sku_is_a_fault() -> None:
    (found,) = mapped([line() | {"style": "FW1", "size": None}], {"sku": "{style}_{size}"})

    assert [(fault.path, fault.message.partition(",")[0]) for fault in found.faults] == [
        ("items[0].sku", "has a blank part in its template")
    ]


@pytest.mark.parametrize("spelling", ["1007", "1007.0", "'1007", 1007, 1007.0])
def test_a_part_of_a_template_is_read_as_the_field_is(spelling: object) -> None:
    (found,) = mapped(
        [line() | {"id": spelling}], {"custom_order_number": "SO-{id}", "zip": "F-{id}", "sku": "FW{sku}"}
    )

    assert found.order is not None
    assert (found.number, found.order.address.zip) == ("SO-1007", "F-1007")


@pytest.mark.parametrize("damaged", ["3.3E+10", "#N/A", "=A1", "1,007"])
def test_a_damaged_part_of_a_template_is_a_fault(damaged: str) -> None:
    (found,) = mapped([line() | {"id": damaged}], {"custom_order_number": "SO-{id}"})

    assert found.order is None
    assert found.faults[0].path == "custom_order_number"


@pytest.mark.parametrize(
    ("one", "other"), [("A-1", "a-1"), ("0012", "12"), ("#12", "12"), ("# 0012", "#12"), ("SO 12", "so12")]
)
def test_order_numbers_that_are_nearly_equal_have_a_warning(one: str, other: str) -> None:
    found = mapped([line(one), line("B-7"), line(other, sku="T")])

    assert all(each.order for each in found)
    alike = [[text for path, text in each.warnings if path == "custom_order_number"] for each in found]
    assert alike[1] == []
    assert "row 3 " in alike[0][0]
    assert "row 1 " in alike[2][0]


@pytest.mark.parametrize(
    ("one", "other"), [("A-10", "A-1"), ("1", "10"), ("A1", "A-1"), ("1007-1", "1007-2")]
)
def test_other_order_numbers_are_orders_of_their_own(one: str, other: str) -> None:
    found = mapped([line(one), line(other)])

    assert all(each.order and "custom_order_number" not in dict(each.warnings) for each in found)


def test_a_default_that_refers_to_a_field_has_that_fields_own_default() -> None:
    row = {**line(province=None), "city": None, "depot": "Lyon"}

    (found,) = mapped([row], defaults={"province": "{city}", "city": "{depot}"})

    assert found.order is not None
    assert (found.order.address.province, found.order.address.city) == ("Lyon", "Lyon")


def test_defaults_that_refer_to_each_other_fill_whichever_is_blank() -> None:
    rows = [line("A", province=None, city="Lyon"), line("B", province="Nord", city=None)]

    found = mapped(rows, defaults={"province": "{city}", "city": "{province}"})

    addresses = [each.order.address for each in found if each.order]
    assert [(one.province, one.city) for one in addresses] == [("Lyon", "Lyon"), ("Nord", "Nord")]
