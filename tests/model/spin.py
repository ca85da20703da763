"""Run SPIN on the model, and read what it reports."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.model.checks import Check

MODEL = Path(__file__).with_name("delivery.pml")
#: Of each search, megabytes; two run at once.
_MEMORY_MB = 1_900
_DEPTH = 5_000_000


class SpinError(Exception):
    """SPIN or the compiler failed, or the search did not end within its limits."""


@dataclass(frozen=True)
class Result:
    """What a search has found."""

    states: int
    depth: int
    seconds: float
    memory_mb: float
    schedule: tuple[str, ...]
    """The steps that lead to a violation; empty when there is none."""


def is_installed() -> bool:
    """Return whether SPIN and a C compiler are there."""
    return bool(shutil.which("spin") and shutil.which("gcc"))


def version() -> str:
    """Return SPIN's own version line."""
    return _run(["spin", "-V"], Path.cwd()).strip()


def search(
    check: Check, *, memory_mb: int = _MEMORY_MB, depth: int = _DEPTH, shortest: bool = False
) -> Result:
    """Search all states of the model within the bounds of a check, up to the first violation.

    :param shortest: search breadth first, so that the schedule of a violation is as short as can be.
    :raises SpinError: the search did not cover all states.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kk-model-") as name:
        folder = Path(name)
        shutil.copy(MODEL, folder)
        _run(["spin", "-a", *check.defines, MODEL.name], folder)
        _run(["gcc", *_options(check, shortest), f"-DMEMLIM={memory_mb}", "-w", "-o", "pan", "pan.c"], folder)
        limits = [] if shortest and not check.is_liveness else [f"-m{depth}"]
        report = _run(["nice", "./pan", *(["-a", "-f"] if check.is_liveness else []), *limits], folder)
        errors, reached = _numbers(r"depth reached (\d+), errors: (\d+)", report)[::-1]
        (states,) = _numbers(r"^\s*(\d+) states, stored", report)
        if not errors and (missing := _INCOMPLETE.search(report)):
            raise SpinError(f"{check.name}: not all states were searched: {missing[0]}")
        schedule = _schedule(check, folder) if errors else ()
        memory = re.search(r"([\d.]+)\s+total actual memory", report)
    return Result(states, reached, time.monotonic() - began, float(memory[1]) if memory else 0.0, schedule)


#: A search that reports one of these has left states out.
_INCOMPLETE = re.compile(
    r"max search depth too small|out of memory|Search not completed|memory limit|Bit statespace"
)


def _options(check: Check, shortest: bool) -> list[str]:
    # Partial-order reduction would leave out nothing: all steps use what workers share.
    if check.is_liveness:
        return ["-O1", "-DNOREDUCE", "-DNFAIR=4"]
    # What ends at a violation runs for a second or two, less than an optimised build takes.
    return ["-DNOREDUCE", "-DSAFETY", *(["-O0", "-DBFS"] if shortest else ["-O1"])]


def _numbers(pattern: str, text: str) -> list[int]:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise SpinError(f"SPIN's report has no {pattern!r}:\n{text[-2000:]}")
    return [int(one) for one in found.groups()]


def _schedule(check: Check, folder: Path) -> tuple[str, ...]:
    """Return the steps of the violation, one a line, as the model's rules print them."""
    replayed = _run(["spin", "-t", "-T", *check.defines, MODEL.name], folder)
    steps: list[str] = []
    units = 0
    for line in (one.strip() for one in replayed.splitlines()):
        if not line.startswith(_PRINTED):
            continue
        if line == "time passes":
            units += 1
            continue
        if units:
            steps.append(f"{units} {'unit' if units == 1 else 'units'} of time")
            units = 0
        steps.append("from here on for ever:" if line.startswith("<<<<<") else line)
        if line.startswith("BROKEN"):
            break
    return (*steps, *([f"{units} units of time"] if units else []))


_PRINTED = ("worker ", "KK: ", "BROKEN", "time passes", "the ", "a person", "an empty", "<<<<<")


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode and command[0] in ("gcc", "spin") and command[1] != "-t":
        raise SpinError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
