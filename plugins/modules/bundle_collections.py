#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action of the same name, which does all of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_collections
short_description: Collections of the controller as one tarball
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Packs collections as they are found by this very run, a checkout as its release would be. The same files make the same tarball.
  - Unpacked, it is a folder for Ansible's C(collections_path).
options:
  path:
    description: The tarball.
    type: path
    required: true
  collections:
    description: Their names.
    type: list
    elements: str
    required: true
attributes:
  action:
    support: full
    description: It runs on the controller.
  check_mode:
    support: full
    description: Nothing is written.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Pack what a site needs
  mlops.mlflow.bundle_collections:
    path: /srv/bundle/collections.tar.gz
    collections: [mlops.mlflow, community.crypto]
"""

RETURN = r"""
"""
