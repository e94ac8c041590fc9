# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""How MLflow's client is told the way to a server. Pure functions, no Ansible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


# Of the modules that use it.
CLIENT_OPTIONS = {
    "tracking_uri": {"type": "str", "required": True},
    "username": {"type": "str", "default": ""},
    "password": {"type": "str", "default": "", "no_log": True},
    "token": {"type": "str", "default": "", "no_log": True},
    "ca_file": {"type": "path"},
    "server_ca_file": {"type": "path"},
}


def client_environment(p: Mapping[str, Any]) -> dict[str, str]:
    """Return the client's environment variables.

    Args:
        p: options of a module that uses the client: tracking_uri, token or username and password, ca_file, server_ca_file and multipart.
    """
    result = {
        "MLFLOW_TRACKING_URI": p["tracking_uri"],
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": str(p["multipart"]).lower(),
        "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": str(p["multipart"]).lower(),
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    if p["token"]:
        result["MLFLOW_TRACKING_TOKEN"] = p["token"]
    elif p["username"]:
        result.update(MLFLOW_TRACKING_USERNAME=p["username"], MLFLOW_TRACKING_PASSWORD=p["password"])
    if p["server_ca_file"]:
        result["MLFLOW_TRACKING_SERVER_CERT_PATH"] = p["server_ca_file"]
    if p["ca_file"]:
        # The first for the server and presigned URLs (requests), the second for boto3.
        result.update(REQUESTS_CA_BUNDLE=p["ca_file"], AWS_CA_BUNDLE=p["ca_file"])
    return result
