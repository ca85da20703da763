"""`scripts/environment` makes an environment with a Python that is not part of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]

#: Looks like any Python of a fitting version, but makes no environment.
PYTHON = """#!/bin/sh
echo "$0 $*" >> "{log}"
case "$1" in -m) exit 9;; esac
"""


def test_environment_is_not_made_with_its_own_python(tmp_path: Path) -> None:
    log, venv = tmp_path / "log", tmp_path / "own-environment"
    folders = [venv / "bin", tmp_path / "bin"]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "python3").write_text(PYTHON.format(log=log))
        (folder / "python3").chmod(0o755)
    path = os.pathsep.join([*map(str, folders), "/usr/bin", "/bin"])
    env = {**os.environ, "PATH": path, "VENV": str(venv), "PYTHON": ""}

    done = subprocess.run(
        [REPOSITORY / "scripts" / "environment", "3.3"],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    (REPOSITORY / ".venv" / f".{venv.name}.lock").unlink(missing_ok=True)

    assert done.returncode == 9, done.stderr
    assert f"{folders[1]}/python3 -m venv {venv}" in log.read_text()
    assert str(folders[0]) not in log.read_text()
