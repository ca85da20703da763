"""The SQL of docs/howto-shopify.md does what the page says, on SQLite and PostgreSQL."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from airflow_provider_kk.warehouse.map import ParsedOrder, parse_orders
from airflow_provider_kk.warehouse.presets import PRESETS
from airflow_provider_kk.warehouse.query_rows import read_rows
from tests.airflow.support import REPOSITORY
from tests.warehouse.conftest import Warehouse

PAGE = (REPOSITORY / "docs" / "howto-shopify.md").read_text()
AIRBYTE, UNFOLDED, FIVETRAN, JOIN, UNFOLDED_JOIN = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
MAPPED = FIVETRAN.replace(" l.sku,", " m.kk_sku AS sku,").replace(" WHERE", f"{JOIN} WHERE")
UNFOLDED_AND_MAPPED = UNFOLDED.replace("l ->> 'sku' AS sku", "m.kk_sku AS sku").replace(
    " WHERE", f"{UNFOLDED_JOIN} WHERE"
)
UNFOLDED_COLUMNS = {"preset": "shopify", "sku": "sku", "quantity": "quantity", "line_id": "line_id"}
STATUS_COLUMNS = (
    "name VARCHAR(64), financial_status VARCHAR(64), cancelled_at TIMESTAMP, test BOOLEAN, "
    "fulfillment_status VARCHAR(64)"
)
SENT = ("#1", "#2")
STATUSES = (
    "'#1', 'paid', NULL, NULL, NULL",
    "'#2', 'partially_refunded', NULL, FALSE, NULL",
    "'#3', 'paid', '2026-11-20', FALSE, NULL",
    "'#4', 'refunded', NULL, FALSE, NULL",
    "'#5', 'pending', NULL, FALSE, NULL",
    "'#6', 'paid', NULL, TRUE, NULL",
    "'#7', 'paid', NULL, FALSE, 'fulfilled'",
)
ADDRESS = {
    "name": "Ida Example", "phone": None, "address1": "Teststraat 1", "city": "Gent", "province": None,
    "zip": "9000", "country_code": "BE", "latitude": 51.05,
}  # fmt: skip
LINES = [{"id": 1, "sku": "S", "quantity": 2, "title": "Tee"}, {"id": 2, "sku": "T", "quantity": 1}]


@pytest.fixture(params=["sqlite", "postgres"])
def warehouse(request: pytest.FixtureRequest) -> Warehouse:
    found: Warehouse = request.getfixturevalue(f"{request.param}_warehouse")
    return found


@pytest.fixture
def fivetran(warehouse: Warehouse) -> Warehouse:
    fields = ("name", "phone", "address_1", "address_2", "city", "province", "zip", "country_code")
    texts = ", ".join(f"shipping_address_{field} VARCHAR(64)" for field in fields)
    warehouse.execute(f'CREATE TABLE "order" (id INTEGER, {STATUS_COLUMNS}, {texts})')
    warehouse.execute(
        "CREATE TABLE order_line (id INTEGER, order_id INTEGER, sku VARCHAR(64), quantity INTEGER, "
        "requires_shipping BOOLEAN)"
    )
    warehouse.execute("CREATE TABLE order_line_refund (order_line_id INTEGER, quantity INTEGER)")
    warehouse.execute("CREATE TABLE sku_map (shop_sku VARCHAR(64), kk_sku VARCHAR(64))")
    for number, status in enumerate(STATUSES, start=1):
        address = "'Ida', '000', 'Teststraat 1', NULL, 'Gent', NULL, '9000', 'BE'"
        warehouse.execute(f'INSERT INTO "order" VALUES ({number}, {status}, {address})')
        warehouse.execute(f"INSERT INTO order_line VALUES ({number}1, {number}, 'mine', 2, TRUE)")
    warehouse.execute("INSERT INTO order_line VALUES (22, 2, 'unknown', 1, NULL)")
    warehouse.execute("INSERT INTO order_line VALUES (23, 2, NULL, 1, FALSE)")
    warehouse.execute("INSERT INTO sku_map VALUES ('mine', 'KK-1')")
    return warehouse


def read(
    warehouse: Warehouse, sql: str, columns: Any = None, **options: Any
) -> dict[str | None, ParsedOrder]:
    with read_rows(warehouse.hook, sql) as spool:
        return {one.number: one for one in parse_orders(spool, columns, **options)}


def goods(found: ParsedOrder) -> list[tuple[str, int]]:
    assert found.order, found.faults
    return [(item.sku, item.quantity) for item in found.order.items]


def make_airbyte(warehouse: Warehouse, lines: list[dict[str, Any]], kind: str) -> None:
    warehouse.execute(
        f"CREATE TABLE orders ({STATUS_COLUMNS}, phone VARCHAR(64), shipping_address {kind}, "
        f"billing_address {kind}, line_items {kind})"
    )
    address, items = json.dumps(ADDRESS), json.dumps(lines)
    for status in STATUSES:
        warehouse.execute(f"INSERT INTO orders VALUES ({status}, NULL, '{address}', NULL, '{items}')")


def test_airbytes_orders_by_the_preset(warehouse: Warehouse) -> None:
    make_airbyte(warehouse, LINES, "JSONB" if "postgres" in type(warehouse.hook).__name__.lower() else "TEXT")

    found = read(warehouse, AIRBYTE, "shopify", defaults={"phone": "='+33 1'"})

    assert {number: goods(one) for number, one in found.items()} == {
        number: [("S", 2), ("T", 1)] for number in SENT
    }
    assert (order := found["#1"].order)
    assert (order.address.phone, order.address.province) == ("+33 1", "Gent")


def test_unfolded_lines_without_tips_gift_cards_and_refunded_lines(postgres_warehouse: Warehouse) -> None:
    tip = {"id": 3, "sku": None, "quantity": 1, "current_quantity": 1, "requires_shipping": False}
    gone = {"id": 4, "sku": "S", "quantity": 1, "current_quantity": 0, "requires_shipping": True}
    left = {"id": 5, "sku": "S", "quantity": 3, "current_quantity": 2, "requires_shipping": True}
    make_airbyte(postgres_warehouse, [tip, gone, left], "JSONB")
    postgres_warehouse.execute("CREATE TABLE sku_map (shop_sku VARCHAR(64), kk_sku VARCHAR(64))")
    postgres_warehouse.execute("INSERT INTO sku_map VALUES ('S', 'KK-1')")

    for sql, sku in ((UNFOLDED, "S"), (UNFOLDED_AND_MAPPED, "KK-1")):
        found = read(postgres_warehouse, sql, UNFOLDED_COLUMNS, defaults={"phone": "='+33 1'"})

        assert {number: goods(one) for number, one in found.items()} == {
            number: [(sku, 2)] for number in SENT
        }


def test_fivetrans_orders(fivetran: Warehouse) -> None:
    fivetran.execute("INSERT INTO order_line_refund VALUES (21, 1)")

    found = read(fivetran, FIVETRAN)

    assert {number: goods(one) for number, one in found.items()} == {
        "#1": [("mine", 2)], "#2": [("mine", 1), ("unknown", 1)]
    }  # fmt: skip


def test_a_line_without_a_piece_left_is_left_out(fivetran: Warehouse) -> None:
    fivetran.execute("INSERT INTO order_line_refund VALUES (21, 1)")
    fivetran.execute("INSERT INTO order_line_refund VALUES (21, 1)")

    assert goods(read(fivetran, FIVETRAN)["#2"]) == [("unknown", 1)]


def test_an_unmapped_sku_is_a_fault_and_no_lost_line(fivetran: Warehouse) -> None:
    found = read(fivetran, MAPPED)

    assert goods(found["#1"]) == [("KK-1", 2)]
    (fault,) = found["#2"].faults
    assert (fault.path.startswith("items["), fault.path.endswith(".sku")) == (True, True)


def test_a_sku_that_is_mapped_twice_is_a_fault(fivetran: Warehouse) -> None:
    fivetran.execute("INSERT INTO sku_map VALUES ('mine', 'KK-2')")

    assert "one line_id on several rows" in read(fivetran, MAPPED)["#1"].faults[0].message


def test_every_preset_is_on_the_page_with_its_example() -> None:
    page = (REPOSITORY / "docs" / "howto-mapping.md").read_text()
    for name in PRESETS:
        assert re.search(rf"^\| `{name}` \| .* \| \[(.+)\]\(examples/\1\) \|$", page, re.MULTILINE)
