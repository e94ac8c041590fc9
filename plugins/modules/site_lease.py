#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Lets one controller at a time change a site."""

from __future__ import annotations

DOCUMENTATION = r"""
module: site_lease
short_description: One controller at a time
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Two people who run the same playbook would stop each other's servers. Whoever takes the lease first goes on, and the other waits.
  - The holder takes it again at every step. It ends when the holder says so, when his process is gone, which controllers on the same machine see at
    once, or when he has not taken it again for O(seconds).
options:
  state:
    description: Whether to hold it.
    type: str
    choices: [taken, released]
    default: taken
  path:
    description: File on a host that all controllers use.
    type: path
    default: /run/mlops-site.lease
  seconds:
    description: After which others no longer believe that the holder is there, where he is on another machine. Longer than any single step.
    type: int
    default: 3600
  wait:
    description: Seconds to wait for another holder.
    type: int
    default: 900
  holder:
    description: The controller's process. It is filled in.
    type: str
  gone:
    description: A holder whose process is known to have ended. It is filled in.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: Takes nothing.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Wait until nobody else changes the site
  mlops.mlflow.site_lease:
  become: true
"""

RETURN = r"""
holder:
  description: Who holds it now, empty for nobody.
  returned: always
  type: str
path:
  description: The file that says so.
  returned: always
  type: str
age:
  description: Seconds since he took it the last time.
  returned: always
  type: int
"""

import fcntl
import os
import time

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["taken", "released"], "default": "taken"},
            "path": {"type": "path", "default": "/run/mlops-site.lease"},
            "seconds": {"type": "int", "default": 3600},
            "wait": {"type": "int", "default": 900},
            "holder": {"type": "str"},
            "gone": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    mine = module.params["holder"]
    if module.check_mode:
        module.exit_json(changed=False, holder=mine, age=0, path=module.params["path"])
    with open(module.params["path"], "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        holder, _end, seconds = file.read().partition("\n")
        age = int(time.time() - os.fstat(file.fileno()).st_mtime)
        if module.params["state"] == "released":
            wanted = "" if holder == mine else holder
        else:
            wanted = mine if holder in ("", mine, module.params["gone"]) or age > int(seconds or module.params["seconds"]) else holder
        if wanted in ("", mine):
            file.truncate(0)
            file.write(wanted and f"{wanted}\n{module.params['seconds']}")
            file.flush()
            # Also when nothing else is new.
            os.utime(file.fileno())
            age = 0
    # Whoever has it, the host is as it was.
    module.exit_json(changed=False, holder=wanted, age=age, path=module.params["path"])


if __name__ == "__main__":
    main()
