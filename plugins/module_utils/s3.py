# Copyright the mlops.mlflow maintainers
# SPDX-License-Identifier: Apache-2.0
"""What S3 errors mean for the user of this collection. Pure functions; needs no boto3."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

LIFECYCLE_RULE = "mlops-abort-incomplete-uploads"
DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "Forbidden", "UnauthorizedAccess", "403"})


@dataclass(frozen=True)
class Settings:
    """How the store is reached: the values behind the variables that a message may name. The secret is not among them."""

    bucket: str
    prefix: str = ""
    endpoint_url: str = ""
    region: str = ""
    access_key_id: str = ""
    ca_file: str = ""
    addressing_style: str = "auto"
    user: str = ""

    @property
    def destination(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def endpoint(self) -> str:
        return self.endpoint_url or "empty, which means AWS"

    @property
    def who(self) -> str:
        return f"the key {self.access_key_id}" if self.access_key_id else "the host's own role"


@dataclass(frozen=True)
class Failure:
    """An error of the S3 library, without the library.

    Args:
        kind: class name of the exception.
        text: its text and that of its causes.
        code: S3's error code, empty when the server sent none.
        status: HTTP status, 0 without an answer.
        region: the region that the server named, empty without.
    """

    kind: str
    text: str = ""
    code: str = ""
    status: int = 0
    region: str = ""


def parse_destination(destination: str) -> tuple[str, str]:
    """Split ``s3://bucket/prefix`` into bucket and prefix, the prefix without slashes at its ends.

    Raises:
        ValueError: it is no such URL.
    """
    match = re.fullmatch(r"s3://([^/?#\s]+)(/[^?#]*)?", destination)
    if not match:
        raise ValueError(f"mlflow_artifacts_destination is '{destination}'; it must look like s3://bucket/prefix.")
    return match.group(1), (match.group(2) or "").strip("/")


def below(prefix: str, name: str) -> str:
    """Return the key of ``name`` below a prefix, which may be empty."""
    return f"{prefix}/{name}" if prefix else name


def is_denied(failure: Failure) -> bool:
    """Whether the server refused the operation to a key that it knows."""
    return failure.code in DENIED


def missing_permissions(missing: list[str], settings: Settings) -> str:
    """Return the message about permissions that the key lacks, each by its S3 name."""
    return (
        f"{settings.who[0].upper()}{settings.who[1:]} may not do all that MLflow needs at {settings.destination}. Missing: "
        f"{', '.join(missing)}. Grant that to it in the bucket's or the user's policy, "
        "or give another key in mlflow_s3_access_key_id and mlflow_s3_secret_access_key."
    )


def _tls(text: str, settings: Settings) -> str:
    if "mismatch" in text or "doesn't match" in text or "not valid for" in text:
        return (
            f"mlflow_s3_endpoint_url is {settings.endpoint}, but the server's certificate is for another name. "
            "Use a name or address that its certificate carries, or give the server one that carries this name."
        )
    if "expired" in text or "not yet valid" in text:
        return f"The certificate of {settings.endpoint} has expired or is not valid yet. Renew it, and check the clocks of both hosts."
    if "verify failed" in text:
        trusted = f"mlflow_s3_ca_file is {settings.ca_file}, and" if settings.ca_file else "mlflow_s3_ca_file is empty, so only public CAs are trusted, and"
        return (
            f"{trusted} the certificate of {settings.endpoint} comes from a CA that is not in there. "
            "Set mlflow_s3_ca_file to a file on the host with the CA that signed it."
        )
    if any(sign in text for sign in ("wrong version number", "record layer failure", "unknown protocol", "http_request", "eof occurred")):
        return f"mlflow_s3_endpoint_url is {settings.endpoint}, but what answers there speaks no TLS. Correct the port, or write http:// if that is meant."
    return ""


def _network(failure: Failure, text: str, settings: Settings) -> str:
    value = f"mlflow_s3_endpoint_url is {settings.endpoint}"
    unknown = ("name or service not known", "name resolution", "failed to resolve", "nodename nor servname", "no address associated")
    if any(sign in text for sign in unknown):
        if settings.addressing_style == "virtual":
            return (
                f"{value} and artifact_store_addressing_style is virtual, but the host does not know the name with the bucket "
                f"'{settings.bucket}' in front. Set artifact_store_addressing_style to path, or add such a name to DNS."
            )
        return f"{value}, but the host does not know that name. Correct it, or add the name to DNS or to the host's /etc/hosts."
    if "connection refused" in text:
        return f"{value}, but nothing listens there. Correct host and port, or start the store."
    if failure.kind == "ProxyConnectionError":
        return f"{value}, but the proxy in between does not connect to it. Correct the proxy, or except the endpoint by NO_PROXY."
    if failure.kind == "ConnectTimeoutError" or "no route to host" in text or "unreachable" in text or "connect timeout" in text:
        return f"{value}, but the host gets no answer from there. Correct it, or open the port in the firewalls between the two."
    if failure.kind == "ReadTimeoutError" or "read timed out" in text:
        return f"{value}; it takes connections, but does not answer in time. Look at the state and the log of the store."
    if "badstatusline" in text:
        return f"{value}; something answers there, but not as S3 does. Correct host and port."
    if failure.kind in ("ConnectionClosedError", "HTTPClientError") and settings.endpoint_url.startswith("http://"):
        return f"{value}, but the server hangs up on plain HTTP. Write https:// if it speaks TLS."
    return ""


def _answer(failure: Failure, settings: Settings) -> str:
    region = settings.region or "empty"
    if failure.code in ("InvalidAccessKeyId", "InvalidClientTokenId"):
        return (
            f"mlflow_s3_access_key_id is {settings.access_key_id}, which the store at {settings.endpoint} does not know. Correct the "
            "key, or the endpoint if the key belongs to another store."
        )
    if failure.code == "SignatureDoesNotMatch":
        return (
            f"mlflow_s3_secret_access_key does not belong to mlflow_s3_access_key_id ({settings.access_key_id}). "
            "Correct the secret; look for a missing or an additional character at its ends."
        )
    if failure.code in ("ExpiredToken", "InvalidToken", "TokenRefreshRequired"):
        return f"The credentials ({settings.who}) have expired. Give a permanent key in mlflow_s3_access_key_id and mlflow_s3_secret_access_key."
    if failure.code == "NoSuchBucket":
        return (
            f"mlflow_artifacts_destination is {settings.destination}, but the bucket '{settings.bucket}' does not exist. "
            "Correct the name, make the bucket, or set artifact_store_create_bucket to true."
        )
    if failure.code in ("BucketAlreadyExists", "OperationAborted"):
        return f"mlflow_artifacts_destination is {settings.destination}, but the bucket '{settings.bucket}' belongs to somebody else. Choose another name."
    if failure.code in ("InvalidBucketName", "ParamValidationError"):
        return f"mlflow_artifacts_destination is {settings.destination}; '{settings.bucket}' is no valid name for a bucket."
    if failure.code == "RequestTimeTooSkewed":
        return "The host's clock and that of the store are too far apart for S3. Run time synchronisation on both."
    regional = ("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "InvalidLocationConstraint", "InvalidRegionName")
    if failure.code in regional or (failure.status == 301 and failure.region):
        right = f"{failure.region}" if failure.region else "the region that the bucket is in"
        return f"mlflow_s3_region is {region}, but the bucket '{settings.bucket}' is elsewhere. Set mlflow_s3_region to {right}."
    if failure.code == "TooManyBuckets":
        return f"{settings.who[0].upper()}{settings.who[1:]} may not have any more buckets. Make '{settings.bucket}' with another user, or raise the limit."
    if failure.code in ("QuotaExceeded", "EntityTooLarge", "XMinioStorageFull"):
        return f"The store takes no more data at {settings.destination} ({failure.code}). Free space, or raise the quota."
    if failure.code in ("SlowDown", "ServiceUnavailable", "InternalError") or failure.status >= 500:
        return f"The store at {settings.endpoint} answers with the error {failure.code or failure.status} of its own. Look at its state and its log."
    if not failure.code or failure.code.isdigit() or failure.kind == "ResponseParserError":
        if settings.endpoint_url.startswith("http://") and failure.status == 400:
            return f"mlflow_s3_endpoint_url is {settings.endpoint}, but the server refuses plain HTTP. Write https:// if it speaks TLS."
        return f"mlflow_s3_endpoint_url is {settings.endpoint}; something answers there, but not as S3 does. Correct host and port."
    return ""


def explain(failure: Failure, settings: Settings) -> str:
    """Return what an error means in plain words: the variable, the value seen and the remedy.

    Args:
        failure: the error. A refused permission is the caller's business, see `is_denied` and `missing_permissions`.
        settings: the values that were used.
    """
    text = failure.text.lower()
    if failure.kind in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"):
        return (
            "mlflow_s3_access_key_id and mlflow_s3_secret_access_key are empty, and the host has no role of its own that gives credentials. "
            "Set both, or give the host such a role."
        )
    if failure.kind == "ValueError" and "endpoint" in text:
        return f"mlflow_s3_endpoint_url is {settings.endpoint}; it must be a URL such as https://s3.example.org:7480."
    if failure.kind == "ParamValidationError":
        return f"mlflow_artifacts_destination is {settings.destination}; '{settings.bucket}' is no valid name for a bucket."
    meaning = ""
    if "ssl" in text or "certificate" in text or failure.kind == "SSLError":
        meaning = _tls(text, settings)
    if not meaning and not failure.status:
        meaning = _network(failure, text, settings)
    if not meaning and (failure.status or failure.kind in ("ClientError", "ResponseParserError")):
        meaning = _answer(failure, settings)
    return meaning or f"The store at {settings.endpoint} could not be used ({failure.kind} {failure.code}): {failure.text[:500]}"


def ca_file_problem(error: Exception, settings: Settings) -> str:
    """Return the message for a CA file that could not be loaded."""
    if isinstance(error, FileNotFoundError):
        return f"mlflow_s3_ca_file is {settings.ca_file}, which is not on the host. Put the CA there, or correct the path."
    if isinstance(error, PermissionError):
        return (
            f"mlflow_s3_ca_file is {settings.ca_file}, which the user '{settings.user}' may not read. "
            "Make the file and the folders above it readable: a CA is no secret."
        )
    return f"mlflow_s3_ca_file is {settings.ca_file}, which holds no certificate in PEM form. Put the CA's certificate there."


def skew_problem(skew: float, limit: int) -> str:
    """Return the message for clocks that are further apart than ``limit`` seconds, else an empty string."""
    if abs(skew) <= limit:
        return ""
    side = "ahead of" if skew > 0 else "behind"
    return (
        f"The host's clock is {abs(skew):.0f} s {side} that of the store; S3 refuses requests when they differ by 15 minutes. "
        "Run time synchronisation on both."
    )


def lifecycle_rules(rules: list[dict[str, Any]], prefix: str, days: int) -> list[dict[str, Any]] | None:
    """Return a bucket's rules with ours among them, or None when it is there already.

    Args:
        rules: those of the bucket. Rules of others are kept as they are.
        prefix: where the rule applies, empty for the whole bucket.
        days: age at which an upload that was never completed is aborted.
    """
    wanted = {
        "ID": LIFECYCLE_RULE,
        "Status": "Enabled",
        "Filter": {"Prefix": below(prefix, "") if prefix else ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": days},
    }
    for rule in rules:
        scope = rule.get("Filter", {}).get("Prefix", rule.get("Prefix", ""))
        same = (rule.get("ID"), rule.get("Status"), scope, rule.get("AbortIncompleteMultipartUpload"))
        if same == (wanted["ID"], wanted["Status"], wanted["Filter"]["Prefix"], wanted["AbortIncompleteMultipartUpload"]):
            return None
    return [rule for rule in rules if rule.get("ID") != LIFECYCLE_RULE] + [wanted]
