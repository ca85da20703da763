"""CreateOrderOperator without any ledger: what KK's list protects from, and what it does not, counted.

An earlier try that was killed right after its POST is a bare POST here: nothing else would be left of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_kk.api.models import Order
from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.operators.orders import CreateOrderOperator
from tests.operators.shop import attempt, goods, ids_at_kk, number, order

if TYPE_CHECKING:
    from airflow_provider_kk.sandbox.server import SandboxServer
    from tests.operators.conftest import Connect

ORDERS = range(3)
WINDOW_S = 0.3
LISTED_IN_TIME_S = 0.5 * WINDOW_S
LATER_S = 3600.0


@pytest.fixture(autouse=True)
def quick(connect: Connect) -> None:
    connect(settle_window_s=WINDOW_S)


def killed_after_the_post(n: int) -> None:
    KKHook().create_order(Order.parse(order(n)))


def create(try_number: int) -> dict[str, list[str]]:
    """A try of each order; the ids that they give."""
    found = {}
    for n in ORDERS:
        done = attempt(CreateOrderOperator(task_id=f"create_{n}", order=order(n)), try_number=try_number)
        assert done.error is None
        found[number(n)] = sorted(done.xcoms["kkOrderIds"])
    return found


def is_protected(sandbox: SandboxServer) -> bool:
    """Whether each of the orders is there once; otherwise each is there twice."""
    duplicates = sandbox.control.duplicates()
    assert ids_at_kk(sandbox).keys() == {number(n) for n in ORDERS}
    assert sandbox.control.counts()["creates"] == len(ORDERS) + len(duplicates)
    print(f"{len(duplicates)} of {len(ORDERS)} orders twice")
    assert len(duplicates) in (0, len(ORDERS))
    return not duplicates


@pytest.mark.parametrize("try_number", [2, 7])
def test_a_retry_recovers_what_kk_lists_within_the_settle_window(sandbox: SandboxServer, try_number: int):
    sandbox.control.set(list_lag_s=LISTED_IN_TIME_S)
    for n in ORDERS:
        killed_after_the_post(n)

    found = create(try_number)

    assert is_protected(sandbox)
    assert found == ids_at_kk(sandbox)


def test_a_first_try_recovers_what_kk_lists_already(sandbox: SandboxServer):
    """Another run or another DAG, or an Airflow that has lost its database."""
    for n in ORDERS:
        killed_after_the_post(n)

    create(1)

    assert is_protected(sandbox)


@pytest.mark.parametrize("try_number", [1, 2])
def test_without_a_ledger_an_order_that_kk_lists_too_late_is_duplicated(
    sandbox: SandboxServer, try_number: int
):
    """A first try does not even wait: another DAG, another run, or the same try delivered again."""
    sandbox.control.set(list_lag_s=LATER_S)
    for n in ORDERS:
        killed_after_the_post(n)
    create(try_number)

    assert not is_protected(sandbox)


def test_without_a_ledger_a_task_cleared_after_a_day_makes_a_duplicate(sandbox: SandboxServer):
    for n in ORDERS:
        sandbox.control.place(goods(n), number=number(n), age_s=90_000)

    create(2)

    assert sandbox.control.counts()["creates"] == len(ORDERS)
    assert sandbox.control.duplicates() == [number(n) for n in ORDERS]


def test_without_a_ledger_a_commit_after_the_settle_window_makes_a_duplicate(sandbox: SandboxServer):
    from airflow_provider_kk.api.errors import KKError

    sandbox.control.arm("late_commit", times=len(ORDERS), seconds=LATER_S)
    for n in ORDERS:
        with pytest.raises(KKError):
            killed_after_the_post(n)

    create(2)
    sandbox.control.advance(LATER_S)

    assert not is_protected(sandbox)
