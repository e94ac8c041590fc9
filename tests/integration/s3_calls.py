"""Tries with one S3 key what MLflow does, and what nobody should do: prints for each call whether it was allowed, as JSON.

usage: s3_calls.py < JSON, an object with endpoint, ca_file, access_key, secret_key, bucket, prefix and what to do: prepare, attach or try
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError

DENIED = {"AccessDenied", "403"}
PART = b"x" * (5 * 1024 * 1024)
# Beyond the size from which boto3 uploads in parts.
LARGE = os.urandom(9 * 1024 * 1024)


def outcome(call: Callable[[], Any]) -> str:
    """Return ok, denied, or the error."""
    try:
        answer = call()
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ClientError):
                code = cause.response["Error"]["Code"]
                return "denied" if code in DENIED else code
            cause = cause.__cause__ or cause.__context__
        return "denied" if "AccessDenied" in str(error) else repr(error)
    # A list of deletions is answered with 200 whatever becomes of each.
    if isinstance(answer, dict) and answer.get("Errors"):
        return "denied" if {each["Code"] for each in answer["Errors"]} <= DENIED else str(answer["Errors"])
    return "ok"


class Caller:
    """One key, and where it is tried."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.bucket, self.prefix, self.user = given["bucket"], given["prefix"], given["user"]
        os.environ |= {
            "AWS_ACCESS_KEY_ID": given["access_key"],
            "AWS_SECRET_ACCESS_KEY": given["secret_key"],
            "AWS_CA_BUNDLE": given["ca_file"],
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "MLFLOW_S3_ENDPOINT_URL": given["endpoint"],
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self.endpoint = given["endpoint"]
        self.s3 = self.client("s3")

    def client(self, service: str, **config: Any) -> Any:
        """Return a client that does not try again."""
        return boto3.client(service, endpoint_url=self.endpoint, config=Config(retries={"total_max_attempts": 1}, **config))

    def beside(self) -> list[str]:
        """Prefixes that are not the one: another, and one that begins with the same letters."""
        return ["team.b", f"{self.prefix}-secret"]

    def prepare(self, _given: dict[str, Any]) -> dict[str, str]:
        """As the owner: make the bucket, with objects beside the prefix."""
        self.s3.create_bucket(Bucket=self.bucket)
        # Whoever writes an object may publish it, whatever the policy says. The other three switches refuse every write, or this policy.
        blocks = {"BlockPublicAcls": False, "IgnorePublicAcls": True, "BlockPublicPolicy": False, "RestrictPublicBuckets": False}
        self.s3.put_public_access_block(Bucket=self.bucket, PublicAccessBlockConfiguration=blocks)
        for prefix in self.beside():
            self.s3.put_object(Bucket=self.bucket, Key=f"{prefix}/theirs", Body=b"theirs")
        return {}

    def attach(self, given: dict[str, Any]) -> dict[str, str]:
        """Give the bucket its policy, or a user his."""
        document = json.dumps(given["policy"])
        if given.get("to_user"):
            self.client("iam").put_user_policy(UserName=given["to_user"], PolicyName="mlflow", PolicyDocument=document)
        else:
            self.s3.put_bucket_policy(Bucket=self.bucket, Policy=document)
        return {}

    def multipart(self, complete: bool) -> None:
        """Upload in parts, and complete or abort it."""
        what = {"Bucket": self.bucket, "Key": f"{self.prefix}/{self.user}/parts"}
        upload = self.s3.create_multipart_upload(**what)["UploadId"]
        part = self.s3.upload_part(**what, UploadId=upload, PartNumber=1, Body=PART)
        if complete:
            parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
            self.s3.complete_multipart_upload(**what, UploadId=upload, MultipartUpload=parts)
        else:
            self.s3.abort_multipart_upload(**what, UploadId=upload)

    def calls(self) -> dict[str, Callable[[], Any]]:
        """The calls of S3, by name."""
        s3, where, mine = self.s3, {"Bucket": self.bucket}, f"{self.prefix}/{self.user}"
        other, lookalike = self.beside()
        source = {"Bucket": self.bucket, "Key": f"{other}/theirs"}
        return {
            "list": lambda: s3.list_objects_v2(**where, Prefix=f"{self.prefix}/"),
            "list deeper": lambda: s3.list_objects_v2(**where, Prefix=f"{mine}/", Delimiter="/"),
            "put": lambda: s3.put_object(**where, Key=f"{mine}/one", Body=b"1"),
            "multipart": lambda: self.multipart(complete=True),
            "abort": lambda: self.multipart(complete=False),
            "get": lambda: s3.get_object(**where, Key=f"{self.prefix}/first", Range="bytes=1-2"),
            "head": lambda: s3.head_object(**where, Key=f"{self.prefix}/first"),
            "delete": lambda: s3.delete_object(**where, Key=f"{mine}/one"),
            "delete many": lambda: s3.delete_objects(**where, Delete={"Objects": [{"Key": f"{mine}/parts"}]}),
            "list all": lambda: s3.list_objects_v2(**where),
            "list other": lambda: s3.list_objects_v2(**where, Prefix=f"{other}/"),
            "list lookalike": lambda: s3.list_objects_v2(**where, Prefix=self.prefix),
            "list uploads": lambda: s3.list_multipart_uploads(**where),
            "get other": lambda: s3.get_object(**where, Key=f"{other}/theirs"),
            "get lookalike": lambda: s3.get_object(**where, Key=f"{lookalike}/theirs"),
            "copy other": lambda: s3.copy_object(**where, Key=f"{mine}/copied", CopySource=source),
            "put other": lambda: s3.put_object(**where, Key=f"{other}/mine", Body=b"1"),
            "put lookalike": lambda: s3.put_object(**where, Key=f"{lookalike}/mine", Body=b"1"),
            "delete other": lambda: s3.delete_object(**where, Key=f"{other}/theirs"),
            "delete many other": lambda: s3.delete_objects(**where, Delete={"Objects": [{"Key": f"{each}/theirs"} for each in self.beside()]}),
            "publish object": lambda: s3.put_object_acl(**where, Key=f"{self.prefix}/first", ACL="public-read"),
            "get published": lambda: self.client("s3", signature_version=UNSIGNED).get_object(**where, Key=f"{self.prefix}/first"),
            "publish bucket": lambda: s3.put_bucket_acl(**where, ACL="public-read"),
            "read policy": lambda: s3.get_bucket_policy(**where),
            "write policy": lambda: s3.put_bucket_policy(**where, Policy=json.dumps({"Version": "2012-10-17", "Statement": []})),
            "write versioning": lambda: s3.put_bucket_versioning(**where, VersioningConfiguration={"Status": "Enabled"}),
            "write lifecycle": lambda: s3.put_bucket_lifecycle_configuration(
                **where, LifecycleConfiguration={"Rules": [{"ID": "x", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]}
            ),
            "delete bucket": lambda: s3.delete_bucket(**where),
        }

    def mlflow_calls(self) -> dict[str, Callable[[], Any]]:
        """What MLflow's own class for S3 does with the artifacts of runs. All read and delete what the server wrote."""
        from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

        def repository(user: str) -> Any:
            return S3ArtifactRepository(f"s3://{self.bucket}/{self.prefix}/runs/{user}/artifacts")

        def log() -> None:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "model").mkdir()
                (Path(folder) / "model/MLmodel").write_bytes(b"small")
                (Path(folder) / "model/weights").write_bytes(LARGE)
                repository(self.user).log_artifacts(folder)

        def download() -> None:
            with tempfile.TemporaryDirectory() as folder:
                repository("server").download_artifacts("model", folder)
                assert (Path(folder) / "model/weights").stat().st_size == len(LARGE)

        def delete() -> dict[str, Any]:
            repository("server").delete_artifacts(f"doomed-{self.user}")
            # MLflow does not look at what became of each deletion.
            left = repository("server").list_artifacts(f"doomed-{self.user}")
            return {"Errors": [{"Code": "AccessDenied"}]} if left else {}

        return {
            "MLflow logs": log,
            "MLflow lists": lambda: repository("server").list_artifacts("model"),
            "MLflow downloads": download,
            "MLflow deletes": delete,
        }

    def try_all(self, _given: dict[str, Any]) -> dict[str, str]:
        """Try everything, in order."""
        if self.user == "server":
            for key in ("first", *(f"runs/server/artifacts/doomed-{user}/file" for user in ("server", "direct", "read", "other"))):
                self.s3.put_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}", Body=b"first")
        return {name: outcome(call) for name, call in [*self.calls().items(), *self.mlflow_calls().items()]}


def main() -> None:
    """Do what was asked for."""
    given = json.load(sys.stdin)
    caller = Caller(given)
    print(json.dumps({"prepare": caller.prepare, "attach": caller.attach, "try": caller.try_all}[given["do"]](given)))


if __name__ == "__main__":
    main()
