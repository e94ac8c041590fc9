#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Writes what says that a bundle is whole, signs it, and makes one file of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_seal
short_description: The manifest of a bundle, its signature, and one file of all of it
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Lists every file of a folder with size, SHA-256, name, version, licence and origin in C(manifest.json), signs that with Ed25519 in C(manifest.sig), and
    puts all files into one tarball. The same files make the same manifest and the same tarball.
  - The private key is made when it is not there. Its public half is C(key.pem) in the bundle; who gets a bundle compares its fingerprint with the one that
    this module returns, by another way than the bundle came.
  - Writes a CycloneDX document of all packages too.
  - Removes packages and wheels that are not among O(components), and repositories of other targets.
options:
  path:
    description: The bundle's folder.
    type: path
    required: true
  tarball:
    description: The one file. It is written anew when the manifest is another one.
    type: path
    required: true
  key_file:
    description: The private key, which stays where it is.
    type: path
    required: true
  targets:
    description: The kinds of hosts that it is for.
    type: list
    elements: str
    required: true
  about:
    description: What else the manifest says, such as the versions of MLflow.
    type: dict
    default: {}
  components:
    description: What is known of files. A file that is not among these is part of the collection.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Of the file, in the bundle's folder.
        type: str
        required: true
      kind:
        description: What it is.
        type: str
        choices: [deb, wheel]
        required: true
      name:
        description: Of the package.
        type: str
        required: true
      version:
        description: Of the package.
        type: str
        required: true
      licence:
        description: As the package has it.
        type: str
        default: ""
      origin:
        description: Where it was downloaded.
        type: str
        default: ""
      targets:
        description: The kinds of hosts that it is for.
        type: list
        elements: str
        required: true
  older:
    description: The manifest of an older bundle. The tarball then has only files that are not in that one.
    type: path
attributes:
  check_mode:
    support: full
    description: Nothing is written.
  diff_mode:
    support: none
    description: There is nothing to show.
requirements:
  - cryptography
"""

EXAMPLES = r"""
- name: Seal the bundle
  mlops.mlflow.bundle_seal:
    path: /srv/bundle
    tarball: /srv/bundle.tar
    key_file: /srv/bundle-key/key.pem
    targets: [trixie-amd64]
"""

RETURN = r"""
id:
  description: What tells this bundle from others.
  returned: success
  type: str
fingerprint:
  description: SHA-256 of the public key, in hexadecimal.
  returned: success
  type: str
size:
  description: Bytes of the tarball.
  returned: success
  type: int
"""

import hashlib
import json
import os
import tarfile
import traceback
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.mlops.mlflow.plugins.module_utils import bundle, sbom

try:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    CRYPTOGRAPHY_ERROR = None
except ImportError:
    CRYPTOGRAPHY_ERROR = traceback.format_exc()

SBOM = "sbom.cdx.json"
# What is made here, and in no manifest.
OWN = {bundle.MANIFEST, bundle.SIGNATURE, bundle.KEY}


def private_key(path: Path):
    """Return the key that signs, made when it is not there."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
    key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} is no Ed25519 key")
    return key


def is_stray(name: str, known: dict, targets: list[str]) -> bool:
    """Tell whether a file is left over from a bundle of other packages, or for other targets."""
    parts = name.split("/")
    return (name.endswith((".deb", ".whl")) and name not in known) or (parts[0] == "debian" and len(parts) > 2 and parts[1] not in targets)


def needed_by(name: str, targets: list[str]) -> list[str]:
    """Return the targets that need a file that is no package: the index of a repository is for its own, all else for each."""
    parts = name.split("/")
    return [parts[1]] if parts[0] == "debian" and len(parts) > 2 else targets


def document(about: dict, components: list[dict]) -> str:
    """Return the CycloneDX document of a bundle, each package and version once."""
    found = {}
    for each in components:
        if each["kind"] == "wheel":
            part = sbom.python_component(each["name"], each["version"], [each["sha256"]], licence=each["licence"])
        else:
            url = sbom.purl("deb/debian", each["name"], each["version"], arch=each["path"].rpartition("_")[2].removesuffix(".deb"))
            part = {"type": "library", "bom-ref": url, "name": each["name"], "version": each["version"], "purl": url}
            part["hashes"] = [{"alg": "SHA-256", "content": each["sha256"]}]
            if each["licence"]:
                part["licenses"] = [{"license": {"name": each["licence"]}}]
        found.setdefault(part["bom-ref"], part)
    subject = {"type": "application", "bom-ref": "mlops.mlflow-bundle", "name": "mlops.mlflow-bundle", "version": str(about.get("collection", ""))}
    return sbom.render(sbom.document(subject, found.values()))


def content_of(tarball: Path) -> tuple[bytes, list[str]]:
    """Return the manifest of a tarball and the names in it; nothing where there is none, or it is not whole enough to tell."""
    try:
        with tarfile.open(tarball) as archive:
            names = archive.getnames()
            content = archive.extractfile(bundle.MANIFEST) if bundle.MANIFEST in names else None
            return content.read() if content is not None else b"", names
    except (tarfile.TarError, OSError):
        return b"", []


def main() -> None:
    """Entry point."""
    component = {
        "path": {"type": "str", "required": True},
        "kind": {"type": "str", "choices": ["deb", "wheel"], "required": True},
        "name": {"type": "str", "required": True},
        "version": {"type": "str", "required": True},
        "licence": {"type": "str", "default": ""},
        "origin": {"type": "str", "default": ""},
        "targets": {"type": "list", "elements": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "tarball": {"type": "path", "required": True},
            "key_file": {"type": "path", "required": True},
            "targets": {"type": "list", "elements": "str", "required": True},
            "about": {"type": "dict", "default": {}},
            "components": {"type": "list", "elements": "dict", "default": [], "options": component},
            "older": {"type": "path"},
        },
        supports_check_mode=True,
    )
    if CRYPTOGRAPHY_ERROR is not None:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_ERROR)
    if module.check_mode:
        module.exit_json(changed=True)
    folder, tarball = Path(module.params["path"]), Path(module.params["tarball"])
    known = {each["path"]: each for each in module.params["components"]}
    files = []
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        name = path.relative_to(folder).as_posix()
        if is_stray(name, known, module.params["targets"]):
            path.unlink()
        elif name not in OWN | {SBOM}:
            entry = known.get(name, {"path": name, "kind": "collection", "targets": needed_by(name, module.params["targets"])})
            files.append({**entry, "size": path.stat().st_size, "sha256": bundle.digest(path)})
    listed = document(module.params["about"], [each for each in files if each["path"] in known]).encode()
    (folder / SBOM).write_bytes(listed)
    files.append({"path": SBOM, "kind": "sbom", "targets": module.params["targets"], "size": len(listed), "sha256": hashlib.sha256(listed).hexdigest()})
    manifest = {"format": bundle.FORMAT, **module.params["about"], "targets": sorted(module.params["targets"]), "files": files}
    rendered = bundle.render(manifest)
    key = private_key(Path(module.params["key_file"]))
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    (folder / bundle.MANIFEST).write_bytes(rendered)
    (folder / bundle.SIGNATURE).write_bytes(key.sign(rendered))
    (folder / bundle.KEY).write_bytes(public)
    paths = [entry["path"] for entry in files]
    if module.params["older"]:
        paths = bundle.delta(manifest, json.loads(Path(module.params["older"]).read_text(encoding="utf-8")))
    names = [bundle.MANIFEST, bundle.SIGNATURE, bundle.KEY, *paths]
    changed = content_of(tarball) != (rendered, names)
    if changed:
        bundle.pack(folder, names, tarball)
    module.exit_json(
        changed=changed, id=bundle.identity(manifest), fingerprint=hashlib.sha256(raw).hexdigest(), size=tarball.stat().st_size
    )


if __name__ == "__main__":
    main()
