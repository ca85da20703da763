"""The access token and the customers stay where they belong, whatever goes wrong."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_kk.sandbox.server import SandboxServer
from tests.airflow.support import AIRFLOW_VERSION
from tests.operators.shop import ADDRESS, PRIVATE, QUICK, nonzero, number, rows

if TYPE_CHECKING:
    from tests.airflow.conftest import Shop
    from tests.airflow.support import AirflowHome

TOKEN = "tok-7c1f9a-do-not-tell"
NOT_ON_3_0 = pytest.mark.skipif(
    AIRFLOW_VERSION == (3, 0),
    reason="dag.test() itself prints each secret to mask, and tracebacks with all variables in frames",
)
PAGE_PROCESS = Path(__file__).with_name("page_process.py")

#: A sync, and single orders of every kind whose addresses the tasks themselves read from the warehouse.
DAG = """
    import datetime
    import json
    import pathlib
    import sqlite3

    import pendulum
    from airflow.providers.common.compat.sdk import DAG, task

    from airflow_provider_kk.operators.orders import CreateOrderOperator, SyncOrdersOperator
    from airflow_provider_kk.operators.refunds import RefundOrderOperator

    KEYS = ("custom_order_number", "recipient", "phone", "street1", "city", "province", "zip", "country")

    def address_of(number):
        with sqlite3.connect({warehouse!r}) as db:
            query = "SELECT " + ", ".join(KEYS) + " FROM order_line WHERE custom_order_number = ?"
            found = db.execute(query, (number,)).fetchone()
        return dict(zip(KEYS[1:], found[1:]))

    def read(context, jinja_env):
        number = context["task"].custom_order_number
        return {{"address": address_of(number), "items": [{{"sku": "FWXW00290_WHT_M", "quantity": 1}}],
                "remark": "for " + address_of(number)["recipient"]}}

    def tell(context):
        print("FIELDS", context["task"].address, context["task"].order, repr(context["task"].remark))

    ITEMS = [{{"sku": "FWXW00290_WHT_M", "quantity": 1}}]
    with DAG(
        "orders",
        start_date=pendulum.datetime(2026, 1, 1),
        schedule=None,
        catchup=False,
        user_defined_macros={{"address_of": address_of}},
        default_args={{"retries": 1, "retry_delay": datetime.timedelta(0)}},
    ):
        ADDRESS = "{{{{ address_of(task.custom_order_number) | tojson }}}}"

        @task
        def numbers():
            return ["S-0011", "S-0012", "S-INVALID", "S-UNKNOWN"]

        SyncOrdersOperator(
            task_id="sync",
            sql="SELECT * FROM order_line WHERE custom_order_number < 'S-0009'",
            warehouse_conn_id="warehouse",
            write_back="outcome",
            max_rejected=1,
        )
        CreateOrderOperator(
            task_id="single", custom_order_number="S-0009", address=ADDRESS, items=ITEMS,
            remark="for {{{{ address_of(task.custom_order_number).recipient }}}}",
            on_success_callback=tell,
        )
        CreateOrderOperator(
            task_id="whole",
            order='{{"customOrderId": "S-0010", "orderAddresses": {{{{ address_of("S-0010") | tojson }}}},'
            '"items": [{{"sku": "FWXW00290_WHT_M", "quantity": 1}}]}}',
        )
        CreateOrderOperator(task_id="called", custom_order_number="S-0013", order=read)
        RefundOrderOperator(
            task_id="refund", kk_order_id="1", remark="{{{{ address_of('S-0009').recipient }}}}", retries=0
        )
        SyncOrdersOperator(
            task_id="unreadable", sql="SELECT * FROM broken", warehouse_conn_id="warehouse", retries=0,
        )
        mapped = CreateOrderOperator.partial(task_id="mapped", address=ADDRESS, items=ITEMS)
        mapped.expand(custom_order_number=numbers())
"""


@pytest.fixture
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer(token=TOKEN) as server:
        yield server


@pytest.fixture(autouse=True)
def fresh_processes(shop: Shop) -> None:
    """Airflow masks secrets from its first import on, as in a worker."""
    shop.home.is_fresh = True


def files_with(folder: Path, *words: str) -> list[str]:
    """The files, of any kind, that hold one of these words."""
    return [
        f"{path.relative_to(folder)}: {word}"
        for path in folder.rglob("*")
        if path.is_file()
        for word in words
        if word.encode() in path.read_bytes()
    ]


def cells_with(database: Path, *words: str) -> list[str]:
    """The columns, of any table of a SQLite file, that hold one of these words."""
    with closing(sqlite3.connect(database)) as db:
        db.row_factory = sqlite3.Row
        tables = [row["name"] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert tables
        return [
            f"{table}.{column}: {word}"
            for table in tables
            for row in db.execute(f'SELECT * FROM "{table}"')
            for column in row.keys()  # noqa: SIM118 - iterating a row yields its values
            for word in words
            if word in str(row[column])
        ]


def with_a_ledger(shop: Shop, **extra: Any) -> Path:
    """Connect the shop to a ledger that is not the customers' database; returns its file."""
    ledger = shop.path / "ledger.db"
    shop.home.connections["ledger"] = {"conn_type": "sqlite", "host": str(ledger)}
    shop.connect(**extra, ledger_conn_id="ledger")
    return ledger


def add_bad_orders(shop: Shop) -> None:
    """Each of these makes somebody say something about an order."""
    long_name = ADDRESS | {
        "recipient": "Zebulon " * 9,
        "street1": "Rue des Licornes " * 9,
        "country": "Licornes",
    }
    shop.warehouse.add(("S-INVALID", *long_name.values(), "FWXW00290_WHT_M", 1))
    shop.warehouse.add(("S-UNKNOWN", *ADDRESS.values(), "NO_SUCH_SKU", 1))


def add_a_row_that_cannot_be_read(shop: Shop) -> None:
    """Its recipient is no UTF-8, and SQLite's driver shows it in its error."""
    shop.warehouse.execute("CREATE TABLE broken AS SELECT * FROM order_line LIMIT 2")
    latin_1 = "CAST(CAST(recipient AS BLOB) || X'FC' AS TEXT)"
    shop.warehouse.execute(f"UPDATE broken SET recipient = {latin_1} WHERE rowid = 2")


def refuse_with_the_address(shop: Shop, n: int) -> None:
    """Let KK repeat in its refusal of order n whatever the order says."""
    recalled = ", ".join(str(part) for part in rows([n])[0])
    shop.sandbox.control.arm("code_in_envelope", number=number(n), message=f"not to {recalled}", times=1)


def pages(home: AirflowHome, *paths: str) -> dict[str, tuple[int, str]]:
    """What Airflow's API server shows an administrator at these paths."""
    done = subprocess.run(
        [sys.executable, str(PAGE_PROCESS), *paths],
        env=home.environment() | {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {path: (status, text) for path, (status, text) in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.range
@NOT_ON_3_0
def test_neither_token_nor_customers_are_in_logs_xcoms_files_or_ledger(shop: Shop):
    ledger = with_a_ledger(shop, **QUICK)
    shop.warehouse.add(*rows(range(12)))
    add_bad_orders(shop)
    refuse_with_the_address(shop, 3)
    shop.sandbox.control.arm("drop_after_commit", number=number(4), times=1)
    shop.sandbox.control.arm("status_before_commit", number=number(5), times=1, body="envelope")
    shop.sandbox.control.arm("html_200_after_commit", number=number(6), times=1)

    result = shop.run(shop.dag(write_back="outcome"))

    summary = result.xcoms["sync"]["return_value"]
    assert nonzero(summary) == {"created": 9, "adopted": 2, "rejected": 2, "invalid": 1}, result.log
    assert result.state == "failed"
    assert "not to" in json.dumps(summary["rejections"])
    with closing(sqlite3.connect(ledger)) as db:
        everything = "\n".join(db.iterdump())
    assert number(3) in everything
    written = str(shop.warehouse.execute("SELECT * FROM outcome"))
    assert "not to" in written
    for told in (result.log, json.dumps(result.xcoms), everything, written):
        assert [word for word in (TOKEN, *PRIVATE) if word in told] == []
    assert files_with(shop.home.path, TOKEN, *PRIVATE) == []
    assert files_with(shop.path, TOKEN) == []


@pytest.mark.range
@NOT_ON_3_0
def test_airflow_keeps_no_customer_of_single_orders_mapped_or_not(shop: Shop):
    ledger = with_a_ledger(shop)
    shop.warehouse.add(*rows(range(14)))
    add_bad_orders(shop)
    refuse_with_the_address(shop, 3)
    refuse_with_the_address(shop, 12)
    add_a_row_that_cannot_be_read(shop)

    result = shop.run(DAG.format(warehouse=str(shop.warehouse.path)))

    failed = {name for name, state in result.tasks.items() if state != "success"}
    assert failed == {"mapped[1]", "mapped[2]", "unreadable", "refund"}, result.log
    assert "Could not decode to UTF-8 column 'recipient'" in result.log
    at_kk = {one["number"]: one for one in shop.sandbox.control.orders()}
    assert at_kk["S-0011"]["address"]["recipient"] == "Zebulon Quist 11"
    assert at_kk["S-0013"]["remark"] == "for Zebulon Quist 13"
    database = shop.home.path / "airflow.db"
    assert cells_with(database, "S-0011") != []
    assert cells_with(database, TOKEN, *PRIVATE) == []
    assert cells_with(ledger, TOKEN, *PRIVATE) == []
    assert files_with(ledger.parent, TOKEN) == []
    written = str(shop.warehouse.execute("SELECT * FROM outcome"))
    assert number(3) in written
    for told in (result.log, json.dumps(result.xcoms), written):
        assert [word for word in (TOKEN, *PRIVATE) if word in told] == []
    assert "FIELDS" in result.log
    assert files_with(shop.home.path, TOKEN, *PRIVATE) == []
    fields = shop.home.rendered_fields()
    assert fields["mapped[0]"]["custom_order_number"] == "S-0011"
    assert json.loads(fields["mapped[0]"]["address"]) == dict.fromkeys(ADDRESS, "***")
    assert fields["single"]["remark"] == fields["refund"]["remark"] == "***"
    whole = json.loads(fields["whole"]["order"])
    assert (whole["customOrderId"], whole["orderAddresses"]["zip"]) == ("S-0010", "***")

    if AIRFLOW_VERSION >= (3, 1):
        run = f"/api/v2/dags/orders/dagRuns/{result.run_id}/taskInstances/mapped/0"
        answers = pages(
            shop.home, "/kk/orders", "/kk/order?number=S-0003", f"/kk/runs/orders/{result.run_id}", run
        )
        for path, (status, text) in answers.items():
            assert status == 200, text
            assert "S-00" in text, path
            assert [word for word in (TOKEN, *PRIVATE) if word in text] == [], path
        assert "not to" in answers["/kk/orders"][1]


def test_a_wrong_token_stops_the_sync_after_a_handful_of_requests(shop: Shop):
    shop.warehouse.add(*rows(range(40)))
    shop.home.connections["kk_default"] |= {"password": "tok-0000-outdated"}

    result = shop.run(shop.dag())

    assert result.state == "failed"
    assert shop.sandbox.control.counts()["requests"] <= 3
    assert shop.sandbox.control.counts()["creates"] == 0
    assert nonzero(result.xcoms["sync"]["return_value"]) == {"not_sent": 40}
    (said, *_) = [line for line in result.log.splitlines() if "Nothing more is sent" in line]
    assert "access token" in said
    assert "tok-0000-outdated" not in result.log
    assert files_with(shop.home.path, "tok-0000-outdated") == []
