"""What is checked of the model of delivery, and which mutants of the simulation it can express."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: The model's own constants. Times are in units: of 30 seconds where LEASE is 4 and WINDOW is 20.
BOUNDS = {"ORDERS": 1, "WORKERS": 2, "CALL": 1, "LEASE": 2, "WINDOW": 3, "SKEW": 2, "CAP": 0}


@dataclass(frozen=True)
class Check:
    """One search of all states of the model, within bounds."""

    name: str
    bounds: Mapping[str, int] = field(default_factory=dict)
    """Those of `BOUNDS` that differ."""
    switches: tuple[str, ...] = ()

    @property
    def is_liveness(self) -> bool:
        return "TROUBLE" in self.bounds

    @property
    def all_bounds(self) -> str:
        """All constants, as they are printed."""
        return ", ".join(f"{name}={at}" for name, at in {**BOUNDS, **self.bounds}.items())

    @property
    def defines(self) -> list[str]:
        return [f"-D{name}" for name in self.switches] + [
            f"-D{name}={at}" for name, at in self.bounds.items()
        ]


@dataclass(frozen=True)
class Mutant:
    """A safeguard that the model can do without, by the name that the simulation gives it."""

    name: str
    switch: str
    bounds: Mapping[str, int] = field(default_factory=dict)
    switches: tuple[str, ...] = ()

    @property
    def check(self) -> Check:
        bounds = {"WINDOW": 2, "SKEW": 0, **self.bounds}
        return Check(self.name, bounds, (f"MUTANT_{self.switch}", *self.switches))


_ALL = ("WITH_PAUSE", "WITH_PERSON", "WITH_RESTORE")

#: The smallest bounds, for a test.
QUICK = Check("one order, smallest bounds", {"WINDOW": 2, "SKEW": 0}, ("WITH_PAUSE",))

CHECKS = (
    Check("one order, a clock off by more than a settle delay", {"SKEW": 7}, _ALL),
    Check("one order, the real ratio of 30, 120 and 600 s", {"LEASE": 4, "WINDOW": 20, "SKEW": 0}, _ALL),
    Check("one order, three workers", {"WORKERS": 3, "SKEW": 0}, _ALL),
    Check("two orders, a cap of one", {"ORDERS": 2, "CAP": 1, "SKEW": 0}, ("WITH_PAUSE",)),
    Check("one order, a cap of two POSTs", {"CAP": 2, "SKEW": 0}, ("WITH_PAUSE", "WITH_PERSON")),
    Check("in the end created once, or held", {"TROUBLE": 2}, ("WITH_PAUSE",)),
)

_CLOCK = {"SKEW": 2}
_CAP = {"ORDERS": 2, "CAP": 1, "WINDOW": 3}

MUTANTS = (
    Mutant("no compare-and-set", "NO_COMPARE_AND_SET"),
    Mutant("compare-and-set on the state alone", "COMPARE_STATE_ONLY"),
    Mutant("no lease", "NO_LEASE"),
    Mutant("no deadline before the send", "NO_LEASE_CHECK"),
    Mutant("no settle window", "NO_SETTLE_WINDOW"),
    Mutant("settle time anchored at the intent", "SETTLE_FROM_INTENT"),
    Mutant("submit, then persist", "SUBMIT_THEN_PERSIST"),
    Mutant("search before create, no ledger", "OWN_LEDGER"),
    Mutant("no recover first", "NO_RECOVER", switches=("WITH_RESTORE",)),
    Mutant("recover without a sentinel order", "RECOVER_WITHOUT_SENTINEL", switches=("WITH_RESTORE",)),
    Mutant("absence without a sentinel order", "ABSENT_WITHOUT_SENTINEL"),
    Mutant("a rejected order is not reconciled", "REJECTED_NOT_RECONCILED"),
    Mutant("an answer counts for any attempt", "ANSWER_FOR_ANY_ATTEMPT"),
    Mutant("a part is taken for the whole", "PART_IS_WHOLE"),
    Mutant("after a 429 the first worker goes on", "RATE_LIMITED_GOES_ON"),
    Mutant("a resolution as never created is not checked", "PERSON_NEED_NOT_WAIT", switches=("WITH_PERSON",)),
    Mutant("an unanswered POST is repeated", "POST_REPEATED"),
    Mutant("only the database's clock counts", "READ_BY_DATABASE", _CLOCK),
    Mutant("reconciled by the database's clock alone", "STAMP_BY_DATABASE", _CLOCK),
    Mutant("a wait that is too long is over at once", "LONG_WAIT_IS_OVER", _CLOCK),
    Mutant("a wait may be as long as a clock was ahead", "LONG_WAITS_STAY", _CLOCK),
    Mutant("an unknown outcome gets no settle window of its own", "NO_WINDOW_OF_ITS_OWN"),
    # Steps that need KK's clock, since the machine's may be the database's, too.
    Mutant("a resolution does not know KK's clock", "PERSON_WITHOUT_KK", _CLOCK, ("WITH_PERSON",)),
    Mutant("an intent does not know KK's clock", "INTENT_WITHOUT_KK", _CLOCK),
    Mutant("an answer does not know KK's clock", "ANSWER_WITHOUT_KK", _CLOCK),
    # Of the pause, the cap and the liveness check, which are the model's own.
    Mutant("a pause is asked for at a sync's start only", "PAUSE_AT_START", switches=("WITH_PAUSE",)),
    Mutant("the cap is read before the claim's transaction", "CAP_BEFORE_CLAIM", _CAP),
    Mutant("a reservation is returned twice", "CAP_RETURNED_TWICE", _CAP),
    Mutant("a reservation in doubt is returned", "CAP_RETURNED_IN_DOUBT", _CAP),
    Mutant("an order in doubt is never reconciled", "NEVER_RECONCILED", {"TROUBLE": 1}),
)

_NO_DATES = "the model has no creation dates: a list shows all that KK has listed"
_NO_PAGES = "the model reads a list in one step: no pages, no slices, no rows that shift"
_NO_NUMBERS = "the model knows an order by its index: KK cannot lose or change its number"
_NOT_ALONE = "within the model nothing changes a version without the state or the attempt"

#: Mutants of the simulation that the model cannot express, and why.
INEXPRESSIBLE = {
    "compare-and-set without the version": _NOT_ALONE,
    "late answers are dropped": "within KK's window, a late answer says only what its list has shown before",
    "list from after the attempt": _NO_DATES,
    "looked for from the database's clock alone": _NO_DATES,
    "sentinel orders are searched when they were recorded": _NO_DATES,
    "KK's list is read up to now only": _NO_DATES,
    "first page only": _NO_PAGES,
    "a short page ends the list": _NO_PAGES,
    "pages believed while rows shift": _NO_PAGES,
    "what a list hid is not read again": _NO_PAGES,
    "an integer is another number": _NO_NUMBERS,
    "an integer is nobody else's": _NO_NUMBERS,
    "zeros before a number are not thought of": _NO_NUMBERS,
    "any number may have been an integer": _NO_NUMBERS,
    "orders without a number are ignored": _NO_NUMBERS,
    "an unknown answer to a lost intent is dropped": "the model's ledger keeps what it has committed",
    "generations are not distinguished": "the model has one generation: nobody orders a number again",
}
