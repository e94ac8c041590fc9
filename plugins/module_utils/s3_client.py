# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""A client of an S3 store, and what its exceptions mean."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from typing import Any

from ansible_collections.mlops.mlflow.plugins.module_utils import s3

try:
    import boto3
    from botocore.config import Config

    BOTO3_ERROR = ""
except ImportError:
    BOTO3_ERROR = traceback.format_exc()


# Of the modules that use a store.
S3_OPTIONS = {
    "destination": {"type": "str", "required": True},
    "endpoint_url": {"type": "str", "default": ""},
    "region": {"type": "str", "default": ""},
    "access_key_id": {"type": "str", "default": "", "no_log": False},
    "secret_access_key": {"type": "str", "default": "", "no_log": True},
    "ca_file": {"type": "str", "default": ""},
    "addressing_style": {"type": "str", "choices": ["auto", "path", "virtual"], "default": "auto"},
}


def settings_of(options: Mapping[str, Any], user: str = "") -> s3.Settings:
    """Return how a store is reached.

    Args:
        options: of a module.
        user: who the module runs as, for messages.

    Raises:
        ValueError: the destination is no place in an S3 store.
    """
    bucket, prefix = s3.parse_destination(options["destination"])
    names = ("endpoint_url", "region", "access_key_id", "ca_file", "addressing_style")
    return s3.Settings(bucket, prefix, user=user, **{name: options[name] for name in names})


def failure_of(error: Exception) -> s3.Failure:
    """Turn an exception of boto3 into a failure that needs no boto3.

    Args:
        error: the exception; what caused it is read too.
    """
    texts, cause = [], error
    while cause is not None and len(texts) < 8:
        texts.append(str(cause))
        cause = cause.__cause__ or cause.__context__
    response = getattr(error, "response", None)
    response = response if isinstance(response, dict) else {}
    details = response.get("Error", {})
    metadata = response.get("ResponseMetadata", {})
    region = details.get("Region") or metadata.get("HTTPHeaders", {}).get("x-amz-bucket-region", "")
    return s3.Failure(type(error).__name__, " / ".join(texts), str(details.get("Code", "")), int(metadata.get("HTTPStatusCode", 0)), region)


def make_client(settings: s3.Settings, secret: str, attempts: int = 2) -> Any:
    """Return a client that gives up early: one that hangs tells nothing.

    Args:
        settings: how the store is reached.
        secret: that belongs to the access key.
        attempts: for each request, where much would have to begin again.
    """
    config = Config(
        connect_timeout=5, read_timeout=30, retries={"total_max_attempts": attempts, "mode": "standard"}, s3={"addressing_style": settings.addressing_style}
    )
    if settings.access_key_id:
        # The same as the server: never ask a cloud's metadata service that is not there.
        os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    return boto3.session.Session().client(
        "s3",
        endpoint_url=settings.endpoint_url or None,
        region_name=settings.region or None,
        aws_access_key_id=settings.access_key_id or None,
        aws_secret_access_key=secret or None,
        verify=settings.ca_file or None,
        config=config,
    )
