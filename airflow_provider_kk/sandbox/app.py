"""The Flask application: KK's paths, the control API, and the page for people."""

from __future__ import annotations

from flask import Flask, Response, request

from airflow_provider_kk.sandbox import effects
from airflow_provider_kk.sandbox.calls import CALLS
from airflow_provider_kk.sandbox.control_api import control_api
from airflow_provider_kk.sandbox.kk import KK, endpoint
from airflow_provider_kk.sandbox.loopback import is_loopback
from airflow_provider_kk.sandbox.page import page


def create_app(kk: KK) -> Flask:
    """The whole sandbox as a WSGI application."""
    app = Flask(__name__, static_folder=None)
    app.before_request(_only_loopback)
    rules: dict[str, list[str]] = {}
    for method, rule in CALLS:
        rules.setdefault(rule, []).append(method)
    for rule, methods in rules.items():
        app.add_url_rule(rule, rule, endpoint(kk, rule), methods=methods, provide_automatic_options=False)
    app.register_blueprint(control_api(kk))
    app.add_url_rule("/", "page", lambda: Response(page(kk), mimetype="text/html"))
    return app


def _only_loopback() -> Response | None:
    host = request.host if request.host.endswith("]") else request.host.rsplit(":", 1)[0]
    if is_loopback(host):
        return None
    # A name that a browser was made to resolve to this machine, or a proxy.
    return effects.html(403, "The sandbox answers on loopback only")
