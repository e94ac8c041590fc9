# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What listens on a host, and how SSH comes in: read from /proc, no Ansible. Runs on the host."""

from __future__ import annotations

import glob
import os
import pwd
import re
import socket
import struct
from typing import Any

# The state of a TCP socket that listens, and of a UDP socket without a peer.
LISTENING = {"tcp": "0A", "udp": "07"}
PORT_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"


def text(path: str) -> str:
    """Return a file of /proc, empty when the process has gone or is not ours to see."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def user_name(uid: int) -> str:
    """Return the name of a user, or the number when it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def unit_of(cgroup: str) -> str:
    """Return the service in the lines of /proc/PID/cgroup, empty when there is none."""
    for line in cgroup.splitlines():
        for part in reversed(line.split("/")):
            if part.endswith(".service"):
                return part
    return ""


def address_of(digits: str) -> str:
    """Read an address as the kernel writes it: words of 32 bits in the machine's order, in hexadecimal digits."""
    words = struct.pack(f"={len(digits) // 8}I", *(int(digits[at : at + 8], 16) for at in range(0, len(digits), 8)))
    address = socket.inet_ntop(socket.AF_INET if len(words) == 4 else socket.AF_INET6, words)
    return address.removeprefix("::ffff:") if "." in address else address


def open_sockets() -> dict[str, dict]:
    """Return protocol, address, port and user of each socket that waits for others to begin, by its inode.

    A UDP socket with a port from the range for clients is one: it waits for an answer.
    """
    low, high = (text(PORT_RANGE).split() + ["32768", "60999"])[:2]
    found = {}
    for protocol, state in LISTENING.items():
        for version in ("", "6"):
            for line in text(f"/proc/net/{protocol}{version}").splitlines()[1:]:
                fields = line.split()
                digits, dummy, port = fields[1].rpartition(":")
                number = int(port, 16)
                if fields[3] == state and not (protocol == "udp" and int(low) <= number <= int(high)):
                    found[fields[9]] = {"protocol": protocol, "address": address_of(digits), "port": number, "user": user_name(int(fields[7]))}
    return found


def holders(inodes: dict[str, dict]) -> dict[str, list[str]]:
    """Return the processes that have each socket open, as far as they may be seen."""
    found: dict[str, list[str]] = {}
    for link in glob.iglob("/proc/[0-9]*/fd/*"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        inode = target[8:-1] if target.startswith("socket:[") else ""
        if inode in inodes:
            found.setdefault(inode, []).append(link.split("/")[2])
    return found


def listeners() -> list[dict]:
    """Return protocol, address, port, user, unit and program of each socket that waits for others to begin."""
    sockets = open_sockets()
    owners = holders(sockets)
    found = []
    for inode, each in sockets.items():
        process = owners.get(inode, [""])[0]
        unit = unit_of(text(f"/proc/{process}/cgroup")) if process else ""
        program = text(f"/proc/{process}/comm").strip() if process else ""
        found.append({**each, "unit": unit, "program": program})
    return found


def parent_of(process: str) -> str:
    """Return the process that started another; 0 when there is none."""
    # The name before it may have spaces and parentheses.
    fields = text(f"/proc/{process}/stat").rpartition(")")[2].split()
    return fields[1] if len(fields) > 1 else "0"


def ssh_daemon_ports() -> list[int]:
    """Return the TCP ports of the SSH daemon itself; a session's forwarded ports are its children's."""
    sockets = {inode: each for inode, each in open_sockets().items() if each["protocol"] == "tcp"}
    daemons = {
        inode
        for inode, processes in holders(sockets).items()
        for process in processes
        if text(f"/proc/{process}/comm").strip() == "sshd" and parent_of(process) == "1"
    }
    return sorted({sockets[inode]["port"] for inode in daemons})


def ssh_socket_ports(shown: str) -> list[int]:
    """Read the TCP ports for which systemd starts the SSH daemon.

    Args:
        shown: what ``systemctl show --property=ActiveState,Listen`` says of its socket units.
    """
    ports = set()
    for unit in shown.split("\n\n"):
        if "ActiveState=active" in unit.splitlines():
            ports |= {int(port) for port in re.findall(r"^Listen=(?!vsock)\S*:(\d+) \(Stream\)$", unit, re.MULTILINE)}
    return sorted(ports)


def ssh_connection(process: str = "self") -> str:
    """Return how the SSH session that this process belongs to came in: the client's address and port, then the host's.

    sudo takes the variable away, so the processes above are asked too. Empty when no session of SSH is above.
    """
    while process not in ("", "0", "1"):
        for each in text(f"/proc/{process}/environ").split("\0"):
            name, dummy, value = each.partition("=")
            if name == "SSH_CONNECTION" and len(value.split()) == 4:
                return value
        process = parent_of(process)
    return ""


def ssh_ports(module: Any) -> list[int]:
    """Return the TCP ports by which SSH comes in: the daemon's, systemd's, and that of the present session.

    Args:
        module: the AnsibleModule.
    """
    dummy, shown, dummy = module.run_command(["systemctl", "show", "--property=ActiveState,Listen", "ssh.socket", "sshd.socket"])
    present = [int(port) for port in ssh_connection().split()[3:]]
    return sorted({*ssh_daemon_ports(), *ssh_socket_ports(shown), *present})
