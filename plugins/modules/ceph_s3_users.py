# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""S3 users of a Ceph gateway, with the keys that the inventory gives them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_s3_users
short_description: Makes S3 users of a Ceph gateway with given keys
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Makes users that are missing and replaces the S3 keys of those that have others.
  - Users that are not named are left alone, and so is all of a user but its name and keys.
  - The secrets travel by standard input, never by a command line.
options:
  users:
    description: The users.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The user's identity in Ceph.
        type: str
        required: true
      access_key_id:
        description: The public half of its S3 key.
        type: str
        required: true
      secret_access_key:
        description: The secret half.
        type: str
        required: true
  other_keys:
    description: What happens to further keys of these users. Servers that have not heard of a new key yet need the old one until they have.
    type: str
    choices: [keep, remove]
    default: remove
attributes:
  check_mode:
    support: full
    description: Compares, and changes nothing. On a host without the gateway's tools every user would be made.
  diff_mode:
    support: none
    description: What changes is secret.
"""

EXAMPLES = r"""
- name: Make the user of MLflow
  mlops.mlflow.ceph_s3_users:
    users:
      - name: mlflow
        access_key_id: "{{ mlflow_s3_access_key_id }}"
        secret_access_key: "{{ mlflow_s3_secret_access_key }}"
  no_log: true
"""

RETURN = r"""
made:
  description: Names of the users that were made.
  type: list
  elements: str
  returned: success
updated:
  description: Names of the users that got other keys.
  type: list
  elements: str
  returned: success
"""

import errno
import json
import shutil
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def duplicates(users: list[dict[str, str]]) -> list[str]:
    """Return a line for each name or access key that is given more than once."""
    lines = []
    for field in ("name", "access_key_id"):
        values = [user[field] for user in users]
        lines += [f"{field} '{value}' is given to more than one user" for value in sorted(set(values)) if values.count(value) > 1]
    return lines


def wanted_keys(user: dict[str, str]) -> list[dict[str, str]]:
    """Return the list of S3 keys in the form of the gateway's metadata."""
    return [{"user": user["name"], "access_key": user["access_key_id"], "secret_key": user["secret_access_key"]}]


def merged(user: dict[str, str], current: dict[str, Any] | None, keep: bool = False) -> dict[str, Any] | None:
    """Return the metadata entry to store for a user, or None when it is as it should be.

    Args:
        user: what the inventory says.
        current: the entry that the gateway has, None without one.
        keep: whether further keys stay.
    """
    keys = wanted_keys(user)
    if current is None:
        data = {"user_id": user["name"], "display_name": user["name"], "suspended": 0, "max_buckets": 1000}
        data.update(subusers=[], keys=keys, swift_keys=[], caps=[], op_mask="read, write, delete", type="rgw")
        return {"key": f"user:{user['name']}", "data": data}
    had = [{name: key.get(name) for name in ("user", "access_key", "secret_key")} for key in current["data"].get("keys", [])]
    if keep:
        keys += [key for key in had if key["access_key"] != user["access_key_id"]]
    if sorted(had, key=str) == sorted(keys, key=str):
        return None
    return {**current, "data": {**current["data"], "keys": keys}}


def main() -> None:
    fields = {
        "name": {"type": "str", "required": True},
        "access_key_id": {"type": "str", "required": True, "no_log": False},
        "secret_access_key": {"type": "str", "required": True, "no_log": True},
    }
    module = AnsibleModule(
        argument_spec={
            "users": {"type": "list", "elements": "dict", "required": True, "options": fields, "no_log": False},
            "other_keys": {"type": "str", "choices": ["keep", "remove"], "default": "remove", "no_log": False},
        },
        supports_check_mode=True,
    )
    users = module.params["users"]
    problems = duplicates(users)
    if problems:
        module.fail_json(msg=f"object_store_users: {'; '.join(problems)}.")
    made, updated = [], []
    tool = shutil.which("radosgw-admin")
    if not tool and not module.check_mode:
        module.fail_json(msg="radosgw-admin is not installed on this host; it comes with the gateway.")

    for user in users:
        current = None
        if tool:
            code, out, err = module.run_command([tool, "metadata", "get", f"user:{user['name']}"], cwd="/")
            if code == 0:
                current = json.loads(out)
            elif code != errno.ENOENT and not module.check_mode:
                module.fail_json(msg=f"Ceph does not tell whether there is a user '{user['name']}': {err.strip()[-500:]}")
        entry = merged(user, current, module.params["other_keys"] == "keep")
        if entry is None:
            continue
        (made if current is None else updated).append(user["name"])
        if module.check_mode:
            continue
        code, dummy, err = module.run_command([tool, "metadata", "put", f"user:{user['name']}"], data=json.dumps(entry), cwd="/")
        if code == errno.EEXIST:
            module.fail_json(msg=f"The access_key_id of the user '{user['name']}' belongs to another user of this store; give it one of its own.")
        if code:
            module.fail_json(msg=f"Ceph refuses the user '{user['name']}': {err.strip()[-500:]}")
    module.exit_json(changed=bool(made or updated), made=made, updated=updated)


if __name__ == "__main__":
    main()
