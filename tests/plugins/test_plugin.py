"""What Airflow learns of the page at its start, on every version."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

from airflow_provider_kk.plugins.kk_plugin import OrdersPage
from tests.airflow.support import AIRFLOW_VERSION
from tests.operators.test_imports import SDK, SLOW, modules_after

pytestmark = pytest.mark.range
OURS = "import airflow_provider_kk.plugins.kk_plugin\n"


def test_airflow_finds_the_plugin_by_its_entry_point():
    (entry,) = [one for one in entry_points(group="airflow.plugins") if one.name == "kk"]
    assert entry.load() is OrdersPage


def test_it_offers_a_page_and_a_tab_where_airflow_has_them_and_nothing_elsewhere():
    destinations = [view["destination"] for view in OrdersPage.external_views]
    assert destinations == (["nav", "dag_run"] if AIRFLOW_VERSION >= (3, 1) else [])
    assert bool(OrdersPage.fastapi_apps) is (AIRFLOW_VERSION >= (3, 1))


def test_airflow_loads_it_without_an_error():
    code = (
        "import json\nfrom airflow import plugins_manager as p\np.ensure_plugins_loaded()\n"
        "found = p._get_plugins() if hasattr(p, '_get_plugins') else (p.plugins, p.import_errors)\n"
        "print('FOUND', json.dumps([[str(x.name) for x in found[0]], dict(found[1])]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=600
    )
    names, errors = json.loads(done.stdout.rpartition("FOUND ")[2])
    assert "kk" in names
    assert errors == {}


def test_importing_it_loads_nothing_slow_and_little_of_our_own():
    added = modules_after(SDK + OURS) - modules_after(
        SDK + "from airflow.providers.common.compat.sdk import AirflowPlugin\n"
    )
    assert {
        name for name in added if name.partition(".")[0] in (*SLOW, "fastapi", "starlette", "jinja2")
    } == set()
    assert {name for name in added if name.startswith("airflow_provider_kk.")} == {
        "airflow_provider_kk.plugins",
        "airflow_provider_kk.plugins.kk_plugin",
        "airflow_provider_kk.plugins.urls",
    }


def test_airflow_lists_the_setting_that_names_the_ledgers():
    words = [sys.executable, "-m", "airflow", "config", "list", "--section", "kk", "--include-descriptions"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=600)
    assert "orders_page = " in done.stdout
    assert "Orders page" in done.stdout
    assert "airflow_provider_kk" not in done.stderr
