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
  - Copies what an opened bundle (M(mlops.mlflow.bundle_open)) has for a kind of host, once, and compares every file with the manifest there.
  - An interrupted copy is begun anew by the next run. Older bundles are removed when a newer one is whole.
options:
  folder:
    description: The opened bundle on the controller.
    type: path
    required: true
  target:
    description: The kind of host, such as V(trixie-amd64).
    type: str
    required: true
  path:
    description: Folder on the host, with one folder for each bundle.
    type: path
    required: true
  part:
    description: The tarball on the host. The action fills it in.
    type: path
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
    target: trixie-amd64
    path: /var/lib/mlops-bundle
  become: true
"""

RETURN = r"""
"""

import json
import os
import shutil
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils import bundle

COMPLETE = ".complete"


def place(tarball: Path, folder: Path, target: str) -> list[str]:
    """Unpack a part of a bundle; return what is wrong with its files, and leave nothing then.

    Args:
        tarball: the part.
        folder: where it is to be.
        target: whose part it is.
    """
    draft = folder.with_name(f"{folder.name}.part")
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)
    try:
        bundle.unpack(tarball, draft, [bundle.MANIFEST])
        manifest = json.loads((draft / bundle.MANIFEST).read_bytes())
        if bundle.identity(manifest) != folder.name:
            raise ValueError(f"{bundle.MANIFEST} is not that of the bundle {folder.name}")
        wanted = bundle.files_for(manifest, target)
        bundle.unpack(tarball, draft, wanted)
        faults = bundle.damage(manifest, draft, wanted)
    except ValueError as error:
        faults = [str(error)]
    if faults:
        shutil.rmtree(draft)
        return faults
    (draft / COMPLETE).touch()
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
            "target": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "part": {"type": "path"},
        },
        supports_check_mode=True,
    )
    folder = Path(module.params["path"]) / Path(module.params["folder"]).name
    if (folder / COMPLETE).exists():
        module.exit_json(changed=False, complete=True)
    if not module.params["part"]:
        module.exit_json(changed=True, complete=False)
    faults = place(Path(module.params["part"]), folder, module.params["target"])
    if faults:
        module.fail_json(msg=f"The bundle did not arrive as it was sent: {'; '.join(faults[:10])}. Run this again.")
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other)
    module.exit_json(changed=True, complete=True)


if __name__ == "__main__":
    main()
