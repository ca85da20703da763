"""Describe this provider to Airflow.

Airflow 3.2 and later call `get_provider_info` at every `import airflow` and do not start when it raises, so
this module imports nothing. It is also the one place that names the fields of the connection form. Airflow
3.2+ reads them from here, and the hook builds the form of 2.11 to 3.1. Their schemas check a connection.
"""

from __future__ import annotations

CONN_FIELDS: dict[str, dict[str, object]] = {
    "api_version": {
        "label": "API version",
        "description": "Version of KK's API; v1 when empty. v1-orders: v1 as later revised (/order/orders).",
        "schema": {"type": ["string", "null"], "enum": ["v1", "v1-orders", "v2"]},
    },
    "sale_platform": {
        "label": "Sale platform",
        "description": "Where orders were sold that do not name it, such as Amazon or Shopify.",
        "schema": {"type": ["string", "null"], "maxLength": 64},
    },
    "address_key": {
        "label": "Address key",
        "description": "What KK calls the address in an order; orderAddresses when empty.",
        "schema": {"type": ["string", "null"], "enum": ["orderAddresses", "orderAddress"]},
    },
    "account": {
        "label": "Account",
        "description": "Name of the KK store behind this token; two connections to one host must name it.",
        "schema": {"type": ["string", "null"], "maxLength": 64},
    },
    "ledger_conn_id": {
        "label": "Ledger connection id",
        "description": "Where to remember what was sent: SQLite, PostgreSQL or MySQL; else the warehouse.",
        "schema": {"type": ["string", "null"], "maxLength": 250},
    },
    "timeout_s": {
        "label": "Timeout (s)",
        "description": "Seconds for one whole call; 30 when empty.",
        "schema": {"type": ["number", "null"], "maximum": 900},
    },
    "lease_s": {
        "label": "Lease (s)",
        "description": "Seconds a worker owns an order it is sending; at least 2 timeouts, 120 when empty.",
        "schema": {"type": ["number", "null"], "maximum": 86_400},
    },
    "settle_window_s": {
        "label": "Settle window (s)",
        "description": "Seconds KK may take to list a request; at least 300 + timeout, 600 when empty.",
        "schema": {"type": ["number", "null"], "maximum": 86_400},
    },
    "rate_limit_burst": {
        "label": "Rate limit: burst",
        "description": "Requests that KK's bucket holds; 120 when empty.",
        "schema": {"type": ["integer", "null"]},
    },
    "rate_limit_per_second": {
        "label": "Rate limit: per second",
        "description": "Requests a second that KK's bucket lets through; 2 when empty.",
        "schema": {"type": ["number", "null"]},
    },
    "max_orders_per_day": {
        "label": "Most orders a day",
        "description": "Orders that may be sent in any 24 hours, by all DAGs and commands; empty: no limit.",
        "schema": {"type": ["integer", "null"]},
    },
    "use_env_proxies": {
        "label": "Use proxies of the environment",
        "description": "Go through the proxies named by HTTPS_PROXY and NO_PROXY; off when empty.",
        "schema": {"type": ["boolean", "null"]},
    },
    "order_url": {
        "label": "Order URL",
        "description": "Address of an order's page on KK's site, with {kk_order_id} in it; for links.",
        "schema": {"type": ["string", "null"], "maxLength": 500},
    },
}

HIDDEN_FIELDS = ["login", "schema", "extra"]
RELABELING = {"host": "Base URL", "password": "Access token"}
PLACEHOLDERS = {"host": "https://developer.kakaclo.com", "password": "issued in KK's account pages"}

_INTEGRATION = "KakaClo"
_ASSET_URIS: list[dict[str, object]] = [
    {
        "schemes": ["kk"],
        "handler": "airflow_provider_kk.assets.kk.sanitize_uri",
        "factory": "airflow_provider_kk.assets.kk.create_asset",
        "to_openlineage_converter": "airflow_provider_kk.assets.kk.convert_asset_to_openlineage",
    }
]


def _modules(room: str, *names: str) -> list[dict[str, object]]:
    paths = [f"airflow_provider_kk.{room}.{name}" for name in names]
    return [{"integration-name": _INTEGRATION, "python-modules": paths}]


def get_provider_info() -> dict[str, object]:
    """Return the description of this provider; the `apache_airflow_provider` entry point."""
    return {
        "package-name": "airflow-provider-kk",
        "name": "KakaClo",
        "description": "`KakaClo <https://developer.kakaclo.com>`__: warehouse orders become KK orders.",
        "integrations": [
            {
                "integration-name": _INTEGRATION,
                "external-doc-url": "https://developer.kakaclo.com",
                # where the API server has it, see plugins/kk_plugin.py
                "logo": "/kk/page.svg",
                "tags": ["service"],
            }
        ],
        "operators": _modules("operators", "orders", "refunds", "shipping", "status"),
        "sensors": _modules("sensors", "orders"),
        "hooks": _modules("hooks", "kk"),
        "triggers": _modules("triggers", "kk"),
        "asset-uris": _ASSET_URIS,
        # what assets are called on Airflow 2
        "dataset-uris": _ASSET_URIS,
        "extra-links": [
            f"airflow_provider_kk.links.kk.{name}"
            for name in ("OrderAtKKLink", "OrderInLedgerLink", "RunInLedgerLink")
        ],
        "connection-types": [
            {
                "connection-type": "kk",
                "hook-class-name": "airflow_provider_kk.hooks.kk.KKHook",
                "hook-name": "KK",
                "ui-field-behaviour": {
                    "hidden-fields": HIDDEN_FIELDS,
                    "relabeling": RELABELING,
                    "placeholders": PLACEHOLDERS,
                },
                "conn-fields": CONN_FIELDS,
            }
        ],
        "config": {
            "kk": {
                "description": "The provider for KK (KakaClo).",
                "options": {
                    "orders_page": {
                        "description": "Ledgers that the Orders page shows, with commas between them: each "
                        "the id of a connection to KK, where its ledger is elsewhere with an @ and that "
                        "connection's id. Empty: every connection of type kk that can be listed.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "kk_default@warehouse, kk_outlet",
                        "default": "",
                    },
                },
            },
        },
    }
