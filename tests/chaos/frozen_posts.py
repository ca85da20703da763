"""Sends orders to KK, each from a process of its own that freezes itself between its request's head and body.

    python -m tests.chaos.frozen_posts URL TOKEN TIMEOUT_S NUMBER...

Prints each process's id. Who wakes one up lets it go on.
"""

from __future__ import annotations

import http.client
import os
import signal
import sys
from typing import Any

from airflow_provider_kk.api.client import KKClient
from tests.chaos.late_posts import order, say


def freeze_after_the_head() -> None:
    send = http.client.HTTPConnection.send

    def send_then_freeze(self: http.client.HTTPConnection, data: Any) -> None:
        send(self, data)
        if data.startswith(b"POST "):
            os.kill(os.getpid(), signal.SIGSTOP)

    http.client.HTTPConnection.send = send_then_freeze  # type: ignore[method-assign]


def main(url: str, token: str, timeout_s: str, *numbers: str) -> None:
    freeze_after_the_head()
    for number in numbers:
        if os.fork() == 0:
            say(str(os.getpid()))
            KKClient(url, token, timeout_s=float(timeout_s)).create_order(order(number))
            return
    for _ in numbers:
        os.wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
