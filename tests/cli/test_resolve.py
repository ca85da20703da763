"""`kk ledger resolve` with KK's list: what is ordered once more, and ids that are another order's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_provider_kk.cli.main import main
from airflow_provider_kk.delivery.sql.storage import refund_ledger
from tests.cli.conftest import SKU, hold, record, refuse, state
from tests.cli.test_audit import SPLIT, post

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.model import Record
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.sandbox.server import SandboxServer


def order_again(*numbers: str) -> int:
    words = ["ledger", "resolve", *numbers, "--order-again", "--why", "lost parcel", "--who", "ann", "--yes"]
    return main(words)


def post_and_wait(ledger: SqlLedger, number: str, goods: dict[str, int] | None = None) -> Record:
    """Really send an order to KK, and let its settle window pass."""
    post(ledger, number, goods)
    row = ledger.look_up([number])[number]
    let_pass(ledger, row)
    return row


def let_pass(ledger: SqlLedger, row: Record) -> None:
    """Move the row's settle window into the past, as if the time had passed."""
    assert ledger.storage.transact(lambda tx: tx.change(row, {"settle_after": ledger.now() - 1.0}))


def at_kk(sandbox: SandboxServer, number: str) -> list[str]:
    return sorted(one["id"] for one in sandbox.control.orders(number))


def recover(ledger: SqlLedger) -> int:
    """Do what every sync does before it sends."""
    import logging

    from airflow_provider_kk.delivery.listing import KKOrderList
    from airflow_provider_kk.delivery.recover import recover as heal_ledger
    from airflow_provider_kk.hooks.kk import KKHook

    with KKHook().get_conn() as client:
        return heal_ledger(ledger, KKOrderList(client), logging.getLogger(__name__))


def reconcile(ledger: SqlLedger, number: str) -> None:
    """Do what every sync does with what is in doubt."""
    import logging

    from airflow_provider_kk.delivery.listing import KKOrderList
    from airflow_provider_kk.delivery.reconcile import AbsencePolicy, reconcile
    from airflow_provider_kk.hooks.kk import KKHook

    let_pass(ledger, ledger.look_up([number])[number])
    with KKHook().get_conn() as client:
        reconcile(
            ledger,
            KKOrderList(client),
            ledger.look_up([number]).values(),
            resendable={number},
            policy=AbsencePolicy(),
            sync_id="s",
            log=logging.getLogger(__name__),
        )


# Order again ---------------------------------------------------------------------------------------


def test_the_other_half_of_a_split_is_never_taken_for_an_order_made_again(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.control.set(answer="first")  # hides the further ids of a split
    first = post_and_wait(ledger, "A-1", SPLIT)
    there = at_kk(sandbox, "A-1")
    assert (len(first.kk_order_ids), len(there)) == (1, 2)

    assert order_again("A-1") == 0
    assert f"(generation 2), in addition to {', '.join(there)}" in capsys.readouterr().out
    assert sorted(ledger.generations("A-1")[0].kk_order_ids) == there

    assert recover(ledger) == 0
    assert state(ledger, "A-1") == "not_sent"
    assert post(ledger, "A-1", SPLIT) == "created"
    assert len(at_kk(sandbox, "A-1")) == 4


def test_several_numbers_are_ordered_again_after_one_reading_of_kks_list(
    ledger: SqlLedger, sandbox: SandboxServer
) -> None:
    numbers = ["A-1", "A-2", "A-3"]
    for number in numbers:
        post_and_wait(ledger, number)

    def reads() -> int:
        return sum(one["method"] == "GET" for one in sandbox.control.requests())

    before = reads()
    assert order_again("A-1") == 0
    once = reads() - before
    assert order_again("A-2", "A-3") == 0
    assert reads() - before == 2 * once
    assert [ledger.look_up([number])[number].generation for number in numbers] == [2, 2, 2]


def test_a_third_generation_leaves_the_orders_of_the_first_where_they_are(
    ledger: SqlLedger, sandbox: SandboxServer
) -> None:
    ids = []
    for _ in range(2):
        ids.append(post_and_wait(ledger, "A-1").kk_order_ids)
        assert order_again("A-1") == 0
    assert [one.kk_order_ids for one in ledger.generations("A-1")] == [*ids, ()]


def test_nothing_is_ordered_again_when_kks_list_cannot_be_read(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post_and_wait(ledger, "A-1")
    sandbox.control.arm("status_before_commit", method="GET")
    assert order_again("A-1") == 2
    error = capsys.readouterr().err
    assert "KK's list cannot be read" in error
    assert "Nothing changed" in error

    sandbox.control.disarm()
    sandbox.control.advance(5)  # KK tells its time in whole seconds
    sandbox.control.reset()  # as the token of another store
    assert order_again("A-1") == 2
    assert "Check that the access token belongs to this store" in capsys.readouterr().err
    assert [one.generation for one in ledger.generations("A-1")] == [1]


def test_order_again_skips_what_may_still_be_listed(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post_and_wait(ledger, "A-1")
    assert post(ledger, "A-2") == "created"
    assert order_again("A-1", "A-2") == 1
    assert "A-2: skipped, KK may still list A-2" in capsys.readouterr().err
    assert [len(ledger.generations(number)) for number in ("A-1", "A-2")] == [2, 1]


def test_a_rejected_order_that_kk_made_all_the_same_is_not_ordered_again(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse(ledger, "A-1")
    (kk_order,) = sandbox.control.place({SKU: 1}, number="A-1")
    assert order_again("A-1") == 1
    assert f"`kk ledger resolve A-1 --created {kk_order}`" in capsys.readouterr().err
    assert state(ledger, "A-1") == "rejected"

    sandbox.control.move(kk_order, "cancel")
    assert order_again("A-1") == 0
    assert ledger.generations("A-1")[0].kk_order_ids == (kk_order,)


def test_an_integer_that_may_be_another_orders_number_is_not_taken(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.control.set(integer_numbers=True)
    mine = post_and_wait(ledger, "007")
    sandbox.control.arm("drop_after_commit", times=1)
    post_and_wait(ledger, "7")  # in doubt: KK may list it as what 007 is listed as
    assert order_again("007") == 0
    assert ledger.generations("007")[0].kk_order_ids == mine.kk_order_ids


def test_a_number_that_kk_lists_as_an_integer_keeps_all_its_ids(
    ledger: SqlLedger, sandbox: SandboxServer
) -> None:
    sandbox.control.set(integer_numbers=True, answer="first")
    post_and_wait(ledger, "7", SPLIT)
    assert order_again("7") == 0
    there = at_kk(sandbox, "7")
    assert len(there) == 2
    assert sorted(ledger.generations("7")[0].kk_order_ids) == there


# Never created -------------------------------------------------------------------------------------


def never_created(*numbers: str) -> int:
    words = ["ledger", "resolve", *numbers, "--never-created", "--why", "not on the site", "--yes"]
    return main(words)


def test_an_order_that_kk_listed_late_was_not_never_created(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post_and_wait(ledger, "A-0")
    hold(ledger, "A-1")
    hold(ledger, "A-2")
    (late,) = sandbox.control.place({SKU: 1}, number="A-1", age_s=60)

    assert never_created("A-1", "A-2") == 1

    told = capsys.readouterr()
    assert f"A-1: skipped, KK lists {late} for it by now" in told.err
    assert f"`kk ledger resolve A-1 --created {late}`" in told.err
    assert "A-2: never created; the next sync that selects it sends it\n" in told.out
    assert (state(ledger, "A-1"), state(ledger, "A-2")) == ("held", "not_sent")


def test_several_numbers_are_resolved_by_one_reading_of_kks_list(
    ledger: SqlLedger, sandbox: SandboxServer
) -> None:
    post_and_wait(ledger, "A-0")
    for number in ("A-1", "A-2", "A-3"):
        hold(ledger, number)

    def reads() -> int:
        return sum(one["method"] == "GET" for one in sandbox.control.requests())

    before = reads()
    assert never_created("A-1") == 0
    once = reads() - before
    assert never_created("A-2", "A-3") == 0
    assert once > 0
    assert reads() - before == 2 * once


def test_listed_orders_count_though_no_sentinel_proves_the_list(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    hold(ledger, "A-1")  # the ledger knows no order of KK that the list would have to show
    hold(ledger, "A-2")
    sandbox.control.place({SKU: 1}, number="A-1")

    assert never_created("A-1", "A-2") == 1

    assert "A-2: never created; the next sync that selects it sends it. KK's list could " in (
        capsys.readouterr().out
    )
    assert (state(ledger, "A-1"), state(ledger, "A-2")) == ("held", "not_sent")


@pytest.mark.parametrize("resolution", [["--never-created"], ["--created", "1"]])
def test_nothing_is_resolved_while_kk_is_unreachable(
    ledger: SqlLedger,
    sandbox: SandboxServer,
    resolution: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    hold(ledger, "A-1")
    sandbox.control.arm("status_before_commit", method="GET")
    assert main(["ledger", "resolve", "A-1", *resolution, "--why", "x"]) == 2
    assert "Nothing changed. Try again when KK answers" in capsys.readouterr().err
    assert state(ledger, "A-1") == "held"


def test_a_refund_that_kk_lists_by_now_was_not_never_created(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow_provider_kk.hooks.kk import KKHook

    (kk_order,) = sandbox.control.place({SKU: 1}, number="A-1", age_s=60)
    key = f"{kk_order}-whole"
    hold(refund_ledger(ledger), key)
    refund_no = KKHook().refund_order(kk_order, f"[{key}] lost parcel")

    assert never_created("--refunds", key) == 1

    assert f"`kk ledger resolve --refunds {key} --created {refund_no}`" in capsys.readouterr().err
    assert state(refund_ledger(ledger), key) == "held"


def test_another_orders_id_that_kk_listed_late_can_be_named(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.control.set(integer_numbers=True)
    hold(ledger, "007")
    (other,) = sandbox.control.place({SKU: 5}, number="7")  # KK lists it as 007 might be listed
    assert never_created("007") == 1
    assert f"--never-created --not-mine {other}" in capsys.readouterr().err
    words = ["ledger", "resolve", "007", "--never-created", "--why", "that is number 7"]
    assert main([*words, "--not-mine", other]) == 0
    assert state(ledger, "007") == "not_sent"


# Another order's ids -------------------------------------------------------------------------------


@pytest.fixture
def taken_for_mine(ledger: SqlLedger, sandbox: SandboxServer) -> str:
    """The id of somebody's order 7, which KK lists as 007 might be listed, so that 007 is held."""
    sandbox.control.set(integer_numbers=True)
    (kk_order,) = sandbox.control.place({SKU: 5}, number="7")
    sandbox.control.arm("drop_before_commit", times=1)
    assert post(ledger, "007") == "in_doubt"
    reconcile(ledger, "007")
    row = ledger.look_up(["007"])["007"]
    assert (row.state.value, row.kk_order_ids) == ("held", (kk_order,))
    return kk_order


def test_an_order_held_for_another_orders_ids_is_resolved_by_naming_them(
    ledger: SqlLedger, sandbox: SandboxServer, taken_for_mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ledger", "resolve", "007", "--never-created", "--why", "that is number 7"]
    assert main(words) == 1
    assert "--never-created --not-mine" in capsys.readouterr().err
    assert state(ledger, "007") == "held"

    assert main([*words, "--not-mine", taken_for_mine]) == 0
    row = ledger.look_up(["007"])["007"]
    assert (row.state.value, row.kk_order_ids) == ("not_sent", ())
    assert post(ledger, "007") == "created"
    assert len(at_kk(sandbox, "007")) == 1


def test_the_resolve_command_is_shown_with_the_ids(
    ledger: SqlLedger, taken_for_mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ledger", "show", "007"]) == 0
    shown = capsys.readouterr().out
    assert f"kk ledger resolve 007 --never-created --not-mine {taken_for_mine} --why" in shown


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["007", "--never-created", "--not-mine", "999"], "the kkOrderIds of 007 in the ledger are {}"),
        (["007", "--never-created", "--not-mine", ","], "--not-mine needs --never-created, and at least one"),
        (["007", "A-1", "--never-created", "--not-mine", "{}"], "the ids belong to one order"),
        (["007", "--order-again", "--not-mine", "{}"], "--not-mine needs --never-created"),
        (["007", "--created", "{}", "--not-mine", "{}"], "--not-mine needs --never-created"),
    ],
)
def test_ids_that_are_not_the_rows_resolve_nothing(
    ledger: SqlLedger,
    taken_for_mine: str,
    words: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    record(ledger, "A-1", "unknown", message="reset")
    words = [word.format(taken_for_mine) for word in words]
    assert main(["ledger", "resolve", *words, "--why", "x", "--yes"]) == 1
    assert told.format(taken_for_mine) in capsys.readouterr().err
    assert state(ledger, "007") == "held"


def test_the_same_number_for_another_country_is_kept_apart_as_a_generation(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    post_and_wait(ledger, "A-0")
    (other,) = sandbox.control.place({SKU: 1}, number="A-1", country="DE")
    sandbox.control.arm("drop_before_commit", times=1)
    post(ledger, "A-1")
    reconcile(ledger, "A-1")
    assert state(ledger, "A-1") == "held"
    words = ["ledger", "resolve", "A-1", "--why", "by hand, for another customer"]

    assert main([*words, "--never-created", "--not-mine", other]) == 1  # the next sync would adopt it
    assert f"--created {other}`, then the same with --order-again" in capsys.readouterr().err

    assert main([*words, "--created", other]) == 0
    let_pass(ledger, ledger.look_up(["A-1"])["A-1"])
    assert order_again("A-1") == 0
    assert recover(ledger) == 0
    assert post(ledger, "A-1") == "created"
    assert sorted(one["address"]["country"] for one in sandbox.control.orders("A-1")) == ["DE", "FR"]


def test_an_integer_that_a_sync_would_adopt_resolves_nothing(
    ledger: SqlLedger, sandbox: SandboxServer, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.control.set(integer_numbers=True)
    (other,) = sandbox.control.place({SKU: 5}, number="7")  # may be the integer of a 007 elsewhere
    sandbox.control.arm("drop_before_commit", times=1)
    post(ledger, "7")
    reconcile(ledger, "7")
    assert ledger.look_up(["7"])["7"].kk_order_ids == (other,)
    words = ["ledger", "resolve", "7", "--never-created", "--not-mine", other, "--why", "that is 007"]
    assert main(words) == 1
    assert "so a sync may adopt it for this order" in capsys.readouterr().err
    assert state(ledger, "7") == "held"


def test_each_id_of_the_row_must_be_named(
    ledger: SqlLedger, taken_for_mine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from airflow_provider_kk.delivery.states import Event

    ledger.hold(ledger.look_up(["007"])["007"], Event.CONFLICT, "and one more", ["8"])
    words = ["ledger", "resolve", "007", "--never-created", "--why", "x", "--not-mine", taken_for_mine]
    assert main(words) == 1
    assert "KK has 8 under 007" in capsys.readouterr().err
    assert main([*words[:-1], f"{taken_for_mine},8"]) == 0
