"""`kk check`: what would become of orders, told before anything is sent; the same as plan_only tells."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_provider_kk.cli.main import main
from airflow_provider_kk.sync.sync_counts import Summary
from tests.cli.conftest import hold, record, refuse
from tests.cli.files import write_csv
from tests.operators import shop
from tests.operators.shop import PRIVATE, SELECT, Warehouse, nonzero, number, rows

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sandbox.server import SandboxServer

SKU = "FWXW00290_WHT_M"
Checked = Callable[..., tuple[int, list[dict[str, Any]], dict[str, Any]]]


@pytest.fixture
def checked(capsys: pytest.CaptureFixture[str]) -> Checked:
    """Run `kk check --json`: the exit status, the orders, and the last line."""

    def check(*words: str) -> tuple[int, list[dict[str, Any]], dict[str, Any]]:
        capsys.readouterr()
        status = main(["check", "--json", *words])
        *orders, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return status, orders, last

    return check


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "orders.csv"


def states(orders: list[dict[str, Any]]) -> dict[str, str]:
    return {one["custom_order_number"]: one["state"] for one in orders}


def dump(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return list(db.iterdump())


# Guards ----------------------------------------------------------------------------------------------


def test_check_reports_what_each_guard_would_do(
    sandbox: SandboxServer, ledger: SqlLedger, file: Path, checked: Checked
) -> None:
    name = write_csv(file, [*rows(range(3)), ("BIG", *shop.ADDRESS.values(), SKU, 101)])

    status, orders, last = checked(name, "--max-run-value", "10000")

    assert status == 1
    assert states(orders)["BIG"] == "invalid"
    for part in (
        "max_new_orders=1000: 3 would be sent",
        "max_order_units=100: 1 invalid",
        "USD would be spent",
    ):
        assert part in last["guards"]
    assert sum("/product/products" in one["path"] for one in sandbox.control.requests()) == 1


def test_check_of_too_many_orders_is_a_problem(file: Path, checked: Checked) -> None:
    status, _orders, last = checked(write_csv(file, rows(range(3))), "--max-new-orders", "2")

    assert (status, last["good"]) == (1, False)
    assert nonzero(last["summary"]) == {"not_sent": 3}
    assert "set max_new_orders=3" in last["obstacle"]


def test_check_of_values_needs_the_connection(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", write_csv(file, rows(range(3))), "--max-order-value", "2"]) == 2
    assert "--max-order-value and --max-run-value need the kk connection" in capsys.readouterr().err


# Faults ----------------------------------------------------------------------------------------------


def test_a_good_file_needs_so_many_requests_and_so_much_time(
    ledger: SqlLedger, file: Path, checked: Checked, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write_csv(file, rows(range(300)))

    status, orders, last = checked(name)

    assert (status, len(orders), nonzero(last["summary"])) == (0, 300, {"postponed": 300})
    # KK's bucket holds 120, of which two are left free, and leaks 2 a second; its list is read first.
    assert (last["summary"]["requests"], last["summary"]["seconds"]) == (301, (301 - 118) / 2)
    assert main(["check", name]) == 0
    told = capsys.readouterr().out
    assert "at least 301 requests and 1 min 32 s, at KK's limit of 120 at once and 2 a second" in told
    assert "cannot be known" not in told


def test_check_and_send_know_the_shipping_speeds_of_the_api_version(
    sandbox: SandboxServer, file: Path, checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"api_version": "v1-orders", "ledger_conn_id": f"{file.parent}/l.db"}
    monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(shop.kk_connection(sandbox, **extra)))
    orders = [(*row, "Express") for row in rows([0])] + [(*row, "Expedited") for row in rows([3])]
    name = write_csv(file, orders, (*shop.COLUMNS, "channel_type"))

    status, found, _ = checked(name)
    sent = main(["send", "--yes", name])

    assert (status, sent) == (1, 1)
    assert states(found) == {number(0): "postponed", number(3): "invalid"}
    assert [(one["number"], one["channel_type"]) for one in sandbox.control.orders()] == [
        (number(0), "Express")
    ]


def test_every_fault_is_reported_by_order_row_and_field(
    ledger: SqlLedger, file: Path, checked: Checked, capsys: pytest.CaptureFixture[str]
) -> None:
    address = list(shop.ADDRESS.values())
    in_congo = [*address[:-1], "Congo"]
    elsewhere = [*address[:2], "8 Rue des Licornes", *address[3:]]
    bad = [
        ("A-1", *address, SKU, 1),
        ("A-1", *address, "", "two"),
        ("A-2", *in_congo, SKU, 1),
        ("A-2", *in_congo, SKU, 0),
        ("", *address, SKU, 1),
        ("A-3", *address, SKU, 1),
        ("A-3", *elsewhere, SKU, 1),
    ]
    name = write_csv(file, bad)

    status, orders, last = checked(name)

    faults = [
        (one["custom_order_number"], one["row"], fault["field"]) for one in orders for fault in one["faults"]
    ]
    assert (status, nonzero(last["summary"])) == (1, {"invalid": 5})
    assert faults == [
        ("A-1", 2, "items[1].sku"),
        ("A-1", 2, "items[1].quantity"),
        ("A-2", 4, "items"),
        ("A-2", 4, "address.country"),
        ("A-2", 4, "items[1].quantity"),
        (None, 6, "custom_order_number"),
        ("A-3", 7, "address.street1"),
        ("A-3", 7, "items"),
        ("A-3", 8, "address.street1"),
        ("A-3", 8, "items"),
    ]
    assert main(["check", name]) == 1
    captured = capsys.readouterr()
    told = captured.out + captured.err
    assert "two orders have one number, or one row is wrong" in told
    assert "(row 3)" in told
    assert "Did you mean CD (Congo - Kinshasa) or CG (Congo - Brazzaville)?" in told
    assert not any(word in told + json.dumps(orders) for word in PRIVATE)


def test_duplicate_rows_are_a_fault_or_kept_with_a_warning(
    ledger: SqlLedger, sandbox: SandboxServer, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write_csv(file, rows([0, *range(8), *range(1, 7)]))

    assert main(["check", name]) == 1
    captured = capsys.readouterr()
    assert captured.out.count("has rows that are equal in every column") >= 7
    for words in (["check", name], ["check", "--json", name], ["send", "--yes", name]):
        assert main([*words, "--duplicate-rows", "keep"]) == 0
        captured = capsys.readouterr()
        assert "7 orders (" in captured.err
        assert "are valid, with a warning: items: has a SKU on several lines" in captured.err
        if words == ["check", name]:
            assert "7 orders with a warning, see above." in captured.out


def test_a_table_is_cut_with_a_count_of_further_orders(
    ledger: SqlLedger, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write_csv(file, [(number(n), *shop.ADDRESS.values(), SKU, 0) for n in range(30)])

    assert main(["check", name, "--show", "10"]) == 1

    told = capsys.readouterr().out
    assert told.count("at least 1") == 11  # and once for all of them
    assert "and 20 more" in told


def test_faults_that_orders_share_come_first(
    ledger: SqlLedger, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = list(shop.ADDRESS.values())
    bad = [(f"A-{n}", *address, SKU, 0) for n in range(1, 58)]
    other = [("A-90", *address, SKU, 1), ("A-90", *address, SKU, "two"), ("A-91", *address, SKU, "two")]

    assert main(["check", write_csv(file, [*bad, *other, *rows([0])]), "--show", "1"]) == 1

    told = capsys.readouterr().out
    first = re.search(r"57 orders: items.quantity .*at least 1.* \(A-1, A-2, A-3 and 54 more\)", told)
    second = re.search(r"2 orders: items.quantity must be a whole number.* \(A-90, A-91\)", told)
    assert first
    assert second
    assert first.start() < second.start() < told.index("order  row")


def test_three_orders_are_shown_as_they_would_be_sent_with_personal_data_masked(
    ledger: SqlLedger, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", write_csv(file, rows(range(5)))]) == 0

    told = capsys.readouterr().out
    shown = told[told.index("The first orders as they would be sent") :].splitlines()[1:]
    assert [line.split(":")[0].strip() for line in shown] == [number(n) for n in range(3)]
    assert "country FR" in shown[0]
    assert "recipient Xxxxxxx Xxxxx" in shown[0]
    assert "phone +99 999999999" in shown[0]
    assert not any(text in told for text in PRIVATE)


# What is known ---------------------------------------------------------------------------------------


def test_check_reports_what_would_become_of_each_number(
    ledger: SqlLedger, sandbox: SandboxServer, file: Path, checked: Checked
) -> None:
    assert main(["send", "--yes", write_csv(file, rows(range(2)))]) == 0
    record(ledger, number(2), "created", ids=("9",), goods={SKU: 7})
    hold(ledger, number(3))
    refuse(ledger, number(4))
    record(ledger, number(5), "unknown", message="the connection was reset")
    before = (
        dump(Path(str(ledger.storage.database.engine.url.database))),
        sandbox.control.counts()["requests"],
    )

    status, orders, last = checked(write_csv(file, rows(range(7))))

    assert status == 1
    assert states(orders) == {
        number(0): "already_created",
        number(1): "already_created",
        number(2): "changed",
        number(3): "held",
        number(4): "postponed",  # its goods are others, so KK is asked again
        number(5): "in_doubt",
        number(6): "postponed",
    }
    assert orders[2]["kk_order_ids"] == ["9"]
    assert last["created_is_known"]
    after = dump(Path(str(ledger.storage.database.engine.url.database))), sandbox.control.counts()["requests"]
    assert after == before


def test_plan_only_reports_the_same(
    ledger: SqlLedger, file: Path, tmp_path: Path, checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow_provider_kk.operators.orders import SyncOrdersOperator

    warehouse = Warehouse(tmp_path / "shop.db")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps(warehouse.connection))
    bad = ("A-1", *shop.ADDRESS.values(), SKU, 0)
    hold(ledger, number(1))
    warehouse.add(*rows(range(4)), bad)
    operator = SyncOrdersOperator(task_id="t", sql=SELECT, warehouse_conn_id="warehouse", plan_only=True)

    found = operator.execute({})

    # What a person approves is for tasks.
    planned = {field.name: found[field.name] for field in fields(Summary)}
    assert checked(write_csv(file, [*rows(range(4)), bad]))[2]["summary"] == planned
    assert checked("--sql", SELECT, "--warehouse", "warehouse")[2]["summary"] == planned
    assert checked("--sql", SELECT, "--warehouse", str(warehouse.path))[2]["summary"] == planned
    statement = tmp_path / "orders.sql"
    statement.write_text(SELECT)
    assert checked("--sql", str(statement), "--warehouse", str(warehouse.path))[2]["summary"] == planned


def test_without_a_connection_only_the_orders_are_checked(
    file: Path, checked: Checked, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write_csv(file, rows(range(3)))

    status, _, last = checked(name)

    assert (status, nonzero(last["summary"])) == (0, {"postponed": 3})
    assert not last["created_is_known"]
    assert main(["check", name]) == 0
    assert "it is unknown which orders are created already" in capsys.readouterr().out
    assert main(["check", name, "--kk-conn-id", "kk_other"]) == 2
    assert main(["check", name, "--bodies"]) == 2


@pytest.mark.parametrize("place", [[], ["--ledger", "{}/none.db"], ["--warehouse", "{}/none.db"]])
def test_without_a_ledger_nothing_is_made_and_what_is_created_is_not_known(
    kk: None, file: Path, tmp_path: Path, checked: Checked, place: list[str]
) -> None:
    status, _, last = checked(write_csv(file, rows(range(3))), *(word.format(tmp_path) for word in place))

    assert (status, nonzero(last["summary"])) == (0, {"postponed": 3})
    assert not last["created_is_known"]
    assert "it is unknown which orders are created already" in last["note"]
    assert not (tmp_path / "none.db").exists()


def test_a_warehouse_that_can_keep_no_ledger_is_reported(
    kk: None, file: Path, checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "snowflake"}))

    _, _, last = checked(write_csv(file, rows(range(3))), "--warehouse", "lake")

    assert "cannot keep the ledger" in last["note"]


def test_a_long_fault_of_several_orders_is_printed_once(
    ledger: SqlLedger, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["send", write_csv(file, rows(range(3))), "--yes", "--max-new-orders", "2"])

    shown = capsys.readouterr().out
    assert shown.count("more than max_new_orders=2 allows") == 1
    assert shown.count("as above") == 3


def test_a_missing_provider_of_airflow_is_named_by_its_package(
    kk: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "vertica"}))

    assert main(["check", "--sql", "SELECT 1", "--warehouse", "lake"]) == 2
    assert (
        "Install Airflow's provider for it, such as apache-airflow-providers-vertica"
        in capsys.readouterr().err
    )


def test_twenty_orders_in_doubt_block_sending(ledger: SqlLedger, file: Path, checked: Checked) -> None:
    for n in range(100, 120):
        record(ledger, number(n), "unknown")

    _, _, last = checked(write_csv(file, rows(range(3))))

    assert last["obstacle"] == "20 orders of this account are in doubt"


@pytest.fixture
def kk(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kk connection that has no ledger_conn_id."""
    monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(shop.kk_connection(sandbox)))


# Bodies ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_bodies_are_those_that_kk_then_gets(
    sandbox: SandboxServer, file: Path, checked: Checked, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    from airflow_provider_kk.api.transport import Transport

    extra = {"api_version": version, "sale_platform": "Shopify", "ledger_conn_id": f"{file.parent}/l.db"}
    monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(shop.kk_connection(sandbox, **extra)))
    name = write_csv(file, [*rows(range(3)), ("A-1", *shop.ADDRESS.values(), SKU, 0)])
    sent = []
    carry = Transport.send

    def note(self: Transport, call: Any) -> Any:
        sent.append(call.body) if call.method == "POST" else None
        return carry(self, call)

    _, orders, _ = checked(name, "--bodies")
    monkeypatch.setattr(Transport, "send", note)
    assert main(["send", "--yes", name]) == 1

    told = [one["body"] for one in orders if "body" in one]
    assert sorted(map(json.dumps, told)) == sorted(map(json.dumps, sent))
    assert len(told) == 3


def test_personal_data_is_printed_only_on_request(
    kk: None, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write_csv(file, rows(range(2)))

    main(["check", name])
    main(["check", name, "--json"])
    without = capsys.readouterr()
    main(["check", name, "--bodies"])
    asked = capsys.readouterr()

    assert not any(word in without.out + without.err + asked.err for word in PRIVATE)
    assert all(word in asked.out for word in PRIVATE)


# What cannot be told ---------------------------------------------------------------------------------


def test_wrong_columns_name_those_that_are_there_and_those_that_are_read(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = ("ORDER NO", *shop.ADDRESS, "sku", "amount")
    name = write_csv(file, rows(range(2)), head)

    assert main(["check", name]) == 2

    told = capsys.readouterr().err
    assert "the file has no column custom_order_number, quantity" in told
    assert "It has: ORDER NO, recipient" in told
    assert "The fields of an order are custom_order_number, country" in told
    assert "--columns custom_order_number=YOUR_COLUMN --columns quantity=YOUR_COLUMN" in told
    words = ["--columns", "custom_order_number=order no", "--columns", "quantity=amount"]
    assert main(["check", name, *words]) == 0


def test_columns_that_are_no_part_of_an_order_are_named(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write_csv(file, [(*row, "x") for row in rows([0])], (*shop.COLUMNS, "margin"))

    assert main(["check", name]) == 0

    assert "not part of an order are ignored: margin" in capsys.readouterr().err


def _unusable(file: Path) -> Iterator[tuple[list[str], str]]:
    name = write_csv(file, rows([0]))
    file.with_suffix(".xlsx").write_bytes(b"PK\x03\x04")
    yield [], "give either FILE or --sql"
    yield [name, "--sql", SELECT], "give either FILE or --sql"
    yield [f"{name}x"], "cannot be read: No such file"
    yield [str(file.with_suffix(".xlsx"))], "is a zip file or a workbook"
    yield ["--sql", SELECT], "--sql needs --warehouse"
    yield ["--sql", SELECT, "--warehouse", "nowhere"], "nowhere"
    yield ["--sql", SELECT, "--warehouse", f"{file.parent}/none.db"], "none.db does not exist"
    yield ["--sql", "SELECT nix", "--warehouse", f"{file.parent}/shop.db"], "no such column: nix"
    yield ["--sql", "DROP TABLE order_line", "--warehouse", f"{file.parent}/shop.db"], "readonly database"
    yield ["--sql", "none.sql", "--warehouse", f"{file.parent}/shop.db"], "none.sql cannot be read"
    yield (
        ["--sql", "SELECT 1 AS sku", "--warehouse", f"{file.parent}/shop.db"],
        "the statement returns no column",
    )
    yield ["--sql", "SELECT '{{ ds }}'", "--warehouse", f"{file.parent}/shop.db"], "'ds' is undefined"
    yield ["--sql", "SELECT '{% if'", "--warehouse", f"{file.parent}/shop.db"], "--var NAME=VALUE"
    yield ["--sql", "{{ ''.__class__.mro() }}", "--warehouse", f"{file.parent}/shop.db"], "unsafe"
    yield ["--sql", "SELECT 1; SELECT 2", "--warehouse", f"{file.parent}/shop.db"], "sql holds 2 statements"
    yield [name, "--var", "ds=1"], "--var needs --sql"
    yield [name, "--encoding", "latin-99"], "--encoding 'latin-99' does not exist"
    yield [name, "--header-line", "99"], "the file is empty"
    yield [name, "--format", "json"], "the file is not JSON: write a list of orders"
    yield [name, "--columns", "customer=x"], "'customer' is not a field of an order"


def test_what_cannot_be_checked_is_reported_in_a_sentence(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Warehouse(file.parent / "shop.db")
    for words, says in _unusable(file):
        assert main(["check", *words]) == 2, words
        captured = capsys.readouterr()
        assert captured.out == ""
        # Without a metadata database, Airflow 2.11 has its say first.
        *others, ours = captured.err.splitlines()
        assert ours.startswith("kk check: ")
        assert says in ours
        assert not any(line.startswith("kk") for line in others)


@pytest.mark.parametrize(
    "words",
    [
        ["--columns", "sku"],
        ["--delimiter", "ab"],
        ["--quoting", "single"],
        ["--header-line", "0"],
        ["--format", "xml"],
        ["--var", "ds"],
        ["--nothing"],
    ],
)
def test_wrong_arguments_are_a_usage_error(file: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", write_csv(file, rows([0])), *words])
    assert ended.value.code == 2


def test_a_file_is_described_in_one_line(
    ledger: SqlLedger, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write_csv(file, rows(range(2)))

    for words in (["check", name], ["send", "--yes", name]):
        main(words)
        described = "orders.csv: comma-separated, double quotes, UTF-8, header in line 1, 3 rows"
        assert capsys.readouterr().err.count(described) == 1


def test_how_guessed_encodings_read_names_is_shown_on_a_terminal_only(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    head, row = shop.COLUMNS, list(rows([0])[0])
    row[1] = "Jörg Größe"
    file.write_bytes("\n".join(",".join(map(str, one)) for one in (head, row)).encode("cp1252"))

    assert main(["check", str(file)]) == 2
    piped = capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert main(["check", str(file)]) == 2
    seen = capsys.readouterr().err

    assert "Encodings that may fit: " in piped
    assert "Größe" not in piped
    assert "--encoding cp1252 reads: Jörg  Größe" in seen
    assert main(["check", str(file), "--encoding", "cp1252"]) == 0


def test_missing_columns_of_a_query_name_the_commands_own_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = tmp_path / "shop.db"
    with closing(sqlite3.connect(shop)) as db:
        db.execute("CREATE TABLE t (parcel_ref)")

    assert main(["check", "--sql", "SELECT * FROM t", "--warehouse", str(shop)]) == 2

    assert "--columns custom_order_number=YOUR_COLUMN" in capsys.readouterr().err
