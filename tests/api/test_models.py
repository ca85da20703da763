"""What an order must be before it may be sent."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from airflow_provider_kk.api.errors import InvalidOrderError
from airflow_provider_kk.api.models import Order, OrderAddress, OrderItem
from tests.api.helpers import ORDER


def changed(**is_write: Any) -> dict[str, Any]:
    """ORDER with some fields changed; `address__phone=...` reaches into the address."""
    order = copy.deepcopy(ORDER)
    for path, value in is_write.items():
        *above, last = path.split("__")
        (order[above[0]] if above else order)[last] = value
    return order


def faults_of(data: Any) -> dict[str, str]:
    with pytest.raises(InvalidOrderError) as caught:
        Order.parse(data)
    return dict(caught.value.faults)


def one_fault(**is_write: Any) -> str:
    (message,) = faults_of(changed(**is_write)).values()
    return message


def test_kks_own_names_and_snake_case_mean_the_same_order() -> None:
    in_kks_names = {
        "orderAddresses": ORDER["address"],
        "orderItemsList": ORDER["items"],
        "remark": ORDER["remark"],
        "CustomOrderNumber": "111",
        "SalePlatform": "KA",
    }
    later = {
        "orderAddress": ORDER["address"],
        "orderItems": ORDER["items"],
        "remark": ORDER["remark"],
        "customOrderId": "111",
        "salePlatform": "KA",
    }
    upper = {"ADDRESS": {key.upper(): value for key, value in ORDER["address"].items()}} | {
        "ITEMS": [{"SKU": "FWXW00290_WHT_M", "QUANTITY": Decimal("1")}],
        "REMARK": ORDER["remark"],
        "CUSTOM_ORDER_NUMBER": "111",
        "SALE_PLATFORM": "KA",
    }
    assert Order.parse(in_kks_names) == Order.parse(later) == Order.parse(upper) == Order.parse(ORDER)


def test_an_order_can_be_written_as_a_literal() -> None:
    order = Order(
        address=OrderAddress(country="fr", phone="1", recipient="A", province="B"),
        items=[OrderItem(sku="S", quantity=2)],
    )
    assert order.address.country == "FR"
    assert Order.parse(order) == order


def test_a_copy_with_an_unchecked_change_is_checked_again() -> None:
    order = Order.parse(ORDER).model_copy(update={"custom_order_number": "é"})
    assert "custom_order_number" in faults_of(order)


def test_whitespace_is_trimmed_and_empty_text_is_absent() -> None:
    order = Order.parse(
        changed(address__street1=" 7 rue \n Rabelais ", address__city="  ", remark="", sale_platform=" ")
    )
    assert order.address.street1 == "7 rue Rabelais"
    assert order.address.city is None
    assert order.remark is None
    assert order.sale_platform is None


@pytest.mark.parametrize("province", [{}, {"province": " "}])
def test_every_fault_is_named_at_once_with_its_path(province: dict[str, str]) -> None:
    faults = faults_of(
        {
            "address": {"country": "XX", "recipient": "x" * 33, "street2": "y" * 65} | province,
            "items": [{"sku": "", "quantity": 0}, {"sku": "z" * 65}],
            "custom_order_number": "n" * 41,
        }
    )
    assert set(faults) == {
        "address.country",
        "address.phone",
        "address.recipient",
        "address.street2",
        "address.province",
        "items[0].sku",
        "items[0].quantity",
        "items[1].sku",
        "items[1].quantity",
        "custom_order_number",
    }
    assert "at most 32" in faults["address.recipient"]
    assert faults["address.phone"] == "is required"
    assert faults["address.province"] == "is required. If the country has no provinces, repeat the city"


@pytest.mark.parametrize(
    ("given_country", "meant"),
    [
        ("Germny", "DE (Germany)"),
        ("Dominicana", "DO (Dominican Republic)"),
        ("Congo", "CD (Congo - Kinshasa) or CG (Congo - Brazzaville)"),
    ],
)
def test_a_wrong_country_gets_a_hint(given_country: str, meant: str) -> None:
    assert f"Did you mean {meant}?" in one_fault(address__country=given_country)


@pytest.mark.parametrize("country", ["fr", " us ", "Gb"])
def test_a_country_code_is_upper_cased(country: str) -> None:
    assert Order.parse(changed(address__country=country)).address.country == country.strip().upper()


@pytest.mark.parametrize("quantity", [3, "3", " 3 ", Decimal("3"), Decimal("3.00"), 3.0, "3.0", "+3"])
def test_whole_numbers_of_any_kind_are_quantities(quantity: object) -> None:
    assert Order.parse(changed(items=[{"sku": "A", "quantity": quantity}])).items[0].quantity == 3


@pytest.mark.parametrize(
    "quantity",
    [
        3.5,
        "3.5",
        Decimal("3.5"),
        True,
        False,
        float("nan"),
        float("inf"),
        Decimal("NaN"),
        "three",
        "٣",
        "1e2",
        [3],
        {},
    ],
)
def test_any_other_quantity_fails_with_what_to_pass(quantity: object) -> None:
    assert "must be a whole number such as 3 or '3'" in one_fault(items=[{"sku": "A", "quantity": quantity}])


@pytest.mark.parametrize("quantity", [0, -1, "0", 10**16, str(10**16)])
def test_a_quantity_has_1_to_16_digits_and_is_at_least_1(quantity: object) -> None:
    assert "items[0].quantity" in faults_of(changed(items=[{"sku": "A", "quantity": quantity}]))


def test_the_largest_quantity_is_taken() -> None:
    assert Order.parse(changed(items=[{"sku": "A", "quantity": 10**16 - 1}])).items[0].quantity == 10**16 - 1


def test_integers_are_taken_where_warehouses_keep_codes_as_numbers() -> None:
    order = Order.parse(
        changed(address__zip=75001, address__phone=33782246793.0, custom_order_number=Decimal("1001"))
    )
    assert (order.address.zip, order.address.phone, order.custom_order_number) == (
        "75001",
        "33782246793",
        "1001",
    )


@pytest.mark.parametrize("zip_code", [True, 75001.5, 1e300, -5, Decimal("7.5"), ["75001"]])
def test_what_may_have_lost_digits_is_no_code(zip_code: object) -> None:
    assert "must be text" in one_fault(address__zip=zip_code)


@pytest.mark.parametrize("number", ["é1", "a\tb", "a\nb", "№5", "x" * 41])
def test_an_order_number_is_printable_ascii_of_40_at_most(number: str) -> None:
    assert "custom_order_number" in faults_of(changed(custom_order_number=number))


@pytest.mark.parametrize(
    ("data", "path", "meant"),
    [
        (changed(adress={}), "adress", "address"),
        (changed(address__countri="FR"), "address.countri", "country"),
        (changed(address__postal_code="1"), "address.postal_code", "zip"),
        (changed(items=[{"sku": "A", "quantity": 1, "qty": 1}]), "items[0].qty", "quantity"),
        (changed(orderLines=[]), "orderLines", "items"),
    ],
)
def test_an_unknown_field_is_a_named_fault_with_a_hint(data: Any, path: str, meant: str) -> None:
    assert faults_of(data)[path].endswith(f"Did you mean {meant}?")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("sku", "items[0].sku"),
        ("qty", "items[0].quantity"),
        ("zip", "address.zip"),
        ("state", "address.province"),
    ],
)
def test_field_of_a_line_or_the_address_beside_them_is_a_fault_with_its_path(name: str, path: str) -> None:
    assert faults_of(changed(**{name: "A"}))[name] == f"is not a field of an order. Did you mean {path}?"


def test_a_field_given_under_two_names_is_a_fault() -> None:
    assert "twice" in faults_of(changed(orderAddresses=ORDER["address"]))["orderAddresses"]


@pytest.mark.parametrize("items", [[], "[]", {}, {"sku": "A", "quantity": 1}, "x", None, 5, ""])
def test_an_order_has_at_least_one_line(items: object) -> None:
    assert "items" in faults_of(changed(items=items))


@pytest.mark.parametrize(
    "text",
    [
        str(ORDER),
        json.dumps(ORDER).replace('"items": [', "\"items\": [{'sku': 'A'}, "),
        '{"address": ' + str(ORDER["address"]) + "}",
        '{"items": None}',
        '{"quantity": Decimal("3")}',
        repr(Order.parse(ORDER)),
        str(Order.parse(ORDER)),
    ],
)
def test_a_python_repr_fails_with_how_to_pass_it(text: str) -> None:
    message = faults_of(text)[""]
    for way in (".output", "tojson", "model_dump()"):
        assert way in message


def test_a_python_repr_in_a_field_gets_the_same_error() -> None:
    assert "tojson" in one_fault(address=str(ORDER["address"]))
    assert "tojson" in one_fault(items=str(ORDER["items"]))


def test_parts_may_come_as_json_text() -> None:
    as_text = changed(address=json.dumps(ORDER["address"]), items=json.dumps(ORDER["items"]))
    assert Order.parse(as_text) == Order.parse(ORDER)


@pytest.mark.parametrize(
    "data",
    [
        '{"address": {}, "items": [{"sku": "A", "quantity": 1, "quantity": 5}]}',
        {"address": '{"country": "FR", "country": "US"}', "items": [{"sku": "A", "quantity": 1}]},
        {"address": {}, "items": '[{"sku": "A", "sku": "B", "quantity": 1}]'},
    ],
)
def test_a_key_twice_in_one_json_object_is_a_fault(data: Any) -> None:
    with pytest.raises(InvalidOrderError, match="a key twice in one object"):
        Order.parse(data)


@pytest.mark.parametrize(
    "data", ["", "None", "nonsense", "[]", "3", "null", [], 3, None, "{" * 100_000, "[" * 100_000]
)
def test_what_is_no_order_at_all_is_one_fault(data: Any) -> None:
    assert list(faults_of(data)) == [""]


@pytest.mark.parametrize(
    ("channel_type", "kept"), [("express", "Express"), ("", None), ("Standard", "Standard")]
)
def test_a_channel_type_is_one_of_kks(channel_type: str, kept: str | None) -> None:
    assert Order.parse(changed(channel_type=channel_type)).channel_type == kept
    assert "Expedited" in one_fault(channel_type="fast")


def test_private_values_are_what_must_be_taken_out_of_messages() -> None:
    private = Order.parse(ORDER).private_values()
    assert set(private) == {
        "Lffsollia Odfsdlena",
        "07 82 24 67 93",
        "7 rue  Rabelais",
        "Orlafasns",
        "vsvs00v30",
        "I don't want this order",
    }


def test_an_order_does_not_show_its_customer() -> None:
    order = Order.parse(ORDER)
    assert not [value for value in order.private_values() if value in repr(order) + str(order)]


one_line = st.text(st.characters(blacklist_categories=["Cc", "Cs", "Zl", "Zp"]), min_size=1).map(str.strip)
ascii_line = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)


def line(width: int) -> st.SearchStrategy[str]:
    return one_line.map(lambda text: text[:width].strip()).filter(bool)


addresses = st.fixed_dictionaries(
    {
        "country": st.sampled_from(["FR", "us", "DE", " gb "]),
        "phone": line(63).map("1".__add__),
        "recipient": line(32),
        "province": line(32),
    },
    optional={
        "city": line(64),
        "street1": line(64),
        "street2": line(64),
        "zip": line(32),
        "ioss": line(32),
        "vat": line(32),
    },
)
items = st.fixed_dictionaries({"sku": line(64), "quantity": st.integers(1, 10**16 - 1)})
orders = st.fixed_dictionaries(
    {"address": addresses, "items": st.lists(items, min_size=1, max_size=4)},
    optional={
        "remark": line(200),
        "custom_order_number": ascii_line.map(lambda text: text[:40]),
        "sale_platform": line(20),
        "channel_type": st.sampled_from(["Standard", "Express", "Expedited"]),
    },
)


@given(orders)
def test_an_order_survives_being_dumped_and_parsed(data: dict[str, Any]) -> None:
    try:
        order = Order.parse(data)
    except InvalidOrderError:
        reject()  # Random text may look damaged.
    assert Order.parse(order.model_dump()) == order
    assert Order.parse(order.model_dump_json()) == order
    assert Order.parse(json.dumps(order.model_dump(exclude_none=True))) == order


@given(
    st.sampled_from(
        [("recipient", 32), ("province", 32), ("zip", 32), ("phone", 64), ("street1", 64), ("city", 64)]
    ),
    st.integers(1, 200),
)
def test_a_width_is_kept_to_the_character(field: tuple[str, int], length: int) -> None:
    name, width = field
    text = "1" + "é" * (length - 1)
    data = changed(**{f"address__{name}": text})
    if length <= width:
        assert getattr(Order.parse(data).address, name) == text
    else:
        assert f"at most {width}" in faults_of(data)[f"address.{name}"]


SECRET = "Zyxwvut 0987612345"
secrets = st.sampled_from(
    [
        SECRET,
        [SECRET],
        {"x": SECRET},
        SECRET * 9,
        f"{SECRET}\0",
        f"{{'a': '{SECRET}'}}",
        f'"{SECRET}"',
        f"[{SECRET}]",
    ]
)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text(max_size=20) | secrets,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
fields = st.sampled_from(
    [
        *Order.model_fields,
        *OrderAddress.model_fields,
        "orderAddresses",
        "orderItemsList",
        "sku",
        "quantity",
        "unknown",
    ]
)


@given(st.dictionaries(fields, junk) | junk, junk, st.lists(st.dictionaries(fields, junk) | junk, max_size=3))
def test_no_fault_ever_shows_a_value(data: Any, address: Any, lines: Any) -> None:
    for candidate in (
        data,
        {"address": data},
        {"address": address, "items": lines},
        repr(data),
        f'{{"items": {data}}}',
    ):
        try:
            Order.parse(candidate)
        except InvalidOrderError as error:
            shown = f"{error} {error!r} {error.__context__!r} {error.__cause__!r}"
            assert SECRET not in shown
            assert "0987612345" not in shown
