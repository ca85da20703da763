"""Copy what has changed at KK into the warehouse's tables, and new splits into the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.delivery.adopt_unknown import add_splits
from airflow_provider_kk.delivery.listing import CANCELLED, zero_padded_rows
from airflow_provider_kk.delivery.log import HELD, OrderLog
from airflow_provider_kk.delivery.model import ListedOrder
from airflow_provider_kk.warehouse.merge_statuses import StatusRows, goods_of, rows_of
from airflow_provider_kk.warehouse.updated_orders import LAG_S, UpdatedOrders

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import KKOrder
    from airflow_provider_kk.delivery.clock import Stop
    from airflow_provider_kk.delivery.ledger import AnyLedger
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.warehouse.status_tables import StatusTables

_FIRST_TIME_S = 30 * 86_400.0
_MAX_NAMED = 20
_ODD = "KK's data of {orders} has invalid fields, which are stored as NULL: {reason}"


class StoppedError(Exception):
    """Asked to stop; what was read up to `synced_until` is in the tables."""


@dataclass
class StatusSummary:
    """The counts of orders that a sync of statuses has read and changed."""

    orders: int = 0
    """Orders read, those included that were read by the last sync too."""
    changed: int = 0
    """Orders of which any row is new or different."""
    splits: int = 0
    """Orders in the ledger that got kkOrderIds which the answer to their POST did not name."""
    conflicts: list[str] = field(default_factory=list)
    """Order numbers of which KK has more than was sent: held in the ledger."""
    odd: int = 0
    """Orders with a field that could not be kept, or without an id."""
    odd_orders: list[dict[str, Any]] = field(default_factory=list)
    """The first of these: `kk_order_id`, `custom_order_number`, `fields`."""
    synced_until: str | None = None

    def note_odd(self, rows: StatusRows | None, log: OrderLog) -> None:
        """Count and name an order of which something could not be kept."""
        fields = str(rows.order.odd_fields) if rows else "id (the whole order)"
        number = rows.order.custom_order_number if rows else None
        kk_order_id = rows.order.kk_order_id if rows else None
        self.odd += 1
        log.warning(_ODD, f"{kk_order_id} (number {number})", fields)
        if len(self.odd_orders) < _MAX_NAMED:
            self.odd_orders.append(
                {"kk_order_id": kk_order_id, "custom_order_number": number, "fields": fields}
            )


@dataclass
class StatusSync:
    """Brings KK's changes into `tables`, and splits into `ledger`."""

    client: KKClient
    tables: StatusTables
    ledger: AnyLedger
    overlap_s: float
    log: Log
    stop: Stop
    summary: StatusSummary = field(default_factory=StatusSummary)

    def __post_init__(self) -> None:
        self._order_log = OrderLog(self.log)

    def run(self) -> None:
        """Read what has changed, a slice at a time, and commit each with the watermark.

        Raises KKError and InconclusiveError when KK cannot be read, StatusTablesError, StoppedError.
        Committed rows stay, and the next run continues from there.
        """
        try:
            self._read_changes()
        finally:
            self._order_log.flush()

    def _read_changes(self) -> None:
        for changes in UpdatedOrders(self.client, self.ledger.clock).read(self._since()):
            observed = self._observed(changes.orders)
            # Before the watermark moves, so that it is repeated if this process dies between.
            self._complete_ledger(observed)
            until = datetime.fromtimestamp(changes.until, UTC)
            self.summary.changed += self.tables.store(observed, until)
            self.summary.synced_until = until.isoformat()
            if self.stop.is_set():
                raise StoppedError(
                    f"{self.stop.reason}. The tables are complete up to {until:%Y-%m-%d %H:%M} UTC"
                )

    def _since(self) -> float:
        now = self.ledger.clock.wall()
        watermark = self.tables.synced_until()
        if watermark is None:
            return now - LAG_S - _FIRST_TIME_S
        # A watermark that lies ahead was made by a clock that was wrong.
        return min(watermark.timestamp(), now - LAG_S) - self.overlap_s

    def _observed(self, orders: Sequence[KKOrder]) -> list[StatusRows]:
        observed = []
        for order in orders:
            rows = rows_of(order)
            if rows is None or rows.order.odd_fields:
                self.summary.note_odd(rows, self._order_log)
            if rows is not None:
                observed.append(rows)
        self.summary.orders += len(orders)
        return observed

    def _complete_ledger(self, observed: Sequence[StatusRows]) -> None:
        by_number: dict[str, dict[str, StatusRows]] = {}
        for rows in observed:
            if rows.order.custom_order_number:
                by_number.setdefault(rows.order.custom_order_number, {})[rows.order.kk_order_id] = rows
        known = {
            number: entry.kk_order_ids
            for number, entry in self.ledger.look_up(list(by_number)).items()
            if set(by_number[number]) - set(entry.kk_order_ids)
        }
        # KK may have listed as an integer what has zeros before it here: reconciling decides whose it is.
        for number in zero_padded_rows(self.ledger, [number for number in known if number.isdigit()]):
            del known[number]
        listed = self._listed_orders({number: by_number[number] for number in known}, known)
        completion = add_splits(self.ledger, listed)
        self.summary.splits += len(completion.completed)
        for entry in completion.held:
            self.summary.conflicts.append(entry.key)
            self._order_log.error(HELD, entry.key, entry.message)

    def _listed_orders(
        self, observed: dict[str, dict[str, StatusRows]], known: dict[str, tuple[str, ...]]
    ) -> list[ListedOrder]:
        """Return all that KK has under these numbers: all seen orders, and the ids that the ledger knows."""
        found = {number: dict(rows) for number, rows in observed.items()}
        for number, stored in self.tables.of_numbers(found).items():
            for one in stored:
                found[number].setdefault(one.order.kk_order_id, one)
        missing = {
            kk_id: number for number, ids in known.items() for kk_id in ids if kk_id not in found[number]
        }
        for order in self.client.get_orders(missing):
            if rows := rows_of(order):
                found[missing[order.id]][order.id] = rows
        return [
            ListedOrder(
                kk_id, number, goods=goods_of(rows.lines), is_cancelled=rows.order.kk_status in CANCELLED
            )
            for number, all_rows in found.items()
            for kk_id, rows in all_rows.items()
        ]
