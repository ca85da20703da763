"""docs/public-interface.md lists all that users may rely on: it and the code name the same things."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import re
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel

import airflow_provider_kk
from airflow_provider_kk.assets.kk import ORDERS, STATUSES, create_asset
from airflow_provider_kk.cli.main import COMMANDS
from airflow_provider_kk.delivery.sql import tables
from airflow_provider_kk.delivery.states import State
from airflow_provider_kk.hooks import metrics
from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.links import kk as links
from airflow_provider_kk.operators.base import DeliveringOperator, KKOperator
from airflow_provider_kk.provider_info import CONN_FIELDS, get_provider_info
from airflow_provider_kk.sync.approval import PlanSummary
from airflow_provider_kk.sync.sync_counts import Summary
from airflow_provider_kk.warehouse import write_back
from airflow_provider_kk.warehouse.status_tables import StatusTables
from tests.airflow.support import REPOSITORY

Names = dict[str, set[str]]

PACKAGE = Path(airflow_provider_kk.__file__).parent
PAGE = (REPOSITORY / "docs/public-interface.md").read_text()
REFERENCE = (REPOSITORY / "docs/reference.md").read_text()
#: What only Airflow or this package calls.
NOT_FOR_USERS = {
    "airflow_provider_kk.assets.kk": {"sanitize_uri", "convert_asset_to_openlineage"},
    "airflow_provider_kk.hooks.kk": {"settings_of"},
    "KKHook": {"get_connection_form_widgets", "get_ui_field_behaviour"},
}


def listed(heading: str) -> Names:
    """The items of a section of the page: `name`, and the names after its colon."""
    section = re.search(rf"^## {re.escape(heading)}$(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section, heading
    items = re.findall(r"^- `([^`]+)`(.*?)(?=^- |\n\n|\Z)", section[1], re.MULTILINE | re.DOTALL)
    return {name: set(re.findall(r"`([^`]+)`", parts)) for name, parts in items}


def modules() -> set[str]:
    """The modules that the provider registers for users, and those that the reference shows."""
    info: dict[str, Any] = get_provider_info()
    rows = [row for kind in ("operators", "sensors", "hooks") for row in info[kind]]
    registered = {name for row in rows for name in row["python-modules"]}
    shown = re.findall(r"^::: ([\w.]+?)(?:\.[A-Z]\w*|\.\w+_\w+)?$", REFERENCE, re.MULTILINE)
    return registered | set(shown)


def public_names(module: str) -> set[str]:
    loaded = import_module(module)
    if hasattr(loaded, "__all__"):
        return set(loaded.__all__)
    defined = ast.parse(inspect.getsource(loaded)).body
    names = {node.name for node in defined if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    return {name for name in names if not name.startswith("_")} - NOT_FOR_USERS.get(module, set())


def arguments(call: Any) -> set[str]:
    parameters = inspect.signature(inspect.unwrap(call)).parameters.values()
    return {one.name for one in parameters if one.name != "self" and one.kind is not one.VAR_KEYWORD}


def arguments_of(thing: Any) -> set[str]:
    if not inspect.isclass(thing):
        return arguments(thing)
    if issubclass(thing, BaseModel):
        return set(thing.model_fields)
    if issubclass(thing, Exception):
        return set()
    if issubclass(thing, KKOperator):
        bases = [base for base in (KKOperator, DeliveringOperator) if issubclass(thing, base)]
        return arguments(thing.__init__).union(*(arguments(base.__init__) for base in bases))
    return arguments(thing.__init__) if "__init__" in vars(thing) else set()


def python_names() -> Names:
    return {
        f"{module}.{name}": arguments_of(getattr(import_module(module), name))
        for module in modules()
        for name in public_names(module)
    }


def hook_methods() -> Names:
    names = {name for name, value in vars(KKHook).items() if callable(value) or isinstance(value, property)}
    return {
        name: arguments(getattr(KKHook, name)) if callable(getattr(KKHook, name)) else set()
        for name in names - NOT_FOR_USERS["KKHook"]
        if not name.startswith("_")
    }


def xcom_keys() -> Names:
    """The second argument of each call of `push`, resolved where it is a constant of `links`."""
    keys = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "push":
                key = node.args[1]
                keys.add(key.value if isinstance(key, ast.Constant) else getattr(links, ast.unparse(key)))
    return {str(key): set() for key in keys}


def ledger_tables() -> Names:
    return {table.name: {column.name for column in table.columns} for table in tables.METADATA.sorted_tables}


def warehouse_tables() -> Names:
    engine: Any = SimpleNamespace(dialect=sa.create_engine("sqlite://").dialect)
    status = StatusTables(engine, "host", "account").metadata.sorted_tables
    found = {table.name: {column.name for column in table.columns} for table in status}
    return {**found, "kk_results": set(write_back._APPENDED)}


def commands() -> Names:
    found = {}
    for command, (_, module) in COMMANDS.items():
        parser = argparse.ArgumentParser(prog=f"kk {command}")
        import_module(module).add_arguments(parser)
        for leaf in leaves(parser):
            found[leaf.prog] = {name for action in leaf._actions for name in names_of(action)}
    return found


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    nested = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not nested:
        yield parser
    for one in nested:
        for child in one.choices.values():
            yield from leaves(child)


def names_of(action: argparse.Action) -> Iterable[str]:
    if action.dest == "help":
        return []
    return action.option_strings or [str(action.metavar or action.dest)]


def metric_names() -> Names:
    """All that the functions count, and the gauges by their names in the source."""
    names: list[str] = re.findall(r'gauge\(\s*"([\w.]+)"', inspect.getsource(metrics))
    ones: Any = dict.fromkeys([field.name for field in dataclasses.fields(Summary)], 1)
    refunds: Any = [SimpleNamespace(state=state, updated_at=1.0) for state in State]
    client: Any = SimpleNamespace(requests=1)
    bucket: Any = SimpleNamespace(rate_limited=1, waited_s=1.0)

    def note(name: str, *_value: Any, tags: Any) -> None:
        names.append(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_where_on", lambda emit: emit(SimpleNamespace(incr=note, timing=note)))
        metrics.count_orders_moved({}, ones, {}, is_over=True)
        metrics.count_refunds_moved(refunds, 0.0, {})
        metrics.count_statuses(1, 1, {})
        metrics.count_requests(client, bucket, {})
    return {name: set() for name in names}


def asset_uris() -> Names:
    uris = [create_asset(host="host", account="account", what=what).uri for what in (ORDERS, STATUSES)]
    return {uri: set() for uri in uris}


SECTIONS = {
    "Classes and functions": python_names,
    "Methods of KKHook": hook_methods,
    "XCom keys": xcom_keys,
    "Fields of the summary": lambda: {field.name: set() for field in dataclasses.fields(Summary)},
    "Fields of a plan": lambda: {field.name: set() for field in dataclasses.fields(PlanSummary)},
    "Connection extras": lambda: {name: set() for name in CONN_FIELDS},
    "Ledger tables": ledger_tables,
    "Warehouse tables": warehouse_tables,
    "Commands": commands,
    "Metrics": metric_names,
    "Asset URIs": asset_uris,
}


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_page_lists_the_public_interface_exactly(heading: str):
    assert listed(heading) == SECTIONS[heading]()
