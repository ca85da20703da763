"""The Orders page inside Airflow's UI: what Airflow is told of it at every start.

Loads nothing: the page's application is made at the first request to it. Airflow before 3.1 has no place for
pages, so there the plugin offers nothing.
"""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import AirflowPlugin

from airflow_provider_kk.plugins.urls import HAS_PAGES, PREFIX, root

#: Seen on light and on dark.
ICON = f"{root()}/page.svg"


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
