"""For the reference in docs/: an operator's `**kwargs` become the arguments of our classes below it."""

from __future__ import annotations

from typing import Any

import griffe


class InheritedArguments(griffe.Extension):
    """Without it, arguments that a base class takes have no type and no default, or seem not to exist."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Look at every class of the package."""
        for module in _modules(pkg):
            for found in module.classes.values():
                if not found.is_alias:
                    _inherit(found)


def _modules(module: griffe.Module) -> list[griffe.Module]:
    inner = [one for one in module.modules.values() if not one.is_alias]
    return [module, *(below for one in inner for below in _modules(one))]


def _inherit(found: griffe.Class) -> None:
    own = found.members.get("__init__")
    if not isinstance(own, griffe.Function) or not any(
        one.kind is griffe.ParameterKind.var_keyword for one in own.parameters
    ):
        return
    for base in found.mro():
        init = base.members.get("__init__")
        for one in init.parameters if isinstance(init, griffe.Function) else ():
            if one.kind is griffe.ParameterKind.keyword_only and one.name not in own.parameters:
                own.parameters.add(one)
