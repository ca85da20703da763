"""The sandbox as a server: its connections, its file, its end, its command."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import pytest
import requests

from airflow_provider_kk.sandbox.control import SandboxControl, SandboxControlError
from airflow_provider_kk.sandbox.server import SandboxServer
from tests.sandbox.caller import DRESS, V1, Caller, order


def received_until(connection, end):
    received = b""
    while not received.endswith(end):
        received += connection.recv(65536)
    return received


def test_a_connection_is_kept_for_further_requests(kk, caller):
    with caller.connect() as connection:
        for number in ("A-1", "A-2"):
            connection.sendall(caller.raw(order(number)))
            assert b"Connection: keep-alive" in received_until(connection, b"}")

    assert kk.control.counts()["orders"] == 2


def test_an_order_that_came_in_part_is_not_acted_upon(kk, caller):
    with caller.connect() as connection:
        connection.sendall(caller.raw(order("A-1"))[:-1])

    assert kk.control.counts()["requests"] == 0


def test_a_chunked_order_is_taken(kk, caller):
    content = json.dumps(order("A-1")).encode()
    headers = caller.headers | {"Content-Type": "application/json"}
    answer = requests.post(kk.url + V1, data=iter([content[:40], content[40:]]), headers=headers, timeout=300)

    assert answer.json()["code"] == 10000


def test_the_date_header_follows_the_sandboxs_clock(kk, caller):
    kk.control.advance(-3600)
    answer = requests.get(kk.url + V1, headers=caller.headers, timeout=300)

    assert parsedate_to_datetime(answer.headers["Date"]).timestamp() == pytest.approx(
        time.time() - 3600, abs=5
    )


def test_orders_money_late_commits_and_the_clock_outlive_the_server(tmp_path):
    with SandboxServer(file=tmp_path / "kk.db", rate_limit=False) as kk:
        caller = Caller(kk.url, kk.token)
        caller.create(order("A-1"))
        kk.control.advance(1000)
        kk.control.arm("late_commit", times=1, seconds=60)
        caller.exchange(order("A-2"))
        before = kk.control.now()

    with SandboxServer(file=tmp_path / "kk.db", rate_limit=False) as kk:
        assert kk.control.now() == pytest.approx(before, abs=10)
        assert [row["number"] for row in kk.control.orders()] == ["A-1"]
        assert kk.control.orders()[0]["state"] == "paid"
        kk.control.advance(61)
        assert [row["number"] for row in kk.control.orders()] == ["A-1", "A-2"]


def test_two_sandboxes_share_nothing(kk):
    with SandboxServer() as other:
        kk.control.place({DRESS: 1})
        assert (len(kk.control.orders()), len(other.control.orders())) == (1, 0)


def test_it_ends_at_once_and_leaves_no_thread():
    before = set(threading.enumerate())
    kk = SandboxServer(rate_limit=False).start()
    caller = Caller(kk.url, kk.token)
    kept = caller.connect()
    kk.control.arm("stall_before_commit", times=1, seconds=600)
    stalled = caller.connect()
    stalled.sendall(caller.raw(order("A-1")))
    while not kk.control.counts()["struck"]:
        time.sleep(0.01)

    began = time.monotonic()
    kk.stop()

    assert time.monotonic() - began < 300
    assert set(threading.enumerate()) == before
    with pytest.raises(requests.ConnectionError):
        caller.post(order("A-2"))
    kept.close()
    stalled.close()


def test_it_comes_back_on_the_same_port(kk):
    url = kk.url
    kk.stop()
    kk.start()

    assert kk.url == url


def test_many_callers_at_once_get_an_order_each(kk, caller):
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda number: caller.create(order(str(number))), range(80)))

    assert len(set(ids)) == 80
    assert kk.control.counts()["commits"] == kk.control.counts()["numbers"] == 80


def test_a_port_that_is_taken_is_an_error(kk):
    with pytest.raises(OSError, match="is in use"):
        SandboxServer(port=int(kk.url.rsplit(":", 1)[1])).start()


def test_the_log_lists_requests_and_holds_no_secret(kk, caller):
    caller.create(order("A-1"))
    requests.get(kk.url + V1, headers={"Authorization": "Bearer other"}, timeout=300)
    kk.control.arm("drop_before_commit", times=1)
    caller.exchange(order("A-2"))

    entries = kk.control.requests()
    assert [(row["method"], row["path"], row["number"], row["outcome"], row["fault"]) for row in entries] == [
        ("POST", V1, "A-1", "created", None),
        ("GET", V1, None, "unauthorized", None),
        ("POST", V1, "A-2", "struck", "drop_before_commit"),
    ]
    assert entries[0]["kk_order_ids"] == [kk.control.orders()[0]["id"]]
    assert not any(secret in json.dumps(entries) for secret in (kk.token, "other", "Odile", "07 82"))


def test_a_reset_forgets_all_but_settings_and_clock(kk, caller):
    kk.control.set(answer="list")
    kk.control.arm("drop_after_commit")
    now = kk.control.advance(500)
    caller.exchange(order("A-1"))
    kk.control.reset()

    assert kk.control.counts()["requests"] == len(kk.control.orders()) == 0
    assert kk.control.now() >= now
    assert caller.create(order("A-1")) == [1000000371651]


@pytest.mark.parametrize(
    "settings", [{"nope": 1}, {"answer": "xml"}, {"page_cap": "many"}, {"rate_limit": 1}]
)
def test_an_unknown_setting_is_rejected_and_changes_nothing(kk, settings):
    before = kk.control.set()
    with pytest.raises(SandboxControlError):
        kk.control.set(list_lag_s=9, **settings)

    assert kk.control.set() == before


def test_the_html_page_shows_orders_and_no_personal_data(kk, caller):
    caller.create(order("<A-1>"))
    page = requests.get(kk.url, timeout=300).text

    assert "&lt;A-1&gt;" in page
    assert not any(private in page for private in ("Odile", "07 82", "Loire", "75001", kk.token))


def test_the_command_prints_its_address_serves_and_stops(tmp_path):
    command = "import argparse, sys; from airflow_provider_kk.sandbox import command as c;"
    command += "p = argparse.ArgumentParser(); c.add_arguments(p); sys.exit(c.run(p.parse_args()))"
    words = ["--port", "0", "--token", "t", "--file", str(tmp_path / "kk.db"), "--list-lag", "60"]
    process = subprocess.Popen([sys.executable, "-c", command, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        url = process.stdout.readline().strip()
        caller = Caller(url, "t")
        caller.create(order("A-1"))
        assert caller.listed() == []
        assert len(SandboxControl(url).orders()) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 0


def test_the_command_reports_wrong_arguments(capsys):
    from argparse import ArgumentParser

    from airflow_provider_kk.sandbox import command

    parser = ArgumentParser()
    command.add_arguments(parser)
    assert command.run(parser.parse_args(["--host", "0.0.0.0"])) == 1  # noqa: S104 - is refused
    assert "loopback" in capsys.readouterr().err


def test_without_flask_the_command_names_what_to_install():
    code = "import sys; sys.modules['flask'] = None; import argparse;"
    code += "from airflow_provider_kk.sandbox import command as c;"
    code += "p = argparse.ArgumentParser(); c.add_arguments(p); sys.exit(c.run(p.parse_args([])))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert done.stderr.strip() == "the sandbox needs Flask: pip install 'airflow-provider-kk[sandbox]'"
