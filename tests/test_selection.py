"""What is left to the night runs by default somewhere."""

from __future__ import annotations

from collections import Counter

from tests.selection import (
    COMPUTING,
    LONG,
    NIGHTLY_ON_AIRFLOW_2,
    ON_EACH_DATABASE,
    ON_EACH_DATABASE_OF_AIRFLOW_3,
    TESTS,
    WAITING,
    is_nightly,
)

FILES = sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py"))
ROOMS = ("airflow/", "cli/", "delivery/sql/", "hooks/", "operators/", "plugins/", "sensors/")


def test_every_path_of_the_selection_exists() -> None:
    on_each_database = [*ON_EACH_DATABASE, *ON_EACH_DATABASE_OF_AIRFLOW_3]
    for start in [*LONG, *NIGHTLY_ON_AIRFLOW_2, *on_each_database, *WAITING, *COMPUTING]:
        file, _, test = start.partition("::")
        found = [path for path in FILES if path.startswith(file)]
        assert any(f"def {test}" in (TESTS / path).read_text() for path in found), start


def test_every_file_runs_by_default_on_airflow_3() -> None:
    assert [path for path in FILES if is_nightly(path, needs_server=False, is_airflow_2=False)] == []


def test_rooms_that_import_airflow_or_sqlalchemy_run_by_default_on_airflow_2() -> None:
    files = [path for path in FILES if path.startswith(ROOMS)]
    assert len(files) > 50
    assert [path for path in files if is_nightly(path, needs_server=True, is_airflow_2=True)] == []
    for path, left_out in Counter(test.partition("::")[0] for test in LONG).items():
        assert (TESTS / path).read_text().count("\ndef test_") > left_out, path
