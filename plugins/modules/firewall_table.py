#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Keeps the table of nftables that the role host_firewall owns, and gives the old one back when nobody can come in by the new one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_table
short_description: A table of nftables that nobody is locked out by
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Owns the table C(inet mlops) and nothing else of nftables.
  - With O(state=tried) new rules are checked by C(nft), then loaded, and a timer of systemd is set that takes back what was loaded before. With
    O(state=kept), which has to come by a new connection, the timer is removed and the rules are written to C(/etc/mlops-firewall/rules.nft).
    Until then no file has them, so that a host that restarts meanwhile comes back with the old ones.
  - Does nothing when the rules are written and loaded already. A table that somebody changed by hand is loaded anew.
  - With O(state=absent) the unit C(mlops-firewall.service), the table and the files are removed.
options:
  state:
    description: See above.
    type: str
    required: true
    choices: [tried, kept, absent]
  rules:
    description: The file for C(nft -f); for O(state=tried).
    type: str
  rollback_after:
    description: Seconds until the host takes the old rules back; for O(state=tried).
    type: int
    default: 120
  new_connection:
    description: Whether O(state=kept) must come by another SSH session than O(state=tried) did. Not where Ansible runs on the host itself.
    type: bool
    default: true
attributes:
  check_mode:
    support: full
    description: Says whether it would change something, and has C(nft) check the rules where it is installed.
  diff_mode:
    support: full
    description: Shows the rules.
"""

EXAMPLES = r"""
- name: Load new rules for two minutes
  mlops.mlflow.firewall_table:
    state: tried
    rules: "{{ entries | mlops.mlflow.firewall_rules }}"
  become: true

- name: Come in anew
  ansible.builtin.meta: reset_connection

- name: Keep them
  mlops.mlflow.firewall_table:
    state: kept
  become: true
"""

RETURN = r"""
removed:
  description: What O(state=absent) removed, or would.
  returned: with O(state=absent)
  type: list
  elements: str
"""

import os
import shutil
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.mlops.mlflow.plugins.module_utils.firewall import LEARN
from ansible_collections.mlops.mlflow.plugins.module_utils.sockets import ssh_connection, text

SERVICE = "mlops-firewall.service"
UNIT = f"/etc/systemd/system/{SERVICE}"
ROLLBACK = "mlops-firewall-rollback"

# What the service loads, and how nft shows it once it is loaded.
RULES = "/etc/mlops-firewall/rules.nft"
LISTING = "/var/lib/mlops-firewall/listing"
# What is being tried. It goes with a restart of the host, as the table and the timer do.
TRIAL = "/run/mlops-firewall"
BEFORE = f"{TRIAL}/before.nft"
CANDIDATE = f"{TRIAL}/candidate.nft"
CONNECTION = f"{TRIAL}/connection"

EMPTY = "table inet mlops\ndelete table inet mlops\n"
LEARN_SECONDS = 3


class Table:
    """The table, its files and the timer on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        """Look for nft."""
        self.module = module
        self.nft = module.get_bin_path("nft", opt_dirs=["/usr/sbin", "/sbin"])

    def loaded(self) -> str:
        """Return the table as it is in the kernel, without counters, and without names that come with a package; empty when there is none."""
        if not self.nft:
            return ""
        rc, stdout, dummy = self.module.run_command([self.nft, "--stateless", "--numeric-protocol", "list", "table", "inet", "mlops"])
        return stdout if rc == 0 else ""

    def load(self, rules: str, check: bool = False) -> str:
        """Have nft load rules in one transaction, or only look at them; return its complaint."""
        options = ["--check"] if check else []
        rc, stdout, stderr = self.module.run_command([self.nft, *options, "--file", "-"], data=rules, binary_data=True)
        return "" if rc == 0 else (stderr or stdout).strip()

    def write(self, path: str, content: str) -> None:
        """Write a file so that it is there as a whole or not at all, also after a loss of power."""
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=os.path.dirname(path))
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o644)
        os.replace(draft, path)

    def systemctl(self, *words: str) -> str:
        """Run systemctl; a unit that is not there is nothing to stop."""
        dummy, stdout, dummy = self.module.run_command(["systemctl", *words])
        return stdout.strip()

    def disarm(self) -> None:
        """Remove the timer; one that has just gone off is awaited."""
        self.systemctl("stop", f"{ROLLBACK}.timer")
        while self.systemctl("show", "--property=ActiveState", "--value", f"{ROLLBACK}.service") in ("activating", "deactivating"):
            time.sleep(0.2)

    def arm(self, seconds: int) -> None:
        """Have systemd take back what was loaded before, whatever becomes of this process and its connection."""
        # The default accuracy is a minute.
        timer = ["--timer-property=AccuracySec=1s", f"--on-active={seconds}s"]
        take_back = f"{self.nft} --file {BEFORE} && rm -r {TRIAL}"
        command = ["systemd-run", "--quiet", f"--unit={ROLLBACK}", "--collect", *timer, "/bin/sh", "-c", take_back]
        rc, dummy, stderr = self.module.run_command(command)
        if rc != 0:
            shutil.rmtree(TRIAL)
            self.module.fail_json(msg=f"The timer that would take the rules back cannot be set, so nothing was loaded: {stderr.strip()}")

    def take_back(self) -> None:
        """Load what was there before a trial that nobody ended."""
        self.disarm()
        if os.path.exists(BEFORE):
            fault = self.load(text(BEFORE))
            if fault:
                self.module.fail_json(msg=f"The rules from before the last trial cannot be loaded: {fault}")
        if os.path.exists(TRIAL):
            shutil.rmtree(TRIAL)


def tried(table: Table) -> None:
    """Load new rules, for a while."""
    module, rules = table.module, table.module.params["rules"]
    diff = {"before": text(RULES), "after": rules, "before_header": RULES, "after_header": RULES}
    unended = os.path.exists(BEFORE)
    loaded = table.loaded()
    if not unended and loaded and loaded == text(LISTING) and rules == text(RULES):
        module.exit_json(changed=False)
    if not table.nft:
        if module.check_mode:
            module.exit_json(changed=True, diff=diff)
        module.fail_json(msg="There is no nft on this host: install the package nftables.")
    fault = table.load(rules, check=True)
    if fault:
        module.fail_json(msg=f"nft refuses the rules, and nothing was changed: {fault}")
    if module.check_mode:
        module.exit_json(changed=True, diff=diff)
    if unended:
        table.take_back()
        loaded = table.loaded()
    table.write(CONNECTION, ssh_connection())
    table.write(CANDIDATE, rules)
    table.write(BEFORE, EMPTY + loaded)
    table.disarm()
    table.arm(module.params["rollback_after"])
    if not loaded and not table.load(LEARN):
        time.sleep(LEARN_SECONDS)
    fault = table.load(rules)
    if fault:
        table.take_back()
        module.fail_json(msg=f"The kernel refuses the rules, and the old ones are back: {fault}")
    module.exit_json(changed=True, diff=diff)


def kept(table: Table) -> None:
    """Make rules that were tried the ones of every boot."""
    module = table.module
    if module.check_mode:
        module.exit_json(changed=True)
    before, now = text(CONNECTION), ssh_connection()
    if module.params["new_connection"] and before and before == now:
        module.fail_json(msg=f"This is still the session that loaded the rules ({now}): it proves nothing, so they are not kept.")
    table.disarm()
    rules = text(CANDIDATE)
    if not os.path.exists(BEFORE) or not rules:
        module.fail_json(msg="The host has taken the rules back already: no new connection came in time.")
    table.write(LISTING, table.loaded())
    table.write(RULES, rules)
    shutil.rmtree(TRIAL)
    module.exit_json(changed=True)


def absent(table: Table) -> None:
    """Remove everything that the other states, and the role, have made."""
    module = table.module
    folders = [os.path.dirname(path) for path in (RULES, LISTING, BEFORE)]
    removed = [path for path in (UNIT, *folders) if os.path.exists(path)]
    if table.loaded():
        removed.append("table inet mlops")
    if removed and not module.check_mode:
        table.disarm()
        if os.path.exists(UNIT):
            table.systemctl("disable", "--now", SERVICE)
            os.remove(UNIT)
            table.systemctl("daemon-reload")
        if table.loaded():
            fault = table.load(EMPTY)
            if fault:
                module.fail_json(msg=f"The table inet mlops cannot be removed: {fault}")
        for folder in filter(os.path.exists, folders):
            shutil.rmtree(folder)
    module.exit_json(changed=bool(removed), removed=removed)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["tried", "kept", "absent"]},
            "rules": {"type": "str"},
            "rollback_after": {"type": "int", "default": 120},
            "new_connection": {"type": "bool", "default": True},
        },
        required_if=[("state", "tried", ["rules"])],
        supports_check_mode=True,
    )
    {"tried": tried, "kept": kept, "absent": absent}[module.params["state"]](Table(module))


if __name__ == "__main__":
    main()
