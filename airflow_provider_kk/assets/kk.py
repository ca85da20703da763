"""Assets of a KK account, on which DAGs can be scheduled; datasets on Airflow 2.11.

`kk://<host>/<account>/orders` stands for orders created at KK, `kk://<host>/<account>/statuses` for changes
at KK that were copied into the warehouse.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from airflow.providers.common.compat.sdk import Asset

if TYPE_CHECKING:
    from urllib.parse import SplitResult

ORDERS, STATUSES = "orders", "statuses"
_FORMAT = f"kk://<host>/<account>/{ORDERS}, or .../{STATUSES}"


def create_asset(
    *, host: str, account: str = "default", what: str = ORDERS, extra: dict[str, Any] | None = None
) -> Asset:
    """Return the asset of an account's orders or statuses, on which a DAG can be scheduled.

    :param host: the host of the kk connection, with its port if it has one.
    :param account: the `account` in the extra of the kk connection.
    :param what: `orders`, for orders created at KK, or `statuses`, for changes copied into the warehouse.
    :param extra: the extra of the asset.
    """
    return Asset(uri=f"kk://{host}/{quote(account, safe='')}/{what}", extra=extra)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Check the URI of an asset, so that no DAG waits for an asset that gets no events.

    :raises ValueError: the URI is wrong; the text has the right form.
    """
    account, _, what = uri.path.removeprefix("/").partition("/")
    if not uri.netloc or not account or what not in (ORDERS, STATUSES):
        raise ValueError(f"the URI of a KK asset must be {_FORMAT}")
    if uri.netloc != uri.netloc.lower() or account != quote(unquote(account), safe=""):
        # On Airflow 3 the URI as written is also the asset's name, so another spelling is another asset.
        raise ValueError("the URI of a KK asset must have its host in lower case and its account URL-encoded")
    return uri


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Any:
    """Convert an asset to an OpenLineage dataset; Airflow's OpenLineage provider calls this."""
    from urllib.parse import urlsplit

    from airflow.providers.common.compat.openlineage.facet import Dataset

    parts = urlsplit(asset.uri)
    return Dataset(namespace=f"kk://{parts.netloc}", name=parts.path.removeprefix("/"))
