"""One word, one meaning: names in the package, and the glossary as the only list of terms."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import airflow_provider_kk
from tests.airflow.support import REPOSITORY

PACKAGE = Path(airflow_provider_kk.__file__).parent
TREES = {path.relative_to(PACKAGE): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
#: By convention of Airflow's providers, modules of different kinds are called by what they are about.
SHARED_BASE_NAMES = {"__init__", "orders", "refunds", "kk"}
DOCS = REPOSITORY / "docs"

#: Words that are not used in names, and the term to use instead.
REPLACED = {
    "heal": "recover, adopt",
    "healed": "recover, adopt",
    "healing": "recover, adopt",
    "settled": "reconcile; `settle window` and what is derived from it stay",
    "settles": "reconcile",
    "settling": "reconcile",
    "judge": "reconcile, audit",
    "human": "held, manual resolution",
    "word": "resolution, or what it is: status, argument",
    "words": "resolutions, or what they are: statuses, arguments",
    "say": "print, log, report",
    "said": "resolution",
    "declare": "resolve",
    "declared": "resolved",
    "refuse": "reject",
    "refused": "rejected",
    "refusal": "rejection",
    "refusals": "rejections",
    "rests": "back-off",
    "halted": "circuit breaker",
    "station": "fulfilment status",
    "journey": "fulfilment",
    "board": "run queue",
    "controls": "sentinel orders",
    "again": "retry, resend",
    "mend": "fix",
    "mends": "fix",
    "tell": "log, report, describe, return",
    "tells": "log, report, describe, return",
    "told": "logged, reported, described",
    "telling": "log, report, describe, return",
    "dialect": "API version",
    "dialects": "API versions",
}
#: Names that hold such a word in another, standard meaning.
STANDARD = {
    "_can_be_declared": "SQL's DECLARE of a cursor",
    "dialect": "of SQL",
    "dialect_name": "of SQL",
    "dialect_of": "of SQL",
    "DIALECTS": "of SQL",
    "SqlDialect": "of SQL",
    "load_dialect_impl": "SQLAlchemy's name",
    "order_again": "the option --order-again",
    "_order_again": "the option --order-again",
}


def names_of(tree: ast.Module) -> Iterator[str]:
    """The names that a module gives to classes, functions, arguments, attributes and constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        if isinstance(node, ast.ClassDef | ast.Module):
            yield from assigned_in(node)


def assigned_in(node: ast.ClassDef | ast.Module) -> Iterator[str]:
    for statement in node.body:
        targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
        yield from (target.id for target in targets if isinstance(target, ast.Name))


def words_of(name: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)}


def glossary() -> dict[str, str]:
    entries = re.findall(
        r"^- \*\*(.+?)\*\*: (.+(?:\n  .+)*)$", (DOCS / "glossary.md").read_text(), re.MULTILINE
    )
    return {term: " ".join(meaning.split()) for term, meaning in entries}


def test_no_class_name_occurs_twice():
    names = Counter(
        node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]


def test_no_base_name_of_a_file_occurs_more_than_twice():
    names = Counter(path.stem for path in TREES if path.stem not in SHARED_BASE_NAMES)
    assert not [name for name, count in names.items() if count > 2]


@pytest.mark.parametrize("path", TREES, ids=str)
def test_replaced_words_do_not_come_back(path: Path):
    names = {*names_of(TREES[path]), *path.with_suffix("").parts} - set(STANDARD)
    assert not {
        f"{name}: use {REPLACED[word]}" for name in names for word in words_of(name) if word in REPLACED
    }


def test_the_glossary_has_at_most_30_terms_of_one_or_two_sentences():
    terms = glossary()
    assert 0 < len(terms) <= 30
    assert list(terms) == sorted(terms, key=str.lower)
    assert not [
        term for term, meaning in terms.items() if len(re.findall(r"\.(?= |$)", meaning)) not in (1, 2)
    ]


@pytest.mark.parametrize("term", glossary())
def test_every_term_is_used(term: str):
    pages = [page for page in [REPOSITORY / "README.md", *DOCS.glob("*.md")] if page.stem != "glossary"]
    text = " ".join(page.read_text() for page in pages).lower()
    stem = term.lower().removesuffix("e")  # adopt, adopted; reconcile, reconciling
    is_used = re.search(r"\b" + r"[\s_]+".join(map(re.escape, stem.split())), text) is not None
    assert is_used
