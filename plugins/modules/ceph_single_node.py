# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""A one-node Ceph cluster: monitor, manager, one BlueStore OSD and an S3 gateway."""

from __future__ import annotations

DOCUMENTATION = r"""
module: ceph_single_node
short_description: Brings up a one-node Ceph cluster with an S3 gateway
version_added: 0.1.0
author: The mlops.mlflow maintainers (!UNKNOWN)
description:
  - Makes what is missing of a monitor, a manager, one BlueStore OSD and an S3 gateway, starts their units now and at boot,
    and restarts those that run with older files than are on disk.
  - Every part is either complete or made anew, so a run that was killed is completed by the next one.
  - The configuration in C(/etc/ceph/ceph.conf) and the packages must be there before.
  - Data is never discarded. A monitor whose store is gone while the OSD still holds data is an error, and so is
    a device that holds anything.
options:
  fsid:
    description: The cluster's identity, the same as in C(ceph.conf).
    type: str
    required: true
  data_size:
    description: Size in bytes of the file that the OSD keeps its data in. Used only when the file is made.
    type: int
    required: true
  data_device:
    description: An empty block device for the OSD's data instead of a file.
    type: path
  gateway_address:
    description: An address that the gateway answers on, for the wait until it does.
    type: str
    default: 127.0.0.1
  gateway_port:
    description: Its TCP port.
    type: int
    required: true
  gateway_files:
    description: Files that the gateway reads at its start, a certificate for instance. It is restarted when one is newer.
    type: list
    elements: path
    default: []
  service_files:
    description: Files that all services read at their start. All are restarted when one is newer.
    type: list
    elements: path
    default: []
  timeout:
    description: Seconds that each service gets to come up.
    type: int
    default: 120
attributes:
  check_mode:
    support: full
    description: Says what it would do.
  diff_mode:
    support: none
    description: There is no text to compare.
"""

EXAMPLES = r"""
- name: Bring up the cluster
  mlops.mlflow.ceph_single_node:
    fsid: 6f2c0a53-0f4e-5e2a-9d1c-3b6d2f7c9a11
    data_size: 21474836480
    gateway_port: 7480
    service_files: [/etc/ceph/ceph.conf]
"""

RETURN = r"""
steps:
  description: What was done, or would be done in check mode.
  type: list
  elements: str
  returned: always
  sample: [make the monitor's store, start ceph-mon@a]
health:
  description: The cluster's health as Ceph sees it, empty in check mode on a bare host.
  type: str
  returned: success
  sample: HEALTH_OK
"""

import base64
import fcntl
import json
import os
import pwd
import shutil
import socket
import struct
import tempfile
import time
import uuid

from ansible.module_utils.basic import AnsibleModule

MONITOR = "a"
OSD = "0"
GATEWAY = "rgw.mlops"
ROOT = "/var/lib/ceph"
ADMIN_KEYRING = "/etc/ceph/ceph.client.admin.keyring"
MONITOR_UNIT = f"ceph-mon@{MONITOR}.service"
MANAGER_UNIT = f"ceph-mgr@{MONITOR}.service"
OSD_UNIT = f"ceph-osd@{OSD}.service"
GATEWAY_UNIT = f"ceph-radosgw@{GATEWAY}.service"
UNITS = (MONITOR_UNIT, MANAGER_UNIT, OSD_UNIT, GATEWAY_UNIT)
# The monitor listens on loopback only: nothing outside this host is part of the cluster.
MONITOR_ADDRESS = "[v2:127.0.0.1:3300,v1:127.0.0.1:6789]"


class StoreError(Exception):
    """A step that failed, in words for the user."""


def cephx_key(secret: bytes, created: int) -> str:
    """Return a cephx key, the base64 of a little-endian header and an AES-128 secret.

    Args:
        secret: 16 random bytes.
        created: nanoseconds since the epoch.

    Raises:
        ValueError: the secret does not have 16 bytes.

    The layout is CryptoKey::encode in Ceph's src/auth/Crypto.cc: type 1 (AES), time in seconds and nanoseconds, length.
    """
    if len(secret) != 16:
        raise ValueError("a cephx secret has 16 bytes")
    return base64.b64encode(struct.pack("<HIIH", 1, *divmod(created, 10**9), 16) + secret).decode()


def keyring(entity: str, key: str, caps: dict[str, str] | None = None) -> str:
    """Return a keyring section in Ceph's own format, capabilities sorted by daemon type."""
    lines = [f"[{entity}]", f"\tkey = {key}"]
    lines += [f'\tcaps {daemon} = "{cap}"' for daemon, cap in sorted((caps or {}).items())]
    return "\n".join(lines) + "\n"


def parse_units(text: str) -> dict[str, dict[str, str]]:
    """Return the properties by unit name, from the output of ``systemctl show`` for several units."""
    units = {}
    for block in text.strip().split("\n\n"):
        properties = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        units[properties.get("Id", "")] = properties
    return units


def unit_action(properties: dict[str, str], newest_file: float, offset: float) -> str:
    """Return what a unit needs: ``start``, ``restart`` or an empty string.

    Args:
        properties: of the unit, from ``systemctl show``.
        newest_file: change time of the newest file that it reads at its start, seconds since the epoch.
        offset: what to add to a monotonic time to get seconds since the epoch.
    """
    if properties.get("ActiveState") != "active":
        return "start"
    started = int(properties.get("ActiveEnterTimestampMonotonic") or 0) / 1e6 + offset
    return "restart" if newest_file > started else ""


def device_problem(signatures: list[dict[str, str]], label_uuid: str, own_uuid: str) -> str:
    """Return why a device must not be written to, or an empty string.

    Args:
        signatures: what ``wipefs --json`` found on it.
        label_uuid: the OSD that its BlueStore label names, empty without one.
        own_uuid: the OSD that this host was making when it was interrupted, empty without one.
    """
    if label_uuid and label_uuid == own_uuid:
        return ""
    kinds = sorted({signature.get("type") or "something unknown" for signature in signatures})
    return f"it holds {', '.join(kinds)}" if kinds else ""


class Node:
    """The cluster on this host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.steps: list[str] = []

    # Tools

    def run(self, *argv: str, data: str | None = None) -> str:
        """Run a command and return its output; ``data`` goes to its standard input."""
        code, out, err = self.module.run_command(list(argv), data=data, umask=0o077, cwd="/")
        if code:
            raise StoreError(f"{' '.join(argv[:4])} failed with {code}: {(err or out).strip()[-2000:]}")
        return out

    def as_ceph(self, *argv: str) -> str:
        return self.run("runuser", "-u", "ceph", "--", *argv)

    def ceph(self, *argv: str, data: str | None = None) -> str:
        return self.run("ceph", "--connect-timeout", "10", *argv, data=data)

    def todo(self, step: str) -> bool:
        """Note a step; return whether to do it now."""
        self.steps.append(step)
        return not self.module.check_mode

    def wait(self, what: str, unit: str, ready) -> None:
        """Call ``ready`` until it is true or time is up."""
        deadline = time.monotonic() + self.params["timeout"]
        reason = "no answer"
        while time.monotonic() < deadline:
            try:
                if ready():
                    return
            except (StoreError, OSError, ValueError) as error:
                reason = str(error)
            time.sleep(0.5)
        raise StoreError(
            f"{what} did not come up within {self.params['timeout']} s ({reason}). `journalctl -u {unit}` on the host says why."
        )

    @staticmethod
    def own(path: str) -> None:
        user = pwd.getpwnam("ceph")
        os.chown(path, user.pw_uid, user.pw_gid)

    def folder(self, path: str) -> None:
        os.makedirs(path, mode=0o700, exist_ok=True)
        self.own(path)

    def write(self, path: str, text: str, ceph: bool = True) -> None:
        """Write a file that is there completely or not at all, readable by its owner only."""
        handle, draft = tempfile.mkstemp(dir=os.path.dirname(path), prefix=".mlops-")
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if ceph:
            self.own(draft)
        os.replace(draft, path)

    @staticmethod
    def read(path: str) -> str:
        try:
            with open(path, encoding="utf-8") as file:
                return file.read().strip()
        except FileNotFoundError:
            return ""

    # The parts, in the order in which they need each other

    def monitor(self) -> None:
        store = f"{ROOT}/mon/ceph-{MONITOR}"
        osd = f"{ROOT}/osd/ceph-{OSD}"
        known = self.read(f"{osd}/ceph_fsid")
        if known and known != self.params["fsid"]:
            raise StoreError(f"object_store_fsid is {self.params['fsid']}, but the data on this host belongs to the cluster {known}; use that.")
        if os.path.isdir(store):
            return
        if self.read(f"{osd}/ready"):
            raise StoreError(
                f"The monitor's store {store} is gone, but {osd} still holds data that only it can open. "
                f"Restore {store} from a backup, or remove {osd} to start over with an empty store."
            )
        if not self.todo("make the monitor's store"):
            return
        draft = f"{ROOT}/mon/.new"
        if os.path.isdir(draft):
            shutil.rmtree(draft)
        with tempfile.TemporaryDirectory(dir=f"{ROOT}/tmp") as work:
            self.own(work)
            everything = {"mon": "allow *", "osd": "allow *", "mgr": "allow *", "mds": "allow *"}
            admin = keyring("client.admin", cephx_key(os.urandom(16), time.time_ns()), everything)
            own = keyring("mon.", cephx_key(os.urandom(16), time.time_ns()), {"mon": "allow *"})
            self.write(f"{work}/keyring", own + admin)
            self.run("monmaptool", "--create", "--addv", MONITOR, MONITOR_ADDRESS, "--fsid", self.params["fsid"], f"{work}/monmap")
            self.own(f"{work}/monmap")
            self.folder(draft)
            self.as_ceph(
                "ceph-mon", "--mkfs", "-i", MONITOR, "--mon-data", draft, "--monmap", f"{work}/monmap", "--keyring", f"{work}/keyring"
            )
            self.write(ADMIN_KEYRING, admin, ceph=False)
        os.sync()
        os.rename(draft, store)

    def client(self, entity: str, folder: str, *caps: str) -> None:
        """Make the keyring of a daemon that the monitor knows by name."""
        path = f"{ROOT}/{folder}/keyring"
        if os.path.exists(path):
            return
        if self.todo(f"make the key of {entity}"):
            self.folder(os.path.dirname(path))
            self.write(path, self.ceph("auth", "get-or-create", entity, *caps))

    def osd(self) -> None:
        folder = f"{ROOT}/osd/ceph-{OSD}"
        if self.read(f"{folder}/ready"):
            return
        own_uuid = self.read(f"{folder}/mlops-uuid")
        device = self.params["data_device"]
        if device:
            self.refuse_used_device(device, own_uuid)
        else:
            self.refuse_full_disk()
        if not self.todo("make the OSD"):
            return
        self.folder(folder)
        for name in os.listdir(folder):
            if name not in ("mlops-uuid", "keyring"):
                os.unlink(os.path.join(folder, name))
        if not os.path.exists(f"{folder}/keyring"):
            self.write(f"{folder}/keyring", keyring(f"osd.{OSD}", cephx_key(os.urandom(16), time.time_ns())))
        if not own_uuid:
            own_uuid = str(uuid.uuid4())
            self.write(f"{folder}/mlops-uuid", own_uuid)
        key = self.read(f"{folder}/keyring").split("key = ")[1].split()[0]
        self.ceph("osd", "new", own_uuid, OSD, "-i", "-", data=json.dumps({"cephx_secret": key}))
        if device:
            os.symlink(device, f"{folder}/block")
            self.own(device)
        self.as_ceph("ceph-osd", "-i", OSD, "--mkfs", "--osd-uuid", own_uuid)

    def refuse_full_disk(self) -> None:
        """Raise when the data file could outgrow its file system: BlueStore does not survive that."""
        folder = next(path for path in (f"{ROOT}/osd", ROOT, "/var/lib") if os.path.isdir(path))
        usage = os.statvfs(folder)
        free = usage.f_bavail * usage.f_frsize
        if self.params["data_size"] > free:
            raise StoreError(
                f"object_store_data_size is {self.params['data_size'] >> 20} MiB, but {folder} has only {free >> 20} MiB free. "
                "Make it smaller, or name an empty disk in object_store_data_device."
            )

    def refuse_used_device(self, device: str, own_uuid: str) -> None:
        """Raise when the device is missing or holds somebody's data."""
        if not os.path.exists(device):
            raise StoreError(f"object_store_data_device is {device}, which is not there.")
        found = self.run("wipefs", "--json", "--no-act", device)
        signatures = json.loads(found)["signatures"] if found.strip() else []
        label = ""
        if shutil.which("ceph-bluestore-tool") and any(one.get("type") == "ceph_bluestore" for one in signatures):
            label = json.loads(self.run("ceph-bluestore-tool", "show-label", "--dev", device))[device]["osd_uuid"]
        problem = device_problem(signatures, label, own_uuid)
        if problem:
            raise StoreError(
                f"object_store_data_device is {device}, but {problem}. Name an empty disk, or empty this one with `wipefs --all {device}`."
            )

    # The services

    def newest(self, paths: list[str]) -> float:
        return max((os.stat(path).st_ctime for path in paths if os.path.exists(path)), default=0.0)

    def unit(self, name: str) -> None:
        """Start or restart a unit if it needs that, and enable it."""
        listed = "Id,ActiveState,UnitFileState,ActiveEnterTimestampMonotonic,NeedDaemonReload"
        properties = parse_units(self.run("systemctl", "show", "--property", listed, name)).get(name, {})
        files = self.params["service_files"] + (self.params["gateway_files"] if name == GATEWAY_UNIT else [])
        if properties.get("NeedDaemonReload") == "yes" and not self.module.check_mode:
            self.run("systemctl", "daemon-reload")
        if properties.get("UnitFileState") != "enabled" and self.todo(f"enable {name}"):
            self.run("systemctl", "enable", "--quiet", name)
        action = unit_action(properties, self.newest(files), time.time() - time.monotonic())
        if action and self.todo(f"{action} {name}"):
            # A unit that failed often enough is refused any further start until this.
            self.run("systemctl", "reset-failed", name)
            self.run("systemctl", action, name)

    def answers(self) -> bool:
        with socket.create_connection((self.params["gateway_address"], self.params["gateway_port"]), timeout=5):
            return True

    def lock(self):
        """Wait until no other run works on this host: one that lost its connection goes on for a while."""
        file = open("/run/mlops-ceph.lock", "w", encoding="ascii")
        deadline = time.monotonic() + self.params["timeout"]
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return file
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StoreError("Another run brings up Ceph on this host and does not end; wait for it or end it.") from None
                time.sleep(0.5)

    def bring_up(self) -> str:
        """Do all that is missing; return the cluster's health."""
        live = not self.module.check_mode
        self.monitor()
        self.unit(MONITOR_UNIT)
        if live:
            self.wait("The monitor", MONITOR_UNIT, lambda: bool(self.ceph("mon", "stat")))
        self.client(f"mgr.{MONITOR}", f"mgr/ceph-{MONITOR}", "mon", "allow profile mgr", "osd", "allow *", "mds", "allow *")
        self.unit(MANAGER_UNIT)
        self.osd()
        self.unit(OSD_UNIT)
        if live:
            self.wait("The OSD", OSD_UNIT, lambda: json.loads(self.ceph("osd", "stat", "--format", "json"))["num_up_osds"] == 1)
        self.client(f"client.{GATEWAY}", f"radosgw/ceph-{GATEWAY}", "mon", "allow rw", "osd", "allow rwx")
        self.unit(GATEWAY_UNIT)
        if not live:
            return ""
        self.wait("The gateway", GATEWAY_UNIT, self.answers)
        return self.health()

    def health(self) -> str:
        """Return the cluster's health, apart from the manager's Python modules, which one node does without."""
        health = json.loads(self.ceph("health", "--format", "json"))
        if "MGR_MODULE_ERROR" not in [mute["code"] for mute in health.get("mutes", [])]:
            if self.todo("leave the manager's modules out of the health"):
                self.ceph("health", "mute", "MGR_MODULE_ERROR", "--sticky")
            health = json.loads(self.ceph("health", "--format", "json"))
        return health["status"]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "fsid": {"type": "str", "required": True},
            "data_size": {"type": "int", "required": True},
            "data_device": {"type": "path"},
            "gateway_address": {"type": "str", "default": "127.0.0.1"},
            "gateway_port": {"type": "int", "required": True},
            "gateway_files": {"type": "list", "elements": "path", "default": []},
            "service_files": {"type": "list", "elements": "path", "default": []},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    node = Node(module)
    try:
        with node.lock():
            health = node.bring_up()
    except StoreError as error:
        module.fail_json(msg=str(error), steps=node.steps)
    module.exit_json(changed=bool(node.steps), steps=node.steps, health=health)


if __name__ == "__main__":
    main()
