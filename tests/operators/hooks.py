"""Hooks of the tests' own, made known to Airflow."""

from __future__ import annotations

from typing import Any

from airflow.providers_manager import HookInfo, ProvidersManager


def info_of(hook: Any) -> HookInfo:
    return HookInfo(
        hook_class_name=f"{hook.__module__}.{hook.__name__}",
        connection_id_attribute_name=hook.conn_name_attr,
        package_name="tests",
        hook_name=hook.hook_name,
        connection_type=hook.conn_type,
        connection_testable=False,
    )


def known_hooks() -> Any:
    """Where Airflow looks up a connection's type; newer ones keep a table of their own for tasks."""
    try:
        from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime
    except ImportError:
        return ProvidersManager().hooks
    return ProvidersManagerTaskRuntime().hooks
