"""Load the orders of a query or a file into the run queue, both valid and invalid ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_kk.delivery.log import OrderLog
from airflow_provider_kk.delivery.run_queue import RunQueue, RunResult, RunStatus
from airflow_provider_kk.sync.deliver import item_of
from airflow_provider_kk.sync.errors import SyncError
from airflow_provider_kk.warehouse.map import ParsedOrder, parse_orders

if TYPE_CHECKING:
    from airflow_provider_kk.delivery.log import Log
    from airflow_provider_kk.sync.deliver import Delivery
    from airflow_provider_kk.warehouse.match_columns import Columns
    from airflow_provider_kk.warehouse.spool import Spool

_BATCH = 1_000


@dataclass(frozen=True)
class Selection:
    """The rows of a warehouse that a sync reads: a query, and the mapping of its columns."""

    warehouse: Any
    sql: str
    parameters: Mapping[str, Any] | Sequence[Any] | None = None
    columns: str | Mapping[str, str] | None = None
    defaults: Mapping[str, str] | None = None
    duplicate_rows: str = "fail"


def load_orders(
    run_queue: RunQueue,
    selection: Selection,
    log: Log,
    delivery: Delivery | None = None,
    *,
    api_version: str | None,
) -> None:
    """Read a query's rows, close the warehouse, then check the orders and add them to the run queue.

    :param delivery: None for a plan, which changes nothing in the warehouse.
    :raises SyncError: the columns or the statement are wrong, or the warehouse failed; a retry helps only
        in the last case.
    """
    from airflow_provider_kk.warehouse.mapping_arguments import ColumnsError
    from airflow_provider_kk.warehouse.match_columns import match_columns
    from airflow_provider_kk.warehouse.query_rows import ReadError, read_rows

    columns, defaults = selection.columns, selection.defaults
    try:
        spool = read_rows(
            selection.warehouse,
            selection.sql,
            selection.parameters,
            log,
            check=lambda names: match_columns(names, columns, defaults=defaults),
            only_reads=delivery is None,
        )
    except ColumnsError as error:
        raise SyncError(str(error), is_retryable=False) from error
    except ReadError as error:
        message = f"The warehouse cannot run sql: {error}. Nothing was sent"
        # Without its cause, since the driver's traceback adds nothing.
        raise SyncError(message, is_retryable=not error.is_for_good) from None
    with closing(spool):
        log_columns(match_columns(spool.names, columns, defaults=defaults), log)
        enqueue_orders(
            run_queue,
            spool,
            columns,
            log,
            delivery,
            api_version=api_version,
            defaults=defaults,
            duplicate_rows=selection.duplicate_rows,
        )


def log_columns(columns: Columns, log: Log) -> None:
    """Log which column fills which field, and which columns are ignored."""
    log.info("Fields and their columns: %s", "; ".join(columns.lines()))
    if columns.ignored:
        log.info("Columns that are not part of an order are ignored: %s", ", ".join(columns.ignored))
    if columns.unfilled:
        log.warning(
            "No column fills %s. KK accepts such orders, but their parcels may not arrive. Select these "
            "columns, or map them with `columns`",
            ", ".join(columns.unfilled),
        )


def enqueue_orders(
    run_queue: RunQueue,
    spool: Spool,
    columns: str | Mapping[str, str] | None,
    log: Log,
    delivery: Delivery | None = None,
    *,
    api_version: str | None,
    defaults: Mapping[str, str] | None = None,
    duplicate_rows: str = "fail",
) -> int:
    """Check every order and add it to the run queue; return how many valid orders have a warning.

    Memory does not grow with the number of orders.

    :param log: gets the warnings, those of one kind in one line.
    :param delivery: records invalid orders, and reports those that are newly invalid; None for a plan.
    :param api_version: KK's API version, which the orders must fit; None if it is not known.
    """
    items = []
    order_log = OrderLog(log)
    skipped: list[int] = []
    warned = 0
    for parsed in parse_orders(
        spool,
        columns,
        defaults=defaults,
        duplicate_rows=duplicate_rows,
        api_version=api_version,
        on_skipped=skipped.append,
    ):
        warned += bool(parsed.warnings and parsed.order)
        for warning in parsed.warnings if parsed.order else ():
            order_log.warning(
                "{orders} {are} valid, with a warning: {reason}", str(parsed.number), str(warning)
            )
        if parsed.order is None:
            invalid = _invalid(parsed, delivery)
            run_queue.add_finished(invalid)
            if invalid.is_new:
                invalid.warn(order_log)
            continue
        items.append(item_of(parsed.position, parsed.order))
        if len(items) == _BATCH:
            run_queue.add(items)
            items = []
    run_queue.add(items)
    order_log.flush()
    if skipped:
        log.info(
            "%d rows have no order: they are blank or a footer. The first is row %d", len(skipped), skipped[0]
        )
    return warned


def _invalid(parsed: ParsedOrder, delivery: Delivery | None) -> RunResult:
    message = "; ".join(map(str, parsed.faults))
    # An order without a valid number has a digest as its key.
    number = parsed.number or ""
    key = number if re.fullmatch(r"[ -~]{1,40}", number) else f"#{parsed.digest}"
    is_new = delivery is not None and delivery.ledger.note_invalid(
        key, parsed.digest, message, sync_id=delivery.run.sync_id
    )
    return RunResult(
        parsed.position,
        key,
        RunStatus.INVALID,
        is_new,
        (),
        None,
        message,
        name=parsed.number,
        faults=parsed.faults,
    )
