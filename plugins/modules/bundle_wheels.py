#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action of the same name, which does all of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_wheels
short_description: A folder of wheels for hosts without a way out
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Downloads the wheels that locks name, for a release and an architecture that need not be the controller's, with platform tags that are old enough
    for it. Their hashes are those of the lock.
  - What is there already is not downloaded again, so an interrupted run goes on where it was.
  - Runs on the controller, with the pip of Ansible's own environment.
options:
  path:
    description: Folder of the wheels. Several targets may share it.
    type: path
    required: true
  cache:
    description: Folder in which it remembers which wheels belong to which lines of a lock.
    type: path
    required: true
  target:
    description: Release and architecture, such as V(trixie-amd64).
    type: str
    required: true
  locks:
    description: Files with requirements, pinned and with hashes.
    type: list
    elements: path
    required: true
attributes:
  action:
    support: full
    description: It runs on the controller.
  check_mode:
    support: partial
    description: Nothing is asked and nothing is downloaded.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Get the wheels of a release
  mlops.mlflow.bundle_wheels:
    path: /srv/bundle/wheels
    cache: /srv/bundle-cache
    target: trixie-amd64
    locks: [/srv/locks/3.17.2.txt]
"""

RETURN = r"""
downloaded:
  description: How many wheels were downloaded.
  returned: success
  type: int
wheels:
  description: File, name, version and licence of each wheel, as its metadata has them.
  returned: success
  type: list
  elements: dict
"""
