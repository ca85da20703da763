"""SyncOrderStatusOperator against a sandbox whose orders live: the tables end as KK's state, row by row."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import requests
import sqlalchemy as sa
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout

from airflow_provider_kk.api.models import KKOrder
from airflow_provider_kk.operators.orders import CreateOrderOperator
from airflow_provider_kk.operators.status import SyncOrderStatusOperator
from airflow_provider_kk.sync.sync_statuses import StatusSync
from airflow_provider_kk.warehouse.merge_statuses import LineRow, OrderRow, PackageRow, StatusRows, rows_of
from airflow_provider_kk.warehouse.status_tables import StatusTables
from tests.airflow.support import REPOSITORY
from tests.mysql_hook import PyMySqlHook, mysql_connection
from tests.operators.hooks import info_of, known_hooks
from tests.operators.shop import ADDRESS, attempt, number

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect
    from tests.operators.shop import Try, Warehouse

_NUMBERS = itertools.count()
HOUR, DAY = 3600, 86_400
CN, OTHER_CN, US = "FWXW00290_WHT_M", "FWTS00104_RED_L", "USTS00015_BLK_M"


@pytest.fixture(params=["sqlite", "postgresql", "mysql"])
def each_database(
    request: pytest.FixtureRequest, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> sa.engine.Engine:
    """The warehouse, on each kind of database that is at hand."""
    if request.param == "sqlite":
        return sa.create_engine(f"sqlite:///{warehouse.path}")
    if request.param == "mysql":
        return on_mysql(request.getfixturevalue("mariadb_url"), monkeypatch)
    server = sa.engine.make_url(request.getfixturevalue("postgres_url"))
    name = f"status_{next(_NUMBERS)}"
    with sa.create_engine(server, isolation_level="AUTOCOMMIT").connect() as db:
        db.execute(sa.text(f"CREATE DATABASE {name}"))
    engine = sa.create_engine(server.set(database=name))
    with engine.begin() as db:
        db.execute(sa.text("CREATE SCHEMA shop"))
    place = {"host": server.host, "port": server.port, "login": server.username, "schema": name}
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "postgres", **place}))
    return engine


def on_mysql(url: str, monkeypatch: pytest.MonkeyPatch) -> sa.engine.Engine:
    name = f"status_{next(_NUMBERS)}"
    with sa.create_engine(url).begin() as db:
        for database in (name, "shop"):
            db.execute(sa.text(f"CREATE DATABASE IF NOT EXISTS {database}"))
    monkeypatch.setitem(known_hooks(), "mysql", info_of(PyMySqlHook))
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(mysql_connection(url, name)))
    return sa.create_engine(sa.engine.make_url(url).set(database=name))


@pytest.fixture
def sqlite(warehouse: Warehouse) -> sa.engine.Engine:
    return sa.create_engine(f"sqlite:///{warehouse.path}")


def sync(**arguments: Any) -> Try:
    return attempt(SyncOrderStatusOperator(task_id="status", warehouse_conn_id="warehouse", **arguments))


def synced(**arguments: Any) -> dict[str, Any]:
    done = sync(**arguments)
    if done.error is not None:
        raise done.error
    summary: dict[str, Any] = done.value
    return summary


def at_kk(sandbox: SandboxServer, path: str = "/openapi/v1/order/order") -> dict[str, StatusRows]:
    """KK's own state, row by row."""
    found: dict[str, StatusRows] = {}
    page = 0
    while True:
        page += 1
        listed = requests.get(
            sandbox.url + path,
            params={"pageNumber": page, "pageSize": 250},
            headers={"Authorization": f"Bearer {sandbox.token}"},
            timeout=300,
        )
        orders = json.loads(listed.text, parse_float=Decimal)["data"]["list"]
        if not orders:
            return found
        rows = [rows_of(KKOrder.read(one)) for one in orders]
        found.update((one.order.kk_order_id, one) for one in rows if one)


def in_tables(engine: sa.engine.Engine, sandbox: SandboxServer, prefix: str = "kk_") -> dict[str, StatusRows]:
    """What is in the tables, read without the code that writes them."""
    tables = StatusTables(engine, sandbox.url.removeprefix("http://"), "default", prefix)
    with engine.connect() as db:
        kinds = ((tables.orders, OrderRow), (tables.lines, LineRow), (tables.packages, PackageRow))
        rows = [
            [kind(*row) for row in db.execute(sa.select(*(table.c[name] for name in kind.__annotations__)))]
            for table, kind in kinds
        ]
    orders, lines, packages = rows
    return {
        one.kk_order_id: StatusRows(
            one,
            tuple(sorted((x for x in lines if x.kk_order_id == one.kk_order_id), key=lambda x: x.line_no)),
            tuple(
                sorted((x for x in packages if x.kk_order_id == one.kk_order_id), key=lambda x: x.package_id)
            ),
        )
        for one in orders
    }


LAG = 600


def place(sandbox: SandboxServer, *numbers: int, **goods: int) -> list[str]:
    """Orders of two lines at KK, as from another tool."""
    made = [sandbox.control.place(goods or {CN: 1, OTHER_CN: 2}, number=number(n)) for n in numbers]
    return [kk_id for ids in made for kk_id in ids]


@pytest.fixture(autouse=True)
def calendar(sandbox: SandboxServer) -> None:
    """Set KK's clock back, so that days can pass there and none lies ahead of this machine's."""
    sandbox.control.advance(-20 * DAY)


@pytest.mark.parametrize(
    ("version", "path"),
    [("v1", "v1/order/order"), ("v1-orders", "v1/order/orders"), ("v2", "v2/order/orders")],
)
def test_the_tables_follow_the_orders_through_their_life(
    each_database: sa.engine.Engine, connect: Connect, sandbox: SandboxServer, version: str, path: str
) -> None:
    connect(api_version=version)
    followed, *_ = place(sandbox, 0, 1, 2)
    seen = []
    for seconds in (1300, DAY, DAY, DAY, 7 * DAY):
        sandbox.control.advance(seconds)
        summary = synced()
        rows = in_tables(each_database, sandbox)
        assert rows == at_kk(sandbox, f"/openapi/{path}")
        assert (summary["orders"], summary["changed"], summary["odd"]) == (3, 3, 0)
        seen.append((rows[followed].order.status, [one.status for one in rows[followed].packages]))

    assert seen == [
        ("paid", []),
        ("paid", ["preparing"]),
        ("partially_shipped", ["shipped"]),
        ("shipped", ["shipped", "shipped"]),
        ("delivered", ["delivered", "delivered"]),
    ]
    order = rows[followed].order
    assert (order.final_amount, order.subtotal_amount) == (Decimal("33.39"), Decimal("27.7"))
    assert [line.quantity for line in rows[followed].lines] == [1, 2]
    assert synced()["changed"] == 0


def test_what_changed_less_than_ten_minutes_ago_waits_for_the_next_run(
    sqlite: sa.engine.Engine, connect: Connect, sandbox: SandboxServer
) -> None:
    place(sandbox, 0)
    sandbox.control.advance(599)
    assert synced()["orders"] == 0
    assert in_tables(sqlite, sandbox) == {}
    sandbox.control.advance(2 * LAG)
    assert synced()["orders"] == 1
    (one,) = in_tables(sqlite, sandbox).values()
    assert one.order.status == "paid"


def test_a_run_begins_where_the_last_one_ended_less_the_overlap(
    sqlite: sa.engine.Engine, connect: Connect, sandbox: SandboxServer
) -> None:
    place(sandbox, 0)
    sandbox.control.advance(HOUR)
    synced()
    sandbox.control.advance(HOUR)

    assert synced(overlap_s=0)["orders"] == 0
    assert synced(overlap_s=2 * HOUR)["orders"] == 1
    assert synced(overlap_s=0)["orders"] == 0


def test_nothing_and_no_watermark_is_kept_of_a_run_whose_commit_fails(
    sqlite: sa.engine.Engine, connect: Connect, sandbox: SandboxServer
) -> None:
    place(sandbox, 0)
    sandbox.control.advance(HOUR)
    synced()
    place(sandbox, 1)
    sandbox.control.advance(HOUR)
    with sqlite.begin() as db:
        db.execute(
            sa.text("CREATE TRIGGER no BEFORE INSERT ON kk_order_line BEGIN SELECT RAISE(ABORT, 'no'); END")
        )
    failed = sync()
    assert "cannot be used" in str(failed.error)
    assert len(in_tables(sqlite, sandbox)) == 1

    with sqlite.begin() as db:
        db.execute(sa.text("DROP TRIGGER no"))
    assert synced(overlap_s=0)["orders"] == 1
    assert in_tables(sqlite, sandbox) == at_kk(sandbox)


def test_a_kk_that_cannot_be_read_fails_the_run_and_moves_no_watermark(
    sqlite: sa.engine.Engine, connect: Connect, sandbox: SandboxServer
) -> None:
    place(sandbox, 0)
    sandbox.control.advance(HOUR)
    sandbox.control.arm("status_before_commit", method="GET")
    failed = sync()
    assert "A retry, or the next run, continues" in str(failed.error)
    assert failed.summary["synced_until"] is None

    sandbox.control.disarm()
    synced()
    assert in_tables(sqlite, sandbox) == at_kk(sandbox)


def test_odd_fields_are_null_and_named_in_the_row_the_summary_and_the_log(
    sqlite: sa.engine.Engine, connect: Connect, sandbox: SandboxServer, printed: Any
) -> None:
    ids = place(sandbox, 0, 1)
    sandbox.control.advance(HOUR)
    sandbox.control.set(dates="year")
    summary = synced()

    rows = in_tables(sqlite, sandbox)
    assert {one.order.paid_at for one in rows.values()} == {None}
    assert {one.order.status for one in rows.values()} == {"paid"}
    assert all("paid_at" in str(one.order.odd_fields) for one in rows.values())
    assert (summary["odd"], summary["odd_orders"][0]["kk_order_id"]) == (2, sorted(rows, reverse=True)[0])
    told = printed().replace("\n", " ")
    assert told.count("has invalid fields") == 1
    assert "KK's data of 2 orders (" in told
    assert all(f"{kk_id} (number {number(n)})" in told for n, kk_id in enumerate(ids))
    assert "which are stored as NULL: " in told
    assert "paid_at" in told


def test_a_sync_that_reads_nothing_yet_says_why(
    sqlite: sa.engine.Engine, connect: Connect, sandbox: SandboxServer, printed: Any
) -> None:
    sandbox.control.advance(20 * DAY)  # back to the present
    place(sandbox, 0)

    assert synced()["orders"] == 0
    assert "reads only those that are at least 10 minutes old" in printed().replace("\n", " ")


def test_a_sync_that_reads_orders_does_not_say_why_it_reads_none(
    sqlite: sa.engine.Engine, connect: Connect, sandbox: SandboxServer, printed: Any
) -> None:
    place(sandbox, 0)
    sandbox.control.advance(HOUR)

    assert synced()["orders"] == 1
    assert "the next run reads" not in printed()


def created(connect: Connect, goods: dict[str, int], no: str = "S-1") -> Any:
    items = [{"sku": sku, "quantity": quantity} for sku, quantity in goods.items()]
    arguments = {"custom_order_number": no, "address": ADDRESS, "items": items}
    operator = CreateOrderOperator(task_id="create", ledger_conn_id="warehouse", **arguments)
    done = attempt(operator)
    assert done.error is None, done.error
    return done.xcoms["kkOrderIds"]


def in_ledger(warehouse: Warehouse) -> dict[str, tuple[str, list[str], str]]:
    found = warehouse.execute("SELECT custom_order_number, state, kk_order_ids, message FROM kk_order")
    return {no: (state, sorted(json.loads(ids)), message) for no, state, ids, message in found}


def test_splits_that_the_response_did_not_name_are_added_to_the_ledger(
    warehouse: Warehouse, connect: Connect, sandbox: SandboxServer
) -> None:
    sandbox.control.set(answer="first")
    (named,) = created(connect, {CN: 1, US: 2})
    ids = sorted(one["id"] for one in sandbox.control.orders())
    assert in_ledger(warehouse)["S-1"][:2] == ("created", [named])
    sandbox.control.advance(HOUR)

    assert synced()["splits"] == 1
    assert in_ledger(warehouse)["S-1"] == ("created", ids, "")
    assert synced()["splits"] == 0


def test_a_split_that_turns_up_long_after_the_named_one_is_added_too(
    warehouse: Warehouse, connect: Connect, sandbox: SandboxServer
) -> None:
    sandbox.control.set(answer="first")
    created(connect, {CN: 1, US: 2})
    ids = sorted(one["id"] for one in sandbox.control.orders())
    synced()
    sandbox.control.advance(2 * HOUR)
    # The tables have never seen the first one, and it has not changed since.
    now = datetime.fromtimestamp(sandbox.control.now() - HOUR, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    warehouse.execute(f"UPDATE kk_status_sync SET synced_until = '{now}'")
    sandbox.control.move(ids[1], "packed")
    sandbox.control.advance(HOUR)

    summary = synced()
    assert (summary["orders"], summary["splits"]) == (1, 1)
    assert in_ledger(warehouse)["S-1"][1] == ids


def test_more_goods_than_were_sent_are_a_conflict_that_fails_one_run(
    warehouse: Warehouse, connect: Connect, sandbox: SandboxServer
) -> None:
    ids = created(connect, {CN: 1})
    more = sandbox.control.place({CN: 1}, number="S-1")
    sandbox.control.advance(HOUR)

    done = sync()
    assert isinstance(done.error, AirflowFailException)
    assert done.summary["conflicts"] == ["S-1"]
    state, held, message = in_ledger(warehouse)["S-1"]
    assert (state, held) == ("held", sorted([*ids, *more]))
    assert "conflict" in message
    assert synced()["conflicts"] == []


def test_a_surplus_that_was_cancelled_at_kk_is_no_conflict(
    warehouse: Warehouse, connect: Connect, sandbox: SandboxServer
) -> None:
    # As `kk audit` says to do.
    ids = created(connect, {CN: 1})
    (more,) = sandbox.control.place({CN: 1}, number="S-1")
    sandbox.control.move(more, "cancel")
    sandbox.control.advance(HOUR)

    assert synced()["conflicts"] == []
    assert in_ledger(warehouse)["S-1"] == ("created", list(ids), "")


def test_a_split_is_added_though_it_was_cancelled_at_kk(
    warehouse: Warehouse, connect: Connect, sandbox: SandboxServer
) -> None:
    sandbox.control.set(answer="first")
    (named,) = created(connect, {CN: 1, US: 2})
    ids = sorted(one["id"] for one in sandbox.control.orders())
    sandbox.control.move(next(one for one in ids if one != named), "cancel")
    sandbox.control.advance(HOUR)

    assert synced()["splits"] == 1
    assert in_ledger(warehouse)["S-1"] == ("created", ids, "")


def test_a_retry_counts_what_the_failed_try_changed(
    warehouse: Warehouse, connect: Connect, sandbox: SandboxServer
) -> None:
    created(connect, {CN: 1})
    sandbox.control.place({CN: 1}, number="S-1")
    sandbox.control.advance(HOUR)

    failed = sync()
    assert failed.error is not None
    assert (failed.summary["changed"], synced()["changed"], synced()["changed"]) == (2, 2, 0)


def test_an_interrupted_try_passes_its_changes_to_the_next(
    warehouse: Warehouse, connect: Connect, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(sandbox, 0)
    sandbox.control.advance(HOUR)
    run = StatusSync.run

    def cut_short(self: StatusSync) -> None:
        run(self)
        raise AirflowTaskTimeout("after all that it did was committed")

    with monkeypatch.context() as patched:
        patched.setattr(StatusSync, "run", cut_short)
        assert isinstance(sync().error, AirflowTaskTimeout)

    assert (synced()["changed"], synced()["changed"]) == (1, 0)


def test_orders_without_number_and_of_other_tools_leave_the_ledger_alone(
    warehouse: Warehouse, connect: Connect, sandbox: SandboxServer
) -> None:
    sandbox.control.place({CN: 1})
    place(sandbox, 7)
    sandbox.control.advance(HOUR)

    assert synced()["changed"] == 2
    assert in_ledger(warehouse) == {}


def test_one_sql_query_finds_a_parcel(warehouse: Warehouse, connect: Connect, sandbox: SandboxServer) -> None:
    created(connect, {CN: 1, US: 2})
    for one in sandbox.control.orders():
        sandbox.control.move(one["id"], "shipped" if one["warehouse"] == "CN" else "packed")
    sandbox.control.advance(HOUR)
    synced()

    text = (REPOSITORY / "docs" / "howto-tracking.md").read_text()
    sql = text.split("-- Where is my parcel?")[1].split("```")[0]
    cn, us = (one["id"] for one in sandbox.control.orders())
    assert warehouse.execute(sql.replace(":order_number", "'S-1'")) == [
        (
            "S-1",
            "created",
            cn,
            "shipped",
            "shipped",
            "YunExpress",
            f"YT{cn}1",
            f"https://t.example.com/YT{cn}1",
        ),
        ("S-1", "created", us, "paid", "preparing", None, None, None),
    ]


def test_tables_have_the_prefix_and_the_schema_that_they_are_given(
    each_database: sa.engine.Engine, connect: Connect, sandbox: SandboxServer
) -> None:
    place(sandbox, 0)
    sandbox.control.advance(HOUR)
    prefix = "shop_" if each_database.dialect.name == "sqlite" else "shop.Shop_"
    synced(table_prefix=prefix)

    assert in_tables(each_database, sandbox, prefix) == at_kk(sandbox)
    schema = None if each_database.dialect.name == "sqlite" else "shop"
    names = set(sa.inspect(each_database).get_table_names(schema))
    prefix = "Shop_" if each_database.dialect.name == "mysql" else "shop_"
    assert {f"{prefix}{name}" for name in ("order_status", "order_line", "package", "status_sync")} <= names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"table_prefix": "kk-; DROP"}, "table_prefix"), ({"kk_conn_id": "nothing"}, "nothing")],
)
def test_what_only_a_person_can_fix_fails_permanently_with_the_reason(
    connect: Connect, warehouse: Warehouse, arguments: dict[str, str], message: str
) -> None:
    done = sync(**arguments)
    assert message in str(done.error)


@pytest.mark.parametrize("nothing", ["", "None", None])
def test_an_empty_ledger_template_does_not_fall_back_to_the_warehouse(
    connect: Connect, warehouse: Warehouse, nothing: str | None
) -> None:
    task = SyncOrderStatusOperator(
        task_id="status", warehouse_conn_id="warehouse", ledger_conn_id="{{ ledger }}"
    )
    task.ledger_conn_id = nothing
    assert "ledger_conn_id is empty" in str(attempt(task).error)
