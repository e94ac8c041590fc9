"""Policy documents: exactly what the probe asks for, and nothing beside the prefix."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.mlops.mlflow.plugins.filter.documents import FilterModule
from ansible_collections.mlops.mlflow.plugins.module_utils import s3_policy
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
DESTINATION = "s3://models/team.a/v1.0"
ARN = "arn:aws:s3:::models"
ME = "arn:aws:iam:::user/mlflow"
MODES = pytest.mark.parametrize("mode", s3_policy.MODES)
SEGMENT = st.text(st.sampled_from("abc.-_/ %'+"), min_size=1, max_size=12)


def actions(document: dict[str, Any]) -> set[str]:
    """Return every action that a document allows."""
    return {action for statement in document["Statement"] for action in statement["Action"]}


def allows(document: dict[str, Any], action: str, key: str | None = None, prefix: str | None = None) -> bool:
    """Tell whether a document allows an action on the bucket, or on the object with a key, as a store decides it."""
    resource = ARN if key is None else f"{ARN}/{key}"
    for statement in document["Statement"]:
        wanted = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix")
        listed = wanted is None or (prefix is not None and any(fnmatch.fnmatchcase(prefix, each) for each in wanted))
        if action in statement["Action"] and any(fnmatch.fnmatchcase(resource, each) for each in statement["Resource"]) and listed:
            return True
    return False


def test_the_policy_of_the_server() -> None:
    """The whole document, as documentation shows it."""
    assert s3_policy.policy("server", DESTINATION) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "MlflowServerList",
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [ARN],
                "Condition": {"StringLike": {"s3:prefix": ["team.a/v1.0/*"]}},
            },
            {
                "Sid": "MlflowServerObjects",
                "Effect": "Allow",
                "Action": ["s3:AbortMultipartUpload", "s3:GetObject", "s3:PutObject"],
                "Resource": [f"{ARN}/team.a/v1.0/*"],
            },
            {"Sid": "MlflowServerDelete", "Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": [f"{ARN}/team.a/v1.0/*", ARN]},
        ],
    }


def test_modes_allow_what_the_probe_asks_for() -> None:
    """The names in the module that probes the store: with `server` it passes, with `admin` it can also make the bucket."""
    source = (ROOT / "plugins/modules/s3_artifact_store.py").read_text(encoding="utf-8")
    asked = set(re.findall(r'"(?:perhaps )?(s3:\w+)"', source))
    assert asked == actions(s3_policy.policy("admin", DESTINATION))
    made = {"s3:CreateBucket", "s3:GetLifecycleConfiguration", "s3:PutLifecycleConfiguration"}
    assert actions(s3_policy.policy("server", DESTINATION)) == asked - made


def test_each_mode_adds_to_the_one_before() -> None:
    """Reading, writing, deleting, making the bucket."""
    steps = [actions(s3_policy.policy(mode, DESTINATION)) for mode in ("read", "direct", "server", "admin")]
    assert all(less < more for less, more in zip(steps, steps[1:]))
    assert not any("*" in action for action in steps[-1])


@MODES
def test_the_prefix_is_the_boundary(mode: str) -> None:
    """Beside it, and where the name only begins the same, nothing is listed, read or written."""
    document = s3_policy.policy(mode, DESTINATION)
    assert allows(document, "s3:ListBucket", prefix="team.a/v1.0/") and allows(document, "s3:GetObject", "team.a/v1.0/1/x/artifacts/model")
    for prefix in (None, "", "team", "team.a/v1.0", "team.a/v1.0-secret/", "team.b/"):
        assert not allows(document, "s3:ListBucket", prefix=prefix)
    for key in ("team.a/v1.0", "team.a/v1.0-secret/x", "team.b/x", "x"):
        assert not any(allows(document, action, key) for action in actions(document))


@MODES
def test_without_a_prefix_it_is_the_bucket(mode: str) -> None:
    """All of it, and no other."""
    document = s3_policy.policy(mode, "s3://models")
    assert allows(document, "s3:ListBucket") and allows(document, "s3:GetObject", "x")
    assert {resource for statement in document["Statement"] for resource in statement["Resource"]} == {ARN, f"{ARN}/*"}


@given(mode=st.sampled_from(s3_policy.MODES), prefix=SEGMENT, key=SEGMENT)
def test_no_key_outside_is_ever_allowed(mode: str, prefix: str, key: str) -> None:
    """Whatever the names."""
    inside = prefix.strip("/")
    document = s3_policy.policy(mode, f"s3://models/{prefix}")
    assert any(allows(document, action, key) for action in actions(document)) == (not inside or key.startswith(f"{inside}/"))


@MODES
def test_a_policy_of_a_user_has_no_principal(mode: str) -> None:
    """Stores refuse one that has."""
    assert not any("Principal" in statement for statement in s3_policy.policy(mode, DESTINATION)["Statement"])


def test_the_policy_of_a_bucket_has_all_its_users() -> None:
    """One document, each mode with its own users, every statement with a name of its own."""
    document = s3_policy.bucket_policy({"server": [ME], "read": ["arn:aws:iam::123456789012:role/reader", ME]}, DESTINATION)
    assert [(each["Sid"], each["Principal"]["AWS"]) for each in document["Statement"]] == [
        ("MlflowReadList", ["arn:aws:iam::123456789012:role/reader", ME]),
        ("MlflowReadObjects", ["arn:aws:iam::123456789012:role/reader", ME]),
        ("MlflowServerList", [ME]),
        ("MlflowServerObjects", [ME]),
        ("MlflowServerDelete", [ME]),
    ]


@pytest.mark.parametrize(
    ("principals", "words"),
    [
        ({}, "policy_principals is empty"),
        ({"server": []}, "policy_principals has server = "),
        ({"server": ME}, "use a list of ARNs"),
        ({"server": ["*"]}, "use the ARN of one user"),
        ({"server": ["arn:aws:iam:::user/*"]}, "use the ARN of one user"),
        ({"server": ["mlflow"]}, "has 'mlflow' in server"),
        ({"admin": [ME]}, "Leave admin out"),
        ({"all": [ME]}, "policy_mode = 'all': use one of admin, direct, read, server"),
    ],
)
def test_principals_are_checked(principals: dict[str, Any], words: str) -> None:
    """Nobody gets in by a slip."""
    with pytest.raises(AnsibleFilterError, match=re.escape(words)):
        FilterModule().filters()["s3_bucket_policy"](DESTINATION, principals)


@pytest.mark.parametrize(
    ("destination", "mode", "words"),
    [
        ("/var/lib/mlflow/artifacts", "server", "must look like s3://bucket/prefix"),
        ("s3://models/team*", "server", "a name with *"),
        ("s3://models/${aws:username}", "server", "a name with $"),
        (DESTINATION, "all", "policy_mode = 'all': use one of"),
    ],
)
def test_names_are_checked(destination: str, mode: str, words: str) -> None:
    """With the variable to correct."""
    with pytest.raises(AnsibleFilterError, match=re.escape(words)):
        FilterModule().filters()["s3_policy"](destination, mode)
