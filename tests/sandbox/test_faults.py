"""Each fault does on the wire what it says, and leaves the order at KK or not."""

from __future__ import annotations

import json
import time

import pytest
import requests

from airflow_provider_kk.sandbox.control import SandboxControlError
from airflow_provider_kk.sandbox.faults import FAULTS, QUICK, mixed_kinds
from airflow_provider_kk.sandbox.server import SandboxServer
from tests.sandbox.caller import V1, V2, Caller, order, split_order

ORDERS_OF_A_SPLIT = {"none": 0, "all": 2, "later": 0, "some": 1, "twice": 4}


def arm(kk, kind, **options):
    quick = {name: value for name, value in QUICK.items() if name in FAULTS[kind].options}
    if FAULTS[kind].effect == "redirect":
        quick.pop("status")
    kk.control.arm(kind, times=1, **quick | options)


def outcome(call):
    """What came: the bytes received, or `reset`."""
    try:
        return call()
    except ConnectionResetError:
        return "reset"


@pytest.mark.parametrize("kind", FAULTS)
def test_the_order_is_at_kk_as_the_fault_says_and_the_next_one_is_spared(kk, caller, kind):
    arm(kk, kind)
    outcome(lambda: caller.connect_and_forget(split_order("A-1")))

    assert len(kk.control.orders("A-1")) == ORDERS_OF_A_SPLIT[FAULTS[kind].orders]
    assert kk.control.duplicates() == (["A-1"] if FAULTS[kind].orders == "twice" else [])
    assert caller.create(order("A-2"))
    assert kk.control.counts()["faults"] == {kind: 1}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_dropped_connection_ends_in_order_without_a_byte(kk, caller, when):
    arm(kk, f"drop_{when}_commit")
    assert outcome(lambda: caller.exchange(order("A-1"))) == b""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_reset_connection_is_reset_without_a_byte(kk, caller, when):
    arm(kk, f"reset_{when}_commit")
    assert outcome(lambda: caller.exchange(order("A-1"))) == "reset"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_stall_is_silent_and_then_ends(kk, caller, when):
    arm(kk, f"stall_{when}_commit", seconds=0.3)
    began = time.monotonic()

    assert outcome(lambda: caller.exchange(order("A-1"))) == b""
    assert time.monotonic() - began > 0.25


def test_what_is_committed_before_a_stall_is_there_while_it_lasts(kk, caller):
    arm(kk, "stall_after_commit", seconds=300)
    with pytest.raises(requests.ReadTimeout):
        caller.post(order("A-1"), timeout=0.2)

    until = time.monotonic() + 25
    while not kk.control.orders("A-1") and time.monotonic() < until:
        time.sleep(0.01)
    assert len(kk.control.orders("A-1")) == 1


def test_a_cut_body_is_shorter_than_promised(kk, caller):
    arm(kk, "cut_body_after_commit")
    head, _, body = caller.exchange(order("A-1")).partition(b"\r\n\r\n")

    assert b"200 OK" in head
    assert 0 < len(body) < int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])


def test_cut_headers_do_not_end(kk, caller):
    arm(kk, "cut_headers_after_commit")
    received = caller.exchange(order("A-1"))

    assert received.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in received


def test_a_drip_is_the_right_answer_a_byte_at_a_time(kk, caller):
    arm(kk, "drip", interval_s=0.002)
    sizes, received = [], b""
    with caller.connect() as connection:
        connection.sendall(caller.raw(order("A-1")))
        while part := connection.recv(65536):
            sizes.append(len(part))
            received += part

    assert len(sizes) > len(received) / 4
    assert json.loads(received.partition(b"\r\n\r\n")[2])["data"] == int(kk.control.orders("A-1")[0]["id"])


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_server_error_has_the_configured_status(kk, caller, when, status):
    arm(kk, f"status_{when}_commit", status=status)
    assert caller.post(order("A-1")).status_code == status


@pytest.mark.parametrize(("body", "has_code"), [("json", False), ("envelope", True)])
def test_a_server_error_can_be_json_or_an_envelope(kk, caller, body, has_code):
    arm(kk, "status_after_commit", status=500, body=body)
    assert ("code" in caller.post(order("A-1")).json()) == has_code


def test_a_web_page_can_come_with_status_200(kk, caller):
    arm(kk, "html_200_after_commit")
    answer = caller.post(order("A-1"))

    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_garbage_is_not_json(kk, caller):
    arm(kk, "garbage_json")
    answer = caller.post(order("A-1"))

    assert answer.status_code == 200
    with pytest.raises(ValueError, match="Unterminated"):
        answer.json()


def test_an_injected_429_has_retry_after_only_when_configured(kk, caller):
    arm(kk, "rate_limit")
    without = caller.post(order("A-1"))
    arm(kk, "rate_limit", retry_after_s=7)
    answer = caller.post(order("A-1"))

    assert (without.status_code, without.headers.get("Retry-After")) == (429, None)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "7")


@pytest.mark.parametrize(("kind", "then"), [("redirect_307", "POST"), ("redirect_302", "GET")])
def test_following_a_redirect_resends_the_order_or_reads_a_list(kk, caller, kind, then):
    arm(kk, kind)
    answer = caller.post(order("A-1"), allow_redirects=True)

    assert answer.json()["code"] == 10000
    assert [entry["method"] for entry in kk.control.requests()] == ["POST", then]
    assert len(kk.control.orders()) == (1 if then == "POST" else 0)


def test_a_late_commit_lands_when_the_clock_says(kk, caller):
    arm(kk, "late_commit", seconds=60)
    asked_at = kk.control.now()
    assert outcome(lambda: caller.exchange(split_order("A-1"))) == b""
    kk.control.advance(50)
    assert kk.control.orders() == []
    assert kk.control.counts()["waiting_late"] == 1

    kk.control.advance(3600)
    found = kk.control.orders("A-1")
    assert len(found) == 2
    assert found[0]["created_at"] == pytest.approx(asked_at + 60, abs=5)
    assert found[0]["state"] == "paid"


def test_a_half_split_commits_a_part_and_rejects(kk, caller):
    arm(kk, "half_split", code=40077)
    answer = caller.post(split_order("A-1")).json()

    assert answer["code"] == 40077
    assert [row["warehouse"] for row in kk.control.orders("A-1")] == ["CN"]


def test_a_half_split_of_one_warehouse_commits_nothing(kk, caller):
    arm(kk, "half_split")
    caller.refusal(order("A-1"))

    assert kk.control.orders() == []


def test_a_proxy_fault_commits_a_duplicate_and_answers_once(kk, caller):
    arm(kk, "duplicate_by_proxy")
    answered = caller.create(order("A-1"))

    first, second = kk.control.orders("A-1")
    assert first["id"] == str(answered)
    assert first["call"] != second["call"]


def test_a_rejection_has_the_configured_code_and_message(kk, caller):
    arm(kk, "code_in_envelope", code=-1, message="try later", status=400)
    answer = caller.post(order("A-1"))

    assert (answer.status_code, answer.json()["code"], answer.json()["message"]) == (400, -1, "try later")


def test_a_fault_waits_for_its_number_path_and_method(kk, caller):
    kk.control.arm("code_in_envelope", number="A-2")
    kk.control.arm("status_before_commit", path="/v2/", method="POST", times=1)
    kk.control.arm("auth", method="GET", times=1)

    assert caller.create(order("A-1"))
    assert caller.refusal(order("A-2"))
    assert caller.refusal(order("A-2"))
    assert caller.post(order("A-3", V2), V2).status_code == 500
    assert requests.get(kk.url + V1, headers=caller.headers, timeout=300).status_code == 401
    assert caller.listed()


def test_a_fault_can_be_taken_back(kk, caller):
    first = kk.control.arm("status_before_commit", status=503)
    kk.control.arm("status_before_commit", status=504)
    kk.control.disarm(first)
    assert caller.post(order("A-1")).status_code == 504

    kk.control.disarm()
    assert caller.create(order("A-1"))


def test_a_probability_strikes_about_so_often_and_the_same_with_the_same_seed():
    def struck(seed):
        with SandboxServer(rate_limit=False) as kk:
            kk.control.arm("code_in_envelope", probability=0.5, seed=seed)
            caller = Caller(kk.url, kk.token)
            return [caller.post(order(str(number))).json()["code"] != 10000 for number in range(60)]

    assert 15 < sum(struck(seed=4)) < 45
    assert struck(seed=4) == struck(seed=4) != struck(seed=5)


def test_random_faults_mix_every_kind_that_a_faultless_caller_gets_over(kk, caller):
    kk.control.random_faults(0.9, seed=1, seconds=0.01, interval_s=0)
    for number in range(120):
        outcome(lambda number=number: caller.connect_and_forget(order(str(number))))

    assert set(kk.control.counts()["faults"]) == set(mixed_kinds())
    assert not {"auth", "half_split", "duplicate_by_proxy", "code_in_envelope"} & set(mixed_kinds())
    assert kk.control.duplicates() == []


@pytest.mark.parametrize(
    ("kind", "options"),
    [("explode", {}), ("drop_after_commit", {"seconds": 1}), ([], {}), ("drip", {"x": 1})],
)
def test_an_unknown_fault_or_option_is_rejected(kk, kind, options):
    with pytest.raises(SandboxControlError):
        kk.control.arm(kind, **options)


def test_a_rejected_order_does_not_exist_after_a_fault_behind_the_commit(kk, caller):
    arm(kk, "status_after_commit")
    assert caller.post(order("A-1", orderItemsList=[])).status_code >= 500
    assert kk.control.orders() == []
