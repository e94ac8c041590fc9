"""A client that logs a metric over and over, with the real MLflow client: prints how many steps were acknowledged, and which the server lacks.

usage: writer.py FILE, which ends it when it appears
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from mlflow.tracking import MlflowClient


def main() -> None:
    """Write until told to stop, then read back; the first write that fails ends everything."""
    stop, client, step = Path(sys.argv[1]), MlflowClient(), 0
    experiment = client.create_experiment(f"writer {time.time()}")
    run = client.create_run(experiment)
    while not stop.exists():
        client.log_metric(run.info.run_id, "step", float(step), step=step, synchronous=True)
        step += 1
    kept = {round(metric.value) for metric in client.get_metric_history(run.info.run_id, "step")}
    client.delete_experiment(experiment)
    print(json.dumps({"acknowledged": step, "lost": sorted(set(range(step)) - kept)}))


if __name__ == "__main__":
    main()
