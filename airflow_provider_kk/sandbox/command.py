"""`kk sandbox`: a local KK on the command line."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

_OPTIONS = (
    "host", "port", "token", "file", "balance", "seed",
    "list_lag_s", "any_sku", "rate_limit", "rate_burst", "rate_per_second",
)  # fmt: skip
_GREETING = """\
To see its orders, open this address in a browser. To make requests fail, run in Python:
airflow_provider_kk.sandbox.control.SandboxControl("{url}").arm("drop_after_commit", times=1)
A connection that reconciles orders in doubt within seconds:
export AIRFLOW_CONN_KK_DEFAULT='{{"conn_type": "kk", "host": "{url}", "password": "{token}",
  "extra": {{"timeout_s": 2, "lease_s": 4, "settle_window_s": 3}}}}'
Ctrl-C ends it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `kk sandbox`."""
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="a loopback address (default 127.0.0.1)")
    add("--port", type=int, default=8010, help="0: any free port (default 8010)")
    add("--token", default="sandbox-token", help="access token that it accepts")
    add("--file", help="SQLite file that keeps its orders; without it they are in memory")
    add(
        "--list-lag",
        dest="list_lag_s",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="list orders so late",
    )
    add("--no-rate-limit", dest="rate_limit", action="store_false", help="never answer 429")
    add("--rate-burst", type=int, default=120, help="requests that the bucket holds (120)")
    add("--rate-per-second", type=float, default=2.0, help="requests that leak a second (2)")
    add(
        "--any-sku", action="store_true", help="sell every SKU, of your own tables too (else its catalogue's)"
    )
    add("--balance", type=float, default=10_000_000.0, help="dollars on a new account")
    add("--seed", type=int, default=0, help="of the draws of faults")


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted, and return the exit status. The first line printed is the address."""
    try:
        from airflow_provider_kk.sandbox.server import SandboxServer
    except ImportError as error:
        print(error, file=sys.stderr)
        return 2
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with SandboxServer(**{name: getattr(args, name) for name in _OPTIONS}) as sandbox:
            print(sandbox.url, flush=True)
            print(_GREETING.format(url=sandbox.url, token=sandbox.token), flush=True)
            stopped.wait()
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0
