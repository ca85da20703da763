"""`kk sandbox`: a local KK at the command line."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What `kk sandbox` takes."""
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8010, help="0 takes any free one (default 8010)")
    parser.add_argument("--token", default="sandbox-token", help="access token that it accepts")
    parser.add_argument("--file", help="SQLite file that keeps its orders; without it they are in memory")
    parser.add_argument("--list-lag", type=float, default=0.0, metavar="SECONDS", help="list orders so late")
    parser.add_argument("--no-rate-limit", action="store_true", help="never answer 429")
    parser.add_argument("--rate-burst", type=int, default=120, help="requests that the bucket holds (120)")
    parser.add_argument("--rate-per-second", type=float, default=2.0, help="what it leaks (2)")
    parser.add_argument(
        "--any-sku", action="store_true", help="sell every SKU, of your own tables too (else its catalogue's)"
    )
    parser.add_argument("--balance", type=float, default=10_000_000.0, help="dollars on a new account")
    parser.add_argument("--seed", type=int, default=0, help="of the draws of faults")


_GREETING = """\
What it has: open that address in a browser. Faults are armed by
airflow_provider_kk.sandbox.control.SandboxControl("{url}").arm("drop_after_commit", times=1).
A connection that settles doubts within seconds:
export AIRFLOW_CONN_KK_DEFAULT='{{"conn_type": "kk", "host": "{url}", "password": "{token}",
  "extra": {{"timeout_s": 2, "lease_s": 4, "settle_window_s": 3}}}}'
Ctrl-C ends it."""


def run(args: argparse.Namespace) -> int:
    """Serve until interrupted; the first line printed is the address. Gives the exit code."""
    try:
        from airflow_provider_kk.sandbox.server import SandboxServer
    except ImportError as error:
        print(error, file=sys.stderr)
        return 2
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    try:
        with SandboxServer(**_options(args)) as sandbox:
            print(sandbox.url, flush=True)
            print(_GREETING.format(url=sandbox.url, token=sandbox.token), flush=True)
            stopped.wait()
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _options(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "host": args.host,
        "port": args.port,
        "token": args.token,
        "file": args.file,
        "balance": args.balance,
        "seed": args.seed,
        "list_lag_s": args.list_lag,
        "any_sku": args.any_sku,
        "rate_limit": not args.no_rate_limit,
        "rate_burst": args.rate_burst,
        "rate_per_second": args.rate_per_second,
    }
