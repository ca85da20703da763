"""The assets of an account, as DAGs write and as Airflow reads them."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from airflow.providers.common.compat.sdk import Asset

from airflow_provider_kk.assets.kk import create_asset, sanitize_uri


@pytest.mark.parametrize(
    ("asset", "uri"),
    [
        (create_asset(host="developer.kakaclo.com"), "kk://developer.kakaclo.com/default/orders"),
        (
            create_asset(host="127.0.0.1:8010", account="a shop/é?", what="statuses"),
            "kk://127.0.0.1:8010/a%20shop%2F%C3%A9%3F/statuses",
        ),
        (create_asset(host="[::1]:8010", extra={"a": 1}), "kk://[::1]:8010/default/orders"),
    ],
)
def test_the_uri_that_a_dag_writes_is_the_same_asset(asset: Asset, uri: str):
    assert asset.uri == uri
    assert Asset(uri).uri == uri
    assert getattr(asset, "name", uri) == uri


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("kk://developer.kakaclo.com/orders", "kk://<host>/<account>/orders"),
        ("kk://developer.kakaclo.com/default/order", "kk://<host>/<account>/orders"),
        ("kk:///default/orders", "kk://<host>/<account>/orders"),
        ("kk://developer.kakaclo.com/default/orders/more", "kk://<host>/<account>/orders"),
        ("kk://Developer.KakaClo.com/default/orders", "lower case"),
        ("kk://developer.kakaclo.com/a shop/orders", "URL-encoded"),
    ],
)
def test_a_uri_that_would_never_change_is_an_error(uri: str, says: str):
    with pytest.raises(ValueError, match=says):
        sanitize_uri(urlsplit(uri))
