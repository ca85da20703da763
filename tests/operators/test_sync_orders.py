"""SyncOrdersOperator: what a warehouse holds is at KK afterwards, each order once, and the figures say so."""

from __future__ import annotations

import json
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

from airflow_provider_kk.operators.orders import SyncOrdersOperator
from tests.operators import shop
from tests.operators.shop import (
    QUICK,
    SELECT,
    Warehouse,
    attempt,
    each_is_there_once,
    ids_at_kk,
    ids_in_ledger,
    nonzero,
    number,
    rows,
)

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect, Printed

pytestmark = pytest.mark.usefixtures("connect")


def sync(**arguments: Any) -> SyncOrdersOperator:
    return SyncOrdersOperator(
        **{"task_id": "sync", "sql": SELECT, "warehouse_conn_id": "warehouse", **arguments}
    )


def posts(sandbox: SandboxServer) -> int:
    return int(sandbox.control.counts()["creates"])


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_same_40_orders_are_created_once_and_known_the_second_time(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect, version: str
):
    connect(api_version=version)
    warehouse.add(*rows(range(40)))

    first = attempt(sync(write_back="outcome"), run_id="first")
    assert posts(sandbox) == 40
    second = attempt(sync(write_back="outcome"), run_id="second")
    assert posts(sandbox) == 40

    assert (first.error, second.error) == (None, None)
    assert first.value == first.summary
    assert (first.value["selected"], nonzero(first.value)) == (40, {"created": 40})
    assert (second.value["selected"], nonzero(second.value)) == (40, {"already_created": 40})
    each_is_there_once(sandbox, range(40))
    written = warehouse.execute("SELECT custom_order_number, kk_order_ids FROM outcome WHERE state='created'")
    # What has not changed is not written again.
    assert len(written) == 40
    assert {key: sorted(ids.split(",")) for key, ids in written} == ids_at_kk(sandbox)
    assert ids_in_ledger(warehouse.path) == ids_at_kk(sandbox)


def test_order_lines_may_come_in_any_order(sandbox: SandboxServer, warehouse: Warehouse):
    lines = rows(range(20))
    random.Random(7).shuffle(lines)
    warehouse.add(*lines)

    assert nonzero(attempt(sync()).value) == {"created": 20}
    each_is_there_once(sandbox, range(20))


def test_a_row_may_be_a_whole_order_with_its_items_as_json(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(10)))
    sql = f"""
        SELECT custom_order_number, {", ".join(shop.ADDRESS)},
               json_group_array(json_object('sku', sku, 'quantity', quantity)) AS items
          FROM order_line GROUP BY 1
    """

    assert nonzero(attempt(sync(sql=sql)).value) == {"created": 10}
    each_is_there_once(sandbox, range(10))


def test_columns_of_other_names_are_mapped_and_the_rest_is_named_once(
    sandbox: SandboxServer, warehouse: Warehouse, printed: Printed
):
    warehouse.add(*rows(range(5)))
    warehouse.execute("ALTER TABLE order_line RENAME custom_order_number TO BELEGNR")
    warehouse.execute("ALTER TABLE order_line RENAME recipient TO Empfaenger")
    warehouse.execute("ALTER TABLE order_line ADD COLUMN margin")
    columns = {"custom_order_number": "belegnr", "recipient": "EMPFAENGER"}

    done = attempt(sync(sql="SELECT * FROM order_line", columns=columns))

    assert nonzero(done.value) == {"created": 5}
    each_is_there_once(sandbox, range(5))
    assert printed().count("margin") == 1


@pytest.mark.parametrize(
    ("where", "parameters"),
    [("custom_order_number >= ?", [number(6)]), ("custom_order_number >= :least", {"least": number(6)})],
)
def test_parameters_reach_the_statement(
    sandbox: SandboxServer, warehouse: Warehouse, where: str, parameters: Any
):
    warehouse.add(*rows(range(10)))

    done = attempt(sync(sql=f"{SELECT} WHERE {where}", parameters=parameters))

    assert nonzero(done.value) == {"created": 4}
    each_is_there_once(sandbox, range(6, 10))


def test_limit_counts_orders_that_need_sending(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(10)))

    first = attempt(sync(limit=4), run_id="first")
    second = attempt(sync(limit=4), run_id="second")

    assert nonzero(first.value) == {"created": 4, "postponed": 6}
    assert nonzero(second.value) == {"created": 4, "already_created": 4, "postponed": 2}
    assert posts(sandbox) == 8


def test_what_never_reached_kk_leaves_the_limit_to_the_retry(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(5)))
    sandbox.control.arm("auth", times=1, number=number(0))

    first = attempt(sync(limit=1), try_number=1)
    second = attempt(sync(limit=1), try_number=2)

    assert nonzero(first.summary) == {"not_sent": 1, "postponed": 4}
    assert nonzero(second.value) == {"created": 1, "postponed": 4}


def test_after_max_seconds_the_rest_waits_for_the_next_run(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(10)))
    sandbox.control.set(latency_s=0.3)

    first = attempt(sync(max_seconds=1.2, max_in_flight=1), run_id="first")
    sandbox.control.set(latency_s=0)
    second = attempt(sync(), run_id="second")

    created = first.value["created"]
    assert first.error is None
    assert 0 < created < 10
    assert nonzero(first.value) == {"created": created, "postponed": 10 - created}
    assert nonzero(second.value) == {"already_created": created, "created": 10 - created}
    each_is_there_once(sandbox, range(10))


def test_plan_only_says_what_would_happen_and_sends_nothing(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(3)))
    assert nonzero(attempt(sync(), run_id="first").value) == {"created": 3}
    warehouse.add(*rows(range(3, 10)))
    warehouse.add(("S-BAD", *shop.ADDRESS.values(), "FWXW00290_WHT_M", 0))
    before = sandbox.control.counts()["requests"]

    planned = attempt(sync(plan_only=True, write_back="outcome"), run_id="plan")

    assert planned.error is None
    assert nonzero(planned.value) == {"already_created": 3, "postponed": 7, "invalid": 1}
    assert sandbox.control.counts()["requests"] == before
    assert warehouse.execute("SELECT name FROM sqlite_master WHERE name = 'outcome'") == []
    # Planning leaves no trace: the real run afterwards sees the bad order as news.
    real = attempt(sync(), run_id="real")
    assert nonzero(real.summary) == {"already_created": 3, "created": 7, "invalid": 1}
    assert isinstance(real.error, AirflowFailException)


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
        assert "2 orders newly rejected or invalid" in str(done.error)


def test_what_was_rejected_before_does_not_fail_later_runs(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(("S-UNKNOWN", *shop.ADDRESS.values(), "NO_SUCH_SKU", 1))
    warehouse.add(("S-INVALID", *shop.ADDRESS.values(), "FWXW00290_WHT_M", 0))
    assert isinstance(attempt(sync(), run_id="first").error, AirflowFailException)
    asked = posts(sandbox)

    again = attempt(sync(), run_id="second")

    assert again.error is None
    assert nonzero(again.value) == {"rejected": 1, "invalid": 1}
    assert posts(sandbox) == asked


def test_a_rejected_order_is_sent_again_once_it_is_mended(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(2)))
    warehouse.add(("S-0007", *shop.address(7).values(), "NO_SUCH_SKU", 1))
    attempt(sync(), run_id="first")
    warehouse.execute("DELETE FROM order_line WHERE custom_order_number = 'S-0007'")
    warehouse.add(*rows([7]))

    mended = attempt(sync(), run_id="second")

    assert mended.error is None
    assert nonzero(mended.value) == {"already_created": 2, "created": 1}
    each_is_there_once(sandbox, [0, 1, 7])


def test_write_back_updates_the_orders_own_rows_also_when_the_task_fails(
    sandbox: SandboxServer, warehouse: Warehouse
):
    warehouse.add(*rows(range(5)))
    warehouse.add(("S-UNKNOWN", *shop.ADDRESS.values(), "NO_SUCH_SKU", 1))
    warehouse.execute("CREATE TABLE head AS SELECT DISTINCT custom_order_number AS no FROM order_line")
    warehouse.execute("ALTER TABLE head ADD COLUMN kk_ids TEXT")
    warehouse.execute("ALTER TABLE head ADD COLUMN kk_state TEXT")
    write_back = {"table": "head", "key": "no", "ids": "kk_ids", "state": "kk_state"}

    done = attempt(sync(write_back=write_back))

    assert isinstance(done.error, AirflowFailException)
    written = {no: (ids, state) for no, ids, state in warehouse.execute("SELECT * FROM head")}
    assert written.pop("S-UNKNOWN") == (None, "rejected")
    assert {no: sorted(ids.split(",")) for no, (ids, _) in written.items()} == ids_at_kk(sandbox)
    assert {state for _, state in written.values()} == {"created"}


def test_a_number_reused_for_another_order_is_loud(sandbox: SandboxServer, warehouse: Warehouse):
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


def test_a_lost_answer_is_adopted_and_a_lost_request_sent_again(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect
):
    connect(**QUICK)
    warehouse.add(*rows(range(8)))
    sandbox.control.arm("drop_after_commit", times=1, number=number(3))
    sandbox.control.arm("drop_before_commit", times=1, number=number(5))

    done = attempt(sync())

    assert done.error is None
    assert nonzero(done.value) == {"created": 7, "adopted": 1}
    assert posts(sandbox) == 9
    each_is_there_once(sandbox, range(8))


def test_the_log_calls_sent_again_what_really_is(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect, printed: Printed
):
    connect(**QUICK)
    warehouse.add(*rows([0]))
    attempt(sync(), run_id="before")
    warehouse.add(*rows(range(1, 12)))
    sandbox.control.arm("drop_before_commit", times=5)

    # Five in a row stop the first try: it only finds out that KK has none of them.
    first = attempt(sync(max_in_flight=1), try_number=1)
    assert nonzero(first.summary) == {"already_created": 1, "in_doubt": 5, "not_sent": 6}
    assert (posts(sandbox), printed().count("is sent again")) == (6, 0)

    second = attempt(sync(), try_number=2)
    assert nonzero(second.value) == {"already_created": 1, "created": 11}
    assert (posts(sandbox), printed().count("is sent again")) == (17, 5)
    each_is_there_once(sandbox, range(12))


def test_on_absence_hold_leaves_a_lost_request_to_a_human(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect
):
    connect(**QUICK)
    warehouse.add(*rows(range(4)))
    sandbox.control.arm("drop_before_commit", times=1, number=number(2))

    first = attempt(sync(on_absence="hold"), run_id="first")
    later = attempt(sync(on_absence="hold"), run_id="second")

    assert isinstance(first.error, AirflowFailException)
    assert "1 order newly held" in str(first.error)
    assert nonzero(first.summary) == {"created": 3, "held": 1}
    # It was news once; from then on `kk ledger list` has it, and the other orders go on.
    assert later.error is None
    assert nonzero(later.value) == {"already_created": 3, "held": 1}
    assert posts(sandbox) == 4


def test_what_was_not_sent_is_worth_a_retry(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(3)))
    sandbox.control.arm("auth", method=None)

    failed = attempt(sync())

    assert isinstance(failed.error, AirflowException)
    assert not isinstance(failed.error, AirflowFailException)
    assert "3 orders not sent" in str(failed.error)
    assert nonzero(failed.summary) == {"not_sent": 3}
    assert posts(sandbox) == 0


def test_a_retry_of_the_task_counts_what_its_first_try_created(sandbox: SandboxServer, warehouse: Warehouse):
    warehouse.add(*rows(range(10)))
    for n in (2, 6):
        sandbox.control.arm("auth", times=1, number=number(n))

    first = attempt(sync(), try_number=1)
    second = attempt(sync(), try_number=2)

    assert isinstance(first.error, AirflowException)
    assert nonzero(first.summary) == {"created": 8, "not_sent": 2}
    assert nonzero(second.value) == {"created": 10}
    assert second.value["requests"] > first.summary["requests"]
    # The same task of another run has created none of them.
    assert nonzero(attempt(sync(), run_id="another").value) == {"already_created": 10}


def test_the_log_says_how_far_it_has_come(sandbox: SandboxServer, warehouse: Warehouse, printed: Printed):
    warehouse.add(*rows(range(12)))
    sandbox.control.set(latency_s=1)

    done = attempt(sync(max_in_flight=2))

    assert nonzero(done.value) == {"created": 12}
    assert any("of 12" in line and "left" in line for line in printed().splitlines())


def test_no_orders_is_no_trouble(sandbox: SandboxServer, warehouse: Warehouse):
    done = attempt(sync())

    assert done.error is None
    assert (done.value["selected"], nonzero(done.value)) == (0, {})
    assert posts(sandbox) == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"sql": "SELECT sku, quantity FROM order_line"}, "custom_order_number"),
        ({"sql": "DELETE FROM order_line"}, "one SELECT"),
        ({"columns": {"recipent": "name"}}, "recipent"),
        ({"write_back": {"table": "order_line"}}, "write_back must be"),
        ({"write_back": "no_such_schema.outcome"}, "no_such_schema"),
        ({"write_back": "outcome; DROP TABLE order_line"}, "write_back must be a plain name"),
        ({"columns": {"sku": "sku; DROP TABLE order_line"}}, "columns maps sku -> sku; DROP"),
    ],
)
def test_what_the_author_got_wrong_is_told_before_anything_is_sent(
    sandbox: SandboxServer, warehouse: Warehouse, arguments: dict[str, Any], says: str
):
    warehouse.add(*rows(range(2)))

    done = attempt(sync(**arguments))

    assert isinstance(done.error, Exception)
    assert says in str(done.error)
    assert posts(sandbox) == 0
    assert len(warehouse.execute("SELECT * FROM order_line")) == len(rows(range(2)))


def test_a_policy_that_does_not_exist_is_told_when_the_dag_is_parsed():
    with pytest.raises(ValueError, match="on_absence must be one of 'resend', 'hold'"):
        sync(on_absence="retry")


def test_a_kill_lets_what_is_in_flight_be_recorded(sandbox: SandboxServer, warehouse: Warehouse):
    import threading

    warehouse.add(*rows(range(10)))
    sandbox.control.set(latency_s=1)
    task = sync(max_in_flight=3)

    def kill_when_busy() -> None:
        while posts(sandbox) < 3:
            time.sleep(0.05)
        task.on_kill()

    killer = threading.Thread(target=kill_when_busy)
    killer.start()
    killed = attempt(task)
    killer.join()

    assert isinstance(killed.error, AirflowException)
    assert nonzero(killed.summary) == {"created": 3, "not_sent": 7}
    each_is_there_once(sandbox, range(3))
    assert ids_in_ledger(warehouse.path) == ids_at_kk(sandbox)


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


def test_a_number_that_is_too_long_is_told_to_its_own_row(warehouse: Warehouse):
    warehouse.add(("N" * 41, *shop.ADDRESS.values(), shop.SKUS[0], 1))
    warehouse.execute("ALTER TABLE order_line ADD COLUMN ids")
    warehouse.execute("ALTER TABLE order_line ADD COLUMN state")
    place = {"table": "order_line", "key": "custom_order_number", "ids": "ids", "state": "state"}

    attempt(sync(write_back=place))

    assert warehouse.execute("SELECT ids, state FROM order_line") == [(None, "invalid")]


def test_a_failed_write_back_is_told_after_the_summary_and_made_up_for(
    sandbox: SandboxServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
):
    from airflow_provider_kk.warehouse import write_back

    def broken(*_arguments: Any) -> None:
        raise write_back.WriteBackError("write_back: the warehouse refused: disk full")

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


@pytest.mark.parametrize("fault", ["ledger", "connection", "write_back"])
def test_what_only_a_human_can_mend_is_not_retried(warehouse: Warehouse, connect: Connect, fault: str):
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


def test_a_ledger_that_is_gone_is_told_in_a_sentence_and_worth_a_retry(
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
