# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""The controller's part of the module store_artifacts: it shows how far the module is."""

from __future__ import annotations

from ansible_collections.mlops.mlflow.plugins.action import store_import


class ActionModule(store_import.ActionModule):
    """The same as for the tables."""
