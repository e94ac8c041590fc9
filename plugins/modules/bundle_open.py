#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Opens a bundle on the controller, after a look whether it is whole and whose it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_open
short_description: A bundle, checked and unpacked on the controller
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Checks the signature of a bundle's manifest, unpacks the bundle into a folder of its own, and compares every file with the manifest. A bundle that has been
    opened before is not unpacked again.
  - A bundle that was made against an older one (O(mlops.mlflow.bundle_seal#module:older)) takes the rest from those that were opened before.
  - What is wrong with it is returned, and nothing fails, so that it can be reported with everything else.
options:
  path:
    description: The tarball.
    type: path
    required: true
  cache:
    description: Folder for opened bundles. Without it, C(mlops.mlflow/bundles) in the user's folder for such (C(XDG_CACHE_HOME), C(~/.cache)).
    type: path
  fingerprint:
    description: SHA-256 of the public key that the bundle must be signed with, in hexadecimal. Empty takes any key.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: It unpacks in check mode too, as the checks need that.
  diff_mode:
    support: none
    description: There is nothing to show.
requirements:
  - cryptography
"""

EXAMPLES = r"""
- name: Open the bundle
  mlops.mlflow.bundle_open:
    path: /media/stick/mlops-mlflow-bundle.tar
  delegate_to: localhost
"""

RETURN = r"""
problem:
  description: What is wrong with it; empty when it can be used.
  returned: success
  type: str
folder:
  description: Where it is unpacked.
  returned: when it can be used
  type: str
id:
  description: What tells it from others.
  returned: when it can be used
  type: str
fingerprint:
  description: SHA-256 of the public key that it is signed with.
  returned: when it can be used
  type: str
targets:
  description: The kinds of hosts that it is for.
  returned: when it can be used
  type: list
  elements: str
"""

import hashlib
import json
import os
import shutil
import tarfile
import traceback
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.mlops.mlflow.plugins.module_utils import bundle

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    CRYPTOGRAPHY_ERROR = None
except ImportError:
    CRYPTOGRAPHY_ERROR = traceback.format_exc()

# So many files that are not right are named.
NAMED = 10


def head(path: Path) -> dict[str, bytes]:
    """Return the files that say what a bundle is; they are its first ones.

    Raises:
        ValueError: it is no bundle.
    """
    names = (bundle.MANIFEST, bundle.SIGNATURE, bundle.KEY)
    found = {}
    try:
        with tarfile.open(path) as archive:
            for name in names:
                member = archive.next()
                content = archive.extractfile(member) if member is not None and member.name == name else None
                if content is None:
                    raise ValueError(f"it does not begin with {name}, so it is no bundle")
                found[name] = content.read()
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"it cannot be read: {error}") from error
    return found


def signer(files: dict[str, bytes]) -> str:
    """Return the fingerprint of the key that a manifest is signed with.

    Raises:
        ValueError: it is not signed with the key beside it.
    """
    try:
        key = serialization.load_pem_public_key(files[bundle.KEY])
    except ValueError as error:
        raise ValueError(f"its {bundle.KEY} is no public key: it was damaged, or changed after it was made") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError(f"its {bundle.KEY} is no Ed25519 key")
    try:
        key.verify(files[bundle.SIGNATURE], files[bundle.MANIFEST])
    except InvalidSignature as error:
        raise ValueError(f"{bundle.SIGNATURE} is not the signature of its {bundle.MANIFEST}: one of them was damaged, or changed after it was made") from error
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()


def complete(manifest: dict, folder: Path, cache: Path) -> None:
    """Take the files that a bundle lacks from those that were opened before; one of the same content will do, whatever its name."""
    missing = [entry for entry in manifest["files"] if not (folder / entry["path"]).exists()]
    if not missing:
        return
    known = {}
    for other in sorted(cache.glob(f"*/{bundle.MANIFEST}")):
        if other.parent != folder:
            known |= {entry["sha256"]: other.parent / entry["path"] for entry in json.loads(other.read_bytes())["files"]}
    for entry in missing:
        source = known.get(entry["sha256"])
        if source is not None and source.exists():
            (folder / entry["path"]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / entry["path"])


def opened(path: Path, cache: Path, fingerprint: str) -> dict:
    """Return what the module returns of a bundle.

    Raises:
        ValueError: it cannot be used; with a sentence.
    """
    if not path.is_file():
        raise ValueError("there is no such file on the controller; use an absolute path, or leave it out")
    files = head(path)
    made_by = signer(files)
    if fingerprint and fingerprint.replace(":", "").lower() != made_by:
        raise ValueError(f"it is signed with the key {made_by}, and this site takes bundles of the key {fingerprint} only: sources_bundle_key names that")
    manifest = json.loads(files[bundle.MANIFEST])
    if manifest["format"] != bundle.FORMAT:
        raise ValueError(f"it has the format {manifest['format']}, and this release of mlops.mlflow knows {bundle.FORMAT}: use the release that is in it")
    folder = cache / bundle.identity(manifest)
    if not folder.exists():
        draft = cache / f"{folder.name}.part"
        if draft.exists():
            shutil.rmtree(draft)
        draft.mkdir(parents=True)
        for name, content in files.items():
            (draft / name).write_bytes(content)
        try:
            bundle.unpack(path, draft, [entry["path"] for entry in manifest["files"]])
            complete(manifest, draft, cache)
            faults = bundle.damage(manifest, draft)
            if faults:
                more = f", and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
                raise ValueError(f"{'; '.join(faults[:NAMED])}{more}: copy it again, or make it again")
        except ValueError:
            shutil.rmtree(draft)
            raise
        os.replace(draft, folder)
    return {"folder": str(folder), "id": folder.name, "fingerprint": made_by, "targets": manifest["targets"]}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "cache": {"type": "path"},
            "fingerprint": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if CRYPTOGRAPHY_ERROR is not None:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_ERROR)
    cache = module.params["cache"] or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mlops.mlflow" / "bundles"
    try:
        answer = opened(Path(module.params["path"]), Path(cache), module.params["fingerprint"])
    except ValueError as error:
        module.exit_json(changed=False, problem=str(error))
    module.exit_json(changed=False, problem="", **answer)


if __name__ == "__main__":
    main()
