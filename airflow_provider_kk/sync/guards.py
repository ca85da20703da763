"""Guards: limits of one run, checked before it sends its first order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Context, Decimal, InvalidOperation
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.api.errors import Fault, KKRejectedError

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.delivery.ledger import AnyLedger
    from airflow_provider_kk.delivery.model import Goods, Record
    from airflow_provider_kk.delivery.run_queue import QueuedOrder, RunQueue
    from airflow_provider_kk.sync.stock import StockCheck

_NAMED = 3
_BATCH = 1_000
_CENT = Decimal("0.01")
_ROUND_UP = Context(prec=100, rounding=ROUND_CEILING)


@dataclass(frozen=True)
class Guards:
    """The limits of one run; None disables a limit. Values are in US dollars, without freight."""

    max_new_orders: int | None = 1_000
    max_order_units: int | None = 100
    max_order_value: Decimal | None = None
    max_run_value: Decimal | None = None

    @classmethod
    def checked(cls, **limits: object) -> Guards:
        """Check an operator's arguments or a command's options, and return the guards.

        :raises ValueError: a limit is wrong; the text has the argument.
        """
        counts = ("max_new_orders", "max_order_units")
        found: dict[str, Any] = {
            name: (_count if name in counts else _amount)(name, limit) for name, limit in limits.items()
        }
        return cls(**found)

    @property
    def need_prices(self) -> bool:
        """Whether KK's prices have to be read."""
        return self.max_order_value is not None or self.max_run_value is not None


OFF = Guards(None, None, None, None)


def _count(name: str, limit: object) -> int | None:
    if limit is None or (isinstance(limit, int) and not isinstance(limit, bool) and limit > 0):
        return limit
    raise ValueError(f"{name} must be a whole number from 1, or None for no limit, not {limit!r}")


def _amount(name: str, limit: object) -> Decimal | None:
    if limit is None:
        return None
    try:
        # By its text, since a float such as 99.9 is not exactly that number.
        amount = Decimal(str(limit).strip()) if not isinstance(limit, bool) else Decimal("NaN")
    except InvalidOperation:
        amount = Decimal("NaN")
    if amount.is_finite() and amount > 0:
        return amount
    raise ValueError(
        f"{name} must be an amount in US dollars above 0, such as 250 or '99.90', or None for no limit, "
        f"not {limit!r}"
    )


class Prices:
    """KK's prices by SKU. Each SKU is read once, 30 in a request.

    Source: KK's page "Products". KK does not document its answer for an unknown SKU.
    """

    def __init__(self) -> None:
        self._known: dict[str, Decimal | None] = {}
        self._has_answered = False

    def fetch(self, client: KKClient, skus: Iterable[str]) -> None:
        """Read the prices of those SKUs whose price is not known yet.

        :raises KKError: KK's prices cannot be read.
        """
        from airflow_provider_kk.api.client import MAX_SKUS, chunks

        unknown = dict.fromkeys(sku.upper() for sku in skus if sku.upper() not in self._known)
        # A SKU with a comma would be two SKUs in the request.
        for chunk in chunks([sku for sku in unknown if "," not in sku], MAX_SKUS):
            self._fetch_chunk(client, chunk)
        self._known = unknown | self._known

    def _fetch_chunk(self, client: KKClient, skus: Sequence[str]) -> None:
        try:
            found = [sku for product in client.iter_products(skus) for sku in product.skus]
        except KKRejectedError:
            if len(skus) == 1:
                return
            # A SKU that KK rejects must not hide the prices of the others.
            for sku in skus:
                self._fetch_chunk(client, [sku])
            if not self._has_answered:
                raise
            return
        self._has_answered = True
        for one in found:
            name = (one.sku or "").upper()
            if name in skus and one.price is not None:
                self._known[name] = max(one.price, self._known.get(name) or one.price)

    def of(self, sku: str) -> Decimal | None:
        """Return the price of a SKU; None if KK has none that can be parsed."""
        return self._known.get(sku.upper())

    def total(self, goods: Goods) -> Decimal | None:
        """Return the price of goods; None if a SKU's price is not known."""
        costs = [None if (price := self.of(sku)) is None else price * number for sku, number in goods.items()]
        return None if None in costs else sum(filter(None, costs), Decimal(0))


@dataclass
class GuardReport:
    """The result of the guards. `exceeded` is the reason why nothing may be sent, empty if there is none."""

    guards: Guards
    new_orders: int = 0
    invalid: Counter[str] = field(default_factory=Counter)
    unpriced: int = 0
    value: Decimal | None = None
    exceeded: str = ""

    def line(self) -> str:
        """Return the effect of each guard, as a line for a plan."""
        guards, invalid = self.guards, self.invalid
        value = "not checked" if self.value is None else f"{self.value:,.2f} USD would be spent"
        parts = {
            "max_new_orders": f"{self.new_orders:,} would be sent",
            "max_order_units": f"{invalid['max_order_units']:,} invalid",
            "max_order_value": f"{invalid['max_order_value']:,} invalid",
            "max_run_value": value,
        }
        found = [
            f"{name} is off" if (limit := getattr(guards, name)) is None else f"{name}={limit}: {what}"
            for name, what in parts.items()
        ]
        unpriced = [f"{self.unpriced:,} invalid without a price at KK"] if self.unpriced else []
        return f"Guards: {'; '.join(found + unpriced)}"


@dataclass
class GuardCheck:
    """One check of a run queue against the guards.

    :param mark_invalid: is called for each order that exceeds a guard for one order.
    :param client: reads KK's prices; None if no price is needed.
    :param max_sent: the number of orders that the run may still send; None: all.
    :param sent: the orders that this sync sent in earlier tries, which count, too.
    """

    guards: Guards
    run_queue: RunQueue
    ledger: AnyLedger | None
    mark_invalid: Callable[[QueuedOrder, Fault], None]
    client: KKClient | None = None
    prices: Prices = field(default_factory=Prices)
    max_sent: int | None = None
    sent: Callable[[], Iterable[Record]] = tuple
    sync_id: str = ""
    stock: StockCheck | None = None

    def run(self) -> GuardReport:
        """Mark the orders that exceed a guard, and report whether the run may start.

        :raises KKError: KK's prices cannot be read.
        """
        report = GuardReport(self.guards)
        if self.guards == OFF:
            return report
        self._check_units(report)
        if not report.new_orders:
            return report
        sent, goods = self._sent()
        if _is_over(report.new_orders + sent, self.guards.max_new_orders):
            report.exceeded = self._too_many(report.new_orders, sent)
        elif self.client is not None and self.guards.need_prices:
            self._check_values(report, self.client, goods)
        return report

    def candidates(self) -> Iterator[QueuedOrder]:
        """Yield the orders that this run would send and that no other sync sent before."""
        from airflow_provider_kk.delivery.model import plain_number
        from airflow_provider_kk.delivery.recover import found_as_integer
        from airflow_provider_kk.delivery.run_queue import RunStatus

        for batch in self.run_queue.batches(RunStatus.PENDING):
            numbers = {number for item in batch for number in (item.key or "", plain_number(item.key or ""))}
            known = self.ledger.look_up(sorted(numbers)) if self.ledger else {}
            for item in batch:
                entry = known.get(item.key or "")
                if entry is None and self.ledger is not None and plain_number(item.key or "") in known:
                    entry = found_as_integer(self.ledger, item)
                if entry is None or self.ledger is None or self._is_new(item, entry, self.ledger):
                    yield item

    def _is_new(self, item: QueuedOrder, entry: Record, ledger: AnyLedger) -> bool:
        from airflow_provider_kk.delivery.states import Action, State, next_action

        action = next_action(item, entry, ledger.now)
        # KK did not create an order that it rejected. `sent` counts the orders that this sync sent.
        is_due = action is Action.RECONCILE_FIRST and entry.state is State.REJECTED
        return action is Action.SEND or (is_due and entry.sync_id != self.sync_id)

    def _check_units(self, report: GuardReport) -> None:
        limit = self.guards.max_order_units
        for item in self.candidates():
            units = sum(item.content.goods.values())
            if _is_over(units, limit):
                self._mark(report, item, "max_order_units", f"{units:,} units ordered", units)
            elif report.new_orders != self.max_sent:
                report.new_orders += 1

    def _check_values(self, report: GuardReport, client: KKClient, sent: Mapping[str, int]) -> None:
        self.prices.fetch(client, sent)
        spent = self.prices.total(sent)
        report.value, report.new_orders = Decimal(0), 0
        candidates = self.candidates()
        while items := list(islice(candidates, self._rest(report))):
            self.prices.fetch(client, (sku for item in items for sku in item.content.goods))
            for item in items:
                if self.stock is None or not self.stock.shortage(item):
                    self._check_value(report, item)
        if not report.new_orders:
            return
        if spent is None and self.guards.max_run_value is not None:
            report.exceeded = (
                "KK has no price any more for goods that this sync has sent, so max_run_value cannot be "
                "checked. Check the remaining orders, then start a new run"
            )
        elif spent is not None and _is_over(total := report.value + spent, self.guards.max_run_value):
            before = f", {spent:,.2f} USD of them sent before by this sync" if spent else ""
            report.exceeded = (
                f"the goods of {self._named(report.new_orders)} cost {total:,.2f} USD{before}, more than "
                f"max_run_value={self.guards.max_run_value} allows. {_how_to_raise('max_run_value', total)}"
            )

    def _rest(self, report: GuardReport) -> int:
        return _BATCH if self.max_sent is None else min(_BATCH, self.max_sent - report.new_orders)

    def _check_value(self, report: GuardReport, item: QueuedOrder) -> None:
        value = self.prices.total(item.content.goods)
        if value is None:
            lines = enumerate(json.loads(item.payload)["items"])
            index, sku = next((n, line["sku"]) for n, line in lines if self.prices.of(line["sku"]) is None)
            names = " and ".join(
                name for name in ("max_order_value", "max_run_value") if getattr(self.guards, name)
            )
            report.unpriced += 1
            why = f"KK has no price for {sku}. Fix the SKU. To send it without this check, remove {names}"
            self.mark_invalid(item, Fault(f"items[{index}].sku", why))
        elif _is_over(value, self.guards.max_order_value):
            self._mark(report, item, "max_order_value", f"the goods cost {value:,.2f} USD", value)
        else:
            report.new_orders += 1
            report.value = (report.value or Decimal(0)) + value

    def _mark(
        self, report: GuardReport, item: QueuedOrder, name: str, what: str, needed: int | Decimal
    ) -> None:
        report.invalid[name] += 1
        limit = getattr(self.guards, name)
        why = f"{what}, more than {name}={limit} allows. {_how_to_raise(name, needed, 'the order')}"
        self.mark_invalid(item, Fault("items", why))

    def _sent(self) -> tuple[int, Counter[str]]:
        """Return the number of orders that this sync sent before, and their goods."""
        number, goods = 0, Counter[str]()
        if self.guards.max_new_orders is None and self.guards.max_run_value is None:
            return number, goods
        for entry in self.sent():
            number += 1
            goods.update(entry.content.goods)
        return number, goods

    def _too_many(self, new: int, sent: int) -> str:
        before = f" after the {sent:,} that this sync has sent before" if sent else ""
        return (
            f"{self._named(new)} would be sent{before}, more than "
            f"max_new_orders={self.guards.max_new_orders} allows. "
            f"{_how_to_raise('max_new_orders', new + sent)}"
        )

    def _named(self, number: int) -> str:
        from airflow_provider_kk.delivery.log import count_orders, some_of

        names = [item.key or "" for item in islice(self.candidates(), min(_NAMED, number))]
        return f"{count_orders(number)} ({some_of(names, number)})"


def _is_over(number: int | Decimal, limit: int | Decimal | None) -> bool:
    return limit is not None and number > limit


def _how_to_raise(name: str, needed: int | Decimal, what: str = "the selection") -> str:
    number = needed if isinstance(needed, int) else needed.quantize(_CENT, context=_ROUND_UP)
    argument = number if isinstance(needed, int) else f'"{number}"'
    option = f"--{name.replace('_', '-')} {number}"
    return f"Check {what}. If it is right, set {name}={argument} on the operator, or {option} on `kk send`"
