#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Makes, changes and deletes a user of MLflow, with his permissions."""

from __future__ import annotations

DOCUMENTATION = r"""
module: user
short_description: A user of MLflow's basic-auth, and what he may do
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Makes a user, gives him a password and permissions, or deletes him, over the REST API of the server.
  - MLflow tells nobody a password. Whether the user has the wanted one is found out by logging in with it; it is set only when that does not work.
  - A permission that is changed is changed in its place, so that the user is never without any.
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
    description: Password of O(login_username). When O(name) is the same user, one that does not work is tried again with O(password).
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
  name:
    description: Name of the user.
    type: str
    required: true
  password:
    description: Password of the user, 12 characters or more. A new user needs one.
    type: str
  update_password:
    description: V(always) sets the password whenever the user does not have it; V(on_create) leaves a user who is there the one that he has.
    type: str
    choices: [always, on_create]
    default: always
  admin:
    description: Whether the user is an administrator, who may do everything. Left out, a new user is none, and one who is there stays what he is.
    type: bool
  state:
    description: Whether the user is there. What somebody made stays when he is deleted.
    type: str
    choices: [present, absent]
    default: present
  experiments:
    description: Permissions by the name of the experiment, each READ, USE, EDIT, MANAGE or DENY; the name V(*) is every experiment.
    type: dict
    default: {}
  registered_models:
    description: Permissions by the name of the model, in the same way. The model need not be there yet.
    type: dict
    default: {}
  prompts:
    description: Permissions by the name of the prompt, in the same way. The prompt need not be there yet.
    type: dict
    default: {}
  create:
    description: Make an experiment of O(experiments) that is not there. Otherwise it is an error, as MLflow keeps its permissions by a number.
    type: bool
    default: false
  exact_permissions:
    description:
      - Take away permissions on experiments, models and prompts that are not listed here. Those by groups (roles) are not touched.
      - MANAGE is never taken away, because MLflow gives it to whoever makes something. What owners let the user share goes too.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Reads, logs in with O(password), and says what it would do.
  diff_mode:
    support: full
    description: Shows permissions and whether the user is an administrator; never a password.
seealso:
  - module: mlops.mlflow.permission
"""

EXAMPLES = r"""
- name: Let Alice work on an experiment, and see a model
  mlops.mlflow.user:
    tracking_uri: https://mlflow.example.org
    login_password: "{{ mlflow_admin_password }}"
    name: alice
    password: "{{ alice_password }}"
    experiments:
      churn: EDIT
    registered_models:
      churn: READ

- name: Delete Bob
  mlops.mlflow.user:
    tracking_uri: https://mlflow.example.org
    login_password: "{{ mlflow_admin_password }}"
    name: bob
    state: absent
"""

RETURN = r"""
changes:
  description: What was done, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: ["made the user", "gave EDIT on experiment churn"]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils import accounts, tracking_server


class Work:
    """What there is to do, step by step, and the state before and after it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.p: dict[str, Any] = module.params
        self.check: bool = module.check_mode
        self.changes: list[str] = []
        self.diff: dict[str, dict[str, Any]] = {"before": {}, "after": {}}
        self.server = tracking_server.connect(self.p)

    def do(self, what: str, function: Any, *arguments: Any) -> None:
        """Note a change, and make it unless this is check mode."""
        if not self.check:
            function(*arguments)
        self.changes.append(what)

    def show(self, key: str, before: Any, after: Any) -> None:
        """Add a line to both sides of the diff; None leaves a side out."""
        for side, value in (("before", before), ("after", after)):
            if value is not None:
                self.diff[side][key] = value

    def log_in(self) -> dict[str, Any] | None:
        """Return the user as he is; his own new password opens the door when he is the administrator who logs in."""
        try:
            return self.server.user(self.p["name"])
        except tracking_server.Failure as error:
            if error.status != 401 or self.p["name"] != self.p["login_username"] or not self.p["password"]:
                raise
            self.server.password = self.p["password"]
            return self.server.user(self.p["name"])

    def remove(self, user: dict[str, Any] | None) -> None:
        """Delete the user if he is there."""
        if user is None:
            return
        if self.p["name"] == self.p["login_username"]:
            raise tracking_server.Failure("name is login_username: nobody can delete the account that is logged in. Log in as another administrator.")
        self.do("deleted the user", self.server.delete_user, self.p["name"])
        self.show("user", self.p["name"], None)

    def make(self) -> int | None:
        """Make the user, and return his number; None in check mode."""
        if not self.p["password"]:
            raise tracking_server.Failure(f"There is no user {self.p['name']!r} yet, and password is missing, which a new one needs.")
        number = None if self.check else self.server.create_user(self.p["name"], self.p["password"])["id"]
        self.changes.append("made the user")
        self.show("user", None, self.p["name"])
        return number

    def change_password(self) -> None:
        """Set the password when it does not let the user in."""
        name, password = self.p["name"], self.p["password"]
        if not password or self.p["update_password"] == "on_create" or self.server.lets_in(name, password):
            return
        self.do("set the password", self.server.set_password, name, password)
        self.show("password", "(another one)", "(the wanted one)")

    def change_admin(self, is_admin: bool) -> None:
        """Make the user an administrator, or no longer."""
        wanted = self.p["admin"]
        if wanted is None or wanted == is_admin:
            return
        if not wanted and self.p["name"] == self.p["login_username"]:
            raise tracking_server.Failure("admin is false, but name is login_username, who would be locked out. Log in as another administrator.")
        self.do("made the user an administrator" if wanted else "made the user no administrator", self.server.set_admin, self.p["name"], wanted)
        self.show("admin", is_admin, wanted)

    def look_up(self) -> list[tuple[str, str, str | None, str]]:
        """Return the wanted permissions: kind, name, id or name (None for an experiment that is to be made), and permission."""
        wanted = [(kind, name, permission) for key, kind in accounts.KINDS.items() for name, permission in self.p[key].items()]
        targets = [(kind, name, self.server.resource(kind, name), permission) for kind, name, permission in wanted]
        missing = [name for kind, name, resource, permission in targets if resource is None]
        if missing and not self.p["create"]:
            raise tracking_server.Failure(f"There is no experiment {missing[0]!r}; set create to have it made, or make it first.")
        return targets

    def change_permissions(self, number: int | None, targets: list[tuple[str, str, str | None, str]]) -> None:
        """Give and take permissions.

        Args:
            number: the user's, None for one who would be made.
            targets: see ``look_up``.
        """
        if not targets and not self.p["exact_permissions"]:
            return
        present = {} if number is None else self.server.grants(self.p["name"], number)
        listed = set()
        for kind, name, resource, permission in targets:
            if resource is None:
                resource = "" if self.check else self.server.create_experiment(name)
                self.changes.append(f"made the experiment {name}")
            grant = present.get((kind, resource))
            listed.add((kind, resource))
            if grant is None or grant.permission != permission:
                self.do(f"gave {permission} on {kind} {name}", self.server.grant, self.p["name"], kind, resource, permission, grant)
                self.show(f"{kind} {name}", grant.permission if grant else None, permission)
        if self.p["exact_permissions"]:
            for kind, resource in accounts.to_revoke({key: grant.permission for key, grant in present.items()}, listed):
                shown = f"{kind} with id {resource}" if kind == "experiment" and resource != accounts.EVERYTHING else f"{kind} {resource}"
                permission = present[(kind, resource)].permission
                self.do(f"took {permission} on {shown}", self.server.revoke, self.p["name"], kind, resource)
                self.show(shown, permission, None)

    def run(self) -> None:
        """Bring the user to the wanted state."""
        user = self.log_in()
        if self.p["state"] == "absent":
            self.remove(user)
            return
        # Before the first change, which a name that is not there would otherwise leave alone.
        targets = self.look_up()
        if user is None:
            number, is_admin = self.make(), False
        else:
            number, is_admin = user["id"], user["is_admin"]
            self.change_password()
        self.change_admin(is_admin)
        self.change_permissions(number, targets)


def option_problem(options: dict[str, Any]) -> str | None:
    """Say what is wrong with the options, before anything is asked or changed."""
    fault = accounts.name_problem(options["name"])
    if fault:
        return f"name: {fault}."
    if options["state"] == "absent":
        return None
    fault = accounts.password_problem(options["password"]) if options["password"] is not None else None
    if fault:
        return f"password: {fault}."
    fault = next((fault for key in accounts.KINDS if (fault := accounts.permissions_problem(key, options[key]))), None)
    return f"{fault}." if fault else None


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            **tracking_server.OPTIONS,
            "name": {"type": "str", "required": True},
            "password": {"type": "str", "no_log": True},
            "update_password": {"type": "str", "choices": ["always", "on_create"], "default": "always", "no_log": False},
            "admin": {"type": "bool"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "experiments": {"type": "dict", "default": {}},
            "registered_models": {"type": "dict", "default": {}},
            "prompts": {"type": "dict", "default": {}},
            "create": {"type": "bool", "default": False},
            "exact_permissions": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    fault = option_problem(module.params)
    if fault:
        module.fail_json(msg=fault)
    work = None
    try:
        work = Work(module)
        work.run()
    except tracking_server.Failure as error:
        done = work.changes if work and not module.check_mode else []
        module.fail_json(msg=str(error), changed=bool(done), changes=done)
    module.exit_json(changed=bool(work.changes), changes=work.changes, diff=work.diff)


if __name__ == "__main__":
    main()
