"""The artifact store's probe: what errors mean, and what the probe does with a store that fails in some way."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

import pytest
from ansible_collections.mlops.mlflow.plugins.module_utils import s3
from ansible_collections.mlops.mlflow.plugins.modules import s3_artifact_store as probe
from hypothesis import given
from hypothesis import strategies as st

URL = "https://store.example.org:7480"
SETTINGS = s3.Settings("models", "team.a", URL, "eu-1", "AKUSER", "/etc/ssl/certs/site.crt", "auto", "mlflow")
AWS = s3.Settings("models", region="eu-west-1", access_key_id="AKUSER")


# Destinations


@pytest.mark.parametrize(
    ("destination", "parts"),
    [
        ("s3://models", ("models", "")),
        ("s3://models/", ("models", "")),
        ("s3://models/team.a/x/", ("models", "team.a/x")),
    ],
)
def test_parse_destination(destination: str, parts: tuple[str, str]) -> None:
    assert s3.parse_destination(destination) == parts


@pytest.mark.parametrize("destination", ["", "models", "http://models/x", "s3:models", "s3:///x", "s3://mo dels", "s3://models?x=1"])
def test_parse_destination_names_the_variable(destination: str) -> None:
    with pytest.raises(ValueError, match="mlflow_artifacts_destination is '.*'; it must look like s3://"):
        s3.parse_destination(destination)


# What errors mean


@pytest.mark.parametrize(
    ("failure", "variable", "words"),
    [
        (s3.Failure("EndpointConnectionError", "x / [Errno -2] Name or service not known"), "mlflow_s3_endpoint_url", "does not know that name"),
        (s3.Failure("EndpointConnectionError", "x / [Errno -3] Temporary failure in name resolution"), "mlflow_s3_endpoint_url", "DNS"),
        (s3.Failure("EndpointConnectionError", "x / [Errno 111] Connection refused"), "mlflow_s3_endpoint_url", "nothing listens"),
        (s3.Failure("ConnectTimeoutError", "Connect timeout on endpoint URL"), "mlflow_s3_endpoint_url", "firewalls"),
        (s3.Failure("EndpointConnectionError", "[Errno 113] No route to host"), "mlflow_s3_endpoint_url", "firewalls"),
        (s3.Failure("ReadTimeoutError", "Read timed out."), "mlflow_s3_endpoint_url", "does not answer in time"),
        (s3.Failure("ProxyConnectionError", "Failed to connect to proxy"), "mlflow_s3_endpoint_url", "NO_PROXY"),
        (s3.Failure("ValueError", "Invalid endpoint: store:7480"), "mlflow_s3_endpoint_url", "must be a URL"),
        (s3.Failure("ClientError", "", "404", 404), "mlflow_s3_endpoint_url", "not as S3 does"),
        (s3.Failure("ResponseParserError", "Unable to parse response"), "mlflow_s3_endpoint_url", "not as S3 does"),
        (
            s3.Failure("SSLError", "certificate verify failed: unable to get local issuer certificate"),
            "mlflow_s3_ca_file is /etc/ssl/certs/site.crt",
            "not in there",
        ),
        (s3.Failure("SSLError", "certificate verify failed: self-signed certificate in certificate chain"), "mlflow_s3_ca_file", "CA"),
        (
            s3.Failure("SSLError", "certificate verify failed: Hostname mismatch, certificate is not valid for 'store'"),
            "mlflow_s3_endpoint_url",
            "for another name",
        ),
        (s3.Failure("SSLError", "certificate verify failed: certificate has expired"), URL, "expired"),
        (s3.Failure("SSLError", "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "mlflow_s3_endpoint_url", "no TLS"),
        (s3.Failure("ClientError", "", "InvalidAccessKeyId", 403), "mlflow_s3_access_key_id is AKUSER", "does not know"),
        (s3.Failure("ClientError", "", "SignatureDoesNotMatch", 403), "mlflow_s3_secret_access_key", "does not belong"),
        (s3.Failure("ClientError", "", "ExpiredToken", 400), "mlflow_s3_access_key_id", "expired"),
        (s3.Failure("NoCredentialsError", "Unable to locate credentials"), "mlflow_s3_access_key_id", "no role"),
        (s3.Failure("ClientError", "", "NoSuchBucket", 404), "mlflow_artifacts_destination is s3://models/team.a", "artifact_store_create_bucket"),
        (s3.Failure("ClientError", "", "BucketAlreadyExists", 409), "mlflow_artifacts_destination", "somebody else"),
        (s3.Failure("ParamValidationError", "Invalid bucket name"), "mlflow_artifacts_destination", "no valid name"),
        (s3.Failure("ClientError", "", "AuthorizationHeaderMalformed", 400, "us-west-2"), "mlflow_s3_region is eu-1", "Set mlflow_s3_region to us-west-2"),
        (s3.Failure("ClientError", "", "PermanentRedirect", 301), "mlflow_s3_region", "the region that the bucket is in"),
        (s3.Failure("ClientError", "", "RequestTimeTooSkewed", 403), "clock", "synchronisation"),
        (s3.Failure("ClientError", "", "TooManyBuckets", 400), "AKUSER", "any more buckets"),
        (s3.Failure("ClientError", "", "QuotaExceeded", 403), "s3://models/team.a", "quota"),
        (s3.Failure("ClientError", "", "SlowDown", 503), URL, "SlowDown"),
        (s3.Failure("ClientError", "", "", 502), URL, "502"),
    ],
)
def test_explain_names_the_variable_and_the_remedy(failure: s3.Failure, variable: str, words: str) -> None:
    message = s3.explain(failure, SETTINGS)
    assert variable in message
    assert words in message


def test_explain_plain_http_to_a_server_with_tls() -> None:
    settings = s3.Settings("models", endpoint_url="http://store:7480")
    assert "Write https://" in s3.explain(s3.Failure("ConnectionClosedError", "Connection was closed"), settings)
    assert "Write https://" in s3.explain(s3.Failure("ClientError", "", "400", 400), settings)
    assert "not as S3 does" in s3.explain(s3.Failure("HTTPClientError", "BadStatusLine('SSH-2.0')"), settings)


def test_explain_the_bucket_in_the_host_name() -> None:
    settings = s3.Settings("models", endpoint_url=URL, addressing_style="virtual")
    message = s3.explain(s3.Failure("EndpointConnectionError", "[Errno -2] Name or service not known"), settings)
    assert "artifact_store_addressing_style" in message
    assert "models" in message


def test_explain_without_a_ca_file() -> None:
    assert "mlflow_s3_ca_file is empty" in s3.explain(s3.Failure("SSLError", "certificate verify failed: self-signed certificate"), AWS)


@given(st.text(max_size=40), st.text(max_size=80), st.text(max_size=20), st.integers(0, 599))
def test_explain_always_has_an_answer(kind: str, text: str, code: str, status: int) -> None:
    assert s3.explain(s3.Failure(kind, text, code, status), SETTINGS)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(), "not on the host"),
        (PermissionError(), "the user 'mlflow' may not read"),
        (OSError("no certificate or crl found"), "no certificate in PEM form"),
    ],
)
def test_ca_file_problem(error: Exception, words: str) -> None:
    message = s3.ca_file_problem(error, SETTINGS)
    assert "mlflow_s3_ca_file is /etc/ssl/certs/site.crt" in message
    assert words in message


@pytest.mark.parametrize(("skew", "words"), [(0, ""), (-300, ""), (301, "301 s ahead of"), (-4000, "4000 s behind")])
def test_skew_problem(skew: float, words: str) -> None:
    message = s3.skew_problem(skew, 300)
    assert words in message
    assert bool(message) == bool(words)


# The rule for uploads that were never completed


def test_lifecycle_rule_is_added_beside_others() -> None:
    other = {"ID": "expire", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 3}}
    rules = s3.lifecycle_rules([other], "team.a", 7)
    assert rules[0] == other
    assert rules[1]["Filter"] == {"Prefix": "team.a/"}
    assert s3.lifecycle_rules(rules, "team.a", 7) is None
    assert len(s3.lifecycle_rules(rules, "team.a", 9)) == 2


def test_lifecycle_rule_for_the_whole_bucket_in_the_older_form() -> None:
    rule = {"ID": s3.LIFECYCLE_RULE, "Status": "Enabled", "Prefix": "", "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}
    assert s3.lifecycle_rules([rule], "", 7) is None
    assert s3.lifecycle_rules([{**rule, "Status": "Disabled"}], "", 7) is not None


# The probe, with a store in memory


class ClientError(Exception):
    """Shaped as the one of botocore."""

    def __init__(self, code: str, status: int = 403, skew: float = 0.0) -> None:
        super().__init__(code)
        headers = {"date": formatdate(time.time() + skew, usegmt=True)}
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status, "HTTPHeaders": headers}}


class Body:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self) -> bytes:
        return self.data


class MemoryStore:
    """The part of an S3 client that the probe uses.

    Args:
        denied: S3 names of permissions that it refuses.
        skew: seconds that its clock is ahead.
        damage: called with the bytes of every answer longer than a mebibyte.
    """

    def __init__(self, denied: tuple[str, ...] = (), skew: float = 0.0, damage: Any = None, bucket: bool = True, name: str = "models") -> None:
        self.denied, self.skew, self.damage, self.bucket, self.name = denied, skew, damage, bucket, name
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, list[bytes]] = {}
        self.rules: list[dict[str, Any]] = []
        self.writes = 0

    def allow(self, permission: str) -> None:
        if permission in self.denied:
            raise ClientError("AccessDenied", 403, self.skew)
        if not self.bucket and permission != "s3:CreateBucket":
            raise ClientError("NoSuchBucket", 404, self.skew)

    def list_objects_v2(self, **_: Any) -> dict[str, Any]:
        self.allow("s3:ListBucket")
        return {"Name": self.name, "ResponseMetadata": {"HTTPHeaders": {"date": formatdate(time.time() + self.skew, usegmt=True)}}}

    def put_object(self, Key: str, Body: bytes, **_: Any) -> None:
        self.writes += 1
        self.allow("s3:PutObject")
        self.objects[Key] = Body

    def get_object(self, Key: str, Range: str = "", **_: Any) -> dict[str, Body]:
        self.allow("s3:GetObject")
        if Key not in self.objects:
            raise ClientError("AccessDenied" if "s3:ListBucket" in self.denied else "NoSuchKey", 404)
        data = self.objects[Key]
        if Range:
            first, last = map(int, Range.removeprefix("bytes=").split("-"))
            data = data[first : last + 1]
        return {"Body": Body(self.damage(data) if self.damage and len(data) > probe.MIB else data)}

    def delete_object(self, Key: str, **_: Any) -> None:
        self.allow("s3:DeleteObject")
        self.objects.pop(Key, None)

    def create_multipart_upload(self, **_: Any) -> dict[str, str]:
        self.allow("s3:PutObject")
        self.uploads[f"u{len(self.uploads)}"] = []
        return {"UploadId": f"u{len(self.uploads) - 1}"}

    def upload_part(self, UploadId: str, Body: bytes, **_: Any) -> dict[str, str]:
        self.uploads[UploadId].append(Body)
        return {"ETag": "e"}

    def complete_multipart_upload(self, Key: str, UploadId: str, **_: Any) -> None:
        self.objects[Key] = b"".join(self.uploads.pop(UploadId))

    def abort_multipart_upload(self, UploadId: str, **_: Any) -> None:
        self.allow("s3:AbortMultipartUpload")
        if UploadId not in self.uploads:
            raise ClientError("NoSuchUpload", 404)
        del self.uploads[UploadId]

    def create_bucket(self, **_: Any) -> None:
        self.allow("s3:CreateBucket")
        self.bucket = True

    def get_bucket_lifecycle_configuration(self, **_: Any) -> dict[str, Any]:
        self.allow("s3:GetLifecycleConfiguration")
        if not self.rules:
            raise ClientError("NoSuchLifecycleConfiguration", 404)
        return {"Rules": self.rules}

    def put_bucket_lifecycle_configuration(self, LifecycleConfiguration: dict[str, Any], **_: Any) -> None:
        self.allow("s3:PutLifecycleConfiguration")
        self.rules = LifecycleConfiguration["Rules"]


def run(client: MemoryStore, action: str = "probe", *arguments: Any) -> tuple[probe.Store, str]:
    """Run one action as the module does; return the store and the problem that stopped it."""
    store = probe.Store(client, s3.Settings("models", "team.a", URL, access_key_id="AKUSER"))
    stopped = ""
    try:
        getattr(store, action)(*arguments)
    except probe.Stop as stop:
        stopped = str(stop)
    finally:
        store.clean_up()
    return store, stopped


def test_probe_of_a_good_store_leaves_nothing_behind() -> None:
    client = MemoryStore()
    store, stopped = run(client)
    assert (stopped, store.missing, store.problems) == ("", [], [])
    assert (client.objects, client.uploads) == ({}, {})
    assert {"list", "put", "get", "delete", "abort", "multipart upload", "ranged read", "clock"} <= {check["name"] for check in store.checks}


def test_probe_works_without_a_prefix() -> None:
    client = MemoryStore()
    store = probe.Store(client, s3.Settings("models"))
    store.probe()
    assert store.folder.startswith(".mlops-probe-")


@pytest.mark.parametrize(
    ("denied", "missing"),
    [
        (("s3:ListBucket",), ["s3:ListBucket"]),
        (("s3:PutObject",), ["s3:PutObject"]),
        (("s3:GetObject",), ["s3:GetObject"]),
        (("s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"),) * 2,
        (("s3:DeleteObject", "s3:AbortMultipartUpload"),) * 2,
        (("s3:ListBucket", "s3:PutObject"), ["s3:ListBucket", "s3:PutObject", "perhaps s3:GetObject"]),
    ],
)
def test_probe_collects_all_missing_permissions(denied: tuple[str, ...], missing: list[str]) -> None:
    store, stopped = run(MemoryStore(denied))
    assert stopped == ""
    assert store.missing == list(missing)
    message = s3.missing_permissions(store.missing, store.settings)
    assert all(permission in message for permission in denied)
    assert "AKUSER" in message


def test_probe_says_what_it_could_not_remove() -> None:
    store, dummy = run(MemoryStore(("s3:DeleteObject", "s3:AbortMultipartUpload")))
    assert store.problems
    assert f"{store.folder}/small" in store.problems[0]
    assert f"{store.folder}/open that is not completed" in store.problems[0]


@pytest.mark.parametrize("damage", [lambda data: bytes(len(data)), lambda data: data[:-1], lambda data: data[1:] + data[:1]])
def test_probe_notices_wrong_bytes_of_the_right_length(damage: Any) -> None:
    client = MemoryStore(damage=damage)
    dummy, stopped = run(client)
    assert "returned other bytes than were stored" in stopped
    assert client.objects == {}


@pytest.mark.parametrize(("skew", "words"), [(1000.0, "behind"), (-1000.0, "ahead of")])
@pytest.mark.parametrize("denied", [(), ("s3:ListBucket",)])
def test_probe_compares_clocks_whatever_the_answer(skew: float, words: str, denied: tuple[str, ...]) -> None:
    dummy, stopped = run(MemoryStore(denied, skew))
    assert f"{words} that of the store" in stopped


def test_probe_notices_that_the_bucket_is_not_found_in_the_host_name() -> None:
    dummy, stopped = run(MemoryStore(name="team.a"))
    assert "artifact_store_addressing_style" in stopped


def test_probe_of_a_missing_bucket_writes_nothing() -> None:
    client = MemoryStore(bucket=False)
    dummy, stopped = run(client)
    assert "does not exist" in stopped
    assert client.writes == 0


# Making the bucket


def make(client: MemoryStore, check_mode: bool = False) -> list[str]:
    store = probe.Store(client, s3.Settings("models", "team.a", URL))
    done = store.make(7, check_mode)
    assert store.missing == []
    return done


def test_make_a_bucket_with_its_rule_once() -> None:
    client = MemoryStore(bucket=False)
    assert len(make(client)) == 2
    assert client.rules[0]["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}
    assert make(client) == []


def test_make_completes_what_was_interrupted() -> None:
    client = MemoryStore(bucket=True)
    assert len(make(client)) == 1


def test_make_changes_nothing_in_check_mode() -> None:
    client = MemoryStore(bucket=False)
    assert make(client, check_mode=True)
    assert (client.bucket, client.rules) == (False, [])


def test_make_names_the_permission_it_lacks() -> None:
    store, stopped = run(MemoryStore(("s3:CreateBucket",), bucket=False), "make", 7, False)
    assert (stopped, store.missing) == ("", ["s3:CreateBucket"])


def test_make_leaves_the_other_problems_to_their_messages() -> None:
    dummy, stopped = run(MemoryStore(skew=5000.0), "make", 7, False)
    assert "clock" in stopped
