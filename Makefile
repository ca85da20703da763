# Everything a developer does, from a fresh clone with python3, pip, venv and make. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help demo ui test test-3.3 test-2.11 test-fast test-nightly test-range test-system test-ui test-warehouses \
	chaos model bench bench-long test-lowest coverage lint format build docs audit env-3.3 env-2.11 test-packages clean

AIRFLOW_3 := .venv/airflow-3.3/bin
# make test ARGS='-k ledger -x'
ARGS ?=
# Tests wait as much as they compute, so more files run at once than there are processors, the slow ones first.
# To see prints, or to debug: make test PARALLEL=
WORKERS = $(shell expr 2 '*' `nproc`)
PARALLEL ?= -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# Additional needs of a target: a dependency group, and Debian packages.
MORE ?=
export PYTHON

help:  ## list what can be made
	@grep -hE '^[a-z0-9.-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

demo: env-3.3  ## send a warehouse's orders to a local KK in a real Airflow run, twice, and compare
	@PATH="$(CURDIR)/$(AIRFLOW_3):$$PATH" python -m demo $(ARGS)

ui: env-3.3  ## start Airflow's UI on the demo's data
	@PATH="$(CURDIR)/$(AIRFLOW_3):$$PATH" python -m demo.ui $(ARGS)

test: test-packages  ## run the default tests on both ends of the range of Airflow, side by side
	@scripts/test-both

test-fast: env-3.3  ## run the units only: no Airflow process, no database server; for the inner loop
	@PATH="$(CURDIR)/$(AIRFLOW_3):$$PATH" python -m pytest $(PARALLEL) -m "unit and not nightly" $(ARGS)

test-nightly:  ## run all tests on both ends, also those that repeat a path on another database or Airflow
	@$(MAKE) --no-print-directory test ARGS="-m 'not system and not ui and not warehouses' $(ARGS)"

test-3.3: test-packages env-3.3  ## run the default tests on Airflow 3.3
	@PATH="$(CURDIR)/$(AIRFLOW_3):$$PATH" python -m pytest $(PARALLEL) $(ARGS)

test-2.11: WORKERS = $(shell nproc)
test-2.11: test-packages  ## run what Airflow 2.11 could break, with the built wheel
	@scripts/environment 2.11 $(MORE) || { [ $$? = 3 ] && [ -z "$${CI:-}" ] && exit 0 || exit 1; }; \
	scripts/test-wheel 2.11 $(PARALLEL) $(ARGS)

test-range:  ## run what an Airflow could break on 3.0, 3.1, 3.2 and the newest pre-release
	@scripts/test-range $(PARALLEL) $(ARGS)

test-system: test-system-3.3 test-system-2.11  ## kill Celery workers under a run, on both ends of the range; takes minutes

test-system-%:
	@$(MAKE) --no-print-directory test-$* MORE=system PARALLEL= ARGS="-m system -s tests/system $(ARGS)"

test-ui:  ## click through the Orders page in a real browser, in a real Airflow
	@$(MAKE) --no-print-directory test-3.3 MORE=ui PARALLEL= ARGS="-m ui -s tests/ui $(ARGS)"

test-warehouses:  ## run the main job on Airflow's real hooks of Snowflake, Redshift and JDBC
	@scripts/environment warehouses
	@scripts/install-test-packages warehouses
	@PATH="$(CURDIR)/.venv/warehouses/bin:$$PATH" python -m pytest -m warehouses tests/warehouses $(ARGS)

chaos: env-3.3 test-packages  ## kill the delivery of orders 20,000 times, simulate it 5,000,000 times, break it on purpose
	@PATH="$(CURDIR)/$(AIRFLOW_3):$$PATH" python -m tests.chaos $(ARGS)

model: env-3.3  ## check every schedule of the delivery protocol's model within bounds, by SPIN
	@scripts/install-test-packages model || echo "Without SPIN the model is not checked."
	@PATH="$(CURDIR)/$(AIRFLOW_3):$$PATH" python -m tests.model $(ARGS)

bench:  ## measure delivery beside what one would write without it; some minutes
	@$(MAKE) --no-print-directory env-3.3 test-packages MORE=bench
	@PATH="$(CURDIR)/$(AIRFLOW_3):$$PATH" python -m benchmarks $(ARGS)

bench-long:  ## the same at KK's real rate of 2 a second
	@$(MAKE) --no-print-directory bench ARGS="--long $(ARGS)"

test-lowest:  ## run all tests with the lowest versions that pyproject.toml allows
	@scripts/test-lowest $(ARGS)

lint: env-3.3  ## check style, security, types, prose, known holes of dependencies, and what is tracked
	@scripts/tool-environment audit
	@export PATH="$(CURDIR)/$(AIRFLOW_3):$$PATH"; failed=0; \
	scripts/audit --lenient & \
	for check in 'ruff check .' 'ruff format --check .' mypy scripts/check-tracked scripts/check-prose; do \
		$$check || failed=1; \
	done; \
	wait $$! || failed=1; exit $$failed

docs:  ## build the site of docs/ into build/docs, strictly
	@scripts/tool-environment docs
	@scripts/build-docs

audit:  ## ask PyPI's vulnerability service about all pins; fails when it cannot be reached
	@scripts/tool-environment audit
	@scripts/audit $(ARGS)

format: env-3.3  ## fix what ruff can fix
	@$(AIRFLOW_3)/ruff check --fix .
	@$(AIRFLOW_3)/ruff format .

build:  ## build wheel and sdist into dist/, and check them as a package index would
	@scripts/tool-environment package
	@rm -rf dist && .venv/package/bin/hatchling build
	@.venv/package/bin/twine check --strict dist/*
	@.venv/package/bin/check-wheel-contents dist/*.whl
	@.venv/package/bin/pyroma --min 10 --skip-tests AuthorEmail dist/*.tar.gz # no address is public

coverage:  ## measure which branches of the package the tests reach on Airflow 3.3
	@$(MAKE) --no-print-directory env-3.3 test-packages MORE=coverage
	@rm -rf build/coverage && mkdir -p build/coverage
	@export PATH="$(CURDIR)/$(AIRFLOW_3):$$PATH" COVERAGE_FILE="$(CURDIR)/build/coverage/data"; failed=0; \
	python -m coverage run -m pytest $(PARALLEL) $(ARGS) || failed=1; \
	python -m coverage combine -q && python -m coverage report --skip-covered --sort=cover; exit $$failed

env-3.3:
	@scripts/environment 3.3 $(MORE)

env-2.11:
	@scripts/environment 2.11

test-packages:
	@scripts/install-test-packages $(MORE)

clean:  ## remove environments, builds and caches
	@rm -rf .venv build dist .demo .ui .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
