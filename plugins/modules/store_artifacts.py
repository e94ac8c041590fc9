#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Brings the artifacts of a store into S3, and proves that they are there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: store_artifacts
short_description: The artifacts of a store, into S3
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Uploads what M(mlops.mlflow.store_import) has found to be folders of artifacts (C(scan.json)), several files at a time. What is there already stays, so
    that an interrupted run goes on where it was.
  - Each upload has its MD5, by which the store refuses what did not arrive whole; at the end every object is looked for, with its size and checksum.
extends_documentation_fragment:
  - mlops.mlflow.s3
options:
  folder:
    description: Where M(mlops.mlflow.store_import) has left what it found.
    type: path
    required: true
  files_folder:
    description: Folder below which the files have the paths that they have on the source's machine. Empty where that is this host.
    type: str
    default: ""
  only_look:
    description: Whether to say only what is missing.
    type: bool
    default: false
  threads:
    description: Files that are uploaded at a time.
    type: int
    default: 8
attributes:
  action:
    support: full
    description: It shows how far the module is.
  check_mode:
    support: full
    description: Says only what is missing.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Bring the artifacts
  mlops.mlflow.store_artifacts:
    folder: /var/lib/mlops-import/mlflow
    destination: s3://mlflow
    endpoint_url: https://store.example.org:7480
    access_key_id: "{{ mlflow_s3_access_key_id }}"
    secret_access_key: "{{ mlflow_s3_secret_access_key }}"
  vars:
    ansible_python_interpreter: /opt/mlflow/current/bin/python
"""

RETURN = r"""
missing:
  description: Folders of artifacts that cannot be reached, with O(only_look).
  returned: always
  type: list
  elements: str
unmade:
  description: Folders that are not there as nobody has made them yet, with O(only_look).
  returned: always
  type: list
  elements: str
files:
  description: Files that are in the store now.
  returned: always
  type: int
uploaded:
  description: How many of them this run has uploaded.
  returned: always
  type: int
mib:
  description: Their size in all.
  returned: always
  type: int
"""

import hashlib
import itertools
import json
import os
import sqlite3
from base64 import b64encode
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.mlops.mlflow.plugins.module_utils import s3
from ansible_collections.mlops.mlflow.plugins.module_utils.s3_client import BOTO3_ERROR, S3_OPTIONS, failure_of, make_client, settings_of
from ansible_collections.mlops.mlflow.plugins.module_utils.store_files import absent, files_of
from ansible_collections.mlops.mlflow.plugins.module_utils.store_progress import Progress

MIB = 1024 * 1024
# Larger files go in parts of this size, or of such a size that they are not too many.
PART = 16 * MIB
PARTS = 9000
# Files of which is known at a time what is there.
CHUNK = 2000
# An import of hours does not end with one answer that did not come.
ATTEMPTS = 8


def part_size(size: int) -> int:
    """Return the size of the parts in which a file goes."""
    return max(PART, -(-size // PARTS))


def checksums(path: str) -> tuple[str, str]:
    """Return the MD5 of a file, in Base64, and the tag that S3 gives an object of it."""
    size = os.path.getsize(path)
    each = part_size(size)
    whole, parts = hashlib.md5(usedforsecurity=False), []
    with open(path, "rb") as file:
        while data := file.read(each):
            whole.update(data)
            parts.append(hashlib.md5(data, usedforsecurity=False).digest())
    if size <= each:
        return b64encode(whole.digest()).decode(), whole.hexdigest()
    return "", f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"


class Bucket:
    """The artifact store."""

    def __init__(self, client: Any, bucket: str, prefix: str) -> None:
        """Remember it.

        Args:
            client: of boto3.
            bucket: its name.
            prefix: of all keys.
        """
        self.client, self.bucket, self.prefix = client, bucket, prefix

    def objects(self, target: str, alone: bool) -> Iterator[tuple[str, int, str]]:
        """Yield key, size and tag of what is there of a target.

        Args:
            target: below the prefix.
            alone: whether it is one object, and not what is below it.
        """
        at = s3.below(self.prefix, target)
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=at if alone else f"{at}/"):
            for each in page.get("Contents", ()):
                yield each["Key"], int(each["Size"]), each["ETag"].strip('"')

    def upload(self, path: str, key: str, there: tuple[int, str] | None) -> tuple[bool, tuple[int, str]]:
        """Have a file under a key.

        Args:
            path: of the file.
            key: of the object.
            there: size and tag of what is there.

        Returns:
            Whether it was uploaded; its size and tag.
        """
        size = os.path.getsize(path)
        md5, tag = checksums(path)
        if there == (size, tag):
            return False, there
        at = {"Bucket": self.bucket, "Key": key}
        if md5:
            with open(path, "rb") as file:
                answer = self.client.put_object(**at, Body=file, ContentMD5=md5)
        else:
            answer = self._in_parts(path, at, part_size(size))
        return True, (size, answer["ETag"].strip('"'))

    def _in_parts(self, path: str, at: dict[str, str], size: int) -> Any:
        upload = self.client.create_multipart_upload(**at)["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            with open(path, "rb") as file:
                while data := file.read(size):
                    md5 = b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
                    answer = self.client.upload_part(**at, UploadId=upload, PartNumber=len(parts) + 1, Body=data, ContentMD5=md5)
                    parts.append({"PartNumber": len(parts) + 1, "ETag": answer["ETag"]})
            return self.client.complete_multipart_upload(**at, UploadId=upload, MultipartUpload={"Parts": parts})
        except BaseException:
            self.client.abort_multipart_upload(**at, UploadId=upload)
            raise


class Ledger:
    """What is in the store and what is to be, in a file, as there may be more of it than memory has room for."""

    def __init__(self, path: str) -> None:
        """Begin.

        Args:
            path: of the file; replaced.
        """
        if os.path.exists(path):
            os.remove(path)
        self.file = sqlite3.connect(path, isolation_level=None)
        self.file.executescript("PRAGMA journal_mode = off; PRAGMA synchronous = off;")
        for table in ("there", "sent"):
            self.file.execute(f"CREATE TABLE {table} (key TEXT PRIMARY KEY, size INTEGER, tag TEXT) WITHOUT ROWID")

    def begin(self, objects: Iterable[tuple[str, int, str]]) -> None:
        """Forget the last root, and learn what is there of the next."""
        self.file.execute("DELETE FROM there")
        self.file.execute("DELETE FROM sent")
        self.file.executemany("INSERT OR REPLACE INTO there VALUES (?, ?, ?)", objects)

    def there(self, keys: list[str]) -> dict[str, tuple[int, str]]:
        """Return size and tag of those keys that are there."""
        found = (self.file.execute("SELECT key, size, tag FROM there WHERE key = ?", (key,)).fetchone() for key in keys)
        return {row[0]: (row[1], row[2]) for row in found if row}

    def sent(self, objects: Iterable[tuple[str, int, str]]) -> None:
        """Note what has to be there in the end."""
        self.file.executemany("INSERT OR REPLACE INTO sent VALUES (?, ?, ?)", objects)

    def wrong(self, objects: Iterable[tuple[str, int, str]]) -> tuple[int, str]:
        """Return how many of what was sent are not among the objects, and one of them."""
        self.file.executemany("DELETE FROM sent WHERE key = ? AND size = ? AND tag = ?", objects)
        return self.file.execute("SELECT count(*), coalesce(min(key), '') FROM sent").fetchone()


def bring(store: Bucket, ledger: Ledger, roots: dict[str, str], base: str, threads: int, progress: Progress) -> dict[str, int]:
    """Upload the files of all roots, and look for each of them afterwards.

    Args:
        store: the artifact store.
        ledger: for what is known of it.
        roots: where each goes.
        base: see the module's files_folder.
        threads: files at a time.
        progress: told of each file.

    Returns:
        How many there are, how many of them were uploaded, and their size.

    Raises:
        ValueError: an object is not as it was uploaded.
    """
    found, size = {"files": 0, "uploaded": 0}, 0
    others = {base + root for root in roots}
    progress.begin("uploading", sum(1 for root in roots for _name in files_of(base + root, others.__contains__)))
    with ThreadPoolExecutor(threads) as pool:
        for root, target in roots.items():
            alone, names = os.path.isfile(base + root), files_of(base + root, others.__contains__)
            begun = False
            while chunk := list(itertools.islice(names, CHUNK)):
                if not begun:
                    ledger.begin(store.objects(target, alone))
                    begun = True
                keys = [s3.below(store.prefix, target + name[len(base + root) :]) for name in chunk]
                there = ledger.there(keys)
                sent = []
                for key, (new, state) in zip(keys, pool.map(store.upload, chunk, keys, [there.get(key) for key in keys])):
                    sent.append((key, *state))
                    found["uploaded"] += new
                    size += state[0]
                    progress.told("uploading", root, 1)
                ledger.sent(sent)
                found["files"] += len(sent)
            count, first = ledger.wrong(store.objects(target, alone)) if begun else (0, "")
            if count:
                raise ValueError(f"{count} objects are not in the store as they were sent, {first} among them: run this again")
    return {**found, "mib": -(-size // MIB)}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            "files_folder": {"type": "str", "default": ""},
            "only_look": {"type": "bool", "default": False},
            **S3_OPTIONS,
            "threads": {"type": "int", "default": 8},
        },
        supports_check_mode=True,
    )
    given = module.params
    if BOTO3_ERROR:
        module.fail_json(msg=missing_required_lib("boto3"), exception=BOTO3_ERROR)
    with open(os.path.join(given["folder"], "scan.json"), encoding="utf-8") as file:
        scan = json.load(file)
    if given["only_look"] or module.check_mode:
        try:
            missing, unmade = absent(scan["roots"], scan["expected"], given["files_folder"])
        except OSError as error:
            module.fail_json(msg=f"Cannot read what is to be imported: {error}.")
        module.exit_json(changed=False, missing=missing, unmade=unmade, files=0, uploaded=0, mib=0)
    settings = settings_of(given)
    try:
        store = Bucket(make_client(settings, given["secret_access_key"], ATTEMPTS), settings.bucket, settings.prefix)
        ledger = Ledger(os.path.join(given["folder"], "uploads.db"))
        answer = bring(store, ledger, scan["roots"], given["files_folder"], given["threads"], Progress(given["folder"], "files"))
    except (OSError, ValueError, sqlite3.Error) as error:
        module.fail_json(msg=f"Not all artifacts are in the store: {error}. The database is as it was.")
    except Exception as error:  # pylint: disable=broad-except
        module.fail_json(msg=f"Not all artifacts are in the store; the database is as it was. {s3.explain(failure_of(error), settings)}")
    module.exit_json(changed=answer["uploaded"] > 0, missing=[], unmade=[], **answer)


if __name__ == "__main__":
    main()
