"""Calls of the real client, one after the other: prints how many milliseconds each of them took, and how many of the processor's own, as JSON.

usage: client.py CALLS [NAME…], with MLFLOW_TRACKING_URI and what else the client needs; without names all of them
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

from mlflow import MlflowClient
from mlflow.entities import Metric

WARM_UP = 5


def batch(step: int) -> list[Metric]:
    """Twenty metrics of one step."""
    return [Metric(f"m{key}", step / 7, int(time.time() * 1000), step) for key in range(20)]


def main() -> None:
    """Time each call."""
    calls, names = int(sys.argv[1]), sys.argv[2:]
    client = MlflowClient()
    run = client.create_run("0").info.run_id
    large = client.get_experiment_by_name("large").experiment_id
    measured: dict[str, Callable[[int], object]] = {
        "log_metric": lambda step: client.log_metric(run, "loss", step / 7, step=step),
        "log_batch": lambda step: client.log_batch(run, batch(step)),
        "get_run": lambda _step: client.get_run(run),
        "search_runs": lambda step: client.search_runs([large], f"metrics.m1 > {step % 10 / 20}", max_results=50, order_by=["metrics.m2 DESC"]),
    }
    result: dict[str, list[float]] = {}
    for name in names or measured:
        for step in range(WARM_UP + (calls if name != "search_runs" else max(calls // 5, 10))):
            start, own = time.perf_counter(), time.process_time()
            measured[name](step)
            if step >= WARM_UP:
                result.setdefault(name, []).append(round((time.perf_counter() - start) * 1000, 3))
                result.setdefault(f"{name} own", []).append(round((time.process_time() - own) * 1000, 3))
    client.set_terminated(run)
    print(json.dumps(result))


main()
