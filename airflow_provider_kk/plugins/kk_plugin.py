"""The plugin that registers the Orders page in Airflow's UI.

It loads nothing at start: the page's application is loaded at the first request. Airflow before 3.1 has no
pages of plugins, so there the plugin registers nothing.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_provider_kk.plugins.urls import HAS_PAGES, PREFIX, root

#: The icon is visible on light and on dark.
ICON = f"{root()}/page.svg"


class _LazyApp:
    """The page's application, which is loaded at the first request."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from airflow_provider_kk.plugins.app import app

        await app(scope, receive, send)


class OrdersPage(AirflowPlugin):
    """The Orders page: all orders under Browse, and a tab with the orders of each DAG run."""

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
                "icon": ICON,
            },
            {
                "name": "KK orders",
                "href": f"{root()}/runs/{{DAG_ID}}/{{RUN_ID}}",
                "destination": "dag_run",
                "url_route": "kk-run-orders",
                "icon": ICON,
            },
        ]
        if HAS_PAGES
        else []
    )
