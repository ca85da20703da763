"""The safeguards of delivery, each switched off in turn: a simulation that does not notice is worth nothing.

A mutant patches one safeguard of the delivery code, or of what stands in for it in a simulation, and worlds
are run until one of them breaks a promise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from airflow_provider_kk.delivery import (
    attempt,
    dispatcher,
    listing,
    reconcile,
    recover,
    resolution,
)
from airflow_provider_kk.delivery.attempt import Lease
from airflow_provider_kk.delivery.dispatcher import Dispatcher
from airflow_provider_kk.delivery.ledger import AnyLedger, Ledger
from airflow_provider_kk.delivery.listing import KKOrderList
from airflow_provider_kk.delivery.model import Claim, Job, ListedOrder, Record
from airflow_provider_kk.delivery.states import Action, State, next_action
from tests.simulation.fakes import NoThrottle
from tests.simulation.kk import WINDOW_S
from tests.simulation.memory import MemoryTransaction, Tables
from tests.simulation.quick import forget_world
from tests.simulation.world import HEAL_A_NEW_ACCOUNT_S, Broken, World


@dataclass(frozen=True)
class Mutant:
    """A safeguard that is off."""

    name: str
    off: Callable[[], AbstractContextManager[Any]]
    is_rare: bool = False
    """It takes a rare meeting to notice: thousands of worlds."""


@dataclass(frozen=True)
class Caught:
    """How a mutant was found."""

    name: str
    worlds: int
    orders: int
    promise: str
    """Which was broken; empty when no world noticed."""


def hunt(mutant: Mutant, *, first_seed: int = 0, worlds: int = 60_000) -> Caught:
    """Run worlds with a safeguard off, until one breaks a promise."""
    orders_run = 0
    with mutant.off():
        for number in range(worlds):
            world = World(first_seed + number)
            orders_run += len(world.orders)
            try:
                world.run()
            except Broken as broken:
                return Caught(mutant.name, number + 1, orders_run, str(broken))
            forget_world()
    return Caught(mutant.name, worlds, orders_run, "")


# What is off ---------------------------------------------------------------------------------------


def _change_always(tx: MemoryTransaction, expected: Record, values: Mapping[str, Any]) -> Record | None:
    now = tx.read(expected.key, expected.generation)
    return None if now is None else tx.overwrite(now, values)


def _add_over(tx: MemoryTransaction, key: str, generation: int, values: Mapping[str, Any]) -> Record:
    entry = Record(key=key, generation=generation, **values)
    tx._tables.put(entry)
    return entry


def _change_if(*names: str) -> Callable[..., Record | None]:
    def change(tx: MemoryTransaction, expected: Record, values: Mapping[str, Any]) -> Record | None:
        now = tx.read(expected.key, expected.generation)
        if now is None or any(getattr(now, name) != getattr(expected, name) for name in names):
            return None
        return tx.overwrite(now, values)

    return change


def _no_compare_and_set() -> AbstractContextManager[Any]:
    return _all(
        patch.object(MemoryTransaction, "change", _change_always),
        patch.object(MemoryTransaction, "add", _add_over),
    )


def _all(*patches: AbstractContextManager[Any]) -> AbstractContextManager[Any]:
    stack = ExitStack()
    for one in patches:
        stack.enter_context(one)
    return stack


def _no_lease() -> AbstractContextManager[Any]:
    """Who finds an order that somebody is sending takes it over at once."""
    take = Dispatcher._dispatch

    def takes_over(self: Dispatcher, item: Any, entry: Record | None) -> None:
        if entry is not None and entry.state is State.SENDING:
            self._send(item, entry)
        else:
            take(self, item, entry)

    return patch.object(Dispatcher, "_dispatch", takes_over)


def _submit_then_persist() -> AbstractContextManager[Any]:
    """The POST comes first, and the ledger hears of it afterwards."""

    def delivers(
        job: Job, expected: Record | None, ledger: AnyLedger, **options: Any
    ) -> tuple[Record, Any] | None:
        answer, error = attempt._post(Claim(job, 1, 1, ""), Lease(ledger))
        claim = ledger.claim(job, expected, **options)
        if claim is None:
            return None
        return ledger.record(claim, answer), error

    return patch.object(dispatcher, "attempt", delivers)


def _search_before_create() -> AbstractContextManager[Any]:
    """Each try has a ledger of its own, and looks the numbers up in KK's list first."""
    start = World._start

    def starts(self: World, run_id: str, number: int, tries: int) -> None:
        self.database.tables = Tables(self.hub.now - HEAL_A_NEW_ACCOUNT_S)
        start(self, run_id, number, tries)

    return patch.object(World, "_start", starts)


def _settles_after(seconds: Callable[[Any], float]) -> AbstractContextManager[Any]:
    return patch.object(Ledger, "settle_delay_s", property(lambda self: seconds(self.timing)))


def _no_settle_window() -> AbstractContextManager[Any]:
    return _all(
        _settles_after(lambda timing: timing.lease_s + timing.timeout_s),
        patch.object(Ledger, "_a_window_from_now", lambda self, tx, entry, skew: entry.settle_after),
    )


def _lists_from(margin_s: float) -> AbstractContextManager[Any]:
    return patch.object(listing, "_MARGIN_S", margin_s)


def _first_page_only() -> AbstractContextManager[Any]:
    def reads(self: KKOrderList, start: int, end: int) -> list[Any]:
        page = self._client.list_orders(
            created_from=listing.datetime.fromtimestamp(start, listing.UTC),
            created_to=listing.datetime.fromtimestamp(end, listing.UTC),
            page_number=1,
            page_size=250,
        )
        return page.orders

    return patch.object(KKOrderList, "_read_slice", reads)


def _pages_up_to(ends: Callable[[list[Any]], bool]) -> AbstractContextManager[Any]:
    """All pages are read and believed, whatever happens between them."""

    def reads(self: KKOrderList, start: int, end: int) -> list[Any]:
        expected: dict[str, Any] = {}
        for number in range(1, 200):
            page = self._client.list_orders(
                created_from=listing.datetime.fromtimestamp(start, listing.UTC),
                created_to=listing.datetime.fromtimestamp(end, listing.UTC),
                page_number=number,
                page_size=250,
            )
            expected.update((row.id, row) for row in page.orders)
            if ends(page.orders):
                break
        return list(expected.values())

    return patch.object(KKOrderList, "_read_slice", reads)


def _always_in_control() -> AbstractContextManager[Any]:
    return patch.object(
        listing.Listing,
        "shows_sentinel",
        property(lambda self: True, lambda self, value: None),
        create=True,
    )


def _reads_from_what_is_known() -> AbstractContextManager[Any]:
    """A list that shows at last what is known is believed for all that came before, too."""
    known_since = listing.known_since

    def known_only(known: Any, ledger: AnyLedger, order_list: Any, since: float) -> Any:
        return known_since(known, ledger, order_list, float("inf"))

    return _all(*(patch.object(module, "known_since", known_only) for module in (recover, listing)))


def _recovers_without_sentinel() -> AbstractContextManager[Any]:
    return patch.object(recover._Recovery, "is_proven_by_more", lambda self, order_list, since, until: True)


def _no_reconcile_before_a_rejected_order() -> AbstractContextManager[Any]:
    take = Dispatcher._dispatch

    def asks_again(self: Dispatcher, item: Any, entry: Record | None) -> None:
        is_due = next_action(item, entry, self.ledger.now) is Action.RECONCILE_FIRST
        if entry is not None and entry.state is State.REJECTED and is_due:
            self._send(item, entry)
        else:
            take(self, item, entry)

    return patch.object(Dispatcher, "_dispatch", asks_again)


def _late_answers_are_dropped() -> AbstractContextManager[Any]:
    return patch.object(Ledger, "_late_answer", lambda self, tx, entry, claim, answer: {})


def _any_part_is_the_whole() -> AbstractContextManager[Any]:
    def adopts(entry: Record, attempts: Sequence[Any], found: Sequence[ListedOrder], *_rest: Any) -> Any:
        ids = tuple(sorted(one.id for one in found))
        return reconcile._Decision(reconcile._Kind.ADOPT, ids=ids, attempt=attempts[0])

    return patch.object(reconcile, "_decide_found", adopts)


def _integers_are_other_numbers() -> AbstractContextManager[Any]:
    return patch.object(ListedOrder, "is_of", lambda self, key: self.key == key)


def _rate_limited_are_always_free() -> AbstractContextManager[Any]:
    """After a 429 the order is sent again, whoever has it by then."""
    deliver_one = dispatcher.attempt

    def forgets(job: Job, expected: Record | None, ledger: AnyLedger, **options: Any) -> Any:
        delivered = deliver_one(job, expected, ledger, **options)
        if delivered is not None and isinstance(delivered[1], dispatcher.KKRateLimitedError):
            return replace(delivered[0], state=State.NOT_SENT), delivered[1]
        return delivered

    return _all(
        patch.object(dispatcher, "attempt", forgets),
        patch.object(MemoryTransaction, "change", _change_if("version")),
    )


def _humans_need_not_wait() -> AbstractContextManager[Any]:
    return patch.object(resolution, "require_window_over", lambda ledger, expected: None)


def _posts_twice() -> AbstractContextManager[Any]:
    """A transport that repeats what was not answered."""
    post = attempt._post

    def repeats(claim: Claim, lease: Lease) -> Any:
        answer, error = post(claim, lease)
        return (
            post(claim, lease) if error is not None and error.outcome.value == "unknown" else (answer, error)
        )

    return patch.object(attempt, "_post", repeats)


def _trusts_the_databases_clock() -> AbstractContextManager[Any]:
    def now(ledger: AnyLedger, order_list: Any) -> float:
        return ledger.now()

    return _all(*(patch.object(module, "trusted_now", now) for module in (listing, reconcile, dispatcher)))


def _shortens_to_now() -> AbstractContextManager[Any]:
    """A wait that a clock has made too long is over at once."""

    def shortens(self: AnyLedger, expected: Record, kk_skew_s: float) -> Record | None:
        if not self.waits_too_long(expected, kk_skew_s):
            return None
        return self.storage.transact(
            lambda tx: tx.change(
                expected, self.stamped(tx, {"settle_after": self._earliest_now(tx, kk_skew_s)})
            )
        )

    return patch.object(Ledger, "shorten_waits", shortens)


def _own_answer_for_anyone() -> AbstractContextManager[Any]:
    """An answer is taken for the row's, whichever attempt it belongs to."""

    def records(self: AnyLedger, tx: Any, claim: Claim, answer: Any) -> tuple[Record, bool]:
        entry = tx.lock(claim.job.key, claim.generation)
        if entry is None or entry.state is not State.SENDING:
            return plain(self, tx, claim, answer)
        tx.answer_attempt(claim, {"outcome": answer.event.value, "kk_order_ids": answer.kk_order_ids})
        own = self.stamped(tx, self._own_answer(tx, entry, answer, claim.kk_skew_s))
        return tx.overwrite(entry, own), True

    plain = Ledger._record
    return patch.object(Ledger, "_record", records)


def _lost_intents_were_not_sent() -> AbstractContextManager[Any]:
    """An unknown answer whose intent a failover has lost leaves its row as one that was never sent."""
    forgotten = Ledger._forgotten

    def values(self: AnyLedger, tx: Any, claim: Claim, answer: Any) -> Any:
        found = forgotten(self, tx, claim, answer)
        return found if found["state"] is State.CREATED else {**found, "state": State.NOT_SENT}

    return _all(
        patch.object(Ledger, "_forgotten", values),
        patch.object(Ledger, "_forgotten_doubt", lambda *_args: None),
    )


def _cap_ignores_what_is_in_flight() -> AbstractContextManager[Any]:
    """Only what is known to be created counts, so that attempts under way take no share of the day."""

    def counts(self: MemoryTransaction, settle_after: float) -> tuple[int, float]:
        attempts = [one for group in self._tables.attempts.values() for one in group.values()]
        times = [one.settle_after for one in attempts if one.outcome == "created"]
        return len(times), min(times, default=0.0)

    return patch.object(MemoryTransaction, "count_bought", counts)


MUTANTS = (
    Mutant("a pause counts for new runs only", lambda: patch.object(
        NoThrottle, "acquire", lambda self, stop=None, *, to_send=False: None)),
    Mutant("the daily cap is not kept", lambda: patch.object(
        Ledger, "_require_below_cap", lambda self, tx, most, skew: None)),
    Mutant("the daily cap counts answers only", _cap_ignores_what_is_in_flight),
    Mutant("no compare-and-set", _no_compare_and_set),
    Mutant("compare-and-set on the state alone", lambda: patch.object(
        MemoryTransaction, "change", _change_if("state"))),
    Mutant("compare-and-set without the version", lambda: patch.object(
        MemoryTransaction, "change", _change_if("state", "attempt")), is_rare=True),
    Mutant("no lease", _no_lease),
    Mutant("no deadline before the send", lambda: patch.object(
        Lease, "check", lambda self, call_s: None), is_rare=True),
    Mutant("no settle window", _no_settle_window),
    Mutant("settle time anchored at the intent", lambda: _settles_after(
        lambda timing: timing.timeout_s + timing.settle_window_s), is_rare=True),
    Mutant("submit, then persist", _submit_then_persist),
    Mutant("search before create, no ledger", _search_before_create),
    Mutant("list from after the attempt", lambda: _lists_from(-WINDOW_S)),
    Mutant("first page only", _first_page_only),
    Mutant("a short page ends the list", lambda: _pages_up_to(lambda rows: len(rows) < 250)),
    Mutant("pages believed while rows shift", lambda: _pages_up_to(lambda rows: not rows)),
    Mutant("no recover first", lambda: patch.object(dispatcher, "recover", lambda *args, **options: 0)),
    Mutant("recover without a sentinel order", _recovers_without_sentinel),
    Mutant("absence without a sentinel order", _always_in_control),
    Mutant("a rejected order is not reconciled", _no_reconcile_before_a_rejected_order),
    Mutant("late answers are dropped", _late_answers_are_dropped, is_rare=True),
    Mutant("an answer counts for any attempt", _own_answer_for_anyone, is_rare=True),
    Mutant("a part is taken for the whole", _any_part_is_the_whole),
    Mutant("an integer is another number", _integers_are_other_numbers),
    Mutant("an integer is nobody else's", lambda: patch.object(
        listing, "_may_be_another", lambda *a: False), is_rare=True),
    Mutant("zeros before a number are not thought of", lambda: _all(*(
        patch.object(module, "zero_padded_rows", lambda *a: {}) for module in (recover, listing)))),
    Mutant("any number may have been an integer", lambda: patch.object(
        recover, "FOUND_AS_INTEGER", "found at KK"), is_rare=True),
    Mutant("orders without a number are ignored", lambda: patch.object(
        listing.Listing, "has_unnumbered", lambda self, goods, until: False)),
    Mutant("after a 429 the first worker goes on", _rate_limited_are_always_free, is_rare=True),
    Mutant("a resolution as never created is not checked", _humans_need_not_wait),
    Mutant("an unanswered POST is repeated", _posts_twice),
    Mutant("only the database's clock counts", _trusts_the_databases_clock, is_rare=True),
    Mutant("reconciled by the database's clock alone", lambda: patch.object(
        Ledger, "_latest_now", lambda self, tx, skew: tx.now), is_rare=True),
    Mutant("looked for from the database's clock alone", lambda: patch.object(
        Ledger, "_earliest_now", lambda self, tx, skew: tx.now), is_rare=True),
    Mutant("sentinel orders are searched when they were recorded", lambda: _all(*(
        patch.object(module, "known_since", lambda known, ledger, order_list, since: [
            min(since, entry.created_at - 120.0) for entry in known])
        for module in (recover, listing)))),
    Mutant("what a list hid is not read again", _reads_from_what_is_known, is_rare=True),
    Mutant("generations are not distinguished", lambda: _all(*(
        patch.object(module, "of_its_generation", lambda ledger, entry, listed: list(listed))
        for module in (recover, listing)))),
    Mutant("a wait that is too long is over at once", _shortens_to_now, is_rare=True),
    Mutant("a wait may be as long as a clock was ahead", lambda: patch.object(
        Ledger, "shorten_waits", lambda self, expected, skew: None), is_rare=True),
    Mutant("KK's list is read up to now only", lambda: patch.object(
        listing, "_dated_until", lambda ledger, keys: 0.0), is_rare=True),
    Mutant("an unknown answer to a lost intent is dropped", _lost_intents_were_not_sent, is_rare=True),
    Mutant("an unknown outcome gets no settle window of its own", lambda: patch.object(
        Ledger, "_a_window_from_now", lambda self, tx, entry, skew: entry.settle_after), is_rare=True),
)  # fmt: skip
