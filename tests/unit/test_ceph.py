"""One-node Ceph: keys, keyrings, decisions about units and devices, users of the gateway."""

from __future__ import annotations

import base64
import struct

import pytest
from ansible_collections.mlops.mlflow.plugins.modules import ceph_s3_users as users
from ansible_collections.mlops.mlflow.plugins.modules import ceph_single_node as node
from hypothesis import given
from hypothesis import strategies as st

SECRET = "p@s:s/w%o'r\"d $x\\"


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1), st.integers(0, 10**9 - 1))
def test_cephx_key_is_a_header_and_the_secret(secret: bytes, seconds: int, nanoseconds: int) -> None:
    raw = base64.b64decode(node.cephx_key(secret, seconds * 10**9 + nanoseconds))
    assert struct.unpack("<HIIH", raw[:12]) == (1, seconds, nanoseconds, 16)
    assert raw[12:] == secret


def test_cephx_key_as_ceph_authtool_writes_it() -> None:
    # A key that `ceph-authtool --gen-print-key` printed.
    key = "AQC27gBrb/T2BBAA5MVWefGv3rTzE9bZbLkjyw=="
    assert node.cephx_key(base64.b64decode(key)[12:], 1795223222 * 10**9 + 83293295) == key


@pytest.mark.parametrize("secret", [b"", b"short", bytes(17)])
def test_cephx_key_refuses_other_lengths(secret: bytes) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        node.cephx_key(secret, 0)


def test_keyring_sorts_its_capabilities() -> None:
    assert node.keyring("mon.", "KEY", {"osd": "allow *", "mon": "allow *"}) == (
        '[mon.]\n\tkey = KEY\n\tcaps mon = "allow *"\n\tcaps osd = "allow *"\n'
    )
    assert node.keyring("osd.0", "KEY") == "[osd.0]\n\tkey = KEY\n"


def test_parse_units_keeps_each_apart() -> None:
    text = "Id=a.service\nActiveState=active\n\nId=b.service\nActiveState=failed\nUnitFileState=\n"
    assert node.parse_units(text) == {
        "a.service": {"Id": "a.service", "ActiveState": "active"},
        "b.service": {"Id": "b.service", "ActiveState": "failed", "UnitFileState": ""},
    }


@pytest.mark.parametrize(
    ("state", "started", "newest", "action"),
    [
        ("active", 50, 149.9, ""),
        ("active", 50, 150.1, "restart"),
        ("active", 50, 0.0, ""),
        ("failed", 50, 0.0, "start"),
        ("inactive", 0, 200.0, "start"),
        ("activating", 0, 0.0, "start"),
    ],
)
def test_unit_action(state: str, started: int, newest: float, action: str) -> None:
    properties = {"ActiveState": state, "ActiveEnterTimestampMonotonic": str(started * 1_000_000)}
    assert node.unit_action(properties, newest, offset=100.0) == action


def test_unit_action_of_a_unit_that_systemd_never_saw() -> None:
    assert node.unit_action({}, 1.0, 0.0) == "start"


@pytest.mark.parametrize(
    ("signatures", "label", "own", "problem"),
    [
        ([], "", "", ""),
        ([{"type": "ext4"}, {"type": "gpt"}], "", "", "it holds ext4, gpt"),
        ([{"type": "ceph_bluestore"}], "u1", "u1", ""),
        ([{"type": "ceph_bluestore"}], "u2", "u1", "it holds ceph_bluestore"),
        ([{"type": "ceph_bluestore"}], "", "", "it holds ceph_bluestore"),
        ([{"offset": "0x0"}], "", "", "it holds something unknown"),
    ],
)
def test_device_problem(signatures: list[dict[str, str]], label: str, own: str, problem: str) -> None:
    assert node.device_problem(signatures, label, own) == problem


def user(name: str = "mlflow", key: str = "AK", secret: str = SECRET) -> dict[str, str]:
    return {"name": name, "access_key_id": key, "secret_access_key": secret}


def test_a_new_user_gets_the_exact_key() -> None:
    entry = users.merged(user(), None)
    assert entry is not None
    assert entry["key"] == "user:mlflow"
    assert entry["data"]["keys"] == [{"user": "mlflow", "access_key": "AK", "secret_key": SECRET}]


def test_a_user_as_it_should_be_is_left_alone() -> None:
    current = users.merged(user(), None)
    # What the gateway adds by itself does not count as a difference.
    current["data"]["keys"][0]["active"] = True
    assert users.merged(user(), current) is None


def test_another_secret_replaces_the_keys_and_nothing_else() -> None:
    current = users.merged(user(secret="old"), None)
    current["ver"] = {"tag": "t", "ver": 3}
    current["data"].update(max_buckets=7, caps=[{"type": "users", "perm": "read"}])
    entry = users.merged(user(), current)
    assert entry["ver"] == {"tag": "t", "ver": 3}
    assert entry["data"]["keys"][0]["secret_key"] == SECRET
    assert (entry["data"]["max_buckets"], entry["data"]["caps"]) == (7, [{"type": "users", "perm": "read"}])
    assert current["data"]["keys"][0]["secret_key"] == "old", "the argument is not changed"


def test_duplicates_are_named() -> None:
    assert users.duplicates([user("a", "K1"), user("b", "K2")]) == []
    assert users.duplicates([user("a", "K1"), user("a", "K1")]) == [
        "name 'a' is given to more than one user",
        "access_key_id 'K1' is given to more than one user",
    ]
