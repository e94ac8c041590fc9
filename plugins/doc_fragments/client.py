# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What the modules that use MLflow's client have in common."""

from __future__ import annotations


class ModuleDocFragment:
    """Their options, whose types are in module_utils/client.py."""

    DOCUMENTATION = r"""
requirements:
  - mlflow
options:
  tracking_uri:
    description: URL of the server.
    type: str
    required: true
  username:
    description: User of basic-auth, with the rights that this needs.
    type: str
    default: ""
  password:
    description: Its password.
    type: str
    default: ""
  token:
    description: Bearer token instead of user and password, for a server behind an identity provider.
    type: str
    default: ""
  ca_file:
    description: PEM file with the CA of the server and of the S3 endpoint; empty for the system's CAs.
    type: path
  server_ca_file:
    description: PEM file with the CA of the server, where it is another one.
    type: path
"""
