"""docs/messages.md lists every message that an operator may have to act on, and no others.

These texts need an entry:

- each warning and error in a log: the first argument of `log.warning`, `log.error` and `log.exception`, also
  of an `OrderLog`, in the rooms of `LOGGING`;
- each error that can fail a task: the first argument of a raised exception in the rooms of `RAISING`;
- each reason for stopping, holding or waiting: the texts in the files of `REASONS`.

These need none: progress (`log.info`), and the exceptions of `EXEMPT`, which fail no task or say all.

An entry is a list item that begins with the message as code, `...` for the parts that differ. It may leave
out the end of the message, and has no backticks inside. Messages with the same meaning share an item.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import airflow_provider_kk

REPOSITORY = Path(__file__).parents[1]
PACKAGE = Path(airflow_provider_kk.__file__).parent
RAISING = ("delivery", "hooks", "operators", "sensors", "sync", "triggers")
LOGGING = (*RAISING, "api", "warehouse")
REASONS = ("delivery/attempt.py", "delivery/clock.py", "delivery/reconcile.py", "sync/failure_policy.py")

#: What is called with the text of a warning that is logged elsewhere.
WARNINGS = ("DurabilityWarning",)
#: Exceptions that fail no task or whose text is complete, and why.
EXEMPT = {
    "AttributeError": "a mistake in Python code",
    "DeferUntil": "no error: the task waits in a trigger",
    "KeyTakenError": "caught where two workers add the same row",
    "LeaseTooShortError": "caught where the request is made: the order is not sent",
    "ResolutionRejected": "the answer to a command, with what to do",
    "ResolutionUnavailable": "the answer to a command, with what to do",
    "TypeError": "the check of an argument",
    "ValueError": "the check of an argument",
}
_GAP = "\0"


@cache
def _trees() -> dict[str, ast.Module]:
    files = sorted(PACKAGE.rglob("*.py"))
    return {file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text()) for file in files}


def _words(text: str) -> int:
    return len(re.findall(r"[^\W\d_]{2,}", text))


def _text(node: ast.AST) -> str:
    """Return the text of an expression, with a gap for each part that differs."""
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        plain = node.value.replace("{are}", "is").replace("`", "")
        return re.sub(r"%[-.\d]*[a-z]|\{\w+\}", _GAP, plain)
    return _GAP


def _texts_in(tree: ast.AST, *, but: str = r"\0") -> Iterator[str]:
    """Yield each whole text below a node, without docstrings and the calls that match `but`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp) and _words(_text(node)) > 1:
            yield _text(node)
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        elif not (isinstance(node, ast.Call) and re.fullmatch(but, ast.unparse(node.func))):
            yield from _texts_in(node, but=but)


def _message_of(node: ast.AST, room: str) -> ast.expr | None:
    """Return the expression of the text that a node logs as a warning or raises."""
    call = node.exc if isinstance(node, ast.Raise) else node
    if not isinstance(call, ast.Call) or not call.args:
        return None
    name = ast.unparse(call.func)
    if isinstance(node, ast.Raise):
        is_message = room in RAISING and name not in EXEMPT
    else:
        is_log = room in LOGGING and re.search(r"log\.(warning|error|exception)$", name)
        is_message = bool(is_log) or name in WARNINGS
    return call.args[0] if is_message else None


@cache
def _needed() -> dict[str, str]:
    """Return each message that needs an entry, and its file."""
    assigned = [
        (target.id, node.value, file)
        for file, tree in _trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    found: dict[str, str] = {}
    for file, tree in _trees().items():
        for node in ast.walk(tree):
            argument = _message_of(node, file.split("/")[0])
            values = [argument] if argument else []
            if isinstance(argument, ast.Name):
                # A constant of another module has capitals.
                is_shared = argument.id.isupper()
                values = [v for name, v, at in assigned if name == argument.id and (is_shared or at == file)]
            found |= {text: file for value in values for text in _texts_in(ast.Expr(ast.List([value])))}
        if file in REASONS:
            texts = _texts_in(tree, but=rf".*log\.info|{'|'.join(EXEMPT)}")
            found |= {text: file for text in texts if _words(text) > 3}
    return found


@cache
def _entries() -> list[str]:
    page = (REPOSITORY / "docs" / "messages.md").read_text()
    items = re.findall(r"^- (`.+?)\n\n", page, re.DOTALL | re.MULTILINE)
    return [code for item in items for code in re.findall(r"`([^`]+)`", item)]


def _pattern(entry: str) -> str:
    return ".*".join(re.escape(piece.strip()) for piece in entry.split("...") if piece.strip(" .,:"))


def test_each_message_that_an_operator_may_act_on_has_an_entry() -> None:
    known = re.compile(rf"[\W{_GAP}]*(is )?({'|'.join(map(_pattern, _entries()))})", re.DOTALL)
    missing = [
        f"{file}: {text.replace(_GAP, '...')}" for text, file in _needed().items() if not known.match(text)
    ]
    assert not missing, "Add these to docs/messages.md:\n" + "\n".join(missing)


def test_each_entry_is_a_message_of_the_code() -> None:
    code = "\n\n".join(text for tree in _trees().values() for text in _texts_in(tree))
    stale = [
        entry for entry in _entries() if not re.search(_pattern(entry).replace(".*", r"(?:(?!\n\n).)*"), code)
    ]
    assert not stale, f"Remove these from docs/messages.md, or correct them: {stale}"
    assert not [entry for entry in _entries() if _words(entry) < 2], "an entry of one word fits any message"
