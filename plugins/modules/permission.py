#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Gives a user of MLflow one permission, or takes it away."""

from __future__ import annotations

DOCUMENTATION = r"""
module: permission
short_description: What a user of MLflow may do with one experiment, model or prompt
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Gives a user a permission on one resource, changes it in its place, or takes it away. Without one, C(mlflow_default_permission) counts.
  - The module M(mlops.mlflow.user) gives many at once.
  - Works against any MLflow with basic-auth that has permissions by role, such as 3.17, this collection's or not.
options:
  tracking_uri:
    description: URL of the server.
    type: str
    required: true
  login_username:
    description: Administrator to log in as.
    type: str
    default: admin
  login_password:
    description: Password of O(login_username).
    type: str
    required: true
  ca_file:
    description: PEM file with the CA of the server; without it the system's CAs.
    type: path
  client_cert:
    description: PEM file with a certificate of the client, for a server or proxy that asks for one.
    type: path
  client_key:
    description: PEM file with its key, without a passphrase; without it the key is in O(client_cert).
    type: path
  timeout:
    description: Seconds to wait for each answer.
    type: int
    default: 30
  user:
    description: Name of the user, who must be there.
    type: str
    required: true
  resource_type:
    description: Kind of the resource.
    type: str
    choices: [experiment, registered_model, prompt]
    required: true
  name:
    description: Name of the resource; V(*) is every one of that kind. A model or a prompt need not be there yet.
    type: str
    required: true
  permission:
    description: What the user may do; V(DENY) shuts him out even where the default or a group lets him in.
    type: str
    choices: [READ, USE, EDIT, MANAGE, DENY]
  state:
    description: Whether the user has a permission of his own on it.
    type: str
    choices: [present, absent]
    default: present
  create:
    description: Make an experiment that is not there. Otherwise it is an error, as MLflow keeps its permissions by a number.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says what it would do. A user who is not there counts as one that an earlier task would have made.
  diff_mode:
    support: full
    description: Shows the permission.
seealso:
  - module: mlops.mlflow.user
"""

EXAMPLES = r"""
- name: Let Alice see the models of the team
  mlops.mlflow.permission:
    tracking_uri: https://mlflow.example.org
    login_password: "{{ mlflow_admin_password }}"
    user: alice
    resource_type: registered_model
    name: churn
    permission: READ
"""

RETURN = r"""
previous:
  description: The permission that the user had by himself; empty without one.
  returned: success
  type: str
  sample: READ
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils import accounts, tracking_server


def apply(module: AnsibleModule) -> tuple[bool, str]:
    """Bring the permission to the wanted state.

    Args:
        module: for its parameters and its check mode.

    Returns:
        Whether something changed, or would; and the permission that was there, empty without one.

    Raises:
        tracking_server.Failure: with what there is to do about it.
    """
    p = module.params
    server = tracking_server.connect(p)
    present = p["state"] == "present"
    user = server.user(p["user"])
    if user is None and present and not module.check_mode:
        raise tracking_server.Failure(f"There is no user {p['user']!r}; make him first (mlops.mlflow.user).")
    resource = server.resource(p["resource_type"], p["name"])
    if resource is None and present:
        if not p["create"]:
            raise tracking_server.Failure(f"There is no experiment {p['name']!r}; set create to have it made, or make it first.")
        resource = "" if module.check_mode else server.create_experiment(p["name"])
    if user is None or resource is None:
        return present, ""
    grant = server.grants(p["user"], user["id"]).get((p["resource_type"], resource))
    changed = present and (grant is None or grant.permission != p["permission"]) or not present and grant is not None
    if changed and not module.check_mode:
        if present:
            server.grant(p["user"], p["resource_type"], resource, p["permission"], grant)
        else:
            server.revoke(p["user"], p["resource_type"], resource)
    return changed, grant.permission if grant else ""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **tracking_server.OPTIONS,
            "user": {"type": "str", "required": True},
            "resource_type": {"type": "str", "choices": ["experiment", "registered_model", "prompt"], "required": True},
            "name": {"type": "str", "required": True},
            "permission": {"type": "str", "choices": ["READ", "USE", "EDIT", "MANAGE", "DENY"]},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "create": {"type": "bool", "default": False},
        },
        required_if=[("state", "present", ["permission"])],
        supports_check_mode=True,
    )
    p = module.params
    fault = accounts.name_problem(p["user"])
    if fault:
        module.fail_json(msg=f"user: {fault}.")
    try:
        changed, previous = apply(module)
    except tracking_server.Failure as error:
        module.fail_json(msg=str(error))
    key = f"{p['user']}: {p['resource_type']} {p['name']}"
    after = p["permission"] if p["state"] == "present" else ""
    diff = {side: {key: value} if value else {} for side, value in (("before", previous), ("after", after))}
    module.exit_json(changed=changed, previous=previous, diff=diff)


if __name__ == "__main__":
    main()
