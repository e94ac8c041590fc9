# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What people read of an import. Pure functions, no Ansible."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

WIDTH = 30
NAMED = 10


def line_of(progress: Mapping[str, Any]) -> str:
    """Write how far an import is.

    Args:
        progress: step, place, how many are done and in all (0 when nobody knows), of what, and seconds since the step began.

    Returns:
        A line such as ``copying [###---] 60 % of 1,000,000 rows, 250,000 rows/s, 2 s left (metrics)``.
    """
    step, done, total, seconds = progress["step"], progress["done"], progress["total"], progress["seconds"]
    if not done or not total:
        return f"{step} …"
    part, rate = min(1.0, done / total), done / max(seconds, 0.001)
    filled = int(part * WIDTH)
    left = round((total - done) / rate) if total > done else 0
    unit, place = progress["unit"], progress["place"]
    return f"{step} [{'#' * filled}{'-' * (WIDTH - filled)}] {part:.0%} of {total:,} {unit}, {rate:,.0f} {unit}/s, {left} s left ({place})"


def refusals(scan: Mapping[str, Any], missing: Sequence[str], place: str, artifacts: str, lost: str) -> list[str]:
    """Say why a store cannot be brought as it is.

    Args:
        scan: what ``store_import`` returned.
        missing: folders of artifacts that cannot be reached.
        place: the role's import_from.
        artifacts: its import_artifacts.
        lost: its import_missing_artifacts.

    Returns:
        Sentences; none where the tables have come already.
    """
    if scan["brought"]:
        return []
    found, served = list(scan["refusals"]), scan["addresses"].get("served", 0)
    if artifacts == "copy" and served:
        found.append(
            f"{served} addresses of artifacts begin with mlflow-artifacts:/, so the old server had them in a folder of its own: name it in "
            "import_served_artifacts, or set import_artifacts = 'keep'"
        )
    if artifacts == "copy" and missing and lost == "refuse":
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        found.append(
            f"import_missing_artifacts = 'refuse', and these folders of artifacts are not on the {place}: {', '.join(missing[:NAMED])}{more}. "
            "Have them there, or give their artifacts up with 'accept'"
        )
    return found


def summary(scan: Mapping[str, Any], against: Sequence[str], uploaded: Mapping[str, Any], compared: Mapping[str, Any]) -> list[str]:
    """Say how an import is, in lines of which the first has the outcome.

    Args:
        scan: what ``store_import`` returned.
        against: why it cannot be brought.
        uploaded: what ``store_artifacts`` returned; empty before.
        compared: what ``store_compare`` returned; empty before.
    """
    if "checked" in compared:
        outcome = "The import is done."
    elif against:
        outcome = "It cannot be imported as it is."
    elif scan["brought"]:
        outcome = "An interrupted run has brought the tables; what is left to do is to compare."
    else:
        outcome = "Nothing stands in the way of the import."
    rows = scan["rows"]
    lines = [outcome, f"{sum(rows.values())} rows in {len(rows)} tables, {scan['found']} values or rows that PostgreSQL does not take"]
    if "files" in uploaded:
        lines.append(f"Artifacts: {uploaded['files']} files, {uploaded['mib']} MiB, each with the checksum of its file")
    if "checked" in compared:
        lines.append(f"Compared by MLflow's client: {', '.join(f'{kind} {count}' for kind, count in sorted(compared['checked'].items()))}")
    return lines
