#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Uses an MLflow server the way its users do, and says how long each step took."""

from __future__ import annotations

DOCUMENTATION = r"""
module: mlflow_verify
short_description: Proof that an MLflow server works, from a run to a registered model
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Makes an experiment with the real client, logs parameters, metrics and an artifact, logs and registers a small model, sets an alias,
    loads the model by it and uses it, and then removes it again. Over the REST API alone the experiment stays as a deleted one, with its artifacts.
  - Works against any server, this collection's or not. Runs with a Python that has MLflow (C(ansible_python_interpreter)).
  - With the server's own environment it also looks for the artifact in the store itself, and removes the rows that the REST API can only mark as
    deleted.
extends_documentation_fragment:
  - mlops.mlflow.client
options:
  environment_file:
    description: The server's environment file, to look into the artifact store and to remove every row; only on the server's host.
    type: path
  multipart:
    description: Whether artifacts may go straight to the S3 endpoint, which must then be reachable from here.
    type: bool
    default: true
attributes:
  check_mode:
    support: none
    description: It writes to the server, so check mode skips it.
  diff_mode:
    support: none
    description: It describes no lasting change.
"""

EXAMPLES = r"""
- name: Prove that the server works
  mlops.mlflow.mlflow_verify:
    tracking_uri: http://127.0.0.1:5000
    username: admin
    password: "{{ mlflow_admin_password }}"
  vars:
    ansible_python_interpreter: /opt/mlflow/current/bin/python
"""

RETURN = r"""
checks:
  description: What was done, with milliseconds.
  returned: always
  type: list
  elements: dict
  sample: [{"check": "log parameters and metrics", "ms": 12}]
table:
  description: The same as lines of text.
  returned: always
  type: list
  elements: str
"""

import os
import tempfile
import time
import traceback
import uuid
from contextlib import contextmanager
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils.client import CLIENT_OPTIONS, client_environment
from ansible_collections.mlops.mlflow.plugins.module_utils.server import read_environment

PAYLOAD = os.urandom(256 * 1024)


class Checks:
    """Steps with their times; the first that fails ends the module with the table so far."""

    def __init__(self) -> None:
        self.rows: list[dict] = []

    @contextmanager
    def step(self, name: str):
        """Time one step under its name."""
        start = time.monotonic()
        try:
            yield
        except Exception as error:
            self.rows.append({"check": name, "ms": round((time.monotonic() - start) * 1000), "failed": "failed"})
            raise
        self.rows.append({"check": name, "ms": round((time.monotonic() - start) * 1000)})

    def table(self) -> list[str]:
        """Write the steps as aligned lines."""
        width = max((len(row["check"]) for row in self.rows), default=0)
        return [f"{row['check']:<{width}}  {row['ms']:>6} ms  {row.get('failed', 'ok')}" for row in self.rows]


def look_into_store(server: dict[str, str], path: str) -> None:
    """Compare the artifact with what the store itself has, past the server.

    Args:
        server: the server's environment.
        path: the artifact's path below the destination.

    Raises:
        AssertionError: the bytes differ.
    """
    destination = server["MLFLOW_ARTIFACTS_DESTINATION"]
    if destination.startswith("s3://"):
        import boto3

        bucket, dummy, prefix = destination[5:].partition("/")
        client = boto3.client(
            "s3",
            endpoint_url=server.get("MLFLOW_S3_ENDPOINT_URL"),
            aws_access_key_id=server.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=server.get("AWS_SECRET_ACCESS_KEY"),
            region_name=server.get("AWS_DEFAULT_REGION"),
            verify=server.get("AWS_CA_BUNDLE"),
        )
        key = "/".join(part for part in (prefix.strip("/"), path) if part)
        stored = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    else:
        with open(os.path.join(destination, path), "rb") as file:
            stored = file.read()
    if stored != PAYLOAD:
        raise AssertionError(f"{path} in {destination} is not what was uploaded")


def use(checks: Checks, server: dict[str, str], made: dict[str, str]) -> None:
    """Do what a user does. ``made`` tells the clean-up how far it came."""
    with checks.step("import the client"):
        import mlflow
        from mlflow.tracking import MlflowClient

        client = MlflowClient()
    with checks.step("create an experiment"):
        made["experiment"] = client.create_experiment(made["name"])
    with checks.step("start a run, log parameters and 100 metrics"):
        mlflow.set_experiment(experiment_id=made["experiment"])
        run = mlflow.start_run()
        mlflow.log_params({"optimizer": "adam", "note": "é ✓ \\ ' \""})
        client.log_batch(run.info.run_id, metrics=[mlflow.entities.Metric("loss", 1 / (step + 1), 0, step) for step in range(100)])
    with checks.step("read them back"):
        read = client.get_run(run.info.run_id).data
        history = client.get_metric_history(run.info.run_id, "loss")
        if read.params.get("note") != "é ✓ \\ ' \"" or len(history) != 100:
            raise AssertionError(f"read back {read.params} and {len(history)} metrics")
    with checks.step("upload an artifact"), tempfile.TemporaryDirectory() as folder:
        local = os.path.join(folder, "payload.bin")
        with open(local, "wb") as file:
            file.write(PAYLOAD)
        mlflow.log_artifact(local, "data")
    if server:
        with checks.step("find it in the artifact store itself"):
            look_into_store(server, f"{made['experiment']}/{run.info.run_id}/artifacts/data/payload.bin")
    with checks.step("download it and compare"), tempfile.TemporaryDirectory() as folder:
        with open(mlflow.artifacts.download_artifacts(run_id=run.info.run_id, artifact_path="data/payload.bin", dst_path=folder), "rb") as file:
            if file.read() != PAYLOAD:
                raise AssertionError("the downloaded artifact differs from the uploaded one")
    with checks.step("log and register a model"):

        class Doubler(mlflow.pyfunc.PythonModel):
            """Twice the input."""

            def predict(self, context, model_input, params=None):
                """Return the input twice as large."""
                return model_input * 2

        # Before MLflow 3 a model is an artifact of its run.
        name = "name" if hasattr(client, "search_logged_models") else "artifact_path"
        info = mlflow.pyfunc.log_model(**{name: "model"}, python_model=Doubler(), pip_requirements=["mlflow"])
        version = mlflow.register_model(info.model_uri, made["name"]).version
        mlflow.end_run()
    with checks.step("set an alias"):
        client.set_registered_model_alias(made["name"], "champion", version)
    with checks.step("load the model by its alias and use it"):
        model = mlflow.pyfunc.load_model(f"models:/{made['name']}@champion").unwrap_python_model()
        if model.predict(None, 21) != 42:
            raise AssertionError("the loaded model is not the one that was logged")


def clean(checks: Checks, module: AnsibleModule, server: dict[str, str], made: dict[str, str]) -> None:
    """Remove what was made, as far as it was made."""
    with checks.step("clean up"):
        from mlflow.tracking import MlflowClient

        client = MlflowClient()
        if client.search_registered_models(filter_string=f"name = '{made['name']}'"):
            client.delete_registered_model(made["name"])
        if "experiment" not in made:
            return
        runs = client.search_runs([made["experiment"]])
        models = client.search_logged_models([made["experiment"]]) if hasattr(client, "search_logged_models") else []
        for model in models:
            client.delete_logged_model(model.model_id)
        client.delete_experiment(made["experiment"])
        if server:
            forget(server["MLFLOW_BACKEND_STORE_URI"], made["experiment"], runs, models)


def forget(uri: str, experiment: str, runs: list[Any], models: list[Any]) -> None:
    """Remove every row and file of a deleted experiment.

    This is what ``mlflow gc`` does. That would also remove for good whatever users have deleted: it takes all deleted things of a kind of which it is told
    no names.

    Args:
        uri: of the backend store.
        experiment: its ID.
        runs: those in it.
        models: logged models in it.

    Raises:
        AssertionError: the store could not do it; the message has no password in it.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.tracking._tracking_service.utils import _get_store

    try:
        store = _get_store(uri)
        for run in runs:
            get_artifact_repository(run.info.artifact_uri).delete_artifacts()
            store._hard_delete_run(run.info.run_id)
        for model in models:
            get_artifact_repository(model.artifact_location).delete_artifacts()
            if hasattr(store, "_hard_delete_logged_model"):
                store._hard_delete_logged_model(model.model_id)
                continue
            # The first releases with logged models have no way to remove them.
            from mlflow.store.tracking.dbmodels.models import SqlLoggedModel

            with store.ManagedSessionMaker() as session:
                session.delete(session.get(SqlLoggedModel, model.model_id))
        store._hard_delete_experiment(experiment)
    except Exception as error:
        raise AssertionError(str(error).replace(uri, "(the backend store)")) from None


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **CLIENT_OPTIONS,
            "environment_file": {"type": "path"},
            "multipart": {"type": "bool", "default": True},
        },
        supports_check_mode=False,
    )
    os.environ.update(client_environment(module.params))
    try:
        server = read_environment(module.params["environment_file"]) if module.params["environment_file"] else {}
    except OSError as error:
        module.fail_json(msg=f"Cannot read environment_file: {error}. Leave it empty when the server is on another host.")
    checks, made, trace, fault = Checks(), {"name": f"mlops-verify-{uuid.uuid4().hex[:12]}"}, None, None
    try:
        use(checks, server, made)
    except Exception as error:
        fault, trace = error, traceback.format_exc()
    try:
        clean(checks, module, server, made)
    except Exception as error:
        fault, trace = fault or error, trace or traceback.format_exc()
    if fault is not None:
        step = next(row["check"] for row in checks.rows if "failed" in row)
        module.fail_json(msg=f"{module.params['tracking_uri']}: could not {step}: {fault}", table=checks.table(), exception=trace)
    module.exit_json(changed=False, checks=checks.rows, table=checks.table())


if __name__ == "__main__":
    main()
