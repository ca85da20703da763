"""The prose check of `make lint` finds each breach of its rules, and nothing else."""

from __future__ import annotations

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

from tests.airflow.support import REPOSITORY

LONG = " ".join(["word"] * 36)


def load_script() -> ModuleType:
    loader = SourceFileLoader("check_prose", str(REPOSITORY / "scripts" / "check-prose"))
    module = module_from_spec(spec_from_loader(loader.name, loader))
    sys.modules[loader.name] = module
    loader.exec_module(module)
    return module


check_prose = load_script()


def check(file: str, text: str) -> list[str]:
    return [
        f"{found.line}: {found.rule}: {found.advice}" for found in check_prose.check_file(Path(file), text)
    ]


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("Whoever reads it\nmends it.", '2: banned word: "mends", write: fix, correct'),
        ("KK refused the order.", '1: banned word: "refused"'),
        ("It is settled later.", '1: banned word: "settled"'),
        ("One.\n\nTwo.\nA " + LONG, "4: sentence over 35 words: 37 words"),
        ("- " + LONG, "1: sentence over 35 words"),
        ("What is held comes first.", "1: clause as a subject"),
        ("|a|b|\n|-|-|\n|c|" + "word " * 16 + "|", "3: cell over 15 words: 16 words"),
        ("a " + "x" * 120, "1: line over 120 characters: 122 characters"),
        ("```\n" + "x " * 70 + "\n```", "2: line over 120 characters"),
    ],
)
def test_pages(text: str, finding: str):
    assert any(found.startswith(finding) for found in check("page.md", text))


@pytest.mark.parametrize(
    ("source", "finding"),
    [
        ("# one\n# a log tells it", '2: banned word: "tells"'),
        ('"""First.\n\nIt rests.\n"""', '3: banned word: "rests"'),
        ('"""' + LONG + '"""', "1: sentence over 35 words"),
        ("x = f'KK refused {order} again'", '1: banned word: "refused"'),
    ],
)
def test_modules(source: str, finding: str):
    assert any(found.startswith(finding) for found in check("module.py", source))


def test_code_links_and_standard_terms_pass():
    link = "x" * 120
    page = f"The settle window, `told`, Connection refused.\n\n- [it](https://{link})\n\n```\nrests\n```\n"
    assert not check("page.md", page)
    assert not check("module.py", '"""Use `whoever`."""\nSTATES = ["refused", "--order-again"]\n')


def test_only_unreleased_changes_count():
    text = "## Unreleased\n\n- Mended.\n\n## 1.0.0\n\n- Mended.\n"
    assert len(check("CHANGELOG.md", text)) == 1
