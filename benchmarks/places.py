"""What a benchmark runs in and against: processes of their own, a KK, a database."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from airflow_provider_kk.sandbox.control import SandboxControl
from tests.postgres import find_binaries, throwaway_postgres

TOKEN = "bench-token"
REPOSITORY = Path(__file__).parents[1]
#: With these no limit is in force.
NO_LIMIT = {"rate_burst": 1_000_000, "rate_per_second": 100_000.0}


class Child:
    """`python -m benchmarks.<module> <task as JSON>`: gets ready, waits for `go`, tells its figures."""

    def __init__(self, module: str, task: Mapping[str, Any], env: Mapping[str, str] | None = None) -> None:
        command = [sys.executable, "-m", f"benchmarks.{module}", json.dumps(task)]
        self._process = subprocess.Popen(
            command, cwd=REPOSITORY, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lines = (line for line in self._process.stdout or () if line.startswith("bench: "))

    def wait_until_ready(self) -> None:
        assert next(self._lines) == "bench: ready\n"

    def go(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def figures(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(next(self._lines).removeprefix("bench: "))
        self._process.communicate()
        if self._process.returncode:
            raise RuntimeError(f"a benchmark's process ended with {self._process.returncode}")
        return found


def run_children(module: str, tasks: Sequence[Mapping[str, Any]], **options: Any) -> list[dict[str, Any]]:
    """Run processes that begin at the same moment, and return what each tells."""
    children = [Child(module, task, **options) for task in tasks]
    for child in children:
        child.wait_until_ready()
    for child in children:
        child.go()
    return [child.figures() for child in children]


def run_child(module: str, task: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    return run_children(module, [task], **options)[0]


def ready() -> None:
    """In a child: say that all is prepared, and wait."""
    print("bench: ready", flush=True)
    sys.stdin.readline()


def tell(**figures: Any) -> None:
    """In a child: hand over what was measured."""
    print("bench: " + json.dumps(figures), flush=True)


@contextmanager
def kk(**settings: Any) -> Iterator[SandboxControl]:
    """A sandbox in a process of its own, so that its work is not counted as the client's."""
    code = (
        "import json, sys; from airflow_provider_kk.sandbox.server import SandboxServer\n"
        "with SandboxServer(**json.loads(sys.argv[1])) as server:\n"
        "    print(server.url, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, json.dumps({"token": TOKEN, **settings})]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield SandboxControl(process.stdout.readline().strip())
        finally:
            process.terminate()


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """URLs of empty databases, by kind; PostgreSQL with fsync as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        found = {"sqlite": f"sqlite:///{folder}/ledger.db"}
        binaries = find_binaries()
        if binaries is None:
            yield found
            return
        with throwaway_postgres(binaries, settings="") as url:
            yield {**found, "postgresql": url}
