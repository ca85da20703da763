"""SyncOrdersOperator: what an order or a sync fails by is told, and stops nothing else."""

from __future__ import annotations

import json
import re
import sqlite3
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException
from airflow.providers.sqlite.hooks.sqlite import SqliteHook

from airflow_provider_kk.warehouse.write_back import WriteBack
from tests.operators import shop
from tests.operators.shop import Warehouse, attempt, each_is_there_once, nonzero, number, posts, rows, sync

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect, Printed

pytestmark = pytest.mark.usefixtures("connect")


@pytest.mark.parametrize(
    ("max_rejected", "is_tolerated"), [(1, False), (2, True), (0.1, False), (0.2, True), (0, False)]
)
def test_max_rejected_is_a_count_or_a_share_of_the_selected(
    sandbox: SandboxServer, warehouse: Warehouse, max_rejected: float, is_tolerated: bool
):
    warehouse.add(*rows(range(8)))
    warehouse.add(("S-UNKNOWN", *shop.ADDRESS.values(), "NO_SUCH_SKU", 1))
    warehouse.add(("S-INVALID", *shop.ADDRESS.values(), "FWXW00290_WHT_M", 0))

    done = attempt(sync(max_rejected=max_rejected))

    # Bad orders never stop the others, and are told whatever is tolerated.
    assert nonzero(done.summary) == {"created": 8, "rejected": 1, "invalid": 1}
    told = {one["custom_order_number"]: one for one in done.summary["rejections"]}
    assert told.keys() == {"S-UNKNOWN", "S-INVALID"}
    assert isinstance(told["S-UNKNOWN"]["code"], int)
    assert "NO_SUCH_SKU" in told["S-UNKNOWN"]["message"]
    assert "quantity" in told["S-INVALID"]["message"]
    assert not any(word in json.dumps(done.summary) for word in shop.PRIVATE)
    if is_tolerated:
        assert done.error is None
    else:
        # A retry would only be refused again.
        assert isinstance(done.error, AirflowFailException)
        assert "2 orders newly rejected or invalid (S-UNKNOWN: " in str(done.error)
        assert "(S-INVALID: items[0].quantity: " in str(done.error)


def test_what_was_rejected_before_does_not_fail_later_runs(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(("S-UNKNOWN", *shop.ADDRESS.values(), "NO_SUCH_SKU", 1))
    warehouse.add(("S-INVALID", *shop.ADDRESS.values(), "FWXW00290_WHT_M", 0))
    assert isinstance(attempt(sync(), run_id="first").error, AirflowFailException)
    asked = posts(sandbox)

    again = attempt(sync(), run_id="second")

    assert again.error is None
    assert nonzero(again.value) == {"rejected": 1, "invalid": 1}
    assert posts(sandbox) == asked


def test_a_rejected_order_is_retried_once_it_is_fixed(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(2)))
    warehouse.add(("S-0007", *shop.address(7).values(), "NO_SUCH_SKU", 1))
    attempt(sync(), run_id="first")
    warehouse.execute("DELETE FROM order_line WHERE custom_order_number = 'S-0007'")
    warehouse.add(*rows([7]))

    mended = attempt(sync(), run_id="second")

    assert mended.error is None
    assert nonzero(mended.value) == {"already_created": 2, "created": 1}
    each_is_there_once(sandbox, [0, 1, 7])


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ("quantity = quantity + 1", "goods differ"),
        ("street1 = 'elsewhere'", "address differs"),
        ("quantity = quantity + 1, country = 'BE'", "goods and address differ"),
        ("quantity = quantity + 1, street1 = 'elsewhere'", "goods and address differ"),
    ],
)
def test_orders_that_come_again_as_others_are_named_in_one_warning_with_what_differs(
    sandbox: SandboxServer, warehouse: Warehouse, printed: Printed, change: str, differs: str
):
    warehouse.add(*rows(range(7)))
    attempt(sync(), run_id="first")
    warehouse.execute(f"UPDATE order_line SET {change}")

    attempt(sync(on_changed="ignore"), run_id="second")
    when_ignored = printed()
    loud = attempt(sync(), run_id="third")
    told = printed().replace("\n", " ")

    assert "changed: its" not in when_ignored
    assert f"its {differs} from the order that was sent under this number" in str(loud.error)
    named = ", ".join(rf"{number(one)} \(row \d+\)" for one in range(7))
    assert re.search(rf"7 orders \({named}\) are changed: its {differs} from", told)
    assert told.count("changed: its") == 1
    each_is_there_once(sandbox, range(7))


def test_the_difference_of_the_first_changed_order_is_not_reported_for_all(
    sandbox: SandboxServer, warehouse: Warehouse
):
    warehouse.add(*rows(range(2)))
    attempt(sync(), run_id="first")
    warehouse.execute("UPDATE order_line SET quantity = 9 WHERE custom_order_number = 'S-0000'")
    warehouse.execute("UPDATE order_line SET street1 = 'elsewhere' WHERE custom_order_number = 'S-0001'")

    failed = attempt(sync(), run_id="second")

    assert "(S-0000, S-0001; the first: its goods differ from" in str(failed.error)


def which(text: str) -> list[str]:
    """The states in the last command that the log gives."""
    commands = re.findall(
        r"with their reasons, run `kk ledger list (.*?) --kk-conn-id", text.replace("\n", " ")
    )
    return [word for word in commands[-1].split() if word != "--state"]


def test_the_log_names_the_states_for_which_the_task_failed(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect, printed: Printed
):
    connect(**shop.QUICK)
    warehouse.add(*rows(range(4)))
    sandbox.control.arm("code_in_envelope", number=number(0))
    attempt(sync(), run_id="first")
    assert which(printed()) == ["rejected"]

    attempt(sync(), run_id="second")  # succeeds: that order was refused before
    assert which(printed()) == ["rejected"]

    warehouse.add(*rows([5]), ("S-0006", *shop.ADDRESS.values(), shop.SKUS[0], 0))
    attempt(sync(), run_id="third")
    assert which(printed()) == ["invalid"]

    warehouse.add(*rows([7]))
    sandbox.control.arm("drop_before_commit", number=number(7))
    attempt(sync(on_absence="hold"), run_id="fourth")
    assert which(printed()) == ["held"]

    warehouse.add(*rows([8, 9]))
    sandbox.control.arm("auth")
    attempt(sync(), run_id="fifth")
    assert which(printed()) == ["not_sent"]


def test_a_sync_that_stops_before_its_first_order_names_no_state_that_the_ledger_lacks(
    sandbox: SandboxServer, warehouse: Warehouse, printed: Printed
):
    warehouse.add(*rows([0, 1]))
    sandbox.control.arm("auth", method=None)

    failed = attempt(sync())

    assert "2 orders not sent" in str(failed.error)
    assert "To list these orders" not in printed()


def test_an_open_breaker_reports_the_rejected_orders_and_how_to_end_their_backoff(
    sandbox: SandboxServer, warehouse: Warehouse, printed: Printed
):
    warehouse.add(*rows(range(20)))
    sandbox.control.arm("code_in_envelope", code=40004, message="insufficient account balance")

    failed = attempt(sync(max_in_flight=1))

    assert nonzero(failed.summary) == {"rejected": 10, "not_sent": 10}
    assert "10 orders not sent, 10 orders newly rejected, because KK rejected 10" in str(failed.error)
    assert 'run `kk ledger retry --code 40004 --why "..."`' in str(failed.error)
    assert which(printed()) == ["rejected"]


def test_a_number_reused_for_another_order_fails_the_sync(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(3)))
    attempt(sync(), run_id="first")
    warehouse.execute("UPDATE order_line SET quantity = 9 WHERE custom_order_number = 'S-0001'")

    loud = attempt(sync(), run_id="second")
    quiet = attempt(sync(on_changed="ignore"), run_id="third")

    assert isinstance(loud.error, AirflowFailException)
    assert "1 order changed" in str(loud.error)
    assert nonzero(loud.summary) == {"already_created": 2, "changed": 1}
    assert quiet.error is None
    assert nonzero(quiet.value) == {"already_created": 2, "changed": 1}
    each_is_there_once(sandbox, range(3))


def test_what_was_not_sent_is_retried(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(3)))
    sandbox.control.arm("auth", method=None)

    failed = attempt(sync())

    assert isinstance(failed.error, AirflowException)
    assert not isinstance(failed.error, AirflowFailException)
    assert "3 orders not sent" in str(failed.error)
    assert nonzero(failed.summary) == {"not_sent": 3}
    assert posts(sandbox) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"columns": {"recipent": "name"}}, "did you mean 'recipient'"),
        ({"columns": "shopfy"}, "did you mean 'shopify'"),
        ({"columns": {"recipient": "{first_name last_name}}"}}, "the source of recipient has a brace"),
        ({"columns": {"phone": "='+33"}}, "with both quotes"),
        ({"defaults": {"provinz": "{city}"}}, "did you mean 'province'"),
        ({"duplicate_rows": "drop"}, "'fail' or 'keep'"),
    ],
)
def test_a_wrong_mapping_fails_when_the_dag_is_parsed(arguments: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        sync(**arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sql": "SELECT sku, quantity FROM order_line"}, "custom_order_number"),
        ({"sql": "DELETE FROM order_line"}, "one SELECT"),
        ({"sql": f"{shop.SELECT}; SELECT 1"}, "sql holds 2 statements"),
        ({"write_back": {"table": "order_line"}}, "write_back must be"),
        ({"write_back": "no_such_schema.outcome"}, "no_such_schema"),
        ({"write_back": "outcome; DROP TABLE order_line"}, "write_back must be a plain name"),
        ({"columns": {"sku": "sku; DROP TABLE order_line"}}, "columns maps sku -> sku; DROP"),
    ],
)
def test_wrong_arguments_fail_before_anything_is_sent(
    sandbox: SandboxServer, warehouse: Warehouse, arguments: dict[str, Any], says: str
):
    warehouse.add(*rows(range(2)))

    done = attempt(sync(**arguments))

    assert isinstance(done.error, Exception)
    assert says in str(done.error)
    assert posts(sandbox) == 0
    assert len(warehouse.execute("SELECT * FROM order_line")) == len(rows(range(2)))


def test_a_missing_write_back_column_is_not_retried(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(2)))
    place = {"table": "order_line", "key": "custom_order_number", "ids": "no_such", "state": "no_such"}

    done = attempt(sync(write_back=place))

    assert isinstance(done.error, AirflowFailException)
    assert "order_line cannot be updated" in str(done.error)
    assert posts(sandbox) == 0


def test_an_unknown_policy_fails_while_the_dag_is_parsed():
    with pytest.raises(ValueError, match="on_absence must be one of 'resend', 'hold'"):
        sync(on_absence="retry")


def test_what_is_invalid_fails_one_run_and_not_every_later_one(warehouse: Warehouse):
    warehouse.add(*rows(range(3)))
    warehouse.add(("N" * 41, *shop.ADDRESS.values(), shop.SKUS[0], 1))
    warehouse.add((None, *shop.ADDRESS.values(), shop.SKUS[0], 1))
    warehouse.add(("S-TWO", *{**shop.ADDRESS, "city": "Lyon"}.values(), shop.SKUS[0], 1))
    warehouse.add(("S-TWO", *{**shop.ADDRESS, "city": "Nice"}.values(), shop.SKUS[0], 1))

    first = attempt(sync(), run_id="first")
    second = attempt(sync(), run_id="second")

    assert isinstance(first.error, AirflowFailException)
    assert "4 orders newly rejected or invalid" in str(first.error)
    assert second.error is None
    assert nonzero(second.value) == {"already_created": 3, "invalid": 4}


def test_a_number_that_is_too_long_is_reported_for_its_own_row(warehouse: Warehouse):
    warehouse.add(("N" * 41, *shop.ADDRESS.values(), shop.SKUS[0], 1))
    warehouse.execute("ALTER TABLE order_line ADD COLUMN ids")
    warehouse.execute("ALTER TABLE order_line ADD COLUMN state")
    place = {"table": "order_line", "key": "custom_order_number", "ids": "ids", "state": "state"}

    attempt(sync(write_back=place))

    assert warehouse.execute("SELECT ids, state FROM order_line") == [(None, "invalid")]


def test_a_failed_write_back_is_reported_after_the_summary_and_caught_up(
    sandbox: SandboxServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
):
    from airflow_provider_kk.warehouse import write_back

    def broken(*_arguments: Any) -> None:
        raise write_back.WriteBackError("write_back: the warehouse rejected the statement: disk full")

    warehouse.add(*rows(range(3)))
    with monkeypatch.context() as patch:
        patch.setattr(write_back.WriteBack, "write", broken)
        first = attempt(sync(write_back="outcome"), run_id="run")
    again = attempt(sync(write_back="outcome"), run_id="run")

    assert type(first.error) is AirflowException
    assert "disk full" in str(first.error)
    assert nonzero(first.summary) == nonzero(again.value) == {"created": 3}
    assert len(warehouse.execute("SELECT * FROM outcome")) == 3
    assert posts(sandbox) == 3


def test_an_order_that_is_held_keeps_its_row_selected(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(2)))
    warehouse.execute("ALTER TABLE order_line ADD COLUMN ids")
    warehouse.execute("ALTER TABLE order_line ADD COLUMN state")
    place = {"table": "order_line", "key": "custom_order_number", "ids": "ids", "state": "state"}
    attempt(sync(), run_id="first")
    warehouse.execute(f"UPDATE order_line SET quantity = 9 WHERE custom_order_number = '{number(0)}'")

    changed = attempt(sync(write_back=place), run_id="second")

    assert nonzero(changed.summary) == {"already_created": 1, "changed": 1}
    states = warehouse.execute("SELECT DISTINCT custom_order_number, ids IS NULL, state FROM order_line")
    assert states == [(number(0), 1, "changed"), (number(1), 0, "created")]


class Interrupted(BaseException):
    """As Airflow's timeout of a task."""


@pytest.mark.parametrize(
    ("error", "is_told"),
    [
        (ValueError("not enough values to unpack (expected 2, got 1)"), "write_back: ValueError: not enough"),
        (KeyError("Zebulon Quist"), "write_back: KeyError: ***"),
        (OSError("no space left"), "write_back: OSError: no space left"),
        (
            sa.exc.OperationalError("SELECT 1", {}, sqlite3.OperationalError("locked")),
            "OperationalError: locked",
        ),
        (Interrupted("timed out"), "timed out"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("when", ["prepare", "write"])
def test_no_error_of_the_write_back_costs_the_summary_or_shows_a_row(
    sandbox: SandboxServer,
    warehouse: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
    printed: Printed,
    error: BaseException,
    is_told: str,
    when: str,
):
    warehouse.add(*rows(range(3)))

    def broken(*_: Any) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(WriteBack, when, broken)
        done = attempt(sync(write_back="outcome"), run_id="run")

    assert is_told in str(done.error)
    assert isinstance(done.error, type(error) if isinstance(error, Interrupted) else AirflowException)
    assert not isinstance(done.error, AirflowFailException)
    if when == "write":
        assert nonzero(done.summary) == {"created": 3}
    else:
        assert sandbox.control.counts()["requests"] == 0
    shown = printed() + "".join(traceback.format_exception(done.error))
    assert "Zebulon" not in shown
    again = attempt(sync(write_back="outcome"), run_id="run")
    assert again.error is None
    assert warehouse.execute("SELECT count(*) FROM outcome WHERE state = 'created'") == [(3,)]


@pytest.mark.parametrize("fault", ["ledger", "connection", "write_back"])
def test_what_only_a_person_can_fix_is_not_retried(warehouse: Warehouse, connect: Connect, fault: str):
    warehouse.add(*rows(range(1)))
    arguments: dict[str, Any] = {}
    if fault == "connection":
        connect(settle_window_s="soon")
    elif fault == "write_back":
        arguments = {"write_back": {"table": "t"}}
    else:
        attempt(sync(), run_id="first")
        warehouse.execute("UPDATE kk_account SET schema_version = 99")

    assert type(attempt(sync(**arguments), run_id="second").error) is AirflowFailException


def test_a_lost_ledger_is_reported_in_a_sentence_and_retried(
    sandbox: SandboxServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
):
    nowhere = {"conn_type": "postgres", "host": "127.0.0.1", "port": 1, "login": "x", "schema": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_GONE", json.dumps(nowhere))
    warehouse.add(*rows(range(2)))

    done = attempt(sync(ledger_conn_id="gone"))

    assert type(done.error) is AirflowException
    assert str(done.error).startswith("The ledger's database cannot be used: OperationalError: ")
    assert "\n" not in str(done.error)
    assert posts(sandbox) == 0


@pytest.mark.parametrize("nothing", ["", "None", None])
def test_an_empty_ledger_template_does_not_fall_back_to_the_warehouse(
    sandbox: SandboxServer, warehouse: Warehouse, nothing: str | None
):
    warehouse.add(*rows(range(2)))
    task = sync(ledger_conn_id="{{ ledger }}")
    task.ledger_conn_id = nothing

    done = attempt(task)

    assert isinstance(done.error, AirflowFailException)
    assert "ledger_conn_id is empty" in str(done.error)
    assert posts(sandbox) == 0


def test_a_ledger_without_its_whole_path_is_an_error(
    sandbox: SandboxServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AIRFLOW_CONN_HERE", json.dumps({"conn_type": "sqlite", "host": "ledger.db"}))
    warehouse.add(*rows(range(2)))

    done = attempt(sync(ledger_conn_id="here"))

    assert isinstance(done.error, AirflowFailException)
    assert "'ledger.db' is relative, so it is another file in each working directory" in str(done.error)
    assert posts(sandbox) == 0


def test_two_names_of_one_store_are_warned_of(
    sandbox: SandboxServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch, printed: Printed
):
    warehouse.add(*rows(range(2)))
    attempt(sync())
    assert "access token of account" not in printed()

    outlet = shop.kk_connection(sandbox, account="outlet")
    monkeypatch.setenv("AIRFLOW_CONN_KK_OUTLET", json.dumps(outlet))
    attempt(sync(kk_conn_id="kk_outlet"))

    assert "Account 'outlet' of this ledger has the access token of account 'default'" in printed()


def test_a_rejected_token_is_reported_with_what_to_do(
    sandbox: SandboxServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
):
    wrong = shop.kk_connection(sandbox) | {"password": "ended-long-ago"}
    monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(wrong))
    warehouse.add(*rows(range(2)))

    done = attempt(sync())

    assert type(done.error) is AirflowException
    assert str(done.error).startswith("2 orders not sent, because KK's list of orders cannot be read")
    assert "enter a valid one from KK's account pages as the password of connection 'kk_default'" in str(
        done.error
    )


@pytest.mark.parametrize(
    ("sql", "fault"),
    [
        ("SELECT consignee FROM order_line", "no such column: consignee"),
        ("SELECT * FROM order_lines", "no such table: order_lines"),
        ("SELEC * FROM order_line", "syntax error"),
    ],
)
def test_a_statement_that_is_at_fault_is_one_sentence_and_not_retried(
    sandbox: SandboxServer, warehouse: Warehouse, sql: str, fault: str
):
    done = attempt(sync(sql=sql))

    assert isinstance(done.error, AirflowFailException)
    assert str(done.error).startswith("The warehouse cannot run sql: OperationalError: ")
    assert fault in str(done.error)
    assert str(done.error).endswith("Nothing was sent")
    assert done.error.__suppress_context__


def test_a_warehouse_that_is_gone_when_results_are_written_costs_no_summary(
    sandbox: SandboxServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
):
    warehouse.add(*rows(range(2)))
    warehouse.execute("CREATE TABLE head (no TEXT, kk_ids TEXT, kk_state TEXT)")
    connect, calls = SqliteHook.get_conn, []

    def get_conn(hook: SqliteHook, *arguments: Any) -> Any:
        calls.append(hook)
        if len(calls) > 2:  # the results' place was looked at, and the rows were read
            raise sqlite3.OperationalError("unable to open database file")
        return connect(hook, *arguments)

    monkeypatch.setattr(SqliteHook, "get_conn", get_conn)
    write_back = {"table": "head", "key": "no", "ids": "kk_ids", "state": "kk_state"}

    done = attempt(sync(write_back=write_back))

    assert type(done.error) is AirflowException
    assert "unable to open database file. The orders are safe" in str(done.error)
    assert nonzero(done.xcoms["return_value"]) == {"created": 2}
