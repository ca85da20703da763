"""SyncOrdersOperator: what a warehouse holds is at KK afterwards, each order once, and the figures say so."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.compat.sdk import AirflowException, AirflowFailException

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
    posts,
    rows,
    sync,
)

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect, Printed

pytestmark = pytest.mark.usefixtures("connect")


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


def test_columns_of_other_names_are_mapped_and_unused_ones_are_logged_once(
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


def test_an_order_that_was_not_sent_does_not_use_up_the_limit_of_the_retry(
    sandbox: SandboxServer, warehouse: Warehouse
):
    warehouse.add(*rows(range(5)))
    sandbox.control.arm("auth", times=1, number=number(0))

    first = attempt(sync(limit=1), try_number=1)
    second = attempt(sync(limit=1), try_number=2)

    assert nonzero(first.summary) == {"not_sent": 1, "postponed": 4}
    assert nonzero(second.value) == {"created": 1, "postponed": 4}


def test_after_max_seconds_other_orders_wait_for_the_next_run(sandbox: SandboxServer, warehouse: Warehouse):
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


def test_plan_only_reports_and_sends_nothing(sandbox: SandboxServer, warehouse: Warehouse):
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


def test_a_lost_response_is_adopted_and_a_lost_request_is_resent(
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


def test_the_log_counts_only_real_resends(
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
    assert (posts(sandbox), printed().count("sent again")) == (6, 0)

    second = attempt(sync(), try_number=2)
    assert nonzero(second.value) == {"already_created": 1, "created": 11}
    doubted = ", ".join(number(n) for n in range(1, 6))
    assert posts(sandbox) == 17
    assert f"5 orders ({doubted}) are resent" in printed()
    each_is_there_once(sandbox, range(12))


def test_on_absence_hold_holds_a_lost_request(sandbox: SandboxServer, warehouse: Warehouse, connect: Connect):
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


def test_the_log_reports_progress(sandbox: SandboxServer, warehouse: Warehouse, printed: Printed):
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


def test_a_kill_lets_requests_in_flight_be_recorded(sandbox: SandboxServer, warehouse: Warehouse):
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


def test_final_results_are_written_back_before_waiting_for_others(
    sandbox: SandboxServer, warehouse: Warehouse, connect: Connect, printed: Printed
):
    connect(**QUICK)
    warehouse.execute(
        "CREATE TABLE outcome (custom_order_number TEXT, state TEXT, kk_order_ids TEXT, message TEXT, at)"
    )
    warehouse.add(*rows(range(3)))
    sandbox.control.arm("drop_after_commit", times=1)

    done = attempt(sync(write_back="outcome", max_in_flight=1))

    assert nonzero(done.value) == {"created": 2, "adopted": 1}
    written = warehouse.execute("SELECT custom_order_number, state FROM outcome ORDER BY rowid")
    doubted = next(key for key, state in written if state == "in_doubt")
    assert written[-1] == (doubted, "created")
    assert sorted(written[:-1]) == [
        (number(n), "in_doubt" if number(n) == doubted else "created") for n in range(3)
    ]
    assert f"1 order in doubt, the first: {doubted}. KK's list is read next" in printed()


def test_lines_that_the_query_left_out_are_warned_of_when_their_rows_become_created(
    warehouse: Warehouse, printed: Printed
):
    warehouse.add(*rows([2, 5, 1]))
    warehouse.execute("ALTER TABLE order_line ADD COLUMN kk_ids")
    warehouse.execute("ALTER TABLE order_line ADD COLUMN kk_state")
    warehouse.execute("ALTER TABLE order_line ADD COLUMN hold DEFAULT 0")
    warehouse.execute(
        f"UPDATE order_line SET hold = 1 WHERE custom_order_number = '{number(2)}' AND sku = '{shop.SKUS[0]}'"
    )
    own_rows = {"table": "order_line", "key": "custom_order_number", "ids": "kk_ids", "state": "kk_state"}
    unsent = f"{SELECT} WHERE NOT hold AND kk_ids IS NULL"

    attempt(sync(sql=unsent, write_back=own_rows), run_id="first")
    said = printed()
    attempt(sync(sql=unsent, write_back=own_rows), run_id="second")

    assert (
        f"Table order_line has more rows of order {number(2)} (2 ordered) than lines were ordered, and"
        in said
    )
    assert said.count("has more rows of") == printed().count("has more rows of") == 1
