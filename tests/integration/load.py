"""Clients that all log at once: prints how often the server gave which answer, as JSON.

usage: load.py URL CA_FILE < CREDENTIALS, which are two lines, user and password
"""

from __future__ import annotations

import collections
import json
import sys
import threading
import time

import requests

CLIENTS, CALLS, METRICS = 100, 10, 20


def post(session: requests.Session, url: str, body: dict) -> requests.Response:
    """Send one request; nobody tries again."""
    return session.post(f"{url}/api/2.0/mlflow/{body.pop('path')}", json=body, timeout=900)


def new_session(credentials: tuple[str, str], ca_file: str) -> requests.Session:
    """A session that trusts one CA, and nothing of the environment."""
    session = requests.Session()
    session.auth, session.trust_env, session.verify = credentials, False, ca_file
    return session


def client(session: requests.Session, url: str, experiment: str, gate: threading.Barrier, answers: list[int | str]) -> None:
    """Make a run, wait for the others, and log."""
    reply = post(session, url, {"path": "runs/create", "experiment_id": experiment})
    answers.append(reply.status_code)
    gate.wait()
    run = reply.json()["run"]["info"]["run_id"]
    for step in range(CALLS):
        metrics = [{"key": f"m{number}", "value": step / 7, "timestamp": int(time.time() * 1000), "step": step} for number in range(METRICS)]
        try:
            answers.append(post(session, url, {"path": "runs/log-batch", "run_id": run, "metrics": metrics}).status_code)
        except requests.RequestException as error:
            answers.append(type(error).__name__)


def main() -> None:
    """Run them all."""
    url, ca_file = sys.argv[1:]
    user, password = sys.stdin.read().splitlines()
    session = new_session((user, password), ca_file)
    experiment = post(session, url, {"path": "experiments/create", "name": f"load {time.time()}"}).json()["experiment_id"]
    answers: list[int | str] = []
    sessions = [new_session((user, password), ca_file) for dummy in range(CLIENTS)]
    gate = threading.Barrier(CLIENTS)
    threads = [threading.Thread(target=client, args=(each, url, experiment, gate, answers)) for each in sessions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    post(session, url, {"path": "experiments/delete", "experiment_id": experiment})
    print(json.dumps(collections.Counter(answers)))


if __name__ == "__main__":
    main()
