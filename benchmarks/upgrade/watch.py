"""Asks MLflow ten times a second until it is told to end, then prints for how many seconds it was away.

usage: watch.py URL, with MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and REQUESTS_CA_BUNDLE
"""

from __future__ import annotations

import os
import signal
import sys
import time

import requests


def main() -> None:
    """From the last answer before the longest time without one to the first after it."""
    ends = []
    signal.signal(signal.SIGTERM, lambda *_signal: ends.append(True))
    session = requests.Session()
    session.auth = (os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"])
    last, longest = time.monotonic(), 0.0
    while not ends:
        try:
            answer = session.get(f"{sys.argv[1]}/api/2.0/mlflow/experiments/get?experiment_id=0", timeout=60).status_code
        except requests.RequestException:
            answer = 0
        if answer == 200:
            now = time.monotonic()
            last, longest = now, max(longest, now - last)
        time.sleep(0.1)
    print(f"{longest:.2f}")


main()
