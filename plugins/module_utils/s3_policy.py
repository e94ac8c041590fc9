# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What a key must be allowed at the place of the artifacts, as policy documents. Pure functions; needs no boto3."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.mlops.mlflow.plugins.module_utils import s3

VERSION = "2012-10-17"
LIST = "s3:ListBucket"

# Listing is on top of these. All of it is bound to the prefix.
WRITE = ("s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject")
OBJECTS = {"read": ("s3:GetObject",), "direct": WRITE, "server": WRITE, "admin": WRITE}
DELETE = {"server": "s3:DeleteObject", "admin": "s3:DeleteObject"}
# What artifact_store_create_bucket adds: it makes the bucket and keeps one rule in it.
BUCKET = {"admin": ("s3:CreateBucket", "s3:GetLifecycleConfiguration", "s3:PutLifecycleConfiguration")}
MODES = tuple(sorted(OBJECTS))

# They stand for other characters in a resource, and not every store knows how to write them as themselves.
SPECIAL = frozenset("*?$")


def place(destination: str) -> tuple[str, str]:
    """Split ``s3://bucket/prefix`` into bucket and prefix.

    Raises:
        ValueError: it is no such URL, or has characters that a policy would take for others.
    """
    bucket, prefix = s3.parse_destination(destination)
    found = sorted(SPECIAL & set(bucket + prefix))
    if found:
        raise ValueError(
            f"mlflow_artifacts_destination is '{destination}'; a policy cannot be bound to a name with {' or '.join(found)}, which stand for "
            "other characters in it. Choose another name."
        )
    return bucket, prefix


def check_mode(mode: str) -> str:
    """Return a mode as it is.

    Raises:
        ValueError: there is no such mode.
    """
    if mode not in MODES:
        raise ValueError(f"policy_mode = '{mode}': use one of {', '.join(MODES)}")
    return mode


def statements(mode: str, bucket: str, prefix: str, principals: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the statements for one mode.

    Args:
        mode: one of MODES.
        bucket: its name.
        prefix: without slashes at its ends, empty for the whole bucket.
        principals: ARNs of the users that a bucket's policy is for; none in the policy of a user.
    """
    bucket_arn = f"arn:aws:s3:::{bucket}"
    objects_arn = f"{bucket_arn}/{s3.below(prefix, '*')}"
    name = check_mode(mode).capitalize()

    def allow(what: str, actions: Sequence[str], *resources: str, **more: Any) -> dict[str, Any]:
        whom = {"Principal": {"AWS": sorted(set(principals))}} if principals else {}
        return {"Sid": f"Mlflow{name}{what}", "Effect": "Allow", **whom, "Action": list(actions), "Resource": list(resources), **more}

    condition = {"Condition": {"StringLike": {"s3:prefix": [s3.below(prefix, "*")]}}} if prefix else {}
    result = [allow("List", [LIST], bucket_arn, **condition), allow("Objects", OBJECTS[mode], objects_arn)]
    if mode in DELETE:
        # Ceph asks about the bucket too when one request deletes several objects, as MLflow's does, and then about each of them.
        result.append(allow("Delete", [DELETE[mode]], objects_arn, bucket_arn))
    if mode in BUCKET:
        result.append(allow("Bucket", BUCKET[mode], bucket_arn))
    return result


def policy(mode: str, destination: str) -> dict[str, Any]:
    """Return the policy of a user or a role: it has no principal, as it is attached to him.

    Args:
        mode: one of MODES.
        destination: ``s3://bucket/prefix``.

    Raises:
        ValueError: for the user, with the name of the variable.
    """
    return {"Version": VERSION, "Statement": statements(mode, *place(destination))}


def bucket_policy(principals: Mapping[str, Sequence[str]], destination: str) -> dict[str, Any]:
    """Return the policy of a bucket, which has one document for all its users.

    Args:
        principals: the ARNs of the users of each mode.
        destination: ``s3://bucket/prefix``.

    Raises:
        ValueError: for the user, with the name of the variable.
    """
    bucket, prefix = place(destination)
    result = []
    for mode, names in sorted(principals.items()):
        if check_mode(mode) == "admin":
            raise ValueError("policy_principals has admin: the bucket's owner may make and change it without a policy. Leave admin out.")
        if isinstance(names, str) or not names:
            raise ValueError(f"policy_principals has {mode} = {names!r}: use a list of ARNs, such as arn:aws:iam:::user/mlflow")
        wrong = [name for name in names if not re.fullmatch(r"arn:[a-z-]+:(iam|sts):[^*?\s]+", str(name))]
        if wrong:
            raise ValueError(f"policy_principals has '{wrong[0]}' in {mode}: use the ARN of one user, such as arn:aws:iam:::user/mlflow")
        result += statements(mode, bucket, prefix, [str(name) for name in names])
    if not result:
        raise ValueError("policy_principals is empty: name the users of at least one mode, or leave it out for the policy of a user.")
    return {"Version": VERSION, "Statement": result}
