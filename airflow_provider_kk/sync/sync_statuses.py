"""Sync the statuses of a task's account into the warehouse, and new splits into the ledger."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.api.errors import KKError
from airflow_provider_kk.delivery.listing import CANCELLED, zero_padded_rows
from airflow_provider_kk.delivery.log import HELD, OrderLog, some_of
from airflow_provider_kk.delivery.model import InconclusiveError, ListedOrder, goods_of
from airflow_provider_kk.delivery.recover import add_splits
from airflow_provider_kk.hooks.ledger_connection import NEEDED, engine_behind, type_without_keys
from airflow_provider_kk.hooks.metrics import count_requests, count_statuses, tags_of
from airflow_provider_kk.sync.errors import SyncError
from airflow_provider_kk.sync.sync_counts import SyncRuns
from airflow_provider_kk.warehouse.merge_statuses import StatusRows, rows_of
from airflow_provider_kk.warehouse.status_tables import StatusTables, StatusTablesError

if TYPE_CHECKING:
    from airflow_provider_kk.api.client import KKClient
    from airflow_provider_kk.api.models import KKOrder, OrderPage
    from airflow_provider_kk.delivery.clock import Clock, Stop
    from airflow_provider_kk.delivery.ledger import AnyLedger
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.delivery.model import Origin
    from airflow_provider_kk.delivery.sql.storage import SqlLedger
    from airflow_provider_kk.delivery.storage import RunRow
    from airflow_provider_kk.hooks.kk import KKHook
    from airflow_provider_kk.warehouse.merge_statuses import OrderRow

LAG_S = 600.0
"""Seconds before now at which KK advises to end a period."""

#: More rows than these are read in smaller slices, since a slice is kept in memory.
_MAX_ROWS_AT_ONCE = 20_000
_MAX_PAGES = 2_100
_SHORTEST_SLICE_S = 2
_FIRST_TIME_S = 30 * 86_400.0
_MAX_NAMED = 20
_ODD = "KK's data of {orders} has invalid fields, which are stored as NULL: {reason}"


def open_status_tables(
    hook: KKHook, warehouse: Any, hook_params: Mapping[str, Any] | None, table_prefix: str
) -> StatusTables:
    """Open the status tables of a warehouse. They need not exist yet.

    :param warehouse: the Airflow connection.
    :raises SyncError: the warehouse, or the prefix of the tables' names, cannot be used.
    """
    from airflow_provider_kk.delivery.sql.database import pool_arguments

    if unfit := type_without_keys(warehouse):
        raise SyncError(
            f"The warehouse {warehouse.conn_id!r} is of type {unfit}. The status tables need a "
            f"database that enforces unique keys: set warehouse_conn_id to {NEEDED}",
            is_retryable=False,
        )
    engine = engine_behind(warehouse, pool_arguments(warehouse.conn_type, 1), hook_params)
    try:
        return StatusTables(engine, hook.settings.host, hook.settings.account, table_prefix)
    except ValueError as error:
        raise SyncError(str(error), is_retryable=False) from error


def sync_statuses(
    hook: KKHook,
    ledger: SqlLedger,
    tables: StatusTables,
    *,
    origin: Origin,
    overlap_s: float,
    stop: Stop,
    log: Log,
    publish: Callable[[dict[str, Any]], None],
) -> dict[str, Any]:
    """Copy the changes at KK into the tables and return the counts.

    :param publish: gets the counts, also if the sync fails.
    :raises SyncError: KK or the warehouse cannot be used, or an order is newly held.
    """
    bucket, tags = hook.settings.shared_bucket(ledger), tags_of(hook.settings.account, origin)
    with hook.client(bucket) as client:
        sync = StatusSync(client, tables, ledger, overlap_s, log, stop)
        try:
            return _sync(sync, SyncRuns(ledger), origin, publish)
        finally:
            count_statuses(sync.summary.orders, sync.summary.changed, tags)
            count_requests(client, bucket, tags)


def _sync(
    sync: StatusSync, runs: SyncRuns, origin: Origin, publish: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    from sqlalchemy.exc import DBAPIError

    summary, log = sync.summary, sync.log
    run, failure = runs.begin(origin), ""
    try:
        sync.tables.create()
        sync.run()
    except (KKError, InconclusiveError) as error:
        failure = (
            f"KK's changes cannot be read: {error}. A retry, or the next run, continues where this try "
            "stopped"
        )
    except (StatusTablesError, StoppedError) as error:
        failure = str(error)
    except BaseException:
        # The next try has to count the changes that this one wrote into the tables.
        with suppress(DBAPIError):
            runs.end(run, "failed", _result(run, sync))
        raise
    log.info(
        "%d orders read, %d changed, %d completed in the ledger, %d odd; up to date until %s",
        summary.orders,
        summary.changed,
        summary.splits,
        summary.odd,
        summary.synced_until or "no later than before",
    )
    if not failure and not summary.orders:
        log.info(
            "No change was read. KK lists changes late, so a run reads only those that are at least %.0f "
            "minutes old",
            LAG_S / 60,
        )
    result = _result(run, sync)
    publish(result)
    runs.end(run, "failed" if failure or summary.conflicts else "done", result)
    if failure:
        raise SyncError(failure, is_retryable=True)
    if named := summary.conflicts[:20]:
        raise SyncError(
            f"KK has more goods than were sent under {some_of(named, len(summary.conflicts))}. These orders "
            "are held. See `kk ledger show`, then resolve each with `kk ledger resolve`",
            is_retryable=False,
        )
    return result


def _result(run: RunRow, sync: StatusSync) -> dict[str, Any]:
    # The tables have the changes of earlier tries, and a DAG that waits for changes must count them, too.
    changed = run.summary.get("changed", 0) + sync.summary.changed
    return {**asdict(sync.summary), "changed": changed, "requests": sync.client.requests}


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

        Committed rows stay, and the next run continues from there.

        :raises KKError, InconclusiveError: KK cannot be read.
        :raises StatusTablesError, StoppedError: likewise for the tables; the task is stopped.
        """
        try:
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
        finally:
            self._order_log.flush()

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
                self._note_odd(rows.order if rows else None)
            if rows is not None:
                observed.append(rows)
        self.summary.orders += len(orders)
        return observed

    def _note_odd(self, row: OrderRow | None) -> None:
        kk_order_id, number = (row.kk_order_id, row.custom_order_number) if row else (None, None)
        paths = str(row.odd_fields) if row else "id (the whole order)"
        self.summary.odd += 1
        self._order_log.warning(_ODD, f"{kk_order_id} (number {number})", paths)
        if len(self.summary.odd_orders) < _MAX_NAMED:
            self.summary.odd_orders.append(
                {"kk_order_id": kk_order_id, "custom_order_number": number, "fields": paths}
            )

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
                kk_id,
                number,
                goods=goods_of(rows.lines) or None,
                is_cancelled=rows.order.kk_status in CANCELLED,
            )
            for number, all_rows in found.items()
            for kk_id, rows in all_rows.items()
        ]


@dataclass(frozen=True)
class Changes:
    """All orders whose last change is in a slice of the period, by KK's clock, epoch seconds."""

    until: int
    orders: list[KKOrder]


@dataclass
class UpdatedOrders:
    """Lists orders by their last update, completely or not at all."""

    client: KKClient
    clock: Clock

    def read(self, since: float) -> Iterator[Changes]:
        """Yield the orders changed from `since` (epoch seconds) to 10 minutes before now, oldest first.

        :raises InconclusiveError: even the shortest slice may be incomplete.
        :raises KKError: KK cannot be read.
        """
        began = self.clock.wall()
        slices = [(int(since), int(began - LAG_S))]
        while slices:
            start, end = slices.pop()
            if start >= end:
                continue
            orders = self._read_slice(start, end)
            # KK lists by its own clock, which is known after its first answer.
            limit = int(began - LAG_S + min(self.client.clock_skew_s or 0.0, 0.0))
            if end > limit:
                slices.append((start, limit))
            elif orders is not None:
                yield Changes(end, orders)
            elif end - start > _SHORTEST_SLICE_S:
                middle = (start + end) // 2
                slices += [(middle, end), (start, middle)]
            else:
                raise InconclusiveError(
                    "KK's list of changed orders could not be read completely, since its pages contradict "
                    "each other"
                )

    def _read_slice(self, start: int, end: int) -> list[KKOrder] | None:
        """Return every order of a slice, or None if its pages do not prove to be all."""
        pages = _Pages(self.client, start, end)
        first = pages.read(1)
        if not first.orders or (first.total is not None and len(first.orders) >= first.total):
            return pages.orders if not first.total or first.orders else None
        if first.total is None:
            last = pages.last_of_unknown()
        elif first.total > _MAX_ROWS_AT_ONCE and end - start > _SHORTEST_SLICE_S:
            return None
        else:
            last = math.ceil(first.total / len(first.orders))
        for number in range(min(last, _MAX_PAGES), 1, -1):
            pages.read(number)
        if last > 1 and (pages.total is None or pages.total != first.total):
            pages.read(1)
        # A server that lists rows twice has more pages than its total suggests.
        while not pages.are_whole and pages.grow(last + 1):
            last += 1
        return pages.orders if pages.are_whole else None


class _Pages:
    """The orders on the pages of one slice that were read so far."""

    def __init__(self, client: KKClient, start: int, end: int) -> None:
        self._client = client
        # Neighbours overlap, as in `KKOrderList.find`.
        self._period = (datetime.fromtimestamp(start - 1, UTC), datetime.fromtimestamp(end + 1, UTC))
        self._seen: dict[str, KKOrder] = {}
        self.total: int | None = None

    def read(self, number: int) -> OrderPage:
        since, until = self._period
        page = self._client.list_orders(updated_from=since, updated_to=until, page_number=number)
        self.total = page.total
        for order in page.orders:
            # One without a readable id counts as a row too, if only once.
            self._seen[order.id or order.model_dump_json()] = order
        return page

    def last_of_unknown(self) -> int:
        """Return the last page that has a new order, for a list without a total."""
        number = 1
        while number < _MAX_PAGES and self.grow(number + 1):
            number += 1
        return number

    def grow(self, number: int) -> bool:
        """Read a page; return whether it has a new order."""
        known = len(self._seen)
        self.read(number)
        return len(self._seen) > known

    @property
    def orders(self) -> list[KKOrder]:
        return list(self._seen.values())

    @property
    def are_whole(self) -> bool:
        return len(self._seen) >= (self.total or 0)
