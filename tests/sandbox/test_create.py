"""How KK takes an order."""

from __future__ import annotations

import pytest

from tests.sandbox.caller import ADDRESS, DRESS, JACKET, V1, V1_LATER, V2, order, split_order


@pytest.mark.parametrize("path", [V1, V1_LATER, V2])
def test_an_order_is_created_and_listed_under_its_number(kk, caller, path):
    created = caller.create(order("A-1", path, remark="by bike"), path)

    (listed,) = caller.listed(path)
    assert listed["id"] == created
    assert listed["CustomOrderNumber" if path == V1 else "customOrderId"] == "A-1"
    assert listed["remark"] == "by bike"
    assert listed["shippingAddress"]["zip"] == "75001"
    assert [(line["skuCode"], line["productNum"]) for line in listed["orderItems"]] == [(DRESS, 1)]


def test_the_same_order_twice_makes_a_duplicate(kk, caller):
    first, second = caller.create(order("A-1")), caller.create(order("A-1"))

    assert first != second
    assert kk.control.duplicates() == ["A-1"]


def test_an_order_from_two_warehouses_becomes_two_orders_of_one_call(kk, caller):
    answered = caller.create(split_order("A-1"))

    chinese, american = kk.control.orders("A-1")
    assert answered == f"{chinese['id']},{american['id']}"
    assert (chinese["warehouse"], chinese["goods"]) == ("CN", {DRESS: 2})
    assert (american["warehouse"], american["goods"]) == ("US", {JACKET: 1})
    assert chinese["call"] == american["call"]
    assert kk.control.duplicates() == []


@pytest.mark.parametrize(
    ("shape", "one", "two"),
    [
        ("number", 1000000371651, "1000000371652,1000000371653"),
        ("text", "1000000371651", "1000000371652,1000000371653"),
        ("comma", "1000000371651", "1000000371652,1000000371653"),
        ("list", [1000000371651], [1000000371652, 1000000371653]),
        (
            "kkOrderIds",
            {"kkOrderIds": 1000000371651, "status": 0},
            {"kkOrderIds": "1000000371652,1000000371653", "status": 0},
        ),
        ("id", {"id": 1000000371651, "status": 0}, {"id": "1000000371652,1000000371653", "status": 0}),
        ("first", 1000000371651, 1000000371652),
    ],
)
def test_the_answer_has_any_shape_that_is_documented_or_likely(kk, caller, shape, one, two):
    kk.control.set(answer=shape)

    assert caller.create(order()) == one
    assert caller.create(split_order()) == two


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"orderAddresses": None}, "orderAddresses is required"),
        *(
            ({"orderAddresses": ADDRESS | {name: ""}}, f"{name} is required")
            for name in ("country", "phone", "recipient", "province")
        ),
        ({"orderAddresses": ADDRESS | {"country": "France"}}, "country"),
        ({"orderAddresses": ADDRESS | {"city": "x" * 65}}, "city"),
        ({"orderItemsList": []}, "orderItemsList is required"),
        ({"orderItemsList": [{"quantity": 1}]}, "sku is required"),
        *(
            ({"orderItemsList": [{"sku": DRESS, "quantity": quantity}]}, "quantity must be greater than 0")
            for quantity in (0, -1, "1", 1.0, True, None, 10**16)
        ),
        ({"orderItemsList": [{"sku": "NOPE", "quantity": 1}]}, "does not exist"),
        ({"orderItemsList": [{"sku": "FWXW00290_RED_XXL", "quantity": 1}]}, "sold out"),
    ],
)
def test_an_invalid_order_is_rejected_and_not_created(kk, caller, changes, said):
    assert said in caller.refusal(order("A-1", **changes))
    assert kk.control.orders() == []


@pytest.mark.parametrize("body", [None, [], "text", {}])
def test_a_body_that_is_no_order_is_rejected(kk, caller, body):
    assert caller.refusal(body)


@pytest.mark.parametrize("channel", [None, "Slow"])
def test_v2_needs_a_documented_channel(kk, caller, channel):
    assert "channelType" in caller.refusal(order("A-1", V2, channelType=channel), V2)


@pytest.mark.parametrize("channel", [None, "", "Standard", "Express"])
def test_later_v1_takes_a_channel_or_none(kk, caller, channel):
    caller.create(order("A-1", V1_LATER, channelType=channel), V1_LATER)

    assert kk.control.orders()[0]["channel_type"] == (channel or None)


@pytest.mark.parametrize("channel", ["Expedited", "Slow", 1])
def test_later_v1_rejects_a_channel_that_it_does_not_document(kk, caller, channel):
    assert "channelType" in caller.refusal(order("A-1", V1_LATER, channelType=channel), V1_LATER)


@pytest.mark.parametrize("channel", ["Express", "Slow"])
def test_first_v1_has_no_channel(kk, caller, channel):
    caller.create(order("A-1", V1, channelType=channel), V1)

    assert kk.control.orders()[0]["channel_type"] is None


def test_a_number_under_the_other_revisions_name_is_lost(kk, caller):
    caller.create(order("A-1", V1, customOrderId="A-1", CustomOrderNumber=None), V1)

    assert kk.control.orders()[0]["number"] is None


def test_a_number_that_is_too_long_is_cut_silently(kk, caller):
    caller.create(order("x" * 50))

    assert kk.control.orders()[0]["number"] == "x" * 40


@pytest.mark.parametrize("key", ["orderAddress", "orderAddresses"])
def test_only_the_address_key_of_this_kk_is_read(kk, caller, key):
    kk.control.set(address_key=key)
    spelled = {name: ADDRESS if name == key else None for name in ("orderAddress", "orderAddresses")}
    other = {name: None if name == key else ADDRESS for name in ("orderAddress", "orderAddresses")}

    caller.create(order("A-1", **spelled))
    assert f"{key} is required" in caller.refusal(order("A-2", **other))


def test_a_rejection_can_come_with_an_http_error(kk, caller):
    kk.control.set(rejection_status=422)

    answer = caller.post(order("A-1", orderItemsList=[]))
    assert (answer.status_code, answer.json()["data"]) == (422, None)


def test_an_order_needs_a_balance_that_also_covers_those_not_yet_paid(kk, caller):
    kk.control.set_balance(40)
    caller.create(order("A-1"))
    caller.create(order("A-2"))

    assert "balance" in caller.refusal(order("A-3"))


def test_a_sku_can_be_sold_out_while_kk_runs(kk, caller):
    kk.control.set_stock(DRESS, 0)
    assert "sold out" in caller.refusal(order("A-1"))

    kk.control.set_stock(DRESS, 1)
    assert caller.create(order("A-1"))
