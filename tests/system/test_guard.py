"""Nothing of a stack outlives it, however it ends."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from tests.system import guard

#: Starts a guard and a session with an orphan in it, tells their numbers, and waits to be killed.
OWNER = """\
import subprocess, sys, time

guard = subprocess.Popen([sys.executable, sys.argv[1]], stdin=subprocess.PIPE, start_new_session=True)
shell = subprocess.Popen(["sh", "-c", "sleep 600 & exec sleep 600"], start_new_session=True)
guard.stdin.write(f"{shell.pid}\\n{sys.argv[2]}\\n".encode())
guard.stdin.flush()
print(guard.pid, shell.pid, flush=True)
time.sleep(600)
"""


def test_a_killed_owner_leaves_no_process_and_no_folder(tmp_path: Path):
    folder = tmp_path / "stack"
    folder.mkdir()
    command = [sys.executable, "-c", textwrap.dedent(OWNER), guard.__file__, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        guard_pid, session = (int(word) for word in owner.stdout.readline().split())
        assert guard.processes_of([session])

        owner.kill()

        while guard.processes_of([guard_pid]):  # ended by the test's own time limit at the latest
            pass
    assert guard.processes_of([session]) == []
    assert not folder.exists()
