# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The bucket for MLflow's artifacts on any S3 store: making it, and proving that MLflow can work with it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: s3_artifact_store
short_description: Makes and probes the place for MLflow's artifacts on an S3 store
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - With O(state=present) makes the bucket when it is missing, and gives it a rule that aborts uploads which were never completed.
  - With O(state=probed) does with the bucket what MLflow does, list, put, get, multipart upload, ranged read, abort and delete,
    compares what comes back by SHA-256, and measures the difference of the clocks. It removes all it stored, also when it fails.
  - An error is reported in plain words that name the variable of this collection to correct. Missing permissions are
    collected and reported together by their S3 names.
  - Run it as the user, and with the Python and CA file, of the MLflow server, so that it sees what the server will see.
extends_documentation_fragment:
  - mlops.mlflow.s3
options:
  state:
    description: Make the bucket, or probe it.
    type: str
    choices: [present, probed]
    default: probed
  abort_multipart_days:
    description: Days after which O(state=present) has the store abort an upload that was never completed.
    type: int
    default: 7
  max_clock_skew:
    description: Seconds that the clocks of host and store may differ.
    type: int
    default: 300
attributes:
  check_mode:
    support: full
    description: Only lists; stores and changes nothing.
  diff_mode:
    support: none
    description: There is no text to compare.
"""

EXAMPLES = r"""
- name: Probe the store as the server sees it
  mlops.mlflow.s3_artifact_store:
    destination: s3://mlflow/team-a
    endpoint_url: https://store.example.org:7480
    access_key_id: "{{ mlflow_s3_access_key_id }}"
    secret_access_key: "{{ mlflow_s3_secret_access_key }}"
    ca_file: /etc/ssl/certs/mlops-ca.crt
  become: true
  become_user: mlflow
  vars:
    ansible_python_interpreter: /opt/mlflow/current/bin/python
"""

RETURN = r"""
checks:
  description: What was checked, in order, with its time in milliseconds.
  type: list
  elements: dict
  returned: always
  sample: [{name: put, ms: 12}]
done:
  description: What was done with O(state=present), or would be in check mode.
  type: list
  elements: str
  returned: always
missing_permissions:
  description: S3 names of the permissions that the key lacks.
  type: list
  elements: str
  returned: failure
bucket:
  description: The bucket.
  type: str
  returned: always
"""

import hashlib
import os
import pwd
import ssl
import time
import uuid
from email.utils import parsedate_to_datetime
from typing import Any, Callable

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.mlops.mlflow.plugins.module_utils import s3
from ansible_collections.mlops.mlflow.plugins.module_utils.s3_client import BOTO3_ERROR, S3_OPTIONS, failure_of, make_client, settings_of

MIB = 1024 * 1024
PARTS = (5 * MIB, 5 * MIB, 1 * MIB)
# Beyond the first 8 MiB, where a broken backend of Ceph's gateway was seen to return wrong bytes of the right length.
RANGE = (8 * MIB + 4321, 10 * MIB + 1234)


class Stop(Exception):
    """A problem that makes further checks pointless; its text is for the user."""


class Store:
    """The artifact store as one client sees it."""

    def __init__(self, client: Any, settings: s3.Settings, max_skew: int = 300) -> None:
        self.client = client
        self.settings = settings
        self.max_skew = max_skew
        self.checks: list[dict[str, Any]] = []
        self.missing: list[str] = []
        self.problems: list[str] = []
        self.keys: list[str] = []
        self.uploads: list[tuple[str, str]] = []
        self.folder = s3.below(settings.prefix, f".mlops-probe-{uuid.uuid4().hex}")

    def check(self, name: str, permission: str, action: Callable[[], Any], passes: tuple[str, ...] = ()) -> bool:
        """Run one check and note its time; return whether it succeeded.

        Args:
            name: of the check, for the report.
            permission: what is missing when the store refuses.
            action: the check; its result is not used.
            passes: error codes that prove the permission, such as that of a key that is not there.

        Raises:
            Stop: it failed, and not for lack of a permission.
        """
        started = time.monotonic()
        passed = True
        try:
            action()
        except Stop:
            raise
        except Exception as error:  # pylint: disable=broad-except
            failure = failure_of(error)
            if s3.is_denied(failure):
                passed = False
                self.missing += [permission] if permission not in self.missing else []
            elif failure.code not in passes:
                raise Stop(s3.explain(failure, self.settings)) from error
        self.checks.append({"name": name, "ms": round((time.monotonic() - started) * 1000), "passed": passed})
        return passed

    def at(self, key: str) -> dict[str, str]:
        return {"Bucket": self.settings.bucket, "Key": key}

    def load_ca_file(self) -> None:
        """Load the CA file as the server will, so that a file that it cannot read is told from one that is wrong."""
        if not self.settings.ca_file:
            return
        try:
            with open(self.settings.ca_file, "rb"):
                pass
            ssl.create_default_context(cafile=self.settings.ca_file)
        except OSError as error:
            raise Stop(s3.ca_file_problem(error, self.settings)) from error

    def list(self) -> None:
        """List the destination, and compare the clocks on the way: every answer has a date, a refusal too."""
        sent = time.time()
        try:
            answer = self.client.list_objects_v2(
                Bucket=self.settings.bucket, Prefix=s3.below(self.settings.prefix, "") if self.settings.prefix else "", MaxKeys=1
            )
        except Exception as error:
            self.compare_clocks(getattr(error, "response", None), sent)
            raise
        self.compare_clocks(answer, sent)
        if answer.get("Name", self.settings.bucket) != self.settings.bucket:
            raise Stop(
                f"artifact_store_addressing_style is {self.settings.addressing_style}, but the store at {self.settings.endpoint} does not find "
                "the bucket's name in the host's name. Set artifact_store_addressing_style to path."
            )

    def compare_clocks(self, answer: Any, sent: float) -> None:
        headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}) if isinstance(answer, dict) else {}
        if "date" not in headers:
            return
        skew = (sent + time.time()) / 2 - parsedate_to_datetime(headers["date"]).timestamp()
        # The header has whole seconds, cut off.
        skew -= 0.5
        self.checks.append({"name": "clock", "ms": 0, "passed": abs(skew) <= self.max_skew, "skew_seconds": round(skew, 1)})
        problem = s3.skew_problem(skew, self.max_skew)
        if problem:
            raise Stop(problem)

    def compare(self, key: str, data: bytes, byte_range: tuple[int, int] | None = None) -> None:
        """Read an object, or some of it, and compare it with what was stored.

        Raises:
            Stop: the bytes differ.
        """
        extra = {"Range": f"bytes={byte_range[0]}-{byte_range[1] - 1}"} if byte_range else {}
        got = self.client.get_object(**self.at(key), **extra)["Body"].read()
        wanted = data[byte_range[0] : byte_range[1]] if byte_range else data
        if hashlib.sha256(got).digest() != hashlib.sha256(wanted).digest():
            raise Stop(
                f"The store at {self.settings.endpoint} returned other bytes than were stored ({len(got)} bytes, {len(wanted)} expected, "
                f"{'a ranged read of ' if byte_range else ''}an object of {len(data)} bytes). Do not keep artifacts there before that is repaired."
            )

    def put(self, key: str, data: bytes) -> None:
        self.keys.append(key)
        self.client.put_object(**self.at(key), Body=data)

    def delete(self, key: str) -> None:
        self.client.delete_object(**self.at(key))
        if key in self.keys:
            self.keys.remove(key)

    def begin_upload(self, key: str) -> str:
        upload = self.client.create_multipart_upload(**self.at(key))["UploadId"]
        self.uploads.append((key, upload))
        return upload

    def send_part(self, key: str, upload: str, number: int, data: bytes) -> dict[str, Any]:
        answer = self.client.upload_part(**self.at(key), UploadId=upload, PartNumber=number, Body=data)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    def upload(self, key: str, data: bytes) -> None:
        """Upload in parts, as MLflow does with large files."""
        upload, parts, start = self.begin_upload(key), [], 0
        for number, size in enumerate(PARTS, start=1):
            parts.append(self.send_part(key, upload, number, data[start : start + size]))
            start += size
        self.keys.append(key)
        self.client.complete_multipart_upload(**self.at(key), UploadId=upload, MultipartUpload={"Parts": parts})
        self.uploads.remove((key, upload))

    def abort(self, key: str, upload: str) -> None:
        self.client.abort_multipart_upload(**self.at(key), UploadId=upload)
        self.uploads.remove((key, upload))

    def reachable(self) -> bool:
        """Check all that needs no writing; return whether listing is allowed."""
        self.check("CA file", "", self.load_ca_file)
        return self.check("list", "s3:ListBucket", self.list)

    def probe(self) -> None:
        """Do with the bucket what MLflow does."""
        listed = self.reachable()
        small, large, open_upload = (f"{self.folder}/{name}" for name in ("small", "large", "open"))
        data = os.urandom(1000)
        stored = self.check("put", "s3:PutObject", lambda: self.put(small, data))
        if stored:
            read = self.check("get", "s3:GetObject", lambda: self.compare(small, data))
        else:
            self.keys.remove(small)
            # Without s3:ListBucket a key that is not there and one that must not be read look the same.
            permission = "s3:GetObject" if listed else "perhaps s3:GetObject"
            read = self.check("get", permission, lambda: self.compare(small, b""), ("NoSuchKey",))
        deleted = self.check("delete", "s3:DeleteObject", lambda: self.delete(small), ("NoSuchKey",))
        if stored:
            self.check("abort", "s3:AbortMultipartUpload", lambda: self.abort(open_upload, self.begin_upload(open_upload)))
        else:
            self.check(
                "abort",
                "s3:AbortMultipartUpload",
                lambda: self.client.abort_multipart_upload(**self.at(open_upload), UploadId=uuid.uuid4().hex),
                ("NoSuchUpload", "NoSuchKey", "InvalidArgument"),
            )
        if not (stored and read and deleted):
            return
        data = os.urandom(sum(PARTS))
        if self.check("multipart upload", "s3:PutObject", lambda: self.upload(large, data)):
            self.check("ranged read", "s3:GetObject", lambda: self.compare(large, data, RANGE))
            self.check("read all", "s3:GetObject", lambda: self.compare(large, data))
            self.check("delete large", "s3:DeleteObject", lambda: self.delete(large))

    def clean_up(self) -> None:
        """Remove what the probe stored and could not remove in its course; report what stays."""
        left = []
        for key, upload in list(self.uploads):
            try:
                self.abort(key, upload)
            except Exception:  # pylint: disable=broad-except
                left.append(f"an upload of {key} that is not completed")
        for key in list(self.keys):
            try:
                self.delete(key)
            except Exception:  # pylint: disable=broad-except
                left.append(key)
        if left:
            self.problems.append(f"The probe could not remove what it had stored in the bucket '{self.settings.bucket}': {', '.join(left)}. Remove it by hand.")

    def make(self, days: int, check_mode: bool) -> list[str]:
        """Make the bucket and its rule; return what was done, or would be in check mode."""
        done = []
        try:
            self.reachable()
        except Stop as stop:
            if failure_of(stop.__cause__ or stop).code != "NoSuchBucket":
                raise
            done.append(f"make the bucket {self.settings.bucket}")
            if check_mode:
                return done
            # AWS wants to be told every region but its first; other stores have one.
            elsewhere = not self.settings.endpoint_url and self.settings.region not in ("", "us-east-1")
            place = {"CreateBucketConfiguration": {"LocationConstraint": self.settings.region}} if elsewhere else {}
            made = self.check(
                "make bucket",
                "s3:CreateBucket",
                lambda: self.client.create_bucket(Bucket=self.settings.bucket, **place),
                ("BucketAlreadyOwnedByYou",),
            )
            if not made:
                return []
        # What the listing lacks is the probe's to report.
        self.missing = [permission for permission in self.missing if permission != "s3:ListBucket"]
        rules: list[dict[str, Any]] = []
        readable = self.check(
            "read lifecycle", "s3:GetLifecycleConfiguration", lambda: rules.extend(self.rules()), ("NoSuchLifecycleConfiguration",)
        )
        wanted = s3.lifecycle_rules(rules, self.settings.prefix, days) if readable else None
        if wanted is not None:
            done.append(f"have uploads aborted that are not completed within {days} days")
            if not check_mode:
                rule = {"Bucket": self.settings.bucket, "LifecycleConfiguration": {"Rules": wanted}}
                self.check("write lifecycle", "s3:PutLifecycleConfiguration", lambda: self.client.put_bucket_lifecycle_configuration(**rule))
        return done

    def rules(self) -> list[dict[str, Any]]:
        return self.client.get_bucket_lifecycle_configuration(Bucket=self.settings.bucket).get("Rules", [])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "probed"], "default": "probed"},
            **S3_OPTIONS,
            "abort_multipart_days": {"type": "int", "default": 7},
            "max_clock_skew": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    given = module.params
    if BOTO3_ERROR:
        module.fail_json(msg=missing_required_lib("boto3"), exception=BOTO3_ERROR)
    if bool(given["access_key_id"]) != bool(given["secret_access_key"]):
        module.fail_json(msg="Only one of mlflow_s3_access_key_id and mlflow_s3_secret_access_key is set. Set both, or neither to use the host's own role.")
    try:
        settings = settings_of(given, pwd.getpwuid(os.geteuid()).pw_name)
    except ValueError as error:
        module.fail_json(msg=str(error))

    store, done = Store(None, settings, given["max_clock_skew"]), []
    try:
        # First, because a client with a CA file that it cannot read says only that there is none.
        store.load_ca_file()
        try:
            store.client = make_client(settings, given["secret_access_key"])
        except Exception as error:  # pylint: disable=broad-except
            raise Stop(s3.explain(failure_of(error), settings)) from error
        if given["state"] == "present":
            done = store.make(given["abort_multipart_days"], module.check_mode)
            if store.missing and not module.check_mode:
                # It fails anyway: let it say all that is missing.
                store.probe()
        elif module.check_mode:
            store.reachable()
        else:
            store.probe()
    except Stop as stop:
        store.problems.append(str(stop))
    finally:
        store.clean_up()

    if store.missing:
        store.problems.insert(0, s3.missing_permissions(store.missing, settings))
    result = {"checks": store.checks, "bucket": settings.bucket, "changed": bool(done), "done": done}
    if store.problems:
        module.fail_json(msg="\n".join(store.problems), missing_permissions=store.missing, **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
