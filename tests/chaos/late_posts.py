"""Sends orders to KK, each from a process of its own that waits between connecting and its first byte.

    late_posts.py URL TOKEN TIMEOUT_S NAME...

A NAME is an order number; what begins with `plain` is sent by `http.client` alone, the rest by KKClient.
Prints `NAME connected PID` for each; sends when stdin ends; then prints `NAME OUTCOME`.
"""

from __future__ import annotations

import json
import os
import sys
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_kk.api.api_versions import API_VERSIONS
from airflow_provider_kk.api.client import KKClient
from airflow_provider_kk.api.errors import KKError
from airflow_provider_kk.api.models import Order

ADDRESS = {
    "recipient": "Some Body",
    "phone": "+33 100000000",
    "street1": "1 Any Street",
    "city": "Paris",
    "province": "Ile-de-France",
    "zip": "75001",
    "country": "FR",
}


def order(name: str) -> dict[str, Any]:
    items = [{"sku": "FWXW00290_WHT_M", "quantity": 1}]
    return {"custom_order_number": name, "address": ADDRESS, "items": items}


def wait_for_the_cut(name: str) -> None:
    say(f"{name} connected {os.getpid()}")
    os.read(0, 1)


def say(line: str) -> None:
    # In one write, so that the lines of many processes do not mix.
    os.write(1, f"{line}\n".encode())


def send(url: str, token: str, timeout_s: float, name: str) -> str:
    client = KKClient(url, token, timeout_s=timeout_s)
    try:
        client.post_order(Order.parse(order(name)), before_send=lambda _left_s: wait_for_the_cut(name))
    except KKError as error:
        return error.outcome.value
    return "created"


def send_plainly(url: str, token: str, timeout_s: float, name: str) -> str:
    body = json.dumps(API_VERSIONS["v1"].create_body(Order.parse(order(name)), "orderAddresses", None))
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    connection = HTTPConnection(urlsplit(url).netloc, timeout=timeout_s)
    connection.connect()
    wait_for_the_cut(name)
    try:
        connection.request("POST", API_VERSIONS["v1"].orders_path, body, headers)
        connection.getresponse().read()
    except OSError:
        return "unknown"
    finally:
        connection.close()
    return "created"


def main(url: str, token: str, timeout_s: str, *names: str) -> None:
    for name in names:
        if os.fork() == 0:
            way = send_plainly if name.startswith("plain") else send
            say(f"{name} {way(url, token, float(timeout_s), name)}")
            return
    for _ in names:
        os.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
