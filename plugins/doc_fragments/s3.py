# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the modules that use an S3 store have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Their options, whose types are in module_utils/s3_client.py."""

    DOCUMENTATION = r"""
requirements:
  - boto3
options:
  destination:
    description: Where the artifacts are kept, V(s3://bucket/prefix). Nothing is touched outside it.
    type: str
    required: true
  endpoint_url:
    description: URL of the store; AWS without it.
    type: str
    default: ""
  region:
    description: Region of the bucket. Stores other than AWS seldom need it.
    type: str
    default: ""
  access_key_id:
    description: The access key. Without it and the secret, the host's own role is used.
    type: str
    default: ""
  secret_access_key:
    description: The secret that belongs to it.
    type: str
    default: ""
  ca_file:
    description: CA certificates to trust instead of the public ones.
    type: str
    default: ""
  addressing_style:
    description: Where the bucket's name goes in a URL.
    type: str
    choices: [auto, path, virtual]
    default: auto
"""
