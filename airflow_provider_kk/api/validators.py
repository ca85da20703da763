"""Check the values and the names of what is sent: text of a width, a country, a quantity, an order number.

Each check takes what a warehouse, a template or JSON may yield and returns the clean value, or raises a
CellError that describes what to pass. No message repeats the value: it may be somebody's name.
Warnings go to the list `notices` of the validation's context. `RequestModel.parse` collects both.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, NoReturn, Self, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails

from airflow_provider_kk.api.clean_text import (
    CellError,
    check,
    check_encoding,
    is_missing,
    plain_text,
    read_quantity,
    tidy,
    whole_number,
)
from airflow_provider_kk.api.countries import ALPHA_2, country_candidates, country_code
from airflow_provider_kk.api.errors import Fault, InvalidOrderError

ORDER_NUMBER_WIDTH = 40
"""The longest order number KK is known to keep whole (documented for a sibling call)."""
MAX_QUANTITY = 10**16 - 1
"""KK documents `int[16]`: 16 digits."""
CHANNEL_TYPES = ("Standard", "Express", "Expedited")
"""KK's shipping speeds (page "Create order", v2)."""
#: What free text may have beside printable characters.
_LINE_ENDS = str.maketrans("\t\n\r", "   ")
PROVINCE_REQUIRED = "is required. If the country has no provinces, repeat the city"


def text(
    width: int | None = None, *, required: bool | str = False, number_ok: bool = False
) -> BeforeValidator:
    """Check text of one line, trimmed, of at most `width` characters.

    Empty text is absent, or a fault with the message `required`.

    With `number_ok`, whole numbers are taken as their digits, since warehouses store zips and order numbers
    as integers and native rendering of templates yields them. Zeros or a plus sign that were lost on the way
    cannot be seen here: where they matter, pass text.
    """

    def read(value: object, info: ValidationInfo) -> str | None:
        line = _read(value, info, number_ok, required)
        if line is not None and width is not None and len(line) > width:
            raise CellError(f"is {len(line)} characters long, KK takes at most {width}")
        return line

    return BeforeValidator(read)


def _note(value: object, info: ValidationInfo) -> str | None:
    """Free text, where line ends are part of it."""
    return _read(value, info, number_ok=True, required=False, lines=True)


def _read(
    value: object, info: ValidationInfo, number_ok: bool, required: bool | str, *, lines: bool = False
) -> str | None:
    """Return a cell as text, by the rules of `clean_text`; None where it is blank and need not be there."""
    field = str(info.field_name)
    raw = _as_text(value, number_ok)
    if (plain := plain_text(raw, field)) is not None:
        return plain
    warning = check_encoding(raw)
    line = tidy(raw, field)
    if line and is_missing(line, field):
        if required or field == "custom_order_number":
            raise CellError(
                f"is the text {line!r}, which stands for a missing value: correct the source of it"
            )
        _notify(info, f"the text {line!r} counts as blank")
        return None
    if not line:
        if required:
            raise CellError("is required" if required is True else required)
        return None
    if not lines and field != "custom_order_number":
        # Line ends and tabs inside a line come from address forms with several rows.
        line = re.sub(r"[ \t]*[\t\r\n\v\f\x85\u2028\u2029]+[ \t]*", " ", line)
    if re.search(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]", line.translate(_LINE_ENDS) if lines else line):
        raise CellError("has control characters or invalid Unicode: remove them")
    if warning := check(line, field) or warning:
        _notify(info, warning)
    return line


def _order_number(value: object, info: ValidationInfo) -> str | None:
    number = _read(value, info, number_ok=True, required=False)
    if number is None:
        if value is not None:
            # Taken for absent, an order whose number a template failed to fill would get a new one each run.
            raise CellError("is empty: pass a number, or leave the field out")
        return None
    if not re.fullmatch(r"[ -~]+", number):
        raise CellError("must be printable ASCII: letters, digits and signs without accents")
    if len(number) > ORDER_NUMBER_WIDTH:
        raise CellError(f"is {len(number)} characters long, KK keeps at most {ORDER_NUMBER_WIDTH}")
    return number


def _country(value: object, info: ValidationInfo) -> str:
    if isinstance(value, str) and value in ALPHA_2:
        return value
    word = _read(
        value, info, number_ok=False, required="is required: an ISO 3166 alpha-2 code such as FR or US"
    )
    code = country_code(word or "")
    if code:
        if code != str(word).upper():
            _notify(info, f"{word!r} is read as {code}")
        return code
    candidates = " or ".join(country_candidates(word or ""))
    shown = f"{word!r} is" if re.fullmatch(r"[A-Za-z]{1,3}", word or "") else "is"
    did_you_mean = f". Did you mean {candidates}?" if candidates else ". Pass a code such as FR or US"
    raise CellError(f"{shown} neither an ISO 3166 alpha-2 code nor an unambiguous country name{did_you_mean}")


def _quantity(value: object) -> int:
    number = read_quantity(value) if isinstance(value, str) else whole_number(value)
    if number is None:
        raise CellError(f"must be a whole number such as 3 or '3', not {_kind(value)}")
    if number < 1:
        raise CellError("must be at least 1")
    if number > MAX_QUANTITY:
        raise CellError("has more than 16 digits")
    return number


def _channel_type(value: object, info: ValidationInfo) -> str | None:
    word = _read(value, info, number_ok=False, required=False)
    if not word:
        return None
    for channel_type in CHANNEL_TYPES:
        if channel_type.lower() == word.lower():
            return channel_type
    raise CellError(f"must be one of {', '.join(CHANNEL_TYPES)}")


def _parsed(value: object) -> object:
    """Return an address, or lines, which templates yield as JSON text."""
    if value is None or (isinstance(value, str) and not value.strip()):
        raise CellError("is required")
    return parse_json(value) if isinstance(value, str) else value


def _address(value: object) -> object:
    data = _parsed(value)
    if isinstance(value, str) and not isinstance(data, dict):
        raise CellError("must be an object with country, phone, recipient, province, ...")
    return data


def _lines(value: object) -> object:
    data = _parsed(value)
    if not isinstance(data, list | tuple):
        raise CellError(f"must be a list of lines, not {_kind(data)}")
    if not data:
        raise CellError("must have at least one line")
    return list(data)


OrderNumber: TypeAlias = Annotated[str | None, BeforeValidator(_order_number)]
Country: TypeAlias = Annotated[str, BeforeValidator(_country)]
Quantity: TypeAlias = Annotated[int, BeforeValidator(_quantity)]
ChannelType: TypeAlias = Annotated[str | None, BeforeValidator(_channel_type)]
Note: TypeAlias = Annotated[str | None, BeforeValidator(_note), Field(repr=False)]
as_address = BeforeValidator(_address)
as_lines = BeforeValidator(_lines)


def parse_json(source: str) -> Any:
    """Parse JSON text; numbers stay exact. Raises CellError, which describes how to pass it."""
    try:
        return json.loads(source, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        fault = _not_json(source, error)
    except CellError as error:
        fault = str(error)
    except (ValueError, RecursionError, ArithmeticError):
        fault = "is not valid JSON: a number is invalid or too long, or the nesting is too deep"
    raise CellError(fault)


def _not_json(source: str, error: json.JSONDecodeError) -> str:
    rest = source[error.pos :].lstrip()
    if source.strip() == "None":
        return "is the text 'None': the template has no value. Check that the upstream task returned one"
    if rest.startswith(("'", "None", "True", "False", "Decimal(", "Order", "datetime", "UUID(")) or re.match(
        r"\s*(address|country|sku|Order\w*\()", source
    ):
        return (
            "is the Python repr of an object, not JSON: pass the task's `.output` (an XComArg), or render it "
            "with `{{ ... | tojson }}`. In a task, return `order.model_dump()` instead of the Order"
        )
    return f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"


def _as_text(value: object, number_ok: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    number = whole_number(value) if number_ok else None
    if number is not None and number >= 0:
        return str(number)
    raise CellError(f"must be text, not {_kind(value)}")


def _notify(info: ValidationInfo, message: str) -> None:
    if info.context:
        info.context["notices"].append(Fault(str(info.field_name), message))


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "True or False"
    if isinstance(value, float | Decimal):
        return "a number with decimals, or one too large to be exact"
    if isinstance(value, str):
        return "other text"
    return {dict: "an object", list: "a list", type(None): "nothing"}.get(type(value), type(value).__name__)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise CellError("is JSON with a key twice in one object: remove one of the two")
    return found


def _no_constant(_name: str) -> NoReturn:
    raise ValueError("not JSON")


class RequestModel(BaseModel):
    """Base of the models that are sent: frozen, no unknown fields, names in snake_case or KK's own.

    Names are compared without case and underscores, so `sku`, `SKU` and KK's `orderItemsList` all work.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    other_names: ClassVar[dict[str, str]] = {}
    """Names of KK's for a field, squashed (lower case, no underscores)."""
    near_names: ClassVar[dict[str, str]] = {}
    """Names that are not taken, but whose meaning can be guessed for a hint."""
    parts: ClassVar[dict[str, type[RequestModel]]] = {}
    """The models below this one, by the path of the first of each."""

    @model_validator(mode="before")
    @classmethod
    def _own_names(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        named: dict[Any, Any] = {}
        for key, value in data.items():
            field = _names_of(cls).get(_squash(key)) if isinstance(key, str) else None
            # A field given twice stays under its second name and is rejected like an unknown one.
            named[field if field and field not in named else key] = value
        return named

    @classmethod
    def parse(cls, data: RequestModel | Mapping[str, Any] | str, notices: list[Fault] | None = None) -> Self:
        """Check a model, a mapping or JSON text and return it as a model. Raises InvalidOrderError.

        Gets `notices` what was read differently from how it was written, and what looks doubtful.
        """
        faults: tuple[Fault, ...]
        found: list[Fault] = []
        try:
            return cls.model_validate(_plain(data), context={"notices": found})
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            faults = tuple(_fault(cls, detail) for detail in details)
        except CellError as error:
            faults = (Fault("", f"the order {error}"),)
        finally:
            if notices is not None:
                notices += [Fault(_path_of(cls, field), message) for field, message in found]
        # Raised outside of the handler: pydantic's errors keep the order's values within them.
        raise InvalidOrderError(faults)


def _plain(data: object) -> dict[str, Any]:
    """Return data that pydantic can check; of models too, since `model_copy(update=...)` does not check."""
    if isinstance(data, RequestModel):
        return data.model_dump()
    if isinstance(data, str):
        data = parse_json(data)
    if not isinstance(data, Mapping):
        raise CellError(f"must be an Order, a mapping or a JSON object, not {type(data).__name__}")
    return dict(data)


def _fault(model: type[RequestModel], detail: ErrorDetails) -> Fault:
    """Translate a finding of pydantic. Only texts that hold no value are passed on."""
    *above, last = detail["loc"] or ("",)
    kind = detail["type"]
    if kind == "extra_forbidden":
        owner = model.parts.get(_path([0 if isinstance(step, int) else step for step in above]), model)
        return Fault(_path([*above, _shown(last)]), _unknown_field(owner, str(last)))
    if isinstance(error := detail.get("ctx", {}).get("error"), CellError):
        return Fault(_path([*above, last]), str(error))
    messages = {
        "missing": PROVINCE_REQUIRED if last == "province" else "is required",
        "model_type": "must be an object with named fields",
        "invalid_key": "names of fields must be text",
    }
    return Fault(_path([*above, last]), messages.get(kind, "is not valid"))


def _unknown_field(owner: type[RequestModel], name: str) -> str:
    squashed = _squash(name)
    field = _names_of(owner).get(squashed)
    if field:
        return f"is given twice, under this name and as {field}"
    near = owner.near_names.get(squashed)
    if near is None:
        close = difflib.get_close_matches(squashed[:64], _names_of(owner), n=1, cutoff=0.7)
        near = _names_of(owner)[close[0]] if close else _field_of_part(owner, squashed)
    return "is not a field of an order" + (f". Did you mean {near}?" if near else "")


def _field_of_part(owner: type[RequestModel], squashed: str) -> str | None:
    """Return the path of a field of the address or of a line that was given beside them."""
    for path, part in owner.parts.items():
        if field := _names_of(part).get(squashed) or part.near_names.get(squashed):
            return f"{path}.{field}"
    return None


def _path(loc: list[int | str]) -> str:
    path = ""
    for step in loc:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else step
    return path


def _path_of(model: type[RequestModel], field: str) -> str:
    """Return a notice's field path. Lines of goods get none, so an unknown field is the address's."""
    return field if field in model.model_fields else f"address.{field}"


def _shown(name: int | str) -> str:
    return str(name) if re.fullmatch(r"[\w .-]{1,40}", str(name)) else "(a name that cannot be shown)"


@functools.cache
def _names_of(model: type[RequestModel]) -> dict[str, str]:
    """Return every name a field goes by, squashed, with the field's own name."""
    return {_squash(field): field for field in model.model_fields} | model.other_names


def _squash(name: str) -> str:
    return name.replace("_", "").lower()
