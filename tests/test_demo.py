"""`make demo` as its user sees it, and that it does not call bad good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from demo.orders import ShopOrder, make_orders
from demo.verdict import Seen, judge

REPOSITORY = Path(__file__).parents[1]
ORDINARY, IN_DOUBT, REFUSED, INVALID = "SO-20411", "SO-20417", "SO-20425", "SO-20420"


class Demo:
    """The demo in a process of its own, with a folder for temporary files of its own."""

    def __init__(self, tmp_path: Path, *arguments: str) -> None:
        self.tmp_path = tmp_path
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "demo", *arguments],
            cwd=REPOSITORY,
            env={**inherited, "TMPDIR": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def ended(self) -> Ended:
        output, _ = self.process.communicate(timeout=600)
        return Ended(self.process.returncode, output, [path.name for path in self.tmp_path.iterdir()])

    def is_running_anything(self) -> bool:
        """Whether any process is left that the demo has started, directly or not."""
        mark = f"TMPDIR={self.tmp_path}\0".encode()
        return any(mark in environment for environment in environments_of_all_processes())


@dataclass(frozen=True)
class Ended:
    returncode: int
    output: str
    left_behind: list[str]


def environments_of_all_processes() -> Iterator[bytes]:
    for file in Path("/proc").glob("[0-9]*/environ"):
        try:
            yield file.read_bytes()
        except OSError:
            continue


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """Both long demos at once: one as it is, one where KK itself doubles an order."""
    good = Demo(tmp_path_factory.mktemp("good"))
    bad = Demo(tmp_path_factory.mktemp("bad"), "--fault", f"{ORDINARY}=duplicate_by_proxy")
    return {"good": good.ended(), "sabotaged": bad.ended()}


def test_each_good_order_is_at_kk_once_and_a_second_run_sends_nothing(demos: dict[str, Ended]):
    demo = demos["good"]

    assert demo.returncode == 0, demo.output
    assert "GOOD: 39 good orders are at KK once each, the second run sent nothing" in demo.output
    assert "35 created, 4 adopted, 2 rejected, 6 invalid" in demo.output
    assert "39 already created, 2 rejected, 6 invalid" in demo.output


def test_a_duplicate_at_kk_makes_the_verdict_bad(demos: dict[str, Ended]):
    demo = demos["sabotaged"]

    assert demo.returncode == 1, demo.output
    assert f"{ORDINARY}: DOUBLED, KK created it 2 times" in demo.output
    assert "GOOD" not in demo.output


def test_the_demo_leaves_nothing_behind_and_names_no_customer(demos: dict[str, Ended]):
    for demo in demos.values():
        assert demo.left_behind == []
        for order in make_orders():
            assert order.recipient not in demo.output
            assert order.street1 not in demo.output
            assert order.phone is None or order.phone not in demo.output


def test_a_run_that_hangs_is_stopped_and_makes_the_verdict_bad(tmp_path: Path):
    demo = Demo(tmp_path, "--limit", "0.2").ended()

    assert demo.returncode == 1, demo.output
    assert "stopped, it lasted longer than" in demo.output
    assert demo.left_behind == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_demo_that_is_stopped_leaves_nothing_behind(tmp_path: Path, number: signal.Signals, code: int):
    demo = Demo(tmp_path)
    assert demo.process.stdout is not None
    for line in demo.process.stdout:
        if "Airflow is starting" in line:
            break
    demo.process.send_signal(number)

    ended = demo.ended()

    assert ended.returncode == code, ended.output
    assert ended.left_behind == []
    assert not demo.is_running_anything()


def as_it_must_be(order: ShopOrder) -> Seen:
    ids = ("1000000371001",) if order.story.is_created else ()
    return Seen(
        warehouse=order.story.warehouse,
        warehouse_ids=ids,
        ledger=order.story.ledger,
        ledger_ids=ids,
        sent=len(ids),
        creates=len(ids),
        kk_order_ids=ids,
        goods=order.goods if ids else {},
        addresses=[order.address] if ids else [],
    )


@pytest.fixture
def orders() -> list[ShopOrder]:
    return make_orders()


@pytest.fixture
def seen(orders: list[ShopOrder]) -> dict[str, Seen]:
    return {order.number: as_it_must_be(order) for order in orders}


def test_the_verdict_is_good_when_all_is_as_it_must_be(orders: list[ShopOrder], seen: dict[str, Seen]):
    assert judge(orders, seen).is_good


NOTHING = Seen()


@pytest.mark.parametrize(
    ("number", "sabotage", "fault"),
    [
        (ORDINARY, lambda one: replace(one, creates=2), "DOUBLED"),
        (ORDINARY, lambda one: replace(one, creates=0, kk_order_ids=()), "LOST"),
        (ORDINARY, lambda one: NOTHING, "LOST"),
        (IN_DOUBT, lambda one: replace(one, ledger="in_doubt"), "the ledger says in_doubt"),
        (IN_DOUBT, lambda one: replace(one, warehouse=None), "the warehouse says None"),
        (IN_DOUBT, lambda one: replace(one, warehouse_ids=("7",)), "different ids"),
        (ORDINARY, lambda one: replace(one, goods={"FWXW00290_WHT_M": 9}), "other goods"),
        (ORDINARY, lambda one: replace(one, addresses=[{"country": "US"}]), "another address"),
        (REFUSED, lambda one: replace(one, creates=1, kk_order_ids=("7",)), "should not"),
        (REFUSED, lambda one: replace(one, ledger="held"), "the ledger says held"),
        (INVALID, lambda one: replace(one, warehouse="created"), "the warehouse says created"),
    ],
)
def test_any_order_that_ends_otherwise_makes_the_verdict_bad(
    orders: list[ShopOrder],
    seen: dict[str, Seen],
    number: str,
    sabotage: Callable[[Seen], Seen],
    fault: str,
):
    seen[number] = sabotage(seen[number])

    verdict = judge(orders, seen)

    assert [text for text in verdict.faults if text.startswith(number) and fault in text]
    assert len(verdict.faults) == 1


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"sent_again": 3}, "the second run sent 3 orders"),
        ({"failed_runs": ["airflow dags test: ended with 1"]}, "airflow dags test: ended with 1"),
    ],
)
def test_a_run_that_fails_or_resends_makes_the_verdict_bad(
    orders: list[ShopOrder], seen: dict[str, Seen], more: dict[str, Any], fault: str
):
    assert judge(orders, seen, **more).faults == [fault]


def test_an_unexpected_order_makes_the_verdict_bad(orders: list[ShopOrder], seen: dict[str, Seen]):
    seen["SO-1"] = Seen(creates=1, kk_order_ids=("7",))

    assert judge(orders, seen).faults == ["SO-1: KK has it, but the warehouse does not"]
