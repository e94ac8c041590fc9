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
extends_documentation_fragment:
  - mlops.mlflow.client
options:
  folder:
    description: Where M(mlops.mlflow.store_import) has left the copy.
    type: path
    required: true
  files_folder:
    description: Folder below which the files have the paths that they have on the source's machine. Empty where that is this host.
    type: str
    default: ""
  address:
    description: Address of the artifact store as it stands in the copy; empty where no artifacts have come.
    type: str
    default: ""
  count:
    description: How many of each kind are read.
    type: int
    default: 20
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: There is nothing to show.
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
import itertools
import json
import os
import posixpath
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils.client import CLIENT_OPTIONS, client_environment
from ansible_collections.mlops.mlflow.plugins.module_utils.store_files import files_of

HISTORIES = 3
FILES = 3
UNREADABLE = "unreadable in the source too"
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
        # The first of each kind, and why.
        self.unreadable: dict[str, str] = {}
        self.differences: list[str] = []

    def some(self, query: str) -> list[Any]:
        """Return some rows of the copy, other ones each time."""
        return self.source.execute(f"{query} ORDER BY random() LIMIT ?", (self.count,)).fetchall()

    def same(self, kind: str, name: str, read: Callable[[Any], Any]) -> None:
        """Compare one thing."""
        wanted, lost = ask(read, self.theirs)
        # A row that no client reads. The server is asked about one of each kind, as clients ask again and again.
        found, failed = (None, lost) if lost and kind in self.unreadable else ask(read, self.ours)
        if lost and failed:
            self.checked[UNREADABLE] = self.checked.get(UNREADABLE, 0) + 1
            self.unreadable.setdefault(kind, f"{kind} {name}: {failed}")
            return
        self.checked[kind] = self.checked.get(kind, 0) + 1
        if lost or failed:
            self.differences.append(f"{kind} {name}: {'the copy' if lost else 'the server'} does not give it: {lost or failed}")
            return
        what = difference(comparable(wanted), comparable(found))
        if what:
            self.differences.append(f"{kind} {name}: {what}")

    def runs(self) -> None:
        """Compare runs and histories of their metrics."""
        for (run,) in self.some("SELECT run_uuid FROM runs"):
            self.same("run", run, lambda client, name=run: client.get_run(name).to_dictionary())
            keys = self.source.execute("SELECT DISTINCT key FROM metrics WHERE run_uuid = ? LIMIT ?", (run, HISTORIES)).fetchall()
            for (key,) in keys:
                self.same("metric history", f"{key} of {run}", lambda client, name=run, metric=key: client.get_metric_history(name, metric))

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

    def artifacts(self, places: dict[str, str], address: str, base: str, since: float) -> None:
        """Download some artifacts of runs that have some, and compare them with the files.

        Args:
            places: folders with artifacts, by where they went.
            address: of the artifact store, as it stands in the copy.
            base: see the module's files_folder.
            since: files that were changed after that, in seconds since 1970, are others than those that have come.
        """
        compared = 0
        # Not by a sample of all: few may have any.
        runs = self.source.execute("SELECT run_uuid, artifact_uri FROM runs WHERE lifecycle_stage = 'active' ORDER BY random()")
        for run, uri in runs:
            folder = place_of(uri, places, address)
            files = sorted(itertools.islice((path for path in files_of(base + folder) if os.stat(path).st_mtime < since), FILES)) if folder else []
            for path in files:
                name = os.path.relpath(path, base + folder)
                with tempfile.TemporaryDirectory() as scratch:
                    got, failed = ask(lambda client, at=scratch, wanted=(run, name): client.download_artifacts(*wanted, at), self.ours)
                    there, lost = ask(digest, path)
                    if not lost and (failed or digest(got) != there):
                        self.differences.append(f"artifact {name} of the run {run} is not the file {path[len(base) :]}{failed and f': {failed}'}")
            compared += bool(files)
            self.checked["artifact"] = self.checked.get("artifact", 0) + len(files)
            if compared == self.count:
                break


def ask(read: Callable[[Any], Any], client: Any) -> tuple[Any, str]:
    """Return what a client gives, and why it gives nothing."""
    try:
        return read(client), ""
    except Exception as error:  # pylint: disable=broad-except
        return None, str(error) or type(error).__name__


def place_of(uri: Any, places: dict[str, str], address: str) -> str:
    """Return the folder that an address of the new artifact store was before; nothing where it is none.

    Args:
        uri: the address.
        places: folders with artifacts, by where they went.
        address: of the artifact store.
    """
    start = address.rstrip("/") + "/"
    if not isinstance(uri, str) or not uri.startswith(start):
        return ""
    target, rest = uri[len(start) :].strip("/"), ""
    while target and target not in places:
        target, _slash, name = target.rpartition("/")
        rest = posixpath.join(name, rest) if rest else name
    return posixpath.join(places[target], rest).rstrip("/") if target else ""


def digest(path: str) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "files_folder": {"type": "str", "default": ""},
            "address": {"type": "str", "default": ""},
            "count": {"type": "int", "default": 20},
            **CLIENT_OPTIONS,
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
        roots, scanned = json.load(file)["roots"], os.fstat(file.fileno()).st_mtime
    uris = f"sqlite:///{path}", module.params["tracking_uri"]
    with closing(sqlite3.connect(path)) as source:
        comparison = Comparison(source, module.params["count"], lambda: tuple(MlflowClient(uri, uri) for uri in uris))
        comparison.experiments()
        comparison.runs()
        comparison.models()
        comparison.traces()
        if module.params["address"]:
            comparison.artifacts({target: root for root, target in roots.items()}, module.params["address"], module.params["files_folder"], scanned)
    for kind, why in comparison.unreadable.items():
        if kind == "experiment" and kind not in comparison.checked:
            module.fail_json(msg=f"The tables have come, and neither the server nor the copy can be asked for them: {why}", checked=comparison.checked)
        module.warn(f"Neither the server nor the copy gives the {why}")
    if comparison.differences:
        shown = "; ".join(comparison.differences[:20])
        module.fail_json(msg=f"The tables have come, and MLflow's client finds differences: {shown}", checked=comparison.checked)
    module.exit_json(changed=False, checked=comparison.checked)


if __name__ == "__main__":
    main()
