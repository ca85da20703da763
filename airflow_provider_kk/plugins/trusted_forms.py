"""Protection of forms that change something against requests forged by other sites.

Airflow logs browsers in by a cookie, which browsers may also send with a form of another site. So each such
form must come from the page's own origin, and must have a token that was made for its user.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qs, urlsplit

from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.providers.common.compat.sdk import conf
from fastapi import Depends, Request
from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.exceptions import HTTPException

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser

#: Seconds that a page may stay open: a working day.
_MAX_AGE_S = 12 * 3_600
#: Enough for some hundred orders with their versions.
_MAX_BYTES = 100_000
_NOT_FROM_HERE = (
    "Nothing changed, since this form did not come from this page. Open the page from Airflow's menu and try "
    "again. Behind a proxy, set [api] base_url to the address that browsers use."
)
_EXPIRED = "Nothing changed, since the page is too old, or another user has logged in. Open it again."


@dataclass(frozen=True)
class TrustedForm:
    """The fields of a form that its user sent from this page."""

    fields: dict[str, list[str]]

    def one(self, name: str) -> str:
        """Return the value of a field; empty if the form lacks it."""
        return self.fields.get(name, [""])[0].strip()

    def many(self, name: str) -> list[str]:
        """Return all values of a field."""
        return self.fields.get(name, [])


async def _trusted_form(request: Request, user: GetUserDep) -> TrustedForm:
    if not _is_same_origin(request):
        raise HTTPException(403, _NOT_FROM_HERE)
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > _MAX_BYTES:
        raise HTTPException(413, "Nothing changed, since the form is too long. Choose fewer orders.")
    try:
        text = (await request.body()).decode("utf-8")
        fields = parse_qs(text, keep_blank_values=True, max_num_fields=2_000)
    except ValueError as error:
        raise HTTPException(
            400, "Nothing changed, since the form cannot be parsed. Open the page again."
        ) from error
    form = TrustedForm(fields)
    read_signed("form", form.one("token"), user, _EXPIRED)
    return form


TrustedFormDep = Annotated[TrustedForm, Depends(_trusted_form)]


def form_token(user: BaseUser) -> str:
    """Return the token that a form must have to change something."""
    return sign("form", "", user)


def sign(purpose: str, value: Any, user: BaseUser) -> str:
    """Return a value as signed text for an address or a form, which only this user can use."""
    return str(_serializer(purpose).dumps([str(user.get_id()), value]))


def read_signed(purpose: str, text: str, user: BaseUser, message: str) -> Any:
    """Check a text that `sign` returned, and return its value.

    :raises HTTPException: the text was changed, is of another user, or is too old; with this message.
    """
    try:
        user_id, value = _serializer(purpose).loads(text, max_age=_MAX_AGE_S)
    except BadData:
        user_id, value = None, None
    if user_id != str(user.get_id()):
        raise HTTPException(403, message)
    return value


def _serializer(purpose: str) -> URLSafeTimedSerializer:
    # All API servers of an Airflow have the same secret key.
    return URLSafeTimedSerializer(conf.get("api", "secret_key"), salt=f"airflow-provider-kk {purpose}")


def _is_same_origin(request: Request) -> bool:
    if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return False
    origin = urlsplit(request.headers.get("origin", ""))
    own = {request.headers.get("host"), urlsplit(conf.get("api", "base_url", fallback="") or "").netloc}
    return bool(origin.netloc) and origin.netloc in own
