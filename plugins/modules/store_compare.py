#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Asks MLflow's own client for some of what has been imported, and compares it with the source."""

from __future__ import annotations

DOCUMENTATION = r"""
module: store_compare
short_description: What has been imported, as MLflow's client sees it
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Reads runs, histories of metrics, registered models with their versions and aliases, and traces both from the server and from the copy that
    M(mlops.mlflow.store_import) has brought, by MLflow's client, and compares them. Artifacts are downloaded and compared with the files.
  - Runs with the Python of the MLflow environment (C(ansible_python_interpreter)).
options:
  folder:
    description: Where M(mlops.mlflow.store_import) has left the copy.
    type: path
    required: true
  files_folder:
    description: Folder below which the files have the paths that they have on the source's machine. Empty where that is this host.
    type: str
    default: ""
  artifacts:
    description: Whether artifacts have come too.
    type: bool
    default: true
  count:
    description: How many of each kind are read.
    type: int
    default: 20
  tracking_uri:
    description: URL of the server.
    type: str
    required: true
  username:
    description: User to read as, who may read everything.
    type: str
    default: ""
  password:
    description: His password.
    type: str
    default: ""
  token:
    description: Token of an identity provider, instead of user and password.
    type: str
    default: ""
  ca_file:
    description: CA certificates of the artifact store, and of the server.
    type: path
  server_ca_file:
    description: CA certificate of the server, where it is another one.
    type: path
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to show.
requirements:
  - mlflow
"""

EXAMPLES = r"""
- name: Compare
  mlops.mlflow.store_compare:
    folder: /var/lib/mlops-import/mlflow
    tracking_uri: https://mlflow.example.org
    username: admin
    password: "{{ mlflow_admin_password }}"
  vars:
    ansible_python_interpreter: /opt/mlflow/current/bin/python
"""

RETURN = r"""
checked:
  description: How many of each kind were compared.
  returned: always
  type: dict
"""

import hashlib
import json
import os
import posixpath
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils.client import client_environment

HISTORIES = 3
FILES = 3
# What only Databricks has, and what the server does not tell.
FOREIGN = ("deployment_job", "run_link", "valid")
PROMPT = "EXISTS (SELECT 1 FROM registered_model_tags t WHERE t.name = m.name AND t.key = 'mlflow.prompt.is_prompt' AND lower(t.value) = 'true')"


def comparable(value: Any) -> Any:
    """Return what MLflow's client gives as something that can be compared: lists in one order, numbers that are none by name, and no gaps, as a server says
    nothing of an empty text, and a database of a missing one."""
    if isinstance(value, Mapping):
        made = {str(key): comparable(each) for key, each in value.items() if not str(key).startswith(FOREIGN)}
        return {key: each for key, each in made.items() if each not in (None, "", [], {})}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, (int, float)):
        # A server may say a number as a text.
        return str(value)
    # Lists with a token for their next page have a __dict__ too.
    if isinstance(value, (list, tuple, set)) or (isinstance(value, Iterable) and not hasattr(value, "__dict__")):
        return sorted((comparable(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
    return comparable({name.lstrip("_"): each for name, each in vars(value).items()}) if hasattr(value, "__dict__") else str(value)


def difference(wanted: Any, found: Any, where: str = "") -> str:
    """Say where two things that can be compared are different; nothing where they are not."""
    if wanted == found:
        return ""
    if isinstance(wanted, dict) and isinstance(found, dict):
        key = min(key for key in {*wanted, *found} if wanted.get(key) != found.get(key))
        return difference(wanted.get(key), found.get(key), f"{where}.{key}" if where else key)
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        place = next(place for place, each in enumerate(wanted) if each != found[place])
        return difference(wanted[place], found[place], f"{where}[{place}]")
    return f"{where} is {str(found)[:100]!r}, and {str(wanted)[:100]!r} in the source"


class Comparison:
    """Both stores, and what is different between them."""

    def __init__(self, source: sqlite3.Connection, count: int, clients: Callable[[], tuple[Any, Any]]) -> None:
        """Begin.

        Args:
            source: the copy.
            count: how many of each kind are compared.
            clients: makes the client of the copy and that of the server.
        """
        self.source, self.count = source, count
        # The client makes an experiment where there is no Default.
        self.numbers = self.some("SELECT experiment_id FROM experiments")
        self.theirs, self.ours = clients()
        self.checked: dict[str, int] = {}
        self.differences: list[str] = []

    def some(self, query: str) -> list[Any]:
        """Return some rows of the copy, other ones each time."""
        return self.source.execute(f"{query} ORDER BY random() LIMIT ?", (self.count,)).fetchall()

    def same(self, kind: str, name: str, read: Callable[[Any], Any]) -> Any:
        """Compare one thing; return it as the server has it, and nothing where it has not."""
        try:
            wanted = read(self.theirs)
        except Exception:  # pylint: disable=broad-except
            # A store from before there was a client, or a row that no client reads.
            self.checked["unreadable in the source too"] = self.checked.get("unreadable in the source too", 0) + 1
            return None
        self.checked[kind] = self.checked.get(kind, 0) + 1
        try:
            found = read(self.ours)
        except Exception as error:  # pylint: disable=broad-except
            self.differences.append(f"{kind} {name}: the server does not give it: {error}")
            return None
        what = difference(comparable(wanted), comparable(found))
        if what:
            self.differences.append(f"{kind} {name}: {what}")
        return found

    def runs(self) -> list[Any]:
        """Compare runs and histories of their metrics; return the runs."""
        found = []
        for (run,) in self.some("SELECT run_uuid FROM runs"):
            found += filter(None, [self.same("run", run, lambda client, name=run: client.get_run(name).to_dictionary())])
            keys = self.source.execute("SELECT DISTINCT key FROM metrics WHERE run_uuid = ? LIMIT ?", (run, HISTORIES)).fetchall()
            for (key,) in keys:
                self.same("metric history", f"{key} of {run}", lambda client, name=run, metric=key: client.get_metric_history(name, metric))
        return found

    def experiments(self) -> None:
        """Compare experiments."""
        for (number,) in self.numbers:
            self.same("experiment", str(number), lambda client, name=str(number): client.get_experiment(name))

    def models(self) -> None:
        """Compare registered models, with aliases, and their versions; those that are prompts as such."""
        for (name,) in self.some(f"SELECT name FROM registered_models m WHERE NOT {PROMPT}"):
            self.same("registered model", name, lambda client, model=name: client.get_registered_model(model))
        for name, version in self.some(f"SELECT name, version FROM model_versions m WHERE NOT {PROMPT}"):
            self.same("model version", f"{name} {version}", lambda client, model=name, number=str(version): client.get_model_version(model, number))
        for name, version in self.some(f"SELECT name, version FROM model_versions m WHERE {PROMPT}"):
            self.same("prompt", f"{name} {version}", lambda client, model=name, number=str(version): client.get_prompt_version(model, number))

    def traces(self) -> None:
        """Compare traces; their spans are read from the server."""
        for (trace,) in self.some("SELECT request_id FROM trace_info"):
            self.same("trace", trace, lambda client, name=trace: client._tracking_client.store.get_trace_info(name))

    def artifacts(self, runs: list[Any], roots: dict[str, str], base: str) -> None:
        """Download some artifacts of runs, and compare them with the files.

        Args:
            runs: as the server has them.
            roots: folders with artifacts, with where they went.
            base: see the module's files_folder.
        """
        places = {target: root for root, target in roots.items()}
        for run in runs:
            below, place = run["info"]["artifact_uri"].partition(":/")[2].strip("/"), ""
            while below and below not in places:
                below, _slash, name = below.rpartition("/")
                place = posixpath.join(name, place) if place else name
            folder = Path(base + posixpath.join(places[below], place)) if below else None
            files = sorted(path for path in folder.rglob("*") if path.is_file())[:FILES] if folder and folder.is_dir() else []
            for path in files:
                name = str(path.relative_to(folder))
                self.checked["artifact"] = self.checked.get("artifact", 0) + 1
                with tempfile.TemporaryDirectory() as scratch:
                    got = Path(self.ours.download_artifacts(run["info"]["run_id"], name, scratch))
                    if digest(got) != digest(path):
                        self.differences.append(f"artifact {name} of the run {run['info']['run_id']} is not the file {path}")


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "files_folder": {"type": "str", "default": ""},
            "artifacts": {"type": "bool", "default": True},
            "count": {"type": "int", "default": 20},
            "tracking_uri": {"type": "str", "required": True},
            "username": {"type": "str", "default": ""},
            "password": {"type": "str", "default": "", "no_log": True},
            "token": {"type": "str", "default": "", "no_log": True},
            "ca_file": {"type": "path"},
            "server_ca_file": {"type": "path"},
        },
        supports_check_mode=True,
    )
    os.environ.update(client_environment({**module.params, "multipart": False}))
    folder = module.params["folder"]
    # MLflow makes a folder mlruns where it is.
    os.chdir(folder)
    path = os.path.join(folder, "store.db")
    from mlflow import MlflowClient

    with open(os.path.join(folder, "scan.json"), encoding="utf-8") as file:
        roots = json.load(file)["roots"]
    uris = f"sqlite:///{path}", module.params["tracking_uri"]
    with closing(sqlite3.connect(path)) as source:
        comparison = Comparison(source, module.params["count"], lambda: tuple(MlflowClient(uri, uri) for uri in uris))
        comparison.experiments()
        runs = comparison.runs()
        comparison.models()
        comparison.traces()
        if module.params["artifacts"]:
            comparison.artifacts(runs, roots, module.params["files_folder"])
    if comparison.differences:
        module.fail_json(msg="; ".join(comparison.differences[:20]), checked=comparison.checked)
    module.exit_json(changed=False, checked=comparison.checked)


if __name__ == "__main__":
    main()
