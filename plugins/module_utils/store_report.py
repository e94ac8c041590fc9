# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What people see of an import while it goes on. Pure functions, no Ansible."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WIDTH = 30


def line_of(progress: Mapping[str, Any]) -> str:
    """Write how far an import is.

    Args:
        progress: step, table, rows done and in all (0 when nobody knows), and seconds since the step began.

    Returns:
        A line such as ``copying [###---] 60 % of 1,000,000 rows, 250,000 rows/s, 2 s left (metrics)``.
    """
    step, done, total, seconds = progress["step"], progress["done"], progress["total"], progress["seconds"]
    if not done or not total:
        return f"{step} …"
    part, rate = min(1.0, done / total), done / max(seconds, 0.001)
    filled = int(part * WIDTH)
    left = round((total - done) / rate) if total > done else 0
    return f"{step} [{'#' * filled}{'-' * (WIDTH - filled)}] {part:.0%} of {total:,} rows, {rate:,.0f} rows/s, {left} s left ({progress['table']})"
