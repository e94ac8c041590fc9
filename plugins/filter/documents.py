# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Documents for other programs, as filters: lists of packages (module_utils/sbom.py), S3 policies (module_utils/s3_policy.py), bundles,
reports of imports (module_utils/store_report.py) and CAs."""

from __future__ import annotations

import os
import re
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.mlops.mlflow.plugins.module_utils import bundle, s3_policy, sbom, store_report


def host_sbom(report: dict[str, Any], name: str, source_date_epoch: str = "") -> str:
    """The CycloneDX document of a host, as the text of a file (see ``sbom.of_host``).

    Args:
        report: what ``package_report`` returned.
        name: of the host.
        source_date_epoch: the time to write into it, in seconds since the epoch; empty for none.
    """
    if not re.fullmatch("[0-9]*", source_date_epoch):
        raise AnsibleFilterError(f"SOURCE_DATE_EPOCH = '{source_date_epoch}': use seconds since the epoch")
    return sbom.render(sbom.of_host(str(name), report, int(source_date_epoch) if source_date_epoch else None))


def s3_policy_of(destination: str, mode: str) -> dict[str, Any]:
    """The policy of a user (see ``s3_policy.policy``)."""
    try:
        return s3_policy.policy(mode, destination)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def s3_bucket_policy(destination: str, principals: dict[str, list[str]]) -> dict[str, Any]:
    """The policy of a bucket (see ``s3_policy.bucket_policy``)."""
    try:
        return s3_policy.bucket_policy(principals, destination)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def ca_files(sources: list[tuple[str, str]], folder: str) -> list[dict[str, str]]:
    """What the module ``host_files`` needs to write CAs where update-ca-certificates looks for them.

    Args:
        sources: paths on the controller, with what they contain.
        folder: on the host.

    Returns:
        One entry for each; the names end with ``.crt``, as other files would not be seen.
    """
    return [{"path": f"{folder}/{os.path.splitext(os.path.basename(path))[0]}.crt", "content": content} for path, content in sources]


class FilterModule:
    """Filters of mlops.mlflow."""

    def filters(self) -> dict[str, Any]:
        """Names and functions."""
        return {
            "bundle_components": bundle.components,
            "ca_files": ca_files,
            "host_sbom": host_sbom,
            "import_refusals": store_report.refusals,
            "import_summary": store_report.summary,
            "s3_bucket_policy": s3_bucket_policy,
            "s3_policy": s3_policy_of,
        }
