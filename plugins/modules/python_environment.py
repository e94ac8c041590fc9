#!/usr/bin/python
# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""Builds a virtual environment from a lock, whole or not at all."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_environment
short_description: A virtual environment with the packages of a lock
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Makes the environment, installs the packages into it and compiles them. A file C(.complete) in it, written last, says that it is whole; with
    that file there, nothing is done.
  - Always begins with an empty folder. What a run that was killed has started goes on for a while, so one builds at a time, and the next
    waits and then looks again.
options:
  path:
    description: Its folder. The one above is made too.
    type: path
    required: true
  requirements:
    description: The lock's text, in pip's format and with uv among the packages, which installs the others.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Says whether it would be built.
  diff_mode:
    support: none
    description: There is nothing to show.
"""

EXAMPLES = r"""
- name: Build the environment
  mlops.mlflow.python_environment:
    path: /opt/mlflow/3.17.2-8f6c1d
    requirements: "{{ lookup('ansible.builtin.file', 'locks/3.17.2.txt') }}"
  become: true
"""

RETURN = r"""
"""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from ansible.module_utils.basic import AnsibleModule

COMPLETE = ".complete"

# The service's user could not write bytecode, and each start would compile anew. A third of it would be for tests that packages bring along, which nobody
# runs. Files that do not compile are templates of code.
COMPILE = """
import compileall, re, sysconfig
compileall.compile_dir(sysconfig.get_path("purelib"), quiet=2, workers=0, rx=re.compile("/tests/"))
"""


def installer(requirements: str) -> str:
    """Return the part of a lock that brings uv, with its hashes; empty when it is not in it."""
    found = re.search(r"^uv\b.*?(?=^\w|\Z)", requirements, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


@contextmanager
def alone(folder: str) -> Iterator[int]:
    """Wait until nobody else builds in a folder; yields the lock, for the programs that are started meanwhile: it is theirs too."""
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


def build(module: AnsibleModule, lock: int) -> None:
    """Build the environment from nothing, or fail with what a program said."""
    path, requirements = module.params["path"], module.params["requirements"]

    def run(*command: str) -> None:
        code, stdout, stderr = module.run_command(list(command), cwd=path, pass_fds=[lock])
        if code != 0:
            module.fail_json(msg=f"In {path}, {' '.join(command)} failed: {(stderr or stdout).strip()}")

    os.makedirs(path, exist_ok=True)
    run("/usr/bin/python3", "-m", "venv", "--clear", path)
    for name, content in (("requirements.txt", requirements), ("installer.txt", installer(requirements))):
        with open(os.path.join(path, name), "w", encoding="utf-8") as file:
            file.write(content)
    run(f"{path}/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--requirement=installer.txt")
    install = ("pip", "install", "--quiet", "--python=bin/python", "--no-cache", "--only-binary=:all:")
    run(f"{path}/bin/uv", *install, "--requirement=requirements.txt")
    run(f"{path}/bin/python", "-c", COMPILE)
    run("sync", "--file-system", path)
    with open(os.path.join(path, COMPLETE), "x", encoding="utf-8") as file:
        os.fsync(file.fileno())


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={"path": {"type": "path", "required": True}, "requirements": {"type": "str", "required": True}}, supports_check_mode=True
    )
    path = module.params["path"]
    complete = os.path.join(path, COMPLETE)
    if not installer(module.params["requirements"]):
        module.fail_json(msg="requirements name no version of uv, which installs the others: make the lock with uv in it")
    if os.path.exists(complete) or module.check_mode:
        module.exit_json(changed=not os.path.exists(complete))
    # Whatever the umask of whoever runs this: the service's user reads it.
    os.umask(0o022)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with alone(os.path.dirname(path)) as lock:
        if os.path.exists(complete):
            module.exit_json(changed=False)
        build(module, lock)
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
