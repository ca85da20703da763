"""Asset events and OpenLineage facets of tasks that succeed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, Context

    from airflow_provider_kk.hooks.connection import ConnectionSettings
    from airflow_provider_kk.sync.sync_counts import Summary


def emit(
    operator: BaseOperator,
    context: Context,
    settings: ConnectionSettings,
    what: str,
    counts: Mapping[str, int],
) -> None:
    """Emit an asset event for the account's `orders` or `statuses` unless all counts are zero.

    Call it last: Airflow emits no event if the task fails afterwards. An error here is only logged, since the
    orders exist.
    """
    from airflow_provider_kk.assets.kk import create_asset

    if not any(counts.values()):
        return
    try:
        events: Any = context["outlet_events"]
        asset = create_asset(host=settings.host, account=settings.account, what=what)
        events[asset].extra.update(counts)
        # Airflow reads the outlets after the task. A declared outlet would emit an event at every success,
        # and an alias makes mapped tasks and `dag.test()` fail on 2.11.
        if asset not in operator.outlets:
            operator.outlets = [*operator.outlets, asset]
    except Exception as error:
        operator.log.warning(
            "The task succeeds, but the asset event for the account's %s could not be emitted (%s). DAGs "
            "that are scheduled on this asset do not run. Trigger them manually",
            what,
            type(error).__name__,
        )


def made(summary: Summary | None) -> dict[str, int]:
    """Return how many orders a sync created or adopted, over all its tries."""
    return {"created": summary.created, "adopted": summary.adopted} if summary else {}


def lineage(inputs: Sequence[Any], outputs: Sequence[Any], **facets: Any) -> Any:
    """Return inputs and outputs in the form that Airflow's OpenLineage provider takes."""
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(inputs=list(inputs), outputs=list(outputs), **facets)


def orders_at_kk(settings: ConnectionSettings, created: int | None = None) -> Any:
    """Return the account's orders as an OpenLineage dataset; with `created`, as an output of so many rows."""
    from airflow_provider_kk.assets.kk import convert_asset_to_openlineage, create_asset

    found = convert_asset_to_openlineage(create_asset(host=settings.host, account=settings.account), None)
    return found if created is None else with_count(found, created)


def with_count(dataset: Any, rows: int) -> Any:
    """Return an OpenLineage dataset as an output of so many rows."""
    from airflow.providers.common.compat.openlineage.facet import (
        OutputDataset,
        OutputStatisticsOutputDatasetFacet,
    )

    return OutputDataset(
        namespace=dataset.namespace,
        name=dataset.name,
        facets=dataset.facets,
        outputFacets={"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=rows)},
    )


def tables_of(hook: Any, conn_id: str, sql: str | list[str]) -> Any:
    """Return the tables that SQL statements read and write, as OpenLineage names them.

    The result is empty for databases that OpenLineage does not support, such as SQLite.
    """
    from airflow.providers.common.compat.openlineage.utils.sql import get_openlineage_facets_with_sql

    found = get_openlineage_facets_with_sql(hook=hook, sql=sql, conn_id=conn_id, database=None)
    return found or lineage([], [])
