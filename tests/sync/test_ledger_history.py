"""The ledger's history against the rules of the protocol: a tampered row is named, an honest one is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_kk.delivery.model import BLANK, Attempt, Content, Record
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.sync.ledger_history import Rule, broken_rules, over_cap

SETTLE_DELAY_S = 750.0
CONTENT = Content("1:x", {"SKU": 1}, "FR")


def attempt(number: int, at: float, outcome: str = "created", **values: Any) -> Attempt:
    plain = Attempt(
        key="A-1",
        generation=1,
        attempt=number,
        version=f"v{number}",
        content=CONTENT,
        intent_at=at,
        settle_after=at + SETTLE_DELAY_S,
        token_fingerprint="",
        outcome=outcome,
        code=None,
        message="",
        kk_order_ids=(f"id{number}",) if outcome == "created" else (),
        recorded_at=at + 2 if outcome else 0.0,
        dag_id="",
        run_id="",
        task_id="",
        try_number=1,
    )
    return replace(plain, **values)


def record(state: State, attempts: int, **values: Any) -> Record:
    ids = ("id1",) if state is State.CREATED else ()
    fields = {**BLANK, "key": "A-1", "generation": 1, "state": state, "attempt": attempts, "version": "w"}
    return Record(**{**fields, "kk_order_ids": ids, "content": CONTENT, "updated_at": 9e9, **values})


HONEST: dict[str, tuple[list[Record], list[Attempt]]] = {
    "created": ([record(State.CREATED, 1)], [attempt(1, 1e6)]),
    "adopted after an unknown outcome": ([record(State.CREATED, 1)], [attempt(1, 1e6, "unknown")]),
    "found at KK": ([record(State.CREATED, 0)], []),
    "resent after its settle window": (
        [record(State.CREATED, 2)],
        [attempt(1, 1e6, ""), attempt(2, 1e6 + SETTLE_DELAY_S)],
    ),
    "retried after it was not sent": (
        [record(State.CREATED, 2)],
        [attempt(1, 1e6, "not_sent"), attempt(2, 1e6 + 3)],
    ),
    "a late answer beside a rejection": (
        [record(State.CREATED, 2)],
        [attempt(1, 1e6, "created", recorded_at=2e6), attempt(2, 1e6 + SETTLE_DELAY_S, "rejected")],
    ),
    "never created, says a person": (
        [record(State.NOT_SENT, 1, resolved_by="ann: gone")],
        [attempt(1, 1e6, "")],
    ),
    "ordered again by a person": (
        [
            record(State.CREATED, 1),
            record(State.NOT_SENT, 0, generation=2, resolved_by="ann: lost parcel"),
        ],
        [attempt(1, 1e6)],
    ),
}


@pytest.mark.parametrize("name", HONEST)
def test_honest_history_breaks_no_rule(name: str) -> None:
    assert broken_rules(*HONEST[name], settle_delay_s=SETTLE_DELAY_S) == []


def _rows(name: str) -> tuple[Record, list[Attempt]]:
    generations, attempts = HONEST[name]
    return generations[0], list(attempts)


TAMPERED: dict[str, tuple[Rule, list[Record], list[Attempt]]] = {
    "an attempt is deleted": (Rule.ATTEMPTS, [record(State.CREATED, 2)], [attempt(2, 1e6)]),
    "a row is deleted": (Rule.ATTEMPTS, [], [attempt(1, 1e6)]),
    "an intent of another worker": (
        Rule.ATTEMPTS,
        [record(State.SENDING, 1, version="other")],
        [attempt(1, 1e6, "")],
    ),
    "an unknown word": (Rule.OUTCOME, [record(State.CREATED, 1)], [attempt(1, 1e6, "perhaps")]),
    "an answer before its intent": (
        Rule.OUTCOME,
        [record(State.CREATED, 1)],
        [attempt(1, 1e6, recorded_at=9e5)],
    ),
    "ids without a created order": (
        Rule.OUTCOME,
        [record(State.REJECTED, 1)],
        [attempt(1, 1e6, "rejected", kk_order_ids=("id1",))],
    ),
    "two orders": (
        Rule.ONE_ORDER,
        [record(State.CREATED, 2)],
        [attempt(1, 1e6), attempt(2, 1e6 + SETTLE_DELAY_S)],
    ),
    "a resend inside the settle window": (
        Rule.ONE_ATTEMPT,
        [record(State.CREATED, 2)],
        [attempt(1, 1e6, "unknown"), attempt(2, 1e6 + 60)],
    ),
    "two attempts at once": (
        Rule.ONE_ATTEMPT,
        [record(State.CREATED, 2)],
        [attempt(1, 1e6, "not_sent", recorded_at=1e6 + 90), attempt(2, 1e6 + 60)],
    ),
    "rejected after it was created": (Rule.TRANSITION, [record(State.REJECTED, 1)], [attempt(1, 1e6)]),
    "not sent without a person's word": (Rule.TRANSITION, [record(State.NOT_SENT, 1)], [attempt(1, 1e6, "")]),
    "created without an id": (
        Rule.TRANSITION,
        [record(State.CREATED, 1, kk_order_ids=())],
        [attempt(1, 1e6)],
    ),
    "a generation over one in doubt": (
        Rule.GENERATION,
        [record(State.IN_DOUBT, 1), record(State.NOT_SENT, 0, generation=2, resolved_by="ann: again")],
        [attempt(1, 1e6, "unknown")],
    ),
    "a generation that nobody asked for": (
        Rule.GENERATION,
        [record(State.CREATED, 1), record(State.NOT_SENT, 0, generation=2)],
        [attempt(1, 1e6)],
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_history_breaks_the_rule(name: str) -> None:
    rule, generations, attempts = TAMPERED[name]
    found = broken_rules(generations, attempts, settle_delay_s=SETTLE_DELAY_S)
    assert rule in {one.rule for one in found}


@pytest.mark.parametrize(
    ("change", "exceeds"),
    [
        (lambda attempts: attempts, True),
        (lambda attempts: attempts[1:], False),
        (lambda attempts: [replace(attempts[0], outcome="not_sent"), *attempts[1:]], False),
        (lambda attempts: [replace(attempts[0], intent_at=0.0), *attempts[1:]], False),
    ],
    ids=["one too many", "as many as allowed", "one was not sent", "one is of another day"],
)
def test_cap_of_a_sliding_day(change: Callable[[list[Attempt]], list[Attempt]], exceeds: bool) -> None:
    attempts = change([attempt(1, 1e6 + 30_000 * number, key=f"A-{number}") for number in range(3)])
    assert bool(list(over_cap(attempts, 2))) is exceeds
