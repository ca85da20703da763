"""What a connection of type `kk` may hold, however it was made."""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_kk.hooks.connection import ConnectionSettings, InvalidConnectionError, parse_connection
from airflow_provider_kk.provider_info import CONN_FIELDS

TOKEN = "tok-3f9a"


@dataclass
class Connection:
    """Stands for Airflow's own."""

    conn_id: str = "kk_default"
    host: str | None = None
    schema: str | None = None
    login: str | None = None
    password: str | None = TOKEN
    port: int | str | None = None
    extra: str | None = None


def settings(extra: dict[str, object] | None = None, **fields: object) -> ConnectionSettings:
    return parse_connection(Connection(extra=json.dumps(extra) if extra else None, **fields))  # type: ignore[arg-type]


def faults(extra: dict[str, object] | None = None, **fields: object) -> dict[str, str]:
    with pytest.raises(InvalidConnectionError) as caught:
        settings(extra, **fields)
    assert TOKEN not in str(caught.value) + repr(caught.value)
    return {fault.path: fault.message for fault in caught.value.faults}


def test_a_token_is_all_a_connection_needs():
    assert settings() == ConnectionSettings(
        host="developer.kakaclo.com", base_url="https://developer.kakaclo.com", token=TOKEN
    )


@pytest.mark.parametrize(
    ("fields", "base_url", "host"),
    [
        (
            {"host": "test-developer.kakaclo.com"},
            "https://test-developer.kakaclo.com",
            "test-developer.kakaclo.com",
        ),
        ({"host": " https://KK.example/ "}, "https://kk.example", "kk.example"),
        ({"host": "https://kk.example:443"}, "https://kk.example", "kk.example"),
        ({"host": "kk.example", "port": 8443}, "https://kk.example:8443", "kk.example:8443"),
        ({"host": "kk.example:8443", "port": "8443"}, "https://kk.example:8443", "kk.example:8443"),
        ({"host": "kk.example."}, "https://kk.example", "kk.example"),
        ({"host": "127.0.0.1", "port": 8080}, "https://127.0.0.1:8080", "127.0.0.1:8080"),
        ({"host": "http://127.0.0.1:8080"}, "http://127.0.0.1:8080", "127.0.0.1:8080"),
        ({"host": "127.8.9.1", "schema": "http", "port": 80}, "http://127.8.9.1", "127.8.9.1"),
        ({"host": "localhost", "schema": "HTTP", "port": 8080}, "http://localhost:8080", "localhost:8080"),
        ({"host": "http://[::1]:8080"}, "http://[::1]:8080", "[::1]:8080"),
        ({"host": "::1", "port": 8080, "schema": "http"}, "http://[::1]:8080", "[::1]:8080"),
    ],
)
def test_a_host_is_read_as_people_write_it(fields, base_url, host):
    read = settings(**fields)
    assert (read.base_url, read.host) == (base_url, host)


@pytest.mark.parametrize(
    "host",
    ["http://developer.kakaclo.com", "http://10.0.0.1:80", "http://127.0.0.1.evil.example", "http://127.1"],
)
def test_the_token_goes_over_plain_http_to_this_machine_only(host):
    assert "plain HTTP is for this machine" in faults(host=host)["host"]


@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ({"host": f"https://me:{TOKEN}@kk.example"}, "host", "must not contain a user or a token"),
        ({"host": f"https://{TOKEN}@kk.example"}, "host", "must not contain a user or a token"),
        ({"host": "https://kk.example/openapi/v1"}, "host", "without path and query"),
        ({"host": f"kk.example?token={TOKEN}"}, "host", "without path and query"),
        ({"host": "ftp://kk.example"}, "host", "must begin with https://"),
        ({"host": "https://"}, "host", "valid host name"),
        ({"host": "https://kk example"}, "host", "valid host name"),
        ({"host": "https://[::1"}, "host", "not a URL"),
        ({"host": "kk.example:99999"}, "host", "1 to 65535"),
        (
            {"host": "kk.example:8443", "port": 9443},
            "host",
            "has port 8443, but the connection's port is 9443",
        ),
        (
            {"host": "https://localhost", "schema": "http"},
            "host",
            "begins with https, but the connection's schema is http",
        ),
        ({"port": 0}, "port", "whole number from 1 to 65535"),
        ({"port": "http"}, "port", "whole number from 1 to 65535"),
        ({"schema": "public"}, "schema", "must be empty, http or https"),
        ({"password": None}, "password", "the access token is missing"),
        ({"password": " "}, "password", "the access token is missing"),
        ({"password": "", "login": TOKEN}, "password", "Enter it as the password, not as the login"),
        ({"password": f"Bearer {TOKEN}"}, "password", "without the word Bearer"),
        ({"password": f"{TOKEN}\n{TOKEN}"}, "password", "has spaces, line ends or other invalid characters"),
        ({"password": f"{TOKEN}é"}, "password", "has spaces, line ends or other invalid characters"),
    ],
)
def test_invalid_settings_fail_before_any_request(fields, path, says):
    assert says in faults(**fields)[path]


def test_a_token_is_used_without_the_line_break_it_was_pasted_with():
    assert settings(password=f" {TOKEN}\n").token == TOKEN


def test_the_token_is_in_no_text_of_the_settings():
    assert TOKEN not in repr(settings()) + str(settings())


def test_every_extra_arrives():
    extra = {
        "api_version": "v2",
        "sale_platform": "Shopify",
        "address_key": "orderAddress",
        "account": "shop-1",
        "ledger_conn_id": "ledger",
        "timeout_s": 20,
        "lease_s": 90.5,
        "settle_window_s": 900,
        "max_orders_per_day": 500,
        "rate_limit_burst": 60,
        "rate_limit_per_second": 0.5,
        "use_env_proxies": True,
        "order_url": "https://kk.example/orders?id={kk_order_id}",
    }
    assert extra.keys() == CONN_FIELDS.keys()
    read = settings(extra)
    assert {name: getattr(read, name) for name in extra} == extra
    assert read.account_is_explicit


def test_a_form_or_uri_may_hold_numbers_and_booleans_as_text():
    read = settings(
        {"timeout_s": " 20.5 ", "rate_limit_burst": "60", "use_env_proxies": "false", "account": 7}
    )
    assert (read.timeout_s, read.rate_limit_burst, read.use_env_proxies, read.account) == (
        20.5,
        60,
        False,
        "7",
    )


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_a_field_left_empty_is_absent(nothing):
    assert settings(dict.fromkeys(CONN_FIELDS, nothing)) == settings()


@pytest.mark.parametrize("extra", [None, "", " ", "{}", "null"])
def test_no_extras_at_all_are_fine(extra):
    assert parse_connection(Connection(extra=extra)) == settings()


def test_a_named_account_is_distinguished_from_the_default():
    assert settings({"account": "default"}).account_is_explicit
    assert not settings().account_is_explicit


@pytest.mark.parametrize(
    ("extra", "path", "message"),
    [
        ({"tiemout_s": 30}, "tiemout_s", "is unknown. Did you mean timeout_s?"),
        ({"0123456789abcdef-token": "x"}, "012345***", "is unknown. Known are api_version, sale_platform"),
        ({"API_VERSION": "v1"}, "API_VERSION", "is unknown. Known are api_version, sale_platform"),
        ({"api_version": "v3"}, "api_version", "must be v1 or v1-orders or v2"),
        ({"address_key": "address"}, "address_key", "must be orderAddresses or orderAddress"),
        ({"account": "x" * 65}, "account", "must be at most 64 printable ASCII characters"),
        ({"account": "café"}, "account", "must be at most 64 printable ASCII characters"),
        ({"account": ["a"]}, "account", "must be text"),
        ({"timeout_s": "soon"}, "timeout_s", "must be a number"),
        ({"timeout_s": True}, "timeout_s", "must be a number"),
        ({"timeout_s": "nan"}, "timeout_s", "must be a number"),
        ({"timeout_s": 0}, "timeout_s", "must be above 0"),
        ({"timeout_s": 30_000}, "timeout_s", "must be at most 900"),
        ({"lease_s": 50}, "lease_s", "must be at least 60 (2 x timeout_s)"),
        ({"settle_window_s": 329}, "settle_window_s", "must be at least 330 (300 + timeout_s)"),
        ({"settle_window_s": 10**6}, "settle_window_s", "must be at most 86400"),
        ({"rate_limit_burst": 0}, "rate_limit_burst", "must be a whole number of 1 or more"),
        ({"rate_limit_burst": "1.5"}, "rate_limit_burst", "must be a whole number of 1 or more"),
        ({"rate_limit_per_second": -1}, "rate_limit_per_second", "must be above 0"),
        ({"use_env_proxies": "maybe"}, "use_env_proxies", "must be true or false"),
        (
            {"order_url": "https://kk.example/orders"},
            "order_url",
            "must be an http(s) URL that contains {kk_order_id}",
        ),
        (
            {"order_url": "javascript:{kk_order_id}"},
            "order_url",
            "must be an http(s) URL that contains {kk_order_id}",
        ),
    ],
)
def test_a_wrong_extra_is_named_with_what_it_should_be(extra, path, message):
    assert faults(extra)[f"extra.{path}"].startswith(message)


@pytest.mark.parametrize("extra", ["{", "[]", '"text"', "7"])
def test_extras_that_are_no_json_object_are_an_error(extra):
    with pytest.raises(InvalidConnectionError, match="extra: "):
        parse_connection(Connection(extra=extra))


def test_all_faults_come_at_once_in_one_readable_error():
    with pytest.raises(InvalidConnectionError) as caught:
        settings({"lease_s": "x", "acount": "a"}, host="ftp://kk.example", password=None)
    assert str(caught.value) == (
        "Invalid connection 'kk_default': "
        "host: must begin with https:// (or http:// for this machine); "
        "password: the access token is missing; "
        "extra.acount: is unknown. Did you mean account?; "
        "extra.lease_s: must be a number"
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301 - made by the line before


def test_the_settle_window_may_be_short_on_this_machine_only():
    assert settings({"settle_window_s": 2, "timeout_s": 1}, host="http://localhost:8080").settle_window_s == 2
    assert "at least 301" in faults({"settle_window_s": 2, "timeout_s": 1})["extra.settle_window_s"]


@given(st.floats(min_value=0.001, max_value=900))
def test_a_longer_timeout_takes_lease_and_settle_window_along(timeout_s):
    read = settings({"timeout_s": timeout_s})
    assert read.lease_s >= max(120, 2 * timeout_s)
    assert read.settle_window_s >= max(600, 300 + timeout_s)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    st.lists,
    max_leaves=3,
)


@given(
    host=st.none() | st.text() | st.from_regex(r"(https?://)?[a-z.:\[\]@/?0-9]{0,20}"),
    schema=st.none() | st.text(),
    password=st.none() | st.text(),
    port=st.none() | st.integers() | st.text(),
    extra=st.none()
    | st.text()
    | st.dictionaries(st.sampled_from(sorted(CONN_FIELDS)) | st.text(), JSON).map(json.dumps),
)
def test_any_connection_is_read_or_fails_with_a_fault(host, schema, password, port, extra):
    connection = Connection(host=host, schema=schema, password=password, port=port, extra=extra)
    try:
        read = parse_connection(connection)
    except InvalidConnectionError:
        return
    assert read.lease_s >= 2 * read.timeout_s
    assert read.base_url.startswith(("https://", "http://127.", "http://[::1]", "http://localhost"))
