"""Hide personal data in rendered template fields, which Airflow stores for every task, also mapped ones.

To render a field, Airflow calls the task's `render_template` with the field's value, or the value itself when
it is callable, and sets the field to the result. This holds for mapped tasks, too. So each value that a field
is set to after the first call of `render_template` is masked.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from typing import Any

from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator

#: The fields of an order without personal data, in lower case without underscores.
_SHOWN = {"customordernumber", "customorderid", "sku", "quantity", "saleplatform", "channeltype"}
_HIDDEN = "***"


class Masked:
    """A value whose text, which Airflow stores, has goods and order number and hides everything else."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __str__(self) -> str:
        seen = _seen(self.value)
        return seen if isinstance(seen, str) else json.dumps(seen, default=str)

    __repr__ = __str__


def unmasked(value: Any) -> Any:
    """Return the value itself if it is masked, else the value as it is."""
    return value.value if isinstance(value, Masked) else value


class PersonalField:
    """A template field that may hold customers' data: it masks each value that rendering sets."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, task: Any, owner: type | None = None) -> Any:
        if task is None:
            return self
        try:
            return vars(task)[self._name]
        except KeyError:
            raise AttributeError(f"{type(task).__name__}.{self._name} is not set") from None

    def __set__(self, task: MaskingOperator, value: Any) -> None:
        fields = vars(task)
        is_rendered = task.is_rendering or callable(fields.get(self._name))
        if is_rendered and value is not None and not isinstance(value, Masked):
            value = Masked(value)
        fields[self._name] = value


class MaskingOperator(BaseOperator):
    """An operator with fields of type `PersonalField`."""

    is_rendering = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in _personal_fields(cls):
            if not isinstance(inspect.getattr_static(cls, name), PersonalField):
                raise TypeError(
                    f"{cls.__name__}.{name} replaces a field that masks personal data. "
                    "Set the field in __init__, not in the class"
                )

    def render_template(self, content: Any, *args: Any, **kwargs: Any) -> Any:
        """Render a value, and mask personal fields that are set from now on."""
        self.is_rendering = True
        return super().render_template(content, *args, **kwargs)

    def require_masked(self) -> None:
        """Fail the task if Airflow has rendered, and so stored, its personal fields unmasked.

        :raises AirflowFailException: names the fields, not their contents.
        """
        values = {name: getattr(self, name) for name in _personal_fields(type(self))}
        if bare := [name for name, value in values.items() if not isinstance(value, Masked) and value]:
            raise AirflowFailException(
                f"Nothing is sent, because {', '.join(bare)} may hold personal data, and Airflow "
                f"{airflow_version} renders it without masking. Delete the rows of this task in the table "
                "rendered_task_instance_fields, and use a version of Airflow that this provider supports. "
                "If you call execute yourself, call render_template_fields(context) first"
            )


def _personal_fields(cls: type) -> list[str]:
    declared = (item for base in cls.__mro__ for item in vars(base).items())
    return sorted({name for name, value in declared if isinstance(value, PersonalField)})


def _seen(value: Any, name: object = None) -> Any:
    if hasattr(value, "model_dump"):
        value = value.model_dump(exclude_none=True)
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, Mapping):
        return {str(key): _seen(inner, key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_seen(inner) for inner in value]
    is_shown = value is None or str(name).replace("_", "").lower() in _SHOWN
    return value if is_shown else _HIDDEN


def _parsed(text: str) -> Any:
    """Parse JSON text that holds an order or lines; return any other text as it is."""
    try:
        parsed = json.loads(text)
    except ValueError:
        return text
    return parsed if isinstance(parsed, dict | list) else text
