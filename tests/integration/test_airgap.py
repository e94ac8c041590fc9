"""A site without a way out, from the control node inside: installed, used, upgraded by a second bundle, and not one packet that left."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import testinfra
from conftest import SSH

SITE = "site/group_vars/all.yml"
BUNDLE, DELTA = "/srv/mlops-mlflow-bundle.tar", "/srv/mlops-mlflow-bundle-delta.tar"
# Which hosts the counters are of, and where one of them would get to if it could.
HOSTS = ("control", "mlflow-1", "data-1")
OUTSIDE = "192.0.2.1"

# Copies a tarball, and changes one byte of the first file in it whose name matches.
DAMAGE = """
import re, shutil, sys, tarfile
source, target, pattern = sys.argv[1:]
shutil.copyfile(source, target)
with tarfile.open(source) as archive:
    member = next(member for member in archive if re.search(pattern, member.name))
with open(target, "r+b") as file:
    file.seek(member.offset_data + member.size // 2)
    byte = file.read(1)
    file.seek(-1, 1)
    file.write(bytes([byte[0] ^ 1]))
print(member.name)
"""


@pytest.fixture(name="host", scope="session")
def fixture_host(site: dict[str, Any]) -> Callable[[str], Any]:
    """A function that connects to a host, as root."""
    return lambda name: testinfra.get_host(f"ssh://admin@{site['hosts'][name]}", ssh_identity_file=site["ssh_key"], ssh_extra_args=SSH, sudo=True)


@pytest.fixture(name="control", scope="session")
def fixture_control(site: dict[str, Any]) -> Callable[..., Any]:
    """A function that runs a command on the control node, as its administrator does."""
    node = testinfra.get_host(f"ssh://admin@{site['hosts']['control']}", ssh_identity_file=site["ssh_key"], ssh_extra_args=SSH)
    setting = f"export PATH={site['home']}/venv/bin:$PATH ANSIBLE_COLLECTIONS_PATH={site['home']}/collections; "
    return lambda command: node.run(setting + command)


def recap(output: str) -> dict[str, dict[str, int]]:
    """Read the last lines of a run: what happened on each host."""
    lines = re.findall(r"^(\S+)\s*: (ok=.*)$", output.rpartition("PLAY RECAP")[2], re.MULTILINE)
    return {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", counts)} for name, counts in lines}


def failure(output: str) -> str:
    """Return what ended a run."""
    return output[max(output.find("fatal:"), 0) :][:4000]


def counted(site: dict[str, Any], host: str) -> dict[str, int]:
    """Return how many packets a host wanted to send outside, and how many questions for names to anybody."""
    environment = dict(os.environ) | ({"CONTAINERS_CONF": site["podman"]} if Path(site["podman"]).exists() else {})
    root = [] if os.getuid() == 0 else ["sudo", "--preserve-env=CONTAINERS_CONF"]
    inspect = [*root, "podman", "inspect", "--format", "{{.State.Pid}}", f"{site['network']}-{host}"]
    process = subprocess.run(inspect, env=environment, capture_output=True, text=True, check=True).stdout.strip()
    listed = subprocess.run([*root, "nsenter", f"--target={process}", "--net", "nft", "-j", "list", "counters"], capture_output=True, text=True, check=True)
    return {each["counter"]["name"]: each["counter"]["packets"] for each in json.loads(listed.stdout)["nftables"] if "counter" in each}


def test_the_controller_sent_it_to_one_host(host: Callable[[str], Any], control: Callable[..., Any]) -> None:
    """Who has it for the others got it by SSH, and the other one by TLS from there, what is for its own release."""
    assert re.findall(r"^\s*(\S+): copying \d+ MiB", control("cat site.log").stdout, re.MULTILINE) == ["data-1"]
    command = "cd /var/lib/mlops-bundle && find . -type f ! -name .complete -exec sha256sum {} + | sort -k 2"
    there, here = (set(host(name).check_output(command).splitlines()) for name in ("data-1", "mlflow-1"))
    assert here < there and len(here) > 200 and not [line for line in here if "/debian/trixie" in line]
    assert host("data-1").service("mlops-bundle").is_running and not host("mlflow-1").service("mlops-bundle").exists


def test_only_the_bundle_is_asked(host: Callable[[str], Any]) -> None:
    """Where apt looks for nginx, and for all else."""
    for name in ("data-1", "mlflow-1"):
        policy = host(name).check_output("apt-cache policy nginx")
        assert "file:/var/lib/mlops-bundle/" in policy and "http" not in policy


def test_a_second_run_changes_nothing(control: Callable[..., Any]) -> None:
    """As anywhere else."""
    again = control("ansible-playbook -i site mlops.mlflow.site")
    assert again.rc == 0, failure(again.stdout)
    assert {name: counts["changed"] for name, counts in recap(again.stdout).items()} == {"data-1": 0, "localhost": 0, "mlflow-1": 0}


def test_the_real_client_uses_it(control: Callable[..., Any]) -> None:
    """Runs, metrics and artifacts, with a look into the store."""
    used = control("ansible-playbook -i site mlops.mlflow.verify")
    assert used.rc == 0, failure(used.stdout)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        (r"^wheels/pyarrow-", "{name} is damaged"),
        (r"/postgresql-1\d_", "{name} is damaged"),
        (r"^manifest\.json$", "manifest.sig is not the signature of its manifest.json"),
        (r"^manifest\.sig$", "manifest.sig is not the signature of its manifest.json"),
    ],
)
def test_a_damaged_bundle_is_refused(control: Callable[..., Any], pattern: str, words: str) -> None:
    """By the name of what is damaged, before anything is changed."""
    made = control(f"python3 -c '{DAMAGE}' {BUNDLE} /tmp/damaged.tar '{pattern}'")
    assert made.rc == 0, made.stderr
    # One that was opened whole is not opened again, and this one has its name.
    refused = control("XDG_CACHE_HOME=/tmp/fresh ansible-playbook -i site mlops.mlflow.site -e sources_bundle=/tmp/damaged.tar")
    control("rm -rf /tmp/fresh /tmp/damaged.tar")
    assert refused.rc != 0
    assert words.format(name=made.stdout.strip()) in re.sub(r"\s+", " ", refused.stdout), failure(refused.stdout)
    assert {counts["changed"] for counts in recap(refused.stdout).values()} == {0}


def test_a_bundle_that_was_cut_off_is_refused(control: Callable[..., Any]) -> None:
    """As a copy on a stick that was full."""
    refused = control(
        f"head -c 300M {BUNDLE} > /tmp/damaged.tar; XDG_CACHE_HOME=/tmp/fresh ansible-playbook -i site mlops.mlflow.site -e sources_bundle=/tmp/damaged.tar; "
        "code=$?; rm -rf /tmp/fresh /tmp/damaged.tar; exit $code"
    )
    assert refused.rc != 0 and "cannot be read to its end" in re.sub(r"\s+", " ", refused.stdout)
    assert {counts["changed"] for counts in recap(refused.stdout).values()} == {0}


def test_a_second_bundle_upgrades(control: Callable[..., Any], host: Callable[[str], Any]) -> None:
    """MLflow, and on request Debian's packages. It has what changed, and the control node has the rest from the first one."""
    gateway = host("mlflow-1")
    process, version = gateway.check_output("systemctl show --property MainPID mlflow-gateway"), gateway.package("nginx").version
    # As on a host that has the release before.
    gateway.check_output("sed -i '/^Package: nginx$/,/^$/ s/^Version: .*/&~/' /var/lib/dpkg/status")
    assert gateway.package("nginx").version == f"{version}~"
    assert int(control(f"stat -c %s {DELTA}").stdout) < int(control(f"stat -c %s {BUNDLE}").stdout) / 5
    assert control(f"sed -i -e 's|^sources_bundle: .*|sources_bundle: {DELTA}|' -e 's|^mlflow_version: .*|mlflow_version: \"3.17.2\"|' {SITE}").rc == 0
    upgraded = control("ansible-playbook -i site mlops.mlflow.site -e sources_update=true && ansible-playbook -i site mlops.mlflow.verify")
    assert upgraded.rc == 0, failure(upgraded.stdout)
    assert host("mlflow-1").check_output("readlink /opt/mlflow/current").startswith("/opt/mlflow/3.17.2-")
    assert len(host("mlflow-1").file("/var/lib/mlops-bundle").listdir()) == 1, "the older one is gone"
    assert gateway.package("nginx").version == version
    assert gateway.check_output("systemctl show --property MainPID mlflow-gateway") != process, "it runs what was installed"


@pytest.mark.parametrize("name", HOSTS)
def test_not_one_packet_has_left(site: dict[str, Any], host: Callable[[str], Any], name: str) -> None:
    """Since before the first of these tests; and one that is sent on purpose is counted."""
    assert counted(site, name) == {"outside": 0, "names": 0}
    host(name).run(f"timeout 2 bash -c 'echo > /dev/tcp/{OUTSIDE}/443'")
    host(name).run("timeout 2 getent hosts www.example.org")
    after = counted(site, name)
    assert after["outside"] > 0 and after["names"] > 0
