"""What the caller of a struck request gets: another answer, or a broken connection."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from flask import Response, request

from airflow_provider_kk.sandbox import wire
from airflow_provider_kk.sandbox.faults import InjectedFault
from airflow_provider_kk.sandbox.protocol import envelope

if TYPE_CHECKING:
    import threading

    from airflow_provider_kk.sandbox.settings import Settings

PAGE = "<!DOCTYPE html><html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"


def suffer(fault: InjectedFault, answer: Response, settings: Settings, stopped: threading.Event) -> Response:
    """The answer of a struck request; `answer` is what it would have been."""
    options = fault.options
    match fault.kind.effect:
        case "drop":
            return _broken(answer, wire.drop)
        case "reset":
            return _broken(answer, wire.reset)
        case "cut_body":
            return _broken(answer, wire.cut_body)
        case "cut_headers":
            return _broken(answer, wire.cut_headers)
        case "stall":
            return _broken(answer, wire.stall(options["seconds"], stopped))
        case "drip":
            return _broken(answer, wire.drip(options["interval_s"], stopped))
        case _:
            return _answer(fault, answer, settings)


def _answer(fault: InjectedFault, answer: Response, settings: Settings) -> Response:
    options = fault.options
    match fault.kind.effect:
        case "status":
            return server_error(options["status"], options["body"])
        case "html_200":
            return html(200, "Please wait")
        case "garbage":
            return Response('{"code": 10000, "message": "succ', 200, mimetype="application/json")
        case "rate_limit":
            return rate_limited(options["retry_after_s"])
        case "redirect":
            location = options["location"] or request.full_path.rstrip("?")
            return Response("", options["status"], {"Location": location})
        case "auth":
            return unauthorized(settings)
        case "refuse":
            return rejected(
                options["code"], options["message"], options["status"] or settings.rejection_status
            )
        case _:
            return answer


def as_json(data: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(json.dumps(data), status, mimetype="application/json")


def rejected(code: int, message: str, status: int) -> Response:
    """KK says no."""
    return as_json(envelope(None, code, message), status)


def html(status: int, title: str) -> Response:
    """What proxies and web servers say."""
    return Response(PAGE.format(title), status, mimetype="text/html")


def server_error(status: int, body: str) -> Response:
    """A 5xx in one of the forms that gateways, frameworks and KK itself give it."""
    if body == "html":
        return html(status, f"{status} Server Error")
    if body == "json":
        return as_json({"timestamp": 1700000000000, "status": status, "error": "Server Error"}, status)
    return rejected(status, "system error", status)


def rate_limited(retry_after_s: float | None) -> Response:
    """HTTP 429; None or a negative time: without `Retry-After`."""
    answer = rejected(429, "Too Many Requests", 429)
    if retry_after_s is not None and retry_after_s >= 0:
        answer.headers["Retry-After"] = f"{retry_after_s:g}"
    return answer


def unauthorized(settings: Settings) -> Response:
    """What a wrong token gets; KK does not document the body."""
    match settings.unauthorized:
        case "empty":
            return Response("", 401)
        case "html":
            return html(401, "401 Unauthorized")
        case "envelope_200":
            return rejected(401, "Unauthorized", 200)
        case _:
            return rejected(401, "Unauthorized", 401)


def _broken(answer: Response, effect: wire.Effect) -> Response:
    request.environ[wire.EFFECT] = effect
    return answer
