#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Has the part of a bundle that a host needs on that host; the action of the same name brings it there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_place
short_description: The part of a bundle that a host needs, on that host
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Copies what an opened bundle (M(mlops.mlflow.bundle_open)) has for some kinds of hosts, once, and compares every file with the manifest there. With
    O(url) the host gets the files from another one, by TLS, instead of from the controller.
  - An interrupted copy is begun anew by the next run; one by O(url) goes on where it was. Older bundles are removed when a newer one is whole.
options:
  folder:
    description: The opened bundle on the controller.
    type: path
    required: true
  targets:
    description: The kinds of hosts, such as V(trixie-amd64). A host that serves others has the files of all of them.
    type: list
    elements: str
    required: true
  path:
    description: Folder on the host, with one folder for each bundle.
    type: path
    required: true
  url:
    description: HTTPS address of a folder as O(path) is, on a host that has the bundle. Empty for the controller.
    type: str
    default: ""
  ca:
    description: Certificates of the CAs that the server's certificate must be from, as PEM. Empty for those that the host trusts.
    type: str
    default: ""
  part:
    description: The tarball on the host. The action fills it in.
    type: path
  sha256:
    description: Of the bundle's manifest, in hexadecimal. The action fills it in.
    type: str
attributes:
  action:
    support: full
    description: It reads the bundle on the controller.
  check_mode:
    support: full
    description: Nothing is copied.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Bring the bundle
  mlops.mlflow.bundle_place:
    folder: /var/cache/mlops-bundles/9579f0864de8
    targets: [trixie-amd64]
    path: /var/lib/mlops-bundle
  become: true
"""

RETURN = r"""
"""

import http.client
import json
import os
import shutil
import ssl
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils import bundle

# Names the kinds of hosts whose files are there.
COMPLETE = ".complete"
TIMEOUT_S = 60

# Has files of a bundle in a folder.
Source = Callable[[Path, Iterable[str]], None]


def from_tarball(tarball: Path) -> Source:
    """Return the source that a tarball is."""
    return lambda folder, names: bundle.unpack(tarball, folder, names)


def from_server(url: str, ca: str) -> Source:
    """Return the source that a host with the bundle is, without any proxy in between.

    Args:
        url: of the bundle's folder there.
        ca: see the module.
    """
    context = ssl.create_default_context(cadata=ca or None)
    # As older Pythons and OpenSSL's own programs check; from 3.13 on Python would refuse CAs that companies have.
    context.verify_flags = context.verify_flags & ~ssl.VERIFY_X509_STRICT
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))

    def fetch(folder: Path, names: Iterable[str]) -> None:
        for name in names:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            address = f"{url}/{urllib.request.quote(name)}"
            try:
                with opener.open(address, timeout=TIMEOUT_S) as answer, path.open("wb") as file:
                    shutil.copyfileobj(answer, file, 1 << 20)
            except (OSError, http.client.HTTPException) as error:
                raise ValueError(f"{address} cannot be had: {error}") from error

    return fetch


def kept(manifest: dict, others: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Yield content and path of the files of older bundles that this one has too."""
    wanted = {entry["sha256"] for entry in manifest["files"]}
    for other in others:
        try:
            files = json.loads((other / bundle.MANIFEST).read_bytes())["files"]
        except (OSError, ValueError):
            # What an interruption has left is worth nothing.
            continue
        for entry in files:
            if entry["sha256"] in wanted and (other / entry["path"]).is_file():
                yield entry["sha256"], other / entry["path"]


def place(source: Source, folder: Path, targets: list[str], sha256: str) -> list[str]:
    """Have what some kinds of hosts need in a folder; return what is wrong with its files, and leave the folder as it was then.

    Args:
        source: of the files.
        folder: where they are to be.
        targets: the kinds of hosts.
        sha256: of the manifest.
    """
    draft = folder.with_name(f"{folder.name}.part")
    draft.mkdir(parents=True, exist_ok=True)
    try:
        source(draft, [bundle.MANIFEST])
        if bundle.digest(draft / bundle.MANIFEST) != sha256:
            raise ValueError(f"{bundle.MANIFEST} is not that of the bundle {folder.name}")
        manifest = json.loads((draft / bundle.MANIFEST).read_bytes())
        wanted = {name for target in targets for name in bundle.files_for(manifest, target)}
        entries = [entry for entry in manifest["files"] if entry["path"] in wanted]
        known = dict(kept(manifest, [each for each in folder.parent.iterdir() if each != draft]))
        for entry in entries:
            if entry["sha256"] in known and not (draft / entry["path"]).exists():
                (draft / entry["path"]).parent.mkdir(parents=True, exist_ok=True)
                os.link(known[entry["sha256"]], draft / entry["path"])
        source(draft, [entry["path"] for entry in entries if bundle.damage({"files": [entry]}, draft)])
        faults = bundle.damage(manifest, draft, wanted)
    except ValueError as error:
        faults = [str(error)]
    if faults:
        return faults
    (draft / COMPLETE).write_text("".join(f"{target}\n" for target in targets), encoding="utf-8")
    # Whatever the umask of whoever runs this: apt's own user and the one who builds environments read it.
    for each in [draft.parent, draft, *draft.rglob("*")]:
        each.chmod(0o755 if each.is_dir() else 0o644)
    os.sync()
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(draft, folder)
    return []


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "targets": {"type": "list", "elements": "str", "required": True},
            "path": {"type": "path", "required": True},
            "url": {"type": "str", "default": ""},
            "ca": {"type": "str", "default": ""},
            "part": {"type": "path"},
            "sha256": {"type": "str"},
        },
        supports_check_mode=True,
    )
    folder, url = Path(module.params["path"]) / Path(module.params["folder"]).name, module.params["url"]
    marker = folder / COMPLETE
    if marker.exists() and set(module.params["targets"]) <= set(marker.read_text(encoding="utf-8").split()):
        module.exit_json(changed=False, complete=True)
    if module.check_mode or not (url or module.params["part"]):
        module.exit_json(changed=True, complete=False)
    source = from_server(f"{url}/{folder.name}", module.params["ca"]) if url else from_tarball(Path(module.params["part"]))
    faults = place(source, folder, module.params["targets"], module.params["sha256"])
    if faults:
        remedy = "Run this again, for all hosts, as the one that has the bundle may have an older one" if url else "Run this again"
        module.fail_json(msg=f"The bundle did not arrive as it was sent: {'; '.join(faults[:10])}. {remedy}.")
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other)
    module.exit_json(changed=True, complete=True)


if __name__ == "__main__":
    main()
