"""What somebody has logged over the years, by the real client of whichever version runs this.

usage: history.py write NAME, which logs it; history.py read NAME, which prints all of it as JSON
"""

from __future__ import annotations

import json
import sys
from typing import Any

import mlflow
from mlflow.tracking import MlflowClient

CHILDREN, STEPS, TRACES = 3, 50, 4


def write(name: str) -> None:
    """Log nested runs with metrics, parameters, tags and a file, a registered model with versions and an alias, and traces."""
    mlflow.set_experiment(name)
    client = MlflowClient()
    with mlflow.start_run(run_name="parent", tags={"team": "π & co"}) as parent:
        mlflow.log_params({"depth": "seven", "long": "x" * 400})
        mlflow.log_text("kept\n", "notes/report.txt")
        for number in range(CHILDREN):
            with mlflow.start_run(run_name=f"child {number}", nested=True):
                for step in range(STEPS):
                    mlflow.log_metric("loss", 1 / (step + 1), step=step)
    client.create_registered_model(name, tags={"stage": "used"}, description="as it was")
    for number in range(2):
        client.create_model_version(name, f"{parent.info.artifact_uri}/notes", parent.info.run_id, description=f"version {number}")
    client.set_registered_model_alias(name, "champion", "2")
    for number in range(TRACES):
        with mlflow.start_span(f"question {number}") as span:
            span.set_inputs({"question": number})
            span.set_outputs({"answer": number * 2})
    getattr(mlflow, "flush_trace_async_logging", lambda: None)()


def read(name: str) -> dict[str, Any]:
    """Return what the server has of it."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(name)
    runs = sorted(client.search_runs([experiment.experiment_id]), key=lambda run: run.info.run_name)
    model = client.get_registered_model(name)
    return {
        "runs": [
            {
                "id": run.info.run_id,
                "name": run.info.run_name,
                "status": run.info.status,
                "params": run.data.params,
                "tags": {key: value for key, value in run.data.tags.items() if key in ("team", "mlflow.parentRunId")},
                "metrics": sorted([point.step, point.value, point.timestamp] for point in client.get_metric_history(run.info.run_id, "loss")),
            }
            for run in runs
        ],
        "file": mlflow.artifacts.load_text(f"{next(run for run in runs if run.info.run_name == 'parent').info.artifact_uri}/notes/report.txt"),
        "model": [model.description, model.tags, dict(model.aliases)],
        "versions": sorted([version.version, version.description, version.run_id] for version in client.search_model_versions(f"name = '{name}'")),
        "traces": sorted(trace.info.tags["mlflow.traceName"] for trace in client.search_traces([experiment.experiment_id])),
    }


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2])
    else:
        print(json.dumps(read(sys.argv[2]), sort_keys=True))
