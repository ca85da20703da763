"""Imported once by the process that `forked_runs` forks from."""

from tests.airflow.forked_runs import import_all

import_all()
