"""What a sync takes for an approved plan, and that nothing else is one."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_kk.hooks.connection import ConnectionSettings
from airflow_provider_kk.sync.approval import Approval
from airflow_provider_kk.sync.errors import SyncError

SETTINGS = ConnectionSettings(base_url="https://kk.example", host="kk.example", token="")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("plan_digest"), inner),
)


@given(st.text() | VALUES | VALUES.map(repr) | VALUES.map(json.dumps))
@example("{[]: 1}")
@example("(" * 100_000)
@example('{"plan_digest": "1:000000000000000000000000", "plan_orders": "é"}')
def test_anything_but_a_plan_is_rejected_with_one_error(given: object):
    with pytest.raises(SyncError) as caught:
        Approval.parse(given, SETTINGS)

    assert not caught.value.is_retryable


@given(st.text(alphabet="0123456789abcdef", min_size=24, max_size=24))
def test_digest_as_text_is_no_number_and_approves_nothing_by_itself(digest: str):
    for text in (f"1:{digest}", f" 1:{digest}\n", json.dumps(f"1:{digest}"), repr(f"1:{digest}")):
        approval = Approval.parse(text, SETTINGS)
        assert (approval.digest, approval.orders) == (f"1:{digest}", None)


@given(st.binary(max_size=60))
def test_plan_orders_that_do_not_fit_the_digest_are_rejected(orders: bytes):
    with suppress(UnicodeDecodeError), pytest.raises(SyncError):
        Approval.parse({"plan_digest": "1:" + "0" * 24, "plan_orders": orders.decode()}, SETTINGS)
