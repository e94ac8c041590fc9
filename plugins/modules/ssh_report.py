#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Looks at the ports by which SSH comes in to a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ssh_report
short_description: By which ports SSH comes in
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Returns the TCP ports on which the SSH daemon, or systemd in its place, listens, and the port of the host by which the present session came in.
    The two differ where the session goes through a program of another name.
  - Changes nothing.
options: {}
attributes:
  check_mode:
    support: full
    description: It only reads.
  diff_mode:
    support: none
    description: It only reads.
"""

EXAMPLES = r"""
- name: See by which ports SSH comes in
  mlops.mlflow.ssh_report:
  become: true
  register: ssh
"""

RETURN = r"""
ports:
  description: The ports, each once.
  returned: always
  type: list
  elements: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils.sockets import ssh_ports


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    module.exit_json(changed=False, ports=ssh_ports(module))


if __name__ == "__main__":
    main()
