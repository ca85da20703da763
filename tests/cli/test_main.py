"""`kk` loads a command only when it is asked for, and says what is missing."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from airflow_provider_kk import __version__
from airflow_provider_kk.cli import main as cli


def fake_command(monkeypatch: pytest.MonkeyPatch, run) -> None:
    command = SimpleNamespace(add_arguments=lambda parser: parser.add_argument("--port", type=int), run=run)
    monkeypatch.setattr(cli, "import_module", lambda name: command)


def test_help_lists_every_command_without_loading_one(capsys):
    code = "import sys; from airflow_provider_kk.cli.main import main\n"
    code += "try: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'airflow', 'flask', 'requests', 'sqlalchemy', 'pydantic'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert all(name in done.stdout for name in cli.COMMANDS)


def test_no_command_imports_airflow_before_it_keeps_standard_output_for_itself():
    """Airflow's log keeps the standard output of the moment at which Airflow is imported."""
    code = (
        "import sys; from importlib import import_module; from airflow_provider_kk.cli.main import COMMANDS\n"
    )
    code += "for _, module in COMMANDS.values(): import_module(module)\n"
    code += "assert 'airflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_command_gets_its_arguments_and_gives_the_exit_status(monkeypatch):
    fake_command(monkeypatch, lambda arguments: arguments.port)

    assert cli.main(["sandbox", "--port", "7"]) == 7


def test_an_interrupted_command_ends_quietly(monkeypatch):
    def interrupted(arguments):
        raise KeyboardInterrupt

    fake_command(monkeypatch, interrupted)
    assert cli.main(["sandbox"]) == 130


@pytest.mark.parametrize("words", [[], ["leger"], ["--port", "7"]])
def test_an_unknown_command_is_a_usage_error(words, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["chekc", "orders.csv"], "check"),
        (["ledger", "lst"], "list"),
        (["check", "orders.csv", "--delimeter=;"], "--delimiter"),
        (["ledger", "list", "--older-thn", "3d"], "--older-than"),
    ],
)
def test_a_mistyped_command_or_option_gets_a_proposal(words, meant, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    assert capsys.readouterr().err.rstrip().endswith(f"Did you mean {meant}?")


def test_a_name_that_is_like_no_other_gets_no_proposal(capsys):
    with pytest.raises(SystemExit):
        cli.main(["quux"])
    assert "Did you mean" not in capsys.readouterr().err


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out.strip() == f"airflow-provider-kk {__version__}"
