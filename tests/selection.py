"""Which tests run by default, and which by `make test-nightly` only: "What runs where" in CONTRIBUTING.md."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
IS_AIRFLOW_2 = version("apache-airflow").startswith("2.")

#: `airflow/test_around_delivery.py` kills, clears and retries on Airflow 2.11 by default, and other tests of
#: refunds lose their responses there, too. These need minutes more for the same paths.
LONG = (
    "airflow/test_sync_orders.py::test_with_half_of_all_posts_failing",
    "airflow/test_sync_orders.py::test_ten_crashes",
    "airflow/test_sync_orders.py::test_three_concurrent_runs",
    "operators/test_refunds.py::test_a_refund_post_lost_in_every_way",
)

#: Neither Airflow nor the libraries that it pins can change these: they run on Airflow 3.3.
NIGHTLY_ON_AIRFLOW_2 = (
    "api/test_api_versions.py",
    "api/test_clean_text.py",
    "api/test_conformance.py",
    "api/test_conformance_goods.py",
    "api/test_countries.py",
    "api/test_fulfilment.py",
    "api/test_products.py",
    "api/test_redact.py",
    "api/test_throttle.py",
    "chaos/",
    "delivery/test_",
    "model/",
    "sandbox/",
    "simulation/",
    "sync/",
    "system/",
    "test_demo.py",
    "test_environment.py",
    "test_messages.py",
    "test_names.py",
    "test_prose.py",
    "test_public_interface.py",
    "test_readme.py",
    "test_reference_pages.py",
    "test_sandbox_recipes.py",
    "test_selection.py",
    "warehouse/test_cells.py",
    "warehouse/test_match_columns.py",
    "warehouse/test_damaged_rows.py",
    "warehouse/test_files.py",
    "warehouse/test_foreign_files.py",
    "warehouse/test_foreign_orders.py",
    "warehouse/test_map.py",
    "warehouse/test_merge_statuses.py",
    "warehouse/test_presets.py",
)

#: These issue every statement of the ledger on every database, also on Airflow 2.11 with SQLAlchemy 1.4.
#: The others of `tests/delivery` are about the protocol: by default they run on SQLite.
ON_EACH_DATABASE = (
    "delivery/sql/",
    "delivery/test_audit.py",
    "delivery/test_ledger.py",
    "delivery/test_order_log.py",
    "delivery/test_pause.py",
    "delivery/test_resolution.py",
)
#: The clock of each database, and the statements of each step with all their columns.
ON_EACH_DATABASE_OF_AIRFLOW_3 = ("delivery/test_clocks.py", "delivery/test_protocol.py")
_SERVERS = {"postgresql", "postgres", "mysql"}

#: These take long by waiting, so they start first.
WAITING = ("operators/test_refunds.py", "test_sandbox_recipes.py")
#: These take long by computing, where the others mostly wait.
COMPUTING = ("airflow/", "chaos/test_kills.py", "system/", "test_demo.py", "test_readme.py")

#: `make test-fast`: rooms whose tests need no process, and fixtures of theirs that start one.
_UNITS = ("api/", "delivery/", "links/", "sync/", "triggers/", "warehouse/")
_SLOW_UNITS = ("api/test_conformance", "delivery/test_any_fault.py", "delivery/sql/test_slow_transactions.py")
_PROCESSES = {"airflow_home", "mariadb_url", "migrated_home", "postgres_url"}


def sort(items: list[pytest.Item]) -> None:
    """Start the slow files first, so that the last one to end is short. On Airflow 2, compute last.

    `make test` runs both ends side by side: then one end waits while the other one computes.
    """

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(TESTS).as_posix()
        if path.startswith(WAITING):
            return 0
        return 1 if path.startswith(COMPUTING) != IS_AIRFLOW_2 else 2

    items.sort(key=place)


def mark(items: list[pytest.Item]) -> None:
    """Mark what is for the night, and what is a unit."""
    for item in items:
        path = item.path.relative_to(TESTS).as_posix()
        parameters = set(map(str, item.callspec.params.values())) if hasattr(item, "callspec") else set()
        needs_server = bool(parameters & _SERVERS)
        if is_nightly(f"{path}::{item.name}", needs_server=needs_server):
            item.add_marker(pytest.mark.nightly)
        is_alone = not needs_server and not _PROCESSES & set(getattr(item, "fixturenames", ()))
        if is_alone and path.startswith(_UNITS) and not path.startswith(_SLOW_UNITS):
            item.add_marker(pytest.mark.unit)


def is_nightly(test: str, *, needs_server: bool, is_airflow_2: bool = IS_AIRFLOW_2) -> bool:
    """Whether a test only repeats a path that another one takes by default.

    :param test: the path of its file within `tests`, and `::` and its name if only this test is meant.
    """
    if test.startswith(ON_EACH_DATABASE):
        return False
    if is_airflow_2 and test.startswith((*NIGHTLY_ON_AIRFLOW_2, *LONG)):
        return True
    is_protocol = test.startswith("delivery/") and not test.startswith(ON_EACH_DATABASE_OF_AIRFLOW_3)
    return is_protocol and needs_server
