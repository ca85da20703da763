"""The process that answers Airflow's questions to people, by its REST API, as its UI does.

Arguments: DAG_ID, ANSWERS (JSON: what the subject contains, to `[option, form]`), USER, PASSWORD. Prints the
questions' bodies by the same keys, as JSON, after `BODIES`.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from fastapi.testclient import TestClient


def main() -> None:
    dag_id, answers, user, password = sys.argv[1:]
    from airflow.api_fastapi.app import create_app

    client = TestClient(create_app())
    login = client.post("/auth/token", json={"username": user, "password": password})
    client.headers["Authorization"] = f"Bearer {login.json()['access_token']}"
    wanted = json.loads(answers)
    bodies: dict[str, str] = {}
    until = time.monotonic() + 600
    while len(bodies) < len(wanted) and time.monotonic() < until:
        for question in questions(client, dag_id):
            (key,) = [key for key in wanted if key in question["subject"]]
            if key not in bodies:
                answer(client, question["task_instance"], *wanted[key])
                bodies[key] = question["body"]
        time.sleep(0.2)
    print("BODIES", json.dumps(bodies))


def questions(client: TestClient, dag_id: str) -> list[dict[str, Any]]:
    path = f"/api/v2/dags/{dag_id}/dagRuns/~/hitlDetails"
    answered = client.get(path, params={"response_received": False}).raise_for_status()
    found: list[dict[str, Any]] = answered.json()["hitl_details"]
    return found


def answer(client: TestClient, ti: dict[str, Any], option: str, form: dict[str, str]) -> None:
    place = f"/api/v2/dags/{ti['dag_id']}/dagRuns/{ti['dag_run_id']}/taskInstances/{ti['task_id']}"
    client.patch(
        f"{place}/{ti['map_index']}/hitlDetails", json={"chosen_options": [option], "params_input": form}
    ).raise_for_status()


if __name__ == "__main__":
    main()
