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
AIRBYTE, FIVETRAN, MAPPED, _ = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
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
    warehouse.execute(f'CREATE TABLE "order" (id INTEGER, name VARCHAR(64), cancelled_at TIMESTAMP, {texts})')
    warehouse.execute(
        "CREATE TABLE order_line (id INTEGER, order_id INTEGER, sku VARCHAR(64), quantity INTEGER)"
    )
    warehouse.execute("CREATE TABLE sku_map (shop_sku VARCHAR(64), kk_sku VARCHAR(64))")
    for number in (1, 2):
        address = "'Ida', '000', 'Teststraat 1', NULL, 'Gent', NULL, '9000', 'BE'"
        warehouse.execute(f"INSERT INTO \"order\" VALUES ({number}, '#{number}', NULL, {address})")
        warehouse.execute(f"INSERT INTO order_line VALUES ({number}1, {number}, 'mine', 2)")
    warehouse.execute("INSERT INTO order_line VALUES (22, 2, 'unknown', 1)")
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


def test_airbytes_orders_by_the_preset(warehouse: Warehouse) -> None:
    kind = "JSONB" if "postgres" in type(warehouse.hook).__name__.lower() else "TEXT"
    warehouse.execute(
        f"CREATE TABLE orders (name VARCHAR(64), phone VARCHAR(64), financial_status VARCHAR(64), "
        f"cancelled_at TIMESTAMP, shipping_address {kind}, billing_address {kind}, line_items {kind})"
    )
    warehouse.execute(
        f"INSERT INTO orders VALUES ('#1', NULL, 'paid', NULL, '{json.dumps(ADDRESS)}', NULL, "
        f"'{json.dumps(LINES)}')"
    )

    found = read(warehouse, AIRBYTE, "shopify", defaults={"phone": "='+33 1'"})["#1"]

    assert goods(found) == [("S", 2), ("T", 1)]
    assert found.order
    assert (found.order.address.phone, found.order.address.province) == ("+33 1", "Gent")


def test_fivetrans_orders(fivetran: Warehouse) -> None:
    found = read(fivetran, FIVETRAN)

    assert {number: goods(one) for number, one in found.items()} == {
        "#1": [("mine", 2)], "#2": [("mine", 2), ("unknown", 1)]
    }  # fmt: skip


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
