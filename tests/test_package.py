"""The package as users and Airflow meet it: its metadata, its cost at import, its house rules."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import pkgutil
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers.common.compat.sdk import BaseOperatorLink

import airflow_provider_kk
from airflow_provider_kk.provider_info import get_provider_info
from tests.airflow.support import AIRFLOW_VERSION, REPOSITORY

pytestmark = pytest.mark.range
PACKAGE = Path(airflow_provider_kk.__file__).parent
AIRFLOW = Path(airflow.__file__).parent
ROOMS = [
    "provider_info",
    "api",
    "delivery",
    "warehouse",
    "hooks",
    "sync",
    "assets",
    "triggers",
    "plugins",
    "links",
    "operators",
    "sensors",
]


# Parts of a declared dependency that are installed under another name.
BROUGHT_BY = {"charset_normalizer": "charset-normalizer", "pydantic_core": "pydantic", "werkzeug": "flask"}
# What only type checkers read, Airflow 2's user interface, whose form widgets the hook offers there, and what
# Airflow's API server is made of, whose process the Orders page lives in.
OTHERS_BRING = {"_typeshed", "fastapi", "flask_appbuilder", "itsdangerous", "jinja2", "starlette", "wtforms"}


def modules() -> list[str]:
    return [found.name for found in pkgutil.walk_packages([str(PACKAGE)], "airflow_provider_kk.")]


class TestProviderInfo:
    def test_it_fits_the_schema_that_airflow_checks_at_start(self):
        schema = json.loads((AIRFLOW / "provider_info.schema.json").read_text())
        jsonschema.validate(get_provider_info(), schema)

    def test_it_fits_the_stricter_schema_of_official_providers(self):
        if AIRFLOW_VERSION < (3, 2):
            pytest.skip("older schemas know fewer keys")
        schema = json.loads((AIRFLOW / "provider.yaml.schema.json").read_text())
        # What only Airflow's own release tools write.
        release = {"state": "ready", "source-date-epoch": 0, "versions": ["0.1.0"]}
        jsonschema.validate({**get_provider_info(), **release}, schema)

    def test_it_names_the_distribution(self):
        distribution = importlib.metadata.distribution("airflow-provider-kk")
        assert get_provider_info()["package-name"] == distribution.name

    def test_every_module_and_class_it_names_exists(self):
        info: dict[str, Any] = get_provider_info()
        named = [
            name
            for key in ("operators", "sensors", "hooks", "triggers")
            for row in info[key]
            for name in row["python-modules"]
        ]
        for name in named:
            import_module(name)
        for row in info["connection-types"]:
            assert found(row["hook-class-name"]).conn_type == row["connection-type"]
        for name in info["extra-links"]:
            assert issubclass(found(name), BaseOperatorLink)
        for row in chain(info["asset-uris"], info["dataset-uris"]):
            assert all(
                callable(found(row[key])) for key in ("handler", "factory", "to_openlineage_converter")
            )

    def test_it_imports_nothing(self):
        imported = [
            node
            for node in ast.walk(tree_of("provider_info.py"))
            if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        assert [node.module for node in imported if isinstance(node, ast.ImportFrom)] == ["__future__"]
        assert len(imported) == 1


def build(target: str, directory: Path) -> Path:
    if not (REPOSITORY / "airflow_provider_kk").exists():
        pytest.skip("these tests run beside an installed wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(directory)]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    return next(directory.iterdir())


class TestMetadata:
    def test_the_version_is_in_one_place(self):
        assert importlib.metadata.version("airflow-provider-kk") == airflow_provider_kk.__version__

    def test_airflow_and_the_shell_find_their_way_in(self):
        entry_points = importlib.metadata.distribution("airflow-provider-kk").entry_points
        found = {entry.group: entry.load() for entry in entry_points}
        assert found["apache_airflow_provider"] is get_provider_info
        assert callable(found["console_scripts"])

    def test_what_is_imported_is_declared_and_what_is_declared_is_imported(self):
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
        wanted = chain(project["dependencies"], *project["optional-dependencies"].values())
        declared = {re.split(r"[<>=~! \[;]", name)[0].lower() for name in wanted}
        imported = imported_by(PACKAGE.rglob("*.py")) - sys.stdlib_module_names - OTHERS_BRING
        used = {BROUGHT_BY.get(name, name) for name in imported - {"airflow_provider_kk", "airflow"}}

        assert used == {name for name in declared if not name.startswith("apache-airflow")}

    def test_the_wheel_holds_all_modules_and_nothing_else(self, tmp_path):
        names = {
            name for name in zipfile.ZipFile(build("wheel", tmp_path)).namelist() if ".dist-info/" not in name
        }
        tracked = {str(path.relative_to(REPOSITORY)) for path in PACKAGE.rglob("*") if is_source(path)}
        assert names == tracked
        assert "airflow_provider_kk/py.typed" in names

    def test_the_sdist_holds_what_a_packager_needs(self, tmp_path):
        with tarfile.open(build("sdist", tmp_path)) as sdist:
            names = {name.split("/")[1] for name in sdist.getnames()}
        assert names >= {"tests", "example_dags", "docs", "CHANGELOG.md", "Makefile", "airflow_provider_kk"}
        assert not names & {".venv", "build", "dist"}


class TestCostOfImport:
    """Airflow imports these at each parse of a DAG file, so they load nothing that Airflow has not loaded."""

    SLOW = ("requests", "urllib3", "sqlalchemy", "flask", "pandas", "aiohttp", "wtforms")

    ROOMS = ("hooks", "operators", "sensors", "triggers", "links")

    def test_parsing_a_dag_loads_nothing_slow(self):
        airflow_itself = "from airflow.providers.common.compat.sdk import DAG, BaseHook, BaseOperator, conf"
        ours = [name for name in modules() if name.split(".")[1] in self.ROOMS]
        assert "airflow_provider_kk.operators.orders" in ours
        before, after = loaded_after(airflow_itself), loaded_after(airflow_itself, *ours)
        assert not (after - before) & set(self.SLOW)


class TestHouseRules:
    @pytest.mark.parametrize("room", ["api", "delivery", "sync"])
    def test_these_rooms_would_serve_a_script_without_airflow(self, room):
        assert "airflow" not in imported_by((PACKAGE / room).rglob("*.py"))

    def test_commands_call_the_application_not_the_operators(self):
        used = {room for path in (PACKAGE / "cli").rglob("*.py") for room in rooms_used_by(path)}
        assert "sync" in used
        assert "operators" not in used

    def test_the_protocol_loads_no_database_library(self):
        protocol = [name for name in modules() if name.startswith("airflow_provider_kk.delivery.")]
        protocol = [name for name in protocol if not name.startswith("airflow_provider_kk.delivery.sql")]
        assert "airflow_provider_kk.delivery.dispatcher" in protocol
        assert "sqlalchemy" not in loaded_after(*protocol)

    def test_rooms_import_only_rooms_above_them(self):
        wrong = []
        for room in ROOMS:
            for path in [PACKAGE / f"{room}.py", *(PACKAGE / room).rglob("*.py")]:
                if path.exists():
                    wrong += [f"{path.name}: {name}" for name in rooms_used_by(path) if is_below(name, room)]
        assert not wrong

    def test_every_module_reads_annotations_lazily(self):
        missing = [
            path.name
            for path in PACKAGE.rglob("*.py")
            if path.name != "__init__.py" and "from __future__ import annotations" not in path.read_text()
        ]
        assert not missing


def found(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def is_below(name: str, room: str) -> bool:
    return name not in ROOMS or ROOMS.index(name) > ROOMS.index(room)


def rooms_used_by(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("airflow_provider_kk."):
            yield str(node.module).split(".")[1]


def imported_by(paths: Any) -> set[str]:
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found


def loaded_after(*statements: str) -> set[str]:
    code = "\n".join(text if " " in text else f"import {text}" for text in statements)
    code += "\nimport sys; print('loaded', *{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split("loaded ")[-1].split())


def tree_of(name: str) -> ast.Module:
    return ast.parse((PACKAGE / name).read_text())


def is_source(path: Path) -> bool:
    return path.is_file() and "__pycache__" not in path.parts
