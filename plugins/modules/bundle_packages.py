#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Documentation of the action of the same name, which does all of it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_packages
short_description: A repository of Debian packages for hosts without a way out
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Downloads packages with everything that they depend on, for a release and an architecture that need not be the controller's, and makes a signed
    repository of them. It runs on the controller, a Debian or one of its like, and needs no root there.
  - What is there already is not downloaded again, so an interrupted run goes on where it was. Packages that are no longer wanted are removed.
  - The lists of packages are read once and kept in O(cache), so the same packages come out of it until O(refresh) asks for newer ones.
options:
  path:
    description: Folder of the repository.
    type: path
    required: true
  cache:
    description: Folder for apt's lists, and for what takes long to find out.
    type: path
    required: true
  target:
    description: Release and architecture, such as V(trixie-amd64).
    type: str
    required: true
  packages:
    description: Names of the packages.
    type: list
    elements: str
    required: true
  sources:
    description: Where they come from, as lines of apt's C(sources.list).
    type: list
    elements: str
    required: true
  key_home:
    description: Home folder of gpg with the key that signs the repository.
    type: path
    required: true
  refresh:
    description: Whether to read the lists of packages again.
    type: bool
    default: false
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
- name: Make the repository of a release
  mlops.mlflow.bundle_packages:
    path: /srv/bundle/debian/trixie-amd64
    cache: /srv/bundle-cache/trixie-amd64
    target: trixie-amd64
    packages: [postgresql-17, nginx]
    sources: ["deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] https://mirror.example.org/debian trixie main"]
    key_home: /srv/bundle-key
"""

RETURN = r"""
downloaded:
  description: How many packages were downloaded.
  returned: success
  type: int
packages:
  description: File, name, version, licence and origin of each package. The licence is empty where the package has no list of its licences.
  returned: success
  type: list
  elements: dict
"""
