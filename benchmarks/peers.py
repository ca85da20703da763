"""What one would write without this package: loops over `requests.Session`.

Its task: `url`, `numbers`, `threads`, and `sleep_s` after each request.
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import requests

from benchmarks.orders import PATH, body
from benchmarks.places import TOKEN, ready, tell


def main() -> None:
    task = json.loads(sys.argv[1])
    url = task["url"] + PATH

    def loop(numbers: list[str]) -> None:
        with requests.Session() as session:
            session.headers["Authorization"] = f"Bearer {TOKEN}"
            for number in numbers:
                answer = session.post(url, json=body(number), timeout=30)
                assert answer.json()["code"] == 10000, answer.text
                time.sleep(task.get("sleep_s", 0))

    threads = task.get("threads", 1)
    shares = [task["numbers"][place::threads] for place in range(threads)]
    ready()
    began, cpu = time.monotonic(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(loop, shares))
    tell(seconds=time.monotonic() - began, cpu_s=time.process_time() - cpu)


if __name__ == "__main__":
    main()
