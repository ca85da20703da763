"""The Orders page inside Airflow's UI: what Airflow is told of it at every start.

Loads nothing: the page's application is made at the first request to it. Airflow before 3.1 has no place for
pages, so there the plugin offers nothing.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import AirflowPlugin, conf

PREFIX = "/kk"
HAS_PAGES = tuple(int(part) for part in airflow_version.split(".")[:2]) >= (3, 1)


def root() -> str:
    """Return the path under which browsers find the page; Airflow may itself live under a path."""
    return airflow_path() + PREFIX


def airflow_path() -> str:
    """Return the path of Airflow's UI, empty when it lives at the root."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")


class _LazyApp:
    """The page's application, which is loaded when somebody asks for it."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from airflow_provider_kk.plugins.app import app

        await app(scope, receive, send)


class OrdersPage(AirflowPlugin):
    """A page of all orders under Browse, and a tab with its orders on each DAG run."""

    name = "kk"
    fastapi_apps = [{"app": _LazyApp(), "url_prefix": PREFIX, "name": "KK orders"}] if HAS_PAGES else []
    external_views = (
        [
            {
                "name": "KK orders",
                "href": f"{root()}/orders",
                "destination": "nav",
                "category": "browse",
                "url_route": "kk-orders",
            },
            {
                "name": "KK orders",
                "href": f"{root()}/runs/{{DAG_ID}}/{{RUN_ID}}",
                "destination": "dag_run",
                "url_route": "kk-run-orders",
            },
        ]
        if HAS_PAGES
        else []
    )
