"""What the documents of playbooks/policy.yml let somebody do at a real S3 gateway, and what not."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BUCKET, PREFIX = "policy-test", "team.a/v1.0"
MODES = ("server", "direct", "read")
# In this order: the others read what the server wrote.
USERS = ("owner", *MODES, "other")

READING = {"list", "list deeper", "get", "head", "MLflow lists", "MLflow downloads"}
WRITING = {"put", "multipart", "abort", "MLflow logs"}
DELETING = {"delete", "delete many", "MLflow deletes"}
ALLOWED = {
    "read": READING,
    "direct": READING | WRITING,
    # The gateway leaves the ACL of an object to whoever wrote it, and that was this user. It has no effect, as the same list shows.
    "server": READING | WRITING | DELETING | {"publish object"},
}
# The same attached to a user who did not write that object. The last one deletes.
ALLOWED_OTHER = {"read": READING, "direct": READING | WRITING, "admin": READING | WRITING | DELETING | {"write lifecycle"}}

Call = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", name="keys")
def fixture_keys(object_store: Any) -> Iterator[dict[str, dict[str, str]]]:
    """Users of the gateway, with their keys; all that they have is gone afterwards."""
    made = {}
    for user in USERS:
        caps = "--caps=user-policy=*" if user == "owner" else ""
        answer = json.loads(object_store.check_output(f"radosgw-admin user create --uid=policy-{user} --display-name={user} {caps} 2>/dev/null"))
        made[user] = {"user": user, **{name: answer["keys"][0][name] for name in ("access_key", "secret_key")}}
    yield made
    for user in USERS:
        object_store.check_output(f"radosgw-admin user rm --uid=policy-{user} --purge-data 2>/dev/null")


@pytest.fixture(scope="module", name="call")
def fixture_call(site: dict[str, Any], keys: dict[str, dict[str, str]]) -> Call:
    """A function that does something with a user's key, from this machine."""
    where = {"endpoint": f"https://{site['object_store']}:7480", "ca_file": site["ca_file"], "bucket": BUCKET, "prefix": PREFIX}

    def call(user: str, what: str, **more: Any) -> dict[str, Any]:
        command = [PROJECT / ".venv-client/bin/python", PROJECT / "tests/integration/s3_calls.py"]
        given = json.dumps({"do": what, **where, **keys[user], **more})
        result = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        answer: dict[str, Any] = json.loads(result.stdout)
        return answer

    return call


@pytest.fixture(scope="module", name="written")
def fixture_written(playbook: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """A function that has the playbook write a document, and returns it."""

    def write(**variables: Any) -> dict[str, Any]:
        file = tmp_path_factory.mktemp("policy") / "policy.json"
        given = {"mlflow_artifacts_destination": f"s3://{BUCKET}/{PREFIX}", "policy_file": str(file), **variables}
        result = playbook("playbooks/policy.yml", variables=given)
        assert result.returncode == 0, result.stdout
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return document

    return write


@pytest.fixture(scope="module", name="answers")
def fixture_answers(call: Call, written: Callable[..., dict[str, Any]]) -> dict[str, dict[str, str]]:
    """What became of each call of each user, with the bucket's policy."""
    call("owner", "prepare")
    principals = {mode: [f"arn:aws:iam:::user/policy-{mode}"] for mode in MODES}
    call("owner", "attach", policy=written(policy_principals=principals))
    return {mode: call(mode, "try") for mode in MODES}


@pytest.mark.parametrize("mode", MODES)
def test_a_bucket_policy_allows_that_and_no_more(answers: dict[str, dict[str, str]], mode: str) -> None:
    """Everything that MLflow does within the prefix, nothing beside it, nothing with the bucket itself."""
    assert ALLOWED[mode] < set(answers[mode])
    assert answers[mode] == {name: "ok" if name in ALLOWED[mode] else "denied" for name in answers[mode]}


@pytest.mark.usefixtures("answers")
@pytest.mark.parametrize("mode", ALLOWED_OTHER)
def test_so_does_a_policy_of_a_user(call: Call, written: Callable[..., dict[str, Any]], mode: str) -> None:
    """Attached through the gateway's IAM interface to a user whom the bucket's policy does not name."""
    call("owner", "attach", policy=written(policy_mode=mode), to_user="policy-other")
    answers = call("other", "try")
    assert answers == {name: "ok" if name in ALLOWED_OTHER[mode] else "denied" for name in answers}
