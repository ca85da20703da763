"""KKHook: an Airflow connection, however it was made, becomes a client; its Test button says what to mend."""

from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any

import pytest

from airflow_provider_kk.api.models import Order
from airflow_provider_kk.hooks.connection import InvalidConnectionError
from airflow_provider_kk.hooks.kk import KKHook
from airflow_provider_kk.provider_info import CONN_FIELDS
from tests.airflow.support import AIRFLOW_VERSION, AirflowHome
from tests.api.helpers import CREATED, ORDER, Play, SocketServer, http

TOKEN = "tok-3f9a-7712"
NO_ORDERS = {"code": 10000, "message": "ok", "data": {"list": [], "total": 0}}


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch):
    """Makes the connection `kk_default` and a hook on it."""

    def connect(host: str, password: str = TOKEN, **extra: object) -> KKHook:
        connection = {"conn_type": "kk", "host": host, "password": password, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_KK_DEFAULT", json.dumps(connection))
        return KKHook()

    return connect


def answering(answer: bytes) -> Play:
    def play(visit):
        while visit.read_request():
            visit.send(answer)

    return play


def test_a_connection_from_the_environment_as_json(connect):
    settings = connect("kk.example", timeout_s=20, api_version="v2", account=None).settings

    assert (settings.base_url, settings.token, settings.timeout_s) == ("https://kk.example", TOKEN, 20)
    assert (settings.api_version, settings.account_is_explicit) == ("v2", False)


@pytest.mark.parametrize(
    ("uri", "base_url"),
    [
        (f"kk://:{TOKEN}@kk.example/?timeout_s=20", "https://kk.example"),
        (f"kk://:{TOKEN}@https%3A%2F%2Fkk.example/?timeout_s=20", "https://kk.example"),
        (f"kk://:{TOKEN}@127.0.0.1:8080/http?timeout_s=20", "http://127.0.0.1:8080"),
        (f"kk://:{TOKEN}@/?timeout_s=20", "https://developer.kakaclo.com"),
    ],
)
def test_a_connection_from_the_environment_as_uri(monkeypatch, uri, base_url):
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", uri)
    settings = KKHook("shop").settings

    assert (settings.base_url, settings.token, settings.timeout_s) == (base_url, TOKEN, 20)


READ_SETTINGS = """
    import pendulum
    from airflow.providers.common.compat.sdk import DAG, task

    with DAG("settings", start_date=pendulum.datetime(2024, 1, 1), schedule=None):

        @task
        def read(kk_conn_id):
            from airflow_provider_kk.hooks.kk import KKHook

            settings = KKHook(kk_conn_id).settings
            return [settings.base_url, settings.token == "tok-3f9a-7712", settings.timeout_s]

        read.expand(kk_conn_id=["by_fields", "by_json", "by_uri"])
"""


@pytest.mark.range
def test_connections_from_the_command_line_reach_a_task(airflow_home: AirflowHome):
    by_json = {"conn_type": "kk", "host": "kk.example", "password": TOKEN, "extra": {"timeout_s": 20}}
    extra = json.dumps({"timeout_s": "20", "account": None})
    add = ("connections", "add")
    fields = ("--conn-type", "kk", "--conn-host", "https://kk.example", "--conn-password", TOKEN)
    airflow_home.cli(*add, "by_fields", *fields, "--conn-extra", extra)
    airflow_home.cli(*add, "by_json", "--conn-json", json.dumps(by_json))
    airflow_home.cli(*add, "by_uri", "--conn-uri", f"kk://:{TOKEN}@kk.example/?timeout_s=20")

    result = airflow_home.run_dag(READ_SETTINGS)

    assert result.state == "success", result.log
    for index in range(3):
        assert result.xcoms[f"read[{index}]"]["return_value"] == ["https://kk.example", True, 20.0]


def test_a_wrong_connection_fails_with_every_fault_and_no_request(connect):
    hook = connect("http://kk.example", lease_s=1, colour="red")

    with pytest.raises(InvalidConnectionError) as caught:
        hook.create_order(ORDER)
    assert [fault.path for fault in caught.value.faults] == ["host", "extra.colour", "extra.lease_s"]


def test_the_settings_reach_kk(connect):
    with SocketServer(answering(http(CREATED))) as server:
        hook = connect(server.url, api_version="v2", address_key="orderAddress", sale_platform="Shopify")
        order = Order.parse({**ORDER, "sale_platform": None})

        assert hook.create_order(order) == ["1000000371651"]

    body = json.loads(server.bodies[0])
    assert server.requests == ["POST /openapi/v2/order/orders HTTP/1.1"]
    assert (body["orderAddress"]["country"], body["salePlatform"]) == ("FR", "Shopify")


def test_one_hook_has_one_client(connect):
    hook = connect("kk.example")
    assert hook.get_conn() is hook.get_conn()


def test_the_calls_stay_within_the_connections_rate_limit(connect):
    with SocketServer(answering(http(NO_ORDERS))) as server:
        hook = connect(server.url, rate_limit_burst=3, rate_limit_per_second=20)
        begin = time.monotonic()
        for _ in range(6):
            list(hook.iter_orders())

    # 3 less the headroom of 2 at once, then one each 50 ms
    assert time.monotonic() - begin > 0.2


@pytest.mark.range
def test_the_token_is_masked_even_when_stored_with_a_line_break(connect):
    from airflow.providers.common.compat.sdk import redact

    assert connect("kk.example", password=f"{TOKEN}\n").settings.token == TOKEN
    assert TOKEN not in str(redact(f"sent {TOKEN}."))


class TestTheTestButton:
    def test_all_is_well(self, connect):
        with SocketServer(answering(http(NO_ORDERS))) as server:
            works, sentence = connect(server.url).test_connection()

        assert (works, sentence) == (True, f"{server.url} accepts the access token and lists orders (API v1)")

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (http("", "401 Unauthorized"), "rejects the access token"),
            (http({"code": 401, "message": "no"}), "rejects the access token"),
            (http("<h1>Not found</h1>", "404 Not Found"), "answers, but has no KK API v1: check the host"),
            (http("<h1>Welcome to nginx</h1>"), "no valid answer: check that the host is KK's"),
            (http("<h1>Oh</h1>", "502 Bad Gateway"), "no valid answer"),
            (http({"code": 31, "message": "store closed"}), "rejects the request for orders"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "no valid answer"),
        ],
    )
    def test_kk_or_another_answers_something_else(self, connect, answer, says):
        with SocketServer(answering(answer)) as server:
            works, sentence = connect(server.url, timeout_s=2).test_connection()

        assert not works
        assert says in sentence
        assert server.url in sentence

    def test_the_rate_limit_is_used_up(self, connect):
        answer = http("", "429 Too Many Requests", "Retry-After: 0\r\n")
        with SocketServer(answering(answer)) as server:
            works, sentence = connect(server.url).test_connection()

        assert not works
        assert "rate limit is used up: try again in a minute" in sentence

    @pytest.mark.parametrize(
        ("host", "says"),
        [
            ("kk.invalid", "the host name of https://kk.invalid cannot be resolved: check the host and DNS"),
            ("http://127.0.0.1:1", "nothing listens at http://127.0.0.1:1: check host and port"),
        ],
    )
    def test_nothing_can_be_reached(self, connect, host, says):
        works, sentence = connect(host, timeout_s=60).test_connection()

        assert not works
        assert sentence.startswith(says)

    def test_the_other_end_speaks_no_tls(self, connect):
        with SocketServer(lambda visit: visit.send(http("", "400 Bad Request"))) as server:
            host = server.url.replace("http:", "https:")
            works, sentence = connect(host, timeout_s=2).test_connection()

        assert not works
        assert "does not speak TLS: check host, port and certificates" in sentence

    def test_the_connection_is_wrong(self, connect):
        works, sentence = connect("kk.example", settle_window_s=10).test_connection()

        assert not works
        assert "extra.settle_window_s: must be at least 330 (300 + timeout_s)" in sentence

    def test_a_wrong_clock_is_named(self, connect):
        headers = f"Date: {formatdate(time.time() + 600, usegmt=True)}\r\n"
        with SocketServer(answering(http(NO_ORDERS, headers=headers))) as server:
            works, sentence = connect(server.url).test_connection()

        assert works
        assert "differ by 600 s" in sentence or "differ by 599 s" in sentence

    def test_no_sentence_holds_the_token(self, connect):
        answer = http({"code": 31, "message": f"token {TOKEN} may not"})
        with SocketServer(answering(answer)) as server:
            assert TOKEN not in connect(server.url).test_connection()[1]


@pytest.mark.range
def test_the_form_offers_every_extra_on_every_airflow():
    form = form_of_airflow_3() if AIRFLOW_VERSION >= (3,) else form_of_airflow_2()

    assert form == {
        "name": "KK",
        "extras": CONN_FIELDS.keys(),
        "labels": {"host": "Base URL", "password": "Access token"},
        "hidden": {"login", "schema"},
    }


def form_of_airflow_2() -> dict[str, Any]:
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    names = [name for name in manager.connection_form_widgets if "__kk__" in name]
    behaviour = manager.field_behaviours["kk"]
    assert "extra" in behaviour["hidden_fields"]
    return {
        "name": manager.hooks["kk"].hook_name,
        "extras": {name.removeprefix("extra__kk__") for name in names},
        "labels": behaviour["relabeling"],
        "hidden": set(behaviour["hidden_fields"]) - {"extra"},
    }


def form_of_airflow_3() -> dict[str, Any]:
    """What the UI asks for: 3.1 needs no Flask AppBuilder for it, unlike 3.0, and 3.2 none of our code."""
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService

    (kk,) = [hook for hook in HookMetaService.hook_meta_data() if hook.connection_type == "kk"]
    fields = {name.removeprefix("url_"): field for name, field in kk.standard_fields if field}
    return {
        "name": kk.hook_name,
        "extras": kk.extra_fields.keys(),
        "labels": {name: field.title for name, field in fields.items() if field.title},
        "hidden": {name for name, field in fields.items() if field.hidden},
    }
