"""What DAGs can be scheduled on: assets of a KK account; on Airflow 2.11, datasets.

`kk://<host>/<account>/orders` stands for orders that were created there, `kk://<host>/<account>/statuses` for
changes at KK that have come into the warehouse.
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
    """Return the asset of an account's `orders` or `statuses`.

    `host` is that of the connection, with its port where it has one; `account` is its extra `account`.
    """
    return Asset(uri=f"kk://{host}/{quote(account, safe='')}/{what}", extra=extra)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Check the URI of an asset, so that no DAG waits for one that never changes.

    :raises ValueError: says what such a URI looks like.
    """
    account, _, what = uri.path.removeprefix("/").partition("/")
    if not uri.netloc or not account or what not in (ORDERS, STATUSES):
        raise ValueError(f"the URI of a KK asset is {_FORMAT}")
    if uri.netloc != uri.netloc.lower() or account != quote(unquote(account), safe=""):
        # On Airflow 3 the URI as it was written is the asset's name, too: another spelling is another asset.
        raise ValueError("the URI of a KK asset has its host in lower case, and its account URL-encoded")
    return uri


def convert_asset_to_openlineage(asset: Asset, lineage_context: Any) -> Any:
    """Return an asset as OpenLineage's dataset; called by Airflow's OpenLineage provider."""
    from urllib.parse import urlsplit

    from airflow.providers.common.compat.openlineage.facet import Dataset

    parts = urlsplit(asset.uri)
    return Dataset(namespace=f"kk://{parts.netloc}", name=parts.path.removeprefix("/"))
