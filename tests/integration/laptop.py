"""All kinds of things that somebody has on a laptop, by the real client of whichever version runs this.

usage: laptop.py write NAME, which logs them; laptop.py read NAME, which prints all of it as JSON
The store is that of MLFLOW_TRACKING_URI; local folders are those of the working folder.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import history
import mlflow
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

METRICS = {"loss": 0.5, "nothing": math.nan, "endless": math.inf, "bottomless": -math.inf, "tiny": 5e-324}


def write(name: str) -> None:
    """Log them; an experiment of this name, and things that have it in theirs."""
    history.write(name)
    client = MlflowClient()
    client.set_experiment_tag(client.get_experiment_by_name(name).experiment_id, "mlflow.note.content", "täglich 漢字 \t\n\\ 'quoted' \"twice\"")
    with mlflow.start_run(run_name="all kinds"):
        for key, value in METRICS.items():
            mlflow.log_metric(key, value, step=3)
        mlflow.log_params({"huge": "π\\\t\n" * 100, "empty": "", "ünïcode": "漢字"})
        mlflow.log_input(mlflow.data.from_numpy(numbers()), context="training", tags={"kind": "made"})
        mlflow.log_text("täglich\n", "a b/ü 1.txt")
        if hasattr(mlflow, "initialize_logged_model"):
            model = mlflow.initialize_logged_model(name=f"model-{name}", params={"depth": "3"}, tags={"made": "by hand"})
            mlflow.log_metric("accuracy", 0.75, model_id=model.model_id)
            mlflow.finalize_logged_model(model.model_id, "READY")
    with mlflow.start_run(run_name="removed") as removed:
        mlflow.log_metric("loss", 1)
    client.delete_run(removed.info.run_id)
    client.delete_experiment(client.create_experiment(f"{name} removed"))
    if hasattr(mlflow, "genai"):
        mlflow.genai.register_prompt(name=prompt_name(name), template="Say {{what}} in German")
        mlflow.genai.set_prompt_alias(prompt_name(name), alias="production", version=1)
        trace = mlflow.search_traces(experiment_ids=[client.get_experiment_by_name(name).experiment_id], max_results=1, return_type="list")[0]
        mlflow.log_feedback(trace_id=trace.info.trace_id, name="good", value=True, rationale="it is")
        mlflow.log_expectation(trace_id=trace.info.trace_id, name="wanted", value={"answer": 42})


def numbers() -> Any:
    """Return an array, always the same."""
    import numpy

    return numpy.arange(12.0).reshape(4, 3)


def read(name: str) -> dict[str, Any]:
    """Return what the store has of it, without the numbers of experiments and without addresses."""
    client = MlflowClient()
    experiment = client.get_experiment_by_name(name)
    runs = sorted(client.search_runs([experiment.experiment_id], run_view_type=ViewType.ALL), key=lambda run: run.info.run_id)
    special = next(run for run in runs if run.info.run_name == "all kinds")
    then = history.read(name)
    # Numbers for some, and texts for others.
    then["model"][2] = {alias: int(version) for alias, version in then["model"][2].items()}
    then["versions"] = [[int(version), *rest] for version, *rest in then["versions"]]
    points = {key: client.get_metric_history(special.info.run_id, key) for key in METRICS}
    found = {
        "history": then,
        "tags": experiment.tags,
        "removed": client.get_experiment_by_name(f"{name} removed").lifecycle_stage,
        "runs": [
            [run.info.run_id, run.info.run_name, run.info.lifecycle_stage, run.info.start_time, run.data.params, sorted(run.data.tags.items())] for run in runs
        ],
        "metrics": {key: [[number(point.value), point.step, point.timestamp] for point in each] for key, each in points.items()},
        "inputs": [
            [each.dataset.name, each.dataset.digest, each.dataset.schema, sorted(tag.value for tag in each.tags)] for each in special.inputs.dataset_inputs
        ],
        "file": mlflow.artifacts.load_text(f"{special.info.artifact_uri}/a b/ü 1.txt"),
    }
    if hasattr(mlflow, "initialize_logged_model"):
        models = mlflow.search_logged_models([experiment.experiment_id], output_format="list")
        found["models"] = [[each.name, each.params, each.tags, str(each.status), [[m.key, m.value] for m in each.metrics]] for each in models]
    if hasattr(mlflow, "genai"):
        found["prompt"] = prompt(f"prompts:/{prompt_name(name)}@production")
        traces = client.search_traces([experiment.experiment_id])
        found["spans"] = sorted([trace.info.trace_id, [[span.name, span.inputs, span.outputs] for span in trace.data.spans]] for trace in traces)
        found["assessments"] = sorted([each.name, json.dumps(each.value), each.rationale or ""] for trace in traces for each in trace.info.assessments)
    return found


def number(value: float) -> str:
    """Write a number; a database has the largest one for infinity."""
    return repr(math.copysign(math.inf, value) if abs(value) == sys.float_info.max else value)


def prompt_name(name: str) -> str:
    """Return a name that a prompt may have."""
    return f"prompt-{name.replace(' ', '-')}"


def prompt(uri: str) -> Any:
    """Return the text of a prompt; none where a store from before there were any has come."""
    try:
        return mlflow.genai.load_prompt(uri).template
    except mlflow.MlflowException:
        return None


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2])
    else:
        print(json.dumps(read(sys.argv[2]), sort_keys=True))
