#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Lists the packages that a host has installed."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_report
short_description: The Debian packages of a host, and the Python packages of MLflow's environments
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Returns all Debian packages that are installed, and the Python packages of each virtual environment below a folder, with the hashes in the
    C(requirements.txt) that the role mlflow left there.
  - A package's bundled parts are those in the lists that its wheel brought along, libraries mostly.
  - It reads names, versions, licences and hashes, and nothing else.
options:
  environments_folder:
    description: The folder with MLflow's virtual environments. It may be missing.
    type: path
    default: /opt/mlflow
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
"""

EXAMPLES = r"""
- name: Look at the packages
  mlops.mlflow.package_report:
"""

RETURN = r"""
report:
  description: What was seen.
  returned: always
  type: dict
  contains:
    system:
      description: Id and version of the distribution, as in C(/etc/os-release).
      type: dict
    debian:
      description: Name, version, architecture, source and source_version of each installed package.
      type: list
      elements: dict
    environments:
      description: Folder of each complete environment, with name, version, hashes, expression, licence and bundled parts of each of its packages.
      type: list
      elements: dict
"""

import glob
import importlib.metadata
import json
import os
import platform

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils import sbom

FIELDS = ("name", "version", "architecture", "source", "source_version")
FORMAT = "${db:Status-Status}\t${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n"


def parse_packages(output: str) -> list[dict[str, str]]:
    """Return the installed packages in what dpkg-query prints with FORMAT; those that are removed but for their configuration are not."""
    rows = [line.split("\t") for line in output.splitlines()]
    return [dict(zip(FIELDS, row[1:])) for row in rows if row[0] == "installed"]


def lock_of(folder: str) -> dict[tuple[str, str], list[str]]:
    """Return the hashes of each package and version in an environment's lock; none when it was installed without one."""
    path = os.path.join(folder, "requirements.txt")
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        try:
            pins = sbom.parse_lock(file.read())
        except ValueError:
            return {}
    return {(pin.name, pin.version): list(pin.hashes) for pin in pins}


def bundled(folder: str) -> list[dict[str, str]]:
    """Return what a package says to have inside, by the lists that its wheel brought along (PEP 770): libraries that no package manager knows.

    Args:
        folder: of the package's metadata.
    """
    found = {}
    for path in sorted(glob.glob(f"{glob.escape(folder)}/sboms/*.json")):
        with open(path, encoding="utf-8") as file:
            try:
                content = json.load(file)
            except ValueError:
                continue
        parts = content.get("components") if isinstance(content, dict) else None
        for part in parts if isinstance(parts, list) else []:
            fields = {name: str(part.get(name) or "") for name in ("name", "version", "purl")} if isinstance(part, dict) else {"name": ""}
            # A wheel's own name is the package itself, or a part of it.
            if fields["name"] and not fields["purl"].startswith("pkg:pypi/"):
                found[tuple(fields.values())] = fields
    return [found[key] for key in sorted(found)]


def environment(folder: str) -> dict:
    """Return an environment's folder and packages."""
    hashes = lock_of(folder)
    packages = {}
    for info in glob.glob(f"{folder}/lib/python3*/site-packages/*.dist-info"):
        found = importlib.metadata.Distribution.at(info)
        name, version = sbom.canonical(found.metadata["Name"]), found.version
        packages[name, version] = {
            "name": name,
            "version": version,
            "hashes": hashes.get((name, version), []),
            "bundled": bundled(info),
            **sbom.licence_of(found.metadata),
        }
    return {"folder": folder, "packages": [packages[key] for key in sorted(packages)]}


def environments(folder: str) -> list[dict]:
    """Return the complete environments below a folder. The link to the current one is not another."""
    found = sorted(os.path.dirname(mark) for mark in glob.glob(f"{folder}/*/.complete"))
    return [environment(each) for each in found if not os.path.islink(each)]


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"environments_folder": {"type": "path", "default": "/opt/mlflow"}}, supports_check_mode=True)
    system = platform.freedesktop_os_release()
    dummy, output, dummy = module.run_command(["dpkg-query", "--show", f"--showformat={FORMAT}"], check_rc=True)
    module.exit_json(
        changed=False,
        report={
            "system": {"id": system["ID"], "version": system.get("VERSION_ID", "")},
            "debian": parse_packages(output),
            "environments": environments(module.params["environments_folder"]),
        },
    )


if __name__ == "__main__":
    main()
