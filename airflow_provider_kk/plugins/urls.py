"""The address of the Orders page in Airflow's UI. This module imports nothing heavy."""

from __future__ import annotations

from urllib.parse import urlsplit

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import conf

PREFIX = "/kk"
HAS_PAGES = tuple(int(part) for part in airflow_version.split(".")[:2]) >= (3, 1)


def root() -> str:
    """Return the page's path for browsers, below the path of Airflow's UI."""
    return airflow_path() + PREFIX


def airflow_path() -> str:
    """Return the path of Airflow's UI; empty if it is the root."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
