"""The process that asks Airflow's own API server, in memory, for pages, as an administrator.

Arguments: PATH...; prints a JSON object of path to [status, text].
"""

from __future__ import annotations

import json
import sys

from airflow.api_fastapi.app import create_app
from fastapi.testclient import TestClient


def main() -> None:
    with TestClient(create_app(), base_url="http://localhost:8080") as client:
        jwt = client.get("/auth/token").json()["access_token"]
        client.headers["Authorization"] = f"Bearer {jwt}"
        answers = {path: client.get(path) for path in sys.argv[1:]}
    print(json.dumps({path: [answer.status_code, answer.text] for path, answer in answers.items()}))


if __name__ == "__main__":
    main()
