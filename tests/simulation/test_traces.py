"""Conformance: the traces of real code follow its table of transitions, and a tampered trace is rejected."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_kk.delivery.states import TRANSITIONS, State
from tests.simulation.traces import Step, rejected_jump, rejected_step
from tests.simulation.world import World

SENDING, CREATED, IN_DOUBT = State.SENDING, State.CREATED, State.IN_DOUBT

TAMPERED: dict[str, list[Step]] = {
    "sent without an intent": [(CREATED, 1)],
    "an intent that counts no attempt": [(SENDING, 0), (CREATED, 0)],
    "two attempts at once": [(SENDING, 2), (CREATED, 2)],
    "an attempt without an intent": [(SENDING, 1), (IN_DOUBT, 1), (CREATED, 2)],
    "an attempt is forgotten": [(SENDING, 1), (IN_DOUBT, 1), (SENDING, 2), (IN_DOUBT, 1)],
    "sent again after it was created": [(SENDING, 1), (CREATED, 1), (SENDING, 2)],
    "sent again while held": [(SENDING, 1), (State.HELD, 1), (SENDING, 2)],
    "not sent after it was created": [(SENDING, 1), (CREATED, 1), (State.NOT_SENT, 1)],
    "in doubt without an attempt": [(IN_DOUBT, 0)],
    "a first generation that begins as not sent": [(State.NOT_SENT, 0)],
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_trace_is_rejected(name: str) -> None:
    assert rejected_step(1, TAMPERED[name])


def test_second_generation_begins_as_not_sent() -> None:
    trace = [(State.NOT_SENT, 0), (SENDING, 1), (CREATED, 1)]
    assert not rejected_step(2, trace)
    assert rejected_step(1, trace)


#: What a fault of the code could do to a trace; each gives back None where the trace has no such place.
_TAMPERINGS: dict[str, Callable[[list[Step]], list[Step] | None]] = {
    "the last intent is left out": lambda trace: _without(trace, _last(trace, SENDING)),
    "an attempt more": lambda trace: [*trace[:-1], (trace[-1][0], trace[-1][1] + 1)],
    "sent again at the end": lambda trace: (
        [*trace, (SENDING, trace[-1][1] + 1)] if trace[-1][0] is CREATED else None
    ),
}


@pytest.mark.parametrize("name", _TAMPERINGS)
def test_tampered_trace_of_a_simulated_world_is_rejected(name: str) -> None:
    traces: dict[tuple[Step, ...], int] = {}
    for seed in range(40):
        world = World(seed)
        world.run()
        traces |= {tuple(t): generation for (_, generation), t in world.database.tables.traces.items()}
    assert len(traces) > 20
    tampered = [
        (generation, trace, changed)
        for trace, generation in traces.items()
        if (changed := _TAMPERINGS[name](list(trace)))
    ]
    assert tampered
    for generation, trace, changed in tampered:
        assert not rejected_step(generation, trace)
        assert rejected_step(generation, changed), changed


def test_simulation_judges_by_the_transitions_that_the_code_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world whose ledger takes a step that the table lacks breaks a promise: here, the table lacks one."""
    from tests.simulation import traces
    from tests.simulation.world import Broken

    step = (SENDING, CREATED, 0)
    assert step in {(before, after, 0) for (before, _), after in TRANSITIONS.items()}
    monkeypatch.setattr(traces, "_STEPS", traces._STEPS - {step})
    traces._rejected_step.cache_clear()
    try:
        with pytest.raises(Broken, match="is rejected: step 2, sending to created"):
            World(0).run()
    finally:
        traces._rejected_step.cache_clear()


#: What is seen of a row after each crash, with changes between that nobody saw.
LOOKS: dict[str, list[Step]] = {
    "killed while it was sent, then adopted": [(SENDING, 1), (CREATED, 1)],
    "all in one": [(CREATED, 3)],
    "two more attempts": [(IN_DOUBT, 1), (SENDING, 3), (State.HELD, 3)],
    "held, then found": [(State.HELD, 2), (CREATED, 2)],
}
TAMPERED_LOOKS: dict[str, list[Step]] = {
    "an attempt is forgotten": [(SENDING, 2), (IN_DOUBT, 1)],
    "sent again after it was created": [(CREATED, 1), (SENDING, 2)],
    "created again after it was created": [(CREATED, 1), (CREATED, 2)],
    "sent again while held": [(State.HELD, 2), (IN_DOUBT, 3)],
    "in doubt without an attempt": [(IN_DOUBT, 0)],
    "not sent after it was in doubt": [(IN_DOUBT, 1), (State.NOT_SENT, 1)],
}


@pytest.mark.parametrize("name", LOOKS)
def test_looks_at_a_row_after_crashes_are_allowed(name: str) -> None:
    assert not rejected_jump(LOOKS[name])


@pytest.mark.parametrize("name", TAMPERED_LOOKS)
def test_tampered_looks_at_a_row_are_rejected(name: str) -> None:
    assert rejected_jump(TAMPERED_LOOKS[name])


def _last(trace: list[Step], state: State) -> int:
    """Return where an intent of that state was written last; -1 where it never was."""
    places = [n for n, (now, attempts) in enumerate(trace) if now is state and attempts > _before(trace, n)]
    return max(places, default=-1)


def _before(trace: list[Step], place: int) -> int:
    return trace[place - 1][1] if place else 0


def _without(trace: list[Step], place: int) -> list[Step] | None:
    return None if place in (-1, len(trace) - 1) else trace[:place] + trace[place + 1 :]
